"""The proteins to embed: what ``deepgps predict`` takes, and tables of annotated proteins."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from deepgps.errors import InputError
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import Record, Seen, check_records, read_proteins

TABLE = "proteins.parquet"
_COLUMNS = ("protein_id", "sequence", "gene_symbol", "accession")


def proteins_to_embed(inputs: Sequence[str], *, offline: bool = False) -> Iterator[Protein | Rejection]:
    """Read proteins, those of tables first.

    Parameters
    ----------
    inputs
        Each a table of annotated proteins (Parquet), a crop store, or what
        `deepgps.proteins.reading.read_proteins` takes.
    offline
        Whether to look up accessions in the cache only.

    Raises
    ------
    InputError
        As `deepgps.proteins.reading.read_proteins`; if a folder is no crop store, or a table lacks columns.
    """
    tables = [given for given in inputs if _is_table(given)]
    rest = [given for given in inputs if given not in tables]
    seen: Seen = {}
    for given in tables:
        yield from check_records(_records(given), given, seen)
    for item in read_proteins(rest, offline=offline) if rest else ():
        if isinstance(item, Protein) and item.id in seen:
            yield Rejection(item.id, "", f"Id '{item.id}' is in '{seen[item.id][1]}' too; give it once.")
        else:
            yield item


def _is_table(given: str) -> bool:
    return given.endswith(".parquet") or Path(given).is_dir()


def _records(given: str) -> Iterator[Record]:
    import polars as pl

    path = Path(given) / TABLE if Path(given).is_dir() else Path(given)
    if not path.is_file():
        raise InputError(f"'{path}' was not found; give a table of proteins, or a crop store that has one.")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"'{path}' cannot be read as Parquet ({error}); make it again.") from None
    if lacking := [name for name in _COLUMNS[:2] if name not in table.columns]:
        raise InputError(f"'{path}' has no column '{lacking[0]}'; give a table of annotated proteins.")
    # A protein has a row for each source that names it.
    rows = table.select(name for name in _COLUMNS if name in table.columns).unique(maintain_order=True)
    for number, row in enumerate(rows.iter_rows(named=True), start=1):
        yield _record(number, row)


def _record(number: int, row: dict[str, str | None]) -> Record:
    id = row["protein_id"] or row.get("accession") or f"record_{number}"
    problem = None if row["sequence"] else f"Protein '{id}' has no sequence; annotate it with --sequences."
    return Record(number, id, row["sequence"] or "", row.get("gene_symbol"), row.get("accession"), problem)
