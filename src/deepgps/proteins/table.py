"""Records from a CSV or TSV with the columns ``id`` and ``sequence``."""

import csv
import re
from collections.abc import Iterator
from textwrap import shorten

from deepgps.errors import InputError
from deepgps.proteins.record import Record

_NEEDED = {"id", "sequence"}
_DELIMITERS = "\t,;"


def table_records(header: str, lines: Iterator[str], source: str) -> Iterator[Record]:
    """Read a table, one row in memory at a time.

    Parameters
    ----------
    header
        The first line: column names in either case, among them ``id`` and ``sequence``; ``gene_symbol`` and
        ``accession`` are taken where present, all others passed over. It decides on tab, comma or semicolon.
    lines
        The lines after it; cells may be quoted, empty rows are passed over.
    source
        The name errors call the table by.

    Yields
    ------
    Record
        A row, with a `problem` if its quotes or the number of its cells are wrong.

    Raises
    ------
    InputError
        If a needed column is missing.
    """
    delimiter = _delimiter(header)
    columns = _columns(header, delimiter)
    if not _NEEDED.issubset(columns):
        raise InputError(_no_columns(header, columns, source))
    number = 0
    for row, error in _rows(lines, delimiter):
        if error or any(row):
            number += 1
            yield _record(number, columns, row, error or _overflow(columns, row))


def _delimiter(header: str) -> str:
    fitting = (mark for mark in _DELIMITERS if _NEEDED.issubset(_columns(header, mark)))
    return next(fitting, max(_DELIMITERS, key=header.count))


def _columns(header: str, delimiter: str) -> list[str]:
    cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
    return [cell.strip().lower() for cell in cells]


def _no_columns(header: str, columns: list[str], source: str) -> str:
    if re.fullmatch(r"[A-Z* ]{10,}|[a-z* ]{10,}", header.strip()):
        return f"'{source}' looks like a bare sequence; put a line such as '>my_protein' before it."
    found = shorten(", ".join(columns), 120, placeholder=" …")
    return (
        f"'{source}' is neither FASTA (its first line does not begin with '>') nor a table with the columns "
        f"'id' and 'sequence' (found: {found}); rename the columns or give FASTA."
    )


def _rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[list[str], str | None]]:
    # strict: a quote left open would otherwise swallow the rows after it without a word.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        start = reader.line_num + 2
        try:
            yield [cell.strip() for cell in next(reader)], None
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"Lines {start} to {reader.line_num + 1} cannot be read ({error}); check their quotes."


def _overflow(columns: list[str], row: list[str]) -> str | None:
    if any(row[len(columns) :]):
        return (
            f"A row has {len(row)} cells for {len(columns)} columns; quote the cells that hold the delimiter."
        )
    return None


def _record(number: int, columns: list[str], row: list[str], problem: str | None) -> Record:
    # Reversed, so that the first of two columns of one name wins.
    cells = dict(reversed(list(zip(columns, row, strict=False))))
    return Record(
        number,
        cells.get("id") or f"record_{number}",
        cells.get("sequence", ""),
        cells.get("gene_symbol") or None,
        cells.get("accession") or None,
        problem,
    )
