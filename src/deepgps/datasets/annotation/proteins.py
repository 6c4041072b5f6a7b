"""Annotated proteins: types, tables of the sources, and the table of proteins."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

import deepgps
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.localization import CLASS_SETS, LOCALIZATIONS
from deepgps.tables import read_table, strict_rows

# Standard spellings by `cell_line_key`.
_CELL_LINES = {"u2os": "U-2 OS", "hek293t": "HEK293T", "hek293": "HEK293"}


@dataclass(frozen=True, slots=True)
class AnnotatedProtein:
    """A protein with its localizations.

    Attributes
    ----------
    protein_id
        Ensembl gene id.
    gene_symbol, accession
        Gene symbol and UniProt accession, if known.
    localizations
        Slugs of the major localizations, in the order of the vocabulary; at least one.
    single_localized
        Whether the source has exactly one localization.
    single_class
        The only localization of a single-localized protein: its class in single-2 and single-4, if they have
        it.
    source, cell_line
        ``opencell`` or ``hpa``; the cell line, or None for an annotation over all cell lines.
    sequence
        Upper-case residues, if known.
    cluster
        Number of the homology cluster, if known.
    """

    protein_id: str
    gene_symbol: str | None
    accession: str | None
    localizations: tuple[str, ...]
    single_localized: bool
    single_class: str | None
    source: str
    cell_line: str | None
    sequence: str | None = None
    cluster: int | None = None

    def class_in(self, class_set: str) -> str | None:
        """Return the class in a single-label class set, or None if the set does not have it."""
        return next(iter(CLASS_SETS[class_set].of((self.single_class,) if self.single_class else ())), None)


@dataclass(frozen=True, slots=True)
class AnnotationProblem:
    """A problem of one row, and whether its protein is left out.

    Attributes
    ----------
    protein_id
        The Ensembl gene id, or the row number if there is none.
    source
        Name of the file.
    left_out
        Whether the protein is left out of the result.
    reason
        Message for the user.
    """

    protein_id: str
    source: str
    left_out: bool
    reason: str


@dataclass(frozen=True, slots=True)
class AnnotationResult:
    """Proteins in the order of the rows of a source, and problems."""

    proteins: list[AnnotatedProtein] = field(default_factory=list)
    problems: list[AnnotationProblem] = field(default_factory=list)


def cell_line_name(name: str) -> str:
    """Return the standard spelling of a cell line: ``U-2 OS`` for ``U2OS`` and ``u-2 os``."""
    return _CELL_LINES.get(cell_line_key(name), name.strip())


def cell_line_key(name: str) -> str:
    """Return a key that is equal for all spellings of a cell line: its letters and digits in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def vocabulary_order(localizations: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct localizations in the order of the vocabulary."""
    return tuple(sorted(set(localizations), key=LOCALIZATIONS.index))


def split_cell(cell: str | None) -> tuple[str, ...]:
    """Return the names in a ``;``-joined cell."""
    return tuple(filter(None, (name.strip() for name in (cell or "").split(";"))))


def unknown_localization(protein_id: str, source: str, name: str) -> AnnotationProblem:
    """Return the problem of a localization that is not in the vocabulary."""
    # Ignoring the name could make the protein single-localized, or change its localizations.
    return AnnotationProblem(
        protein_id, source, True, f"Gene '{protein_id}' has the unknown localization '{name}'; correct it."
    )


def read_cluster(row: Mapping[str, str]) -> int | None:
    """Return the homology cluster of a row, or None if it has none.

    Returns
    -------
    int or None
        The number of the cluster.

    Raises
    ------
    InputError
        If the cluster is not a whole number.
    """
    text = row.get("cluster") or ""
    if text and not text.isdecimal():
        raise InputError(f"Cluster '{text}' is not a whole number; number the clusters from 0.")
    return int(text) if text else None


def split_problems(entries: Iterable[AnnotatedProtein | AnnotationProblem]) -> AnnotationResult:
    """Separate proteins from problems; of two rows of a gene, the first is kept."""
    result = AnnotationResult()
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, AnnotationProblem):
            result.problems.append(entry)
        elif entry.protein_id in seen:
            reason = f"Gene '{entry.protein_id}' is annotated twice; the first annotation is kept."
            result.problems.append(AnnotationProblem(entry.protein_id, entry.source, False, reason))
        else:
            seen.add(entry.protein_id)
            result.proteins.append(entry)
    return result


def read_rows(
    path: Path, required: Collection[str], names: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column name; cells are stripped, missing ones empty.

    Parameters
    ----------
    path
        CSV, TSV or semicolon-separated text, plain or gzip, or a ZIP of one such file.
    required
        Required columns, in lower case with ``_`` for spaces.
    names
        Column names to replace, and their replacements.

    Yields
    ------
    dict
        A row: column name to cell.

    Raises
    ------
    InputError
        If the file or one of its rows cannot be read, or lacks a column.
    """
    table = read_table(path)
    columns = {column: _column(column, names or {}) for column in table.columns}
    if missing := [column for column in required if column not in columns.values()]:
        raise InputError(
            f"'{path}' has no column '{missing[0]}' (found: {', '.join(list(columns.values())[:12])}); "
            "give the table as downloaded from its source."
        )
    for row in strict_rows(table, path):
        yield {columns[name]: cell for name, cell in row.cells.items()}


def _column(cell: str, names: Mapping[str, str]) -> str:
    name = cell.replace(" ", "_")
    return names.get(name, name)


_SCHEMA = {
    "protein_id": pl.String,
    "gene_symbol": pl.String,
    "accession": pl.String,
    "sequence": pl.String,
    "length": pl.Int64,
    "localizations": pl.String,
    "single_localized": pl.Boolean,
    "single_2": pl.String,
    "single_4": pl.String,
    "cluster": pl.Int64,
    "source": pl.String,
    "cell_line": pl.String,
}


def proteins_table(proteins: Iterable[AnnotatedProtein]) -> pl.DataFrame:
    """Return the table of proteins, as in ``proteins.parquet``, one row per protein."""
    rows = [
        {
            **{name: getattr(each, name) for name in _SCHEMA if hasattr(each, name)},
            "length": len(each.sequence) if each.sequence else None,
            "localizations": "|".join(each.localizations),
            "single_2": each.class_in("single-2"),
            "single_4": each.class_in("single-4"),
        }
        for each in proteins
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def write_annotations(annotated: AnnotationResult, out: Path, input_hashes: Mapping[str, str]) -> Path:
    """Write the table of proteins, and its problems as ``<stem>_problems.csv`` in the same folder.

    Parameters
    ----------
    annotated
        Proteins and problems.
    out
        The Parquet file. Its metadata (key ``deepgps``) contain the hashes of the inputs.
    input_hashes
        SHA-256 of each input by name.

    Returns
    -------
    Path
        The file of problems; only a header if there are none.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    problems = out.with_name(f"{out.stem}_problems.csv")
    columns = ("protein_id", "source", "left_out", "reason")
    rows = [[getattr(each, name) for name in columns] for each in annotated.problems]
    schema = {"protein_id": pl.String, "source": pl.String, "left_out": pl.Boolean, "reason": pl.String}
    metadata = {"deepgps": json.dumps({"deepgps": deepgps.__version__, "inputs": dict(input_hashes)})}
    with atomic_path(problems) as draft:
        pl.DataFrame(rows, schema=schema, orient="row").write_csv(draft)
    with atomic_path(out) as draft:
        proteins_table(annotated.proteins).write_parquet(draft, metadata=metadata)
    return problems
