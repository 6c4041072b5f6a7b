"""Tables of annotations as their sources give them: CSV or TSV, plain, gzip or in a ZIP."""

import csv
import io
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from deepgps.errors import InputError
from deepgps.proteins.reading import text_lines


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
