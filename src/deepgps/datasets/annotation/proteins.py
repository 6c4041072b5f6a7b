"""What a source says of where proteins are: one `AnnotatedProtein` a gene, and the problems beside them."""

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

import deepgps
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.localization import CLASS_SETS, LOCALIZATIONS
from deepgps.proteins.reading import text_lines

# As the sources spell them; 'U2OS' and 'u-2 os' are the same line.
_CELL_LINES = {"u2os": "U-2 OS", "hek293t": "HEK293T", "hek293": "HEK293"}


@dataclass(frozen=True, slots=True)
class AnnotatedProtein:
    """One protein and where it is.

    Attributes
    ----------
    protein_id
        Ensembl gene id.
    gene_symbol, accession
        Gene symbol and UniProt accession, where known.
    localizations
        Major localizations in the vocabulary, in its order; never empty.
    single_localized
        Whether its source names exactly one.
    single_class
        The localization that single-2 and single-4 judge by: the only one of a single-localized protein.
    source, cell_line
        ``opencell`` or ``hpa``; the cell line, None where the annotation is of the gene in all of them.
    sequence
        Upper-case residues, where known.
    cluster
        Homology cluster, where known.
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
        """Its class in a single-label class set, or None if the set has no place for it."""
        return next(iter(CLASS_SETS[class_set].of((self.single_class,) if self.single_class else ())), None)


@dataclass(frozen=True, slots=True)
class AnnotationProblem:
    """What is wrong with one row, and whether its protein is left out for it.

    Attributes
    ----------
    protein_id
        The Ensembl gene id, or the row's place where it has none.
    source
        Name of the file.
    left_out
        Whether the protein is missing from the result.
    reason
        A sentence that names the thing, the value and the remedy.
    """

    protein_id: str
    source: str
    left_out: bool
    reason: str


@dataclass(frozen=True, slots=True)
class AnnotationResult:
    """What became of a source: proteins in the order of its rows, and problems."""

    proteins: list[AnnotatedProtein] = field(default_factory=list)
    problems: list[AnnotationProblem] = field(default_factory=list)


def cell_line_name(name: str) -> str:
    """Bring a cell line's name into one spelling: ``U2OS`` and ``u-2 os`` are ``U-2 OS``."""
    return _CELL_LINES.get(cell_line_key(name), name.strip())


def cell_line_key(name: str) -> str:
    """Letters and digits of a cell line's name in lower case: equal for all spellings of one line."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def vocabulary_order(localizations: Iterable[str]) -> tuple[str, ...]:
    """Distinct localizations in the order of the vocabulary."""
    return tuple(sorted(set(localizations), key=LOCALIZATIONS.index))


def split_cell(cell: str | None) -> tuple[str, ...]:
    """Take the names of a ``;``-joined cell apart."""
    return tuple(filter(None, (name.strip() for name in (cell or "").split(";"))))


def unknown_localization(protein_id: str, source: str, name: str) -> AnnotationProblem:
    """Say that a localization's name is none of the vocabulary."""
    # Without it the protein would look single-localized, or be where it is not.
    return AnnotationProblem(
        protein_id, source, True, f"Gene '{protein_id}' has the unknown localization '{name}'; correct it."
    )


def read_cluster(row: Mapping[str, str]) -> int | None:
    """Read the homology cluster of a row, where it has one.

    Raises
    ------
    InputError
        If it is not a whole number.
    """
    text = row.get("cluster") or ""
    if text and not text.isdecimal():
        raise InputError(f"Cluster '{text}' is not a whole number; number the clusters from 0.")
    return int(text) if text else None


def split_problems(entries: Iterable[AnnotatedProtein | AnnotationProblem]) -> AnnotationResult:
    """Set proteins and problems apart; of two rows for one gene the first counts."""
    found = AnnotationResult()
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, AnnotationProblem):
            found.problems.append(entry)
        elif entry.protein_id in seen:
            reason = f"Gene '{entry.protein_id}' is annotated twice; the first annotation is kept."
            found.problems.append(AnnotationProblem(entry.protein_id, entry.source, False, reason))
        else:
            seen.add(entry.protein_id)
            found.proteins.append(entry)
    return found


def read_rows(
    path: Path, needed: Collection[str], names: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Read a table row by row; cells are stripped, missing ones empty.

    Parameters
    ----------
    path
        CSV, TSV or semicolon-separated text, plain or gzip, or a ZIP of one such file.
    needed
        Columns there must be, in lower case with ``_`` for blanks.
    names
        Other names of columns to the ones used here.

    Raises
    ------
    InputError
        If the file cannot be read, or lacks a column.
    """
    lines = _zipped_lines(path) if zipfile.is_zipfile(path) else text_lines(str(path))
    header = next(lines, "")
    delimiter = max("\t,;", key=header.count)
    columns = [_column(cell, names or {}) for cell in next(csv.reader([header], delimiter=delimiter), [])]
    if missing := [column for column in needed if column not in columns]:
        raise InputError(
            f"'{path}' has no column '{missing[0]}' (found: {', '.join(columns[:12])}); "
            "give the table as its source provides it."
        )
    for cells in csv.reader(lines, delimiter=delimiter):
        if any(cell.strip() for cell in cells):
            yield _row(columns, cells)


def _row(columns: list[str], cells: list[str]) -> dict[str, str]:
    padded = [*cells, *[""] * (len(columns) - len(cells))]
    return {name: cell.strip() for name, cell in zip(columns, padded, strict=False)}


def _column(cell: str, names: Mapping[str, str]) -> str:
    name = cell.strip().lower().replace(" ", "_")
    return names.get(name, name)


def _zipped_lines(path: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            inner = [name for name in archive.namelist() if name.lower().endswith((".tsv", ".csv", ".txt"))]
            if len(inner) != 1:
                raise InputError(f"'{path}' holds {len(inner)} tables; give a ZIP of one.")
            with archive.open(inner[0]) as file:
                yield from io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"'{path}' is a damaged ZIP ({error}); fetch it again.") from error


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
    """Put proteins into the table that ``proteins.parquet`` holds, one row each."""
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


def write_annotations(annotated: AnnotationResult, out: Path, made_from: Mapping[str, str]) -> Path:
    """Write the table of proteins, and the problems beside it as ``<stem>_problems.csv``.

    Parameters
    ----------
    annotated
        What to write.
    out
        The Parquet file; written whole or not at all. Its metadata (key ``deepgps``) say what it was made of.
    made_from
        Name to sha256 of each input.

    Returns
    -------
    Path
        The file of problems; it has only a header if there are none.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    problems = out.with_name(f"{out.stem}_problems.csv")
    columns = ("protein_id", "source", "left_out", "reason")
    rows = [[getattr(each, name) for name in columns] for each in annotated.problems]
    schema = {"protein_id": pl.String, "source": pl.String, "left_out": pl.Boolean, "reason": pl.String}
    made = {"deepgps": json.dumps({"deepgps": deepgps.__version__, "inputs": dict(made_from)})}
    with atomic_path(problems) as draft:
        pl.DataFrame(rows, schema=schema, orient="row").write_csv(draft)
    with atomic_path(out) as draft:
        proteins_table(annotated.proteins).write_parquet(draft, metadata=made)
    return problems
