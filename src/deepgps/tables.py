"""Read text files and tables in any encoding, delimiter and packing, strict about quotes."""

import codecs
import csv
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import BinaryIO, NamedTuple

from deepgps.errors import InputError

KNOWN_DELIMITERS = "\t,;"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_MAX_HEADER_LINES = 20


class TableRow(NamedTuple):
    """A row of a table.

    Attributes
    ----------
    line
        Number of its first line in the file, from 1.
    cells
        Its cells by column, without blanks around them; those that are missing are empty.
    problem
        Why the row cannot be read, or None.
    """

    line: int
    cells: dict[str, str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is read row by row.

    Attributes
    ----------
    columns
        Names of its columns.
    header
        The same as they are written.
    rows
        Its rows, read as they are asked for; empty rows are skipped.
    decimal_comma
        Whether the delimiter is a semicolon, as where numbers are written with a decimal comma.
    """

    columns: tuple[str, ...]
    header: tuple[str, ...]
    rows: Iterator[TableRow]
    decimal_comma: bool


def read_table(
    source: str | Path | Iterable[str],
    *,
    name: str | None = None,
    required: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> Table:
    """Read a table of text: comma, tab or semicolon, in any packing of `text_lines`.

    A first line such as ``sep=;`` names the delimiter, as for Excel; else it is the one with which the
    required columns are found, or the commonest. Cells may be quoted, also over several lines. A quote that
    swallows rows makes them a row with a problem: no row gets lost without a word.

    Parameters
    ----------
    source
        A path, or the lines of the table.
    name
        What messages call it; the path by default.
    required
        Columns that must be there.
    names
        Column names to replace, and their replacements.

    Returns
    -------
    Table
        Its column names are in lower case, with single blanks.

    Raises
    ------
    InputError
        If it cannot be read as text, is empty, or lacks a column.
    """
    path = str(source) if isinstance(source, str | Path) else None
    shown = name or path or "the table"
    lines = iter(text_lines(path) if path is not None else source)  # type: ignore[arg-type]
    first = next((line for line in chain(lines) if line.strip()), None)
    if first is None:
        raise InputError(f"'{shown}' is empty; give a table with a header and a row for each item.")
    stated = _SEPARATOR_LINE.fullmatch(first.strip("\r\n"))
    skipped = 0
    if stated:
        first, skipped = next(lines, ""), 1
    header, count = _whole_header(first, lines)
    delimiter = stated[1] if stated else _delimiter(header, required)
    written = _header_cells(header, delimiter)
    columns = tuple((names or {}).get(each.lower(), each.lower()) for each in written)
    if missing := [column for column in required if column not in columns]:
        found = ", ".join(columns[:12])
        raise InputError(f"'{shown}' has no column '{missing[0]}' (found: {found}); rename or add it.")
    return Table(columns, tuple(written), _rows(lines, columns, delimiter, skipped + count), delimiter == ";")


def strict_rows(table: Table, source: str | Path) -> Iterator[TableRow]:
    """Yield the rows of a table, and end at the first that cannot be read.

    Parameters
    ----------
    table
        From `read_table`.
    source
        Its name, for the message.

    Yields
    ------
    TableRow
        Rows without a problem.

    Raises
    ------
    InputError
        If a row has a problem.
    """
    for row in table.rows:
        if row.problem:
            raise InputError(f"'{source}': {row.problem}")
        yield row


def _whole_header(first: str, lines: Iterator[str]) -> tuple[str, int]:
    """Return the header, of which a quoted cell may go over several lines, and its number of lines."""
    header, count = first, 1
    while header.count('"') % 2 and count < _MAX_HEADER_LINES:
        header += next(lines, '"')
        count += 1
    return header, count


def _header_cells(header: str, delimiter: str) -> list[str]:
    reader = csv.reader(io.StringIO(header, newline=""), delimiter=delimiter, skipinitialspace=True)
    return [" ".join(cell.split()) for cell in next(reader, [])]


def _delimiter(header: str, required: Collection[str]) -> str:
    fitting = (
        mark
        for mark in KNOWN_DELIMITERS
        if set(required) <= {each.lower() for each in _header_cells(header, mark)}
    )
    bare = re.sub(r'"[^"]*"', "", header)
    commonest = max(KNOWN_DELIMITERS, key=bare.count)
    return next(fitting, commonest) if required else commonest


class _Counted:
    """Lines that remember those of the current row."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines
        self.row: list[str] = []

    def __iter__(self) -> "Iterator[str]":
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.row.append(line)
        return line


def _rows(
    lines: Iterator[str], columns: tuple[str, ...], delimiter: str, header_lines: int
) -> Iterator[TableRow]:
    csv.field_size_limit(MAX_LINE)  # long notes
    counted = _Counted(lines)
    # strict: otherwise an unclosed quote silently swallows the rows after it.
    reader = csv.reader(counted, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    while True:
        start = header_lines + reader.line_num + 1
        counted.row.clear()
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            last = header_lines + reader.line_num
            yield TableRow(
                start, {}, f"Lines {start} to {last} cannot be read ({error}); check their quotes."
            )
            continue
        if not any(cells):
            continue
        by_name: dict[str, str] = {}
        for column, cell in zip_longest(columns, cells[: len(columns)], fillvalue=""):
            by_name.setdefault(column, cell)  # the first of two columns of one name wins
        yield TableRow(start, by_name, _problem(cells, columns, delimiter, counted.row, start))


def _problem(
    cells: list[str], columns: tuple[str, ...], delimiter: str, lines: list[str], start: int
) -> str | None:
    if len(lines) > 1 and _swallows_rows(cells, columns, delimiter, lines):
        last = start + len(lines) - 1
        return f"Lines {start} to {last} cannot be read (one quote joins them); check their quotes."
    if any(cells[len(columns) :]):
        return (
            f"Line {start} has {len(cells)} cells for {len(columns)} columns; "
            "quote the cells that contain the delimiter."
        )
    return None


def _swallows_rows(cells: list[str], columns: tuple[str, ...], delimiter: str, lines: list[str]) -> bool:
    """Whether the lines of a row are rows themselves, which a lone quote has joined."""
    if len(cells) < len(columns) > 1:
        return True
    return len(columns) > 1 and all(line.count(delimiter) >= len(columns) - 1 for line in lines)


MAX_LINE = 10_000_000

_HEAD = 65_536
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_KINDS = {
    b"\x89PNG": "a PNG image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstandard",
}
# NCBI separates merged headers by \x01, so a few control characters are still text; a NUL never is.
_CONTROL = re.compile("[\x00\x02-\x08\x0e-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.02


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("deepgps-latin-1", _as_latin_1)


class _WithHead(io.RawIOBase):
    """A stream from which a head was read already, with that head: a pipe cannot be rewound."""

    def __init__(self, head: bytes, rest: io.BufferedIOBase | BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(chunk)] = chunk
        return len(chunk)


def text_lines(source: str, stdin: BinaryIO | None = None, *, name: str | None = None) -> Iterator[str]:
    r"""Read lines, one in memory at a time.

    Parameters
    ----------
    source
        A path, or ``-`` for stdin. Plain, gzip, or a ZIP of one file, detected by content; UTF-8, with or
        without a byte order mark, or UTF-16 with one; bytes that are not UTF-8 are read as Latin-1; line ends
        ``\n``, ``\r\n`` or ``\r``. Marks at the start of further lines, as in joined files, are dropped.
    stdin
        A stream to read instead of the process's stdin.
    name
        What messages call the source.

    Yields
    ------
    str
        A line that ends in ``\n``, except perhaps the last.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read, is a folder, is not text, has a line of `MAX_LINE`
        characters or more, is a ZIP of several files, or is damaged (then after the lines before the damage).
    """
    shown = name or ("stdin" if source == "-" else source)
    with _opened(source, stdin) as stream:
        try:
            yield from _decoded(stream, shown)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"'{shown}' is a damaged or incomplete gzip ({error}); make or fetch it again."
            ) from error
        except OSError as error:
            raise InputError(f"'{shown}' cannot be read: {error.strerror or error}.") from error


@contextmanager
def _opened(source: str, stdin: BinaryIO | None) -> Iterator[BinaryIO]:
    if source == "-":
        yield stdin or sys.stdin.buffer
        return
    path = Path(source)
    if path.is_dir():
        raise InputError(f"'{source}' is a folder; give the FASTA, CSV or TSV file in it.")
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise InputError(f"File '{source}' was not found; check its name and folder.") from None
    except OSError as error:
        raise InputError(f"'{source}' cannot be opened: {error.strerror}.") from error
    with stream:
        start = stream.read(4) if stream.seekable() else b""
        if start:
            stream.seek(0)
        if start != _ZIP:
            yield stream
            return
        with _zipped_file(stream, source) as inner:
            yield inner


@contextmanager
def _zipped_file(stream: BinaryIO, source: str) -> Iterator[BinaryIO]:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = [each.filename for each in archive.infolist() if not each.is_dir()]
            if "[Content_Types].xml" in names:
                raise InputError(f"'{source}' is an Excel workbook or another document; save it as CSV.")
            # The Finder adds files of its own.
            files = [
                name for name in names if not name.startswith("__MACOSX/") and Path(name).name[:1] != "."
            ]
            if len(files) != 1:
                raise InputError(f"'{source}' contains {len(files)} files; give a ZIP file with one.")
            with archive.open(files[0]) as inner:
                yield inner  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"'{source}' is a damaged or locked ZIP or Excel workbook ({error}); save it as CSV."
        ) from error


def _decoded(stream: BinaryIO, source: str) -> Iterator[str]:
    head = _read(stream, _HEAD)
    whole: io.RawIOBase | io.BufferedIOBase = _WithHead(head, stream)
    if head.startswith(_GZIP):
        unzipped = gzip.GzipFile(fileobj=io.BufferedReader(whole))
        head = _read(unzipped, _HEAD)
        whole = _WithHead(head, unzipped)
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    _refuse_binary(head, encoding, source)
    text = io.TextIOWrapper(io.BufferedReader(whole), encoding=encoding, errors="deepgps-latin-1")
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise InputError(f"'{source}' has a line of {MAX_LINE:,} characters or more; give a text file.")
        yield line.lstrip("\ufeff")


def _read(stream: BinaryIO | gzip.GzipFile, size: int) -> bytes:
    # A pipe or gzip file may return less than requested.
    head = b""
    while len(head) < size and (chunk := stream.read(size - len(head))):
        head += chunk
    return head


def _refuse_binary(head: bytes, encoding: str, source: str) -> None:
    text = head.decode(encoding, errors="replace")
    if "\x00" not in text and len(_CONTROL.findall(text)) <= _MAX_CONTROL_SHARE * len(text):
        return
    kind = next((f" but {name}" for magic, name in _KINDS.items() if head.startswith(magic)), "")
    raise InputError(f"'{source}' is not text{kind}; give FASTA, CSV or TSV, plain or gzip.")
