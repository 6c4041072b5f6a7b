"""Read proteins from FASTA, CSV and TSV files, stdin and UniProt, one at a time."""

import codecs
import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import BinaryIO, NamedTuple

from deepgps.errors import InputError
from deepgps.proteins.check import MAX_RESIDUES, check_sequence, clean_sequence
from deepgps.proteins.protein import Protein, Rejection


class SequenceRecord(NamedTuple):
    """One record of a FASTA file or table, unchecked.

    Attributes
    ----------
    number
        Its number among the records of its source, from 1.
    id
        Its id, unchanged; ``record_<number>`` if it has none.
    sequence
        Its residues as written.
    gene_symbol, accession
        Gene symbol and UniProt accession, if the record has them.
    problem
        Why the record could not be read, or None.
    """

    number: int
    id: str
    sequence: str
    gene_symbol: str | None = None
    accession: str | None = None
    problem: str | None = None


_Stream = Iterable[Protein | Rejection]

Seen = dict[str, tuple[int, str, int]]
"""By id, the hash of its sequence, its source and its number there: all that is kept of earlier proteins."""

# A separator or a suffix of letters makes a name a path: 'NKX2.5' and 'RP11-34P13.7' are gene symbols.
_PATH = re.compile(r"[/\\~]|^\.|\.[A-Za-z][A-Za-z0-9]+$")
_SEQUENCE = re.compile(r"[A-Za-z*]{20,}")


def read_proteins(
    inputs: str | Path | Sequence[str | Path] = (),
    *,
    sequence: str | None = None,
    stdin: BinaryIO | None = None,
    organism_id: int = 9606,
    cache_dir: Path | None = None,
    offline: bool = False,
    base_url: str | None = None,
) -> Iterator[Protein | Rejection]:
    """Read proteins from files, stdin and UniProt, one at a time and in order.

    Parameters
    ----------
    inputs
        One input or several: FASTA, CSV or TSV files, ``-`` for stdin, UniProt accessions, gene symbols.
    sequence
        A sequence, which gets the id ``sequence``, or FASTA as text; read last.
    stdin
        A stream to read instead of the process's stdin.
    organism_id, cache_dir, offline, base_url
        As in `deepgps.proteins.uniprot.fetch_protein`.

    Returns
    -------
    Iterator of Protein or Rejection
        A `Rejection` stands for a record that cannot be used or repeats an earlier id. If there are several
        inputs, one that cannot be used, or the rest of one that ends early, is a rejection as well.

    Raises
    ------
    InputError
        If there is nothing to read, a file is missing or stdin is given twice; while iterating, if the only
        input cannot be used.

    Examples
    --------
    >>> from deepgps import read_proteins
    >>> [protein] = read_proteins(sequence="mkrpaatkkagqakkkkldk")
    >>> protein.id, protein.sequence
    ('sequence', 'MKRPAATKKAGQAKKKKLDK')
    """
    sources = [str(each) for each in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    _check_usage(sources, sequence)
    seen: Seen = {}

    def read(given: str) -> _Stream:
        if given == "-" or _is_file(given):
            return read_protein_file(given, stdin=stdin, seen=seen)
        # Imported here because it loads HTTP and TLS, which a file does not need.
        from deepgps.proteins.uniprot import fetch_protein

        found = fetch_protein(
            given, organism_id=organism_id, cache_dir=cache_dir, offline=offline, base_url=base_url
        )
        return check_records([_as_record(found)], "UniProt", seen)

    streams: list[tuple[str, Callable[[], _Stream]]] = [(given, partial(read, given)) for given in sources]
    if sequence is not None:
        streams.append(("--sequence", lambda: check_records(_pasted(sequence), "--sequence", seen)))
    return _chain(streams)


def _check_usage(inputs: Sequence[str], sequence: str | None) -> None:
    if not inputs and sequence is None:
        raise InputError("There is nothing to predict; give a FASTA file, an accession or --sequence.")
    if list(inputs).count("-") > 1:
        raise InputError("'-' (stdin) is given twice; it can be read once.")
    for given in inputs:
        _check_input(given)


def _check_input(given: str) -> None:
    if given == "-" or _is_file(given):
        return
    if _SEQUENCE.fullmatch(given) or given.lstrip().startswith(">"):
        raise InputError(f"'{given[:20]}…' is not a file but looks like a sequence; give it with --sequence.")
    if _PATH.search(given):
        if Path(given).is_dir():
            raise InputError(f"'{given}' is a folder; give the files in it.")
        raise InputError(f"File '{given}' was not found; check its name and folder.")


def _is_file(given: str) -> bool:
    # Not is_file(): a pipe such as /dev/fd/63 is read like a file. A sequence may be too long for a name.
    try:
        path = Path(given)
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def _as_record(protein: Protein) -> SequenceRecord:
    return SequenceRecord(1, protein.id, protein.sequence, protein.gene_symbol, protein.accession)


def _pasted(text: str) -> Iterable[SequenceRecord]:
    if text.lstrip().startswith(">"):
        return fasta_records(io.StringIO(text, newline=None))
    return [SequenceRecord(1, "sequence", text)]


def _chain(streams: Sequence[tuple[str, Callable[[], _Stream]]]) -> Iterator[Protein | Rejection]:
    others = len(streams) > 1
    for given, read in streams:
        try:
            for item in read():
                others = True
                yield item
        except InputError as error:
            if not others:
                raise
            yield Rejection(given, given, str(error))


def read_protein_file(
    source: str | Path, *, stdin: BinaryIO | None = None, seen: Seen | None = None
) -> Iterator[Protein | Rejection]:
    """Read the proteins of one file in order; only their ids stay in memory.

    Parameters
    ----------
    source
        A FASTA file, or a CSV or TSV file with the columns ``id`` and ``sequence``, plain or gzip (by its
        content, not its name); or ``-`` for stdin. A FASTA id is the first word of the header, unchanged; a
        record without an id is called ``record_<number>``.
    stdin
        A stream to read instead of the process's stdin.
    seen
        Ids of earlier sources; changed in place.

    Returns
    -------
    Iterator of Protein or Rejection
        A `Rejection` for each record that cannot be used, or repeats an earlier id.

    Raises
    ------
    InputError
        While iterating, if the file is not found, is a folder, is empty, is not text, or has no record or not
        the needed columns; or at the damage of a damaged gzip file.
    """
    name = str(source)
    shown = "stdin" if name == "-" else name
    return check_records(_records(text_lines(name, stdin), shown), shown, {} if seen is None else seen)


def _records(lines: Iterator[str], source: str) -> Iterator[SequenceRecord]:
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"'{source}' is empty; give FASTA, CSV or TSV.")
    if first.lstrip().startswith(">"):
        yield from fasta_records(chain([first], lines))
        return
    record = None
    for record in table_records(first, lines, source):
        yield record
    if record is None:
        raise InputError(f"'{source}' has a header but no records; add a row for each protein.")


def check_records(
    records: Iterable[SequenceRecord], source: str, seen: Seen
) -> Iterator[Protein | Rejection]:
    """Clean and check records; one that fails, or repeats an id, becomes a rejection.

    Parameters
    ----------
    records
        Unchecked records.
    source
        Their source, for rejections.
    seen
        Ids of earlier proteins; changed in place.

    Yields
    ------
    Protein or Rejection
        In the order of `records`.
    """
    for record in records:
        sequence = clean_sequence(record.sequence)
        reason = (
            record.problem
            or check_sequence(record.id, sequence)
            or _duplicate(record, hash(sequence), source, seen)
        )
        if reason:
            yield Rejection(record.id, source, reason)
        else:
            yield Protein(record.id, sequence, record.gene_symbol, record.accession)


def _duplicate(record: SequenceRecord, digest: int, source: str, seen: Seen) -> str | None:
    if record.id not in seen:
        seen[record.id] = (digest, source, record.number)
        return None
    known, place, number = seen[record.id]
    where = (
        f"Id '{record.id}' of record {record.number} in '{source}' was used by record {number} in '{place}'"
    )
    if known == digest:
        return f"{where} for the same sequence; it is predicted once."
    return f"{where} for another sequence; give each protein its own id."


_GENE_NAME = re.compile(r"\bGN=(.+?)(?= [A-Z]{2}=|$)")


# biotite's FastaFile.read_iter silently skips lines that begin with ';', keeps a whole genome in memory, and
# loads NumPy and biotite.sequence (0.4 s) before the first record.
def fasta_records(lines: Iterable[str]) -> Iterator[SequenceRecord]:
    """Read FASTA, one record in memory at a time.

    Parameters
    ----------
    lines
        Lines with any line ends; lines before the first ``>`` are skipped.

    Yields
    ------
    Record
        Its sequence has no blanks, and is cut beyond `MAX_RESIDUES`, which `check_sequence` refuses.
    """
    number, header, parts, size = 0, "", list[str](), 0
    for line in lines:
        stripped = line.strip()
        if stripped.startswith(">"):
            if number:
                yield _fasta_record(number, header, "".join(parts))
            number, header, parts, size = number + 1, stripped[1:], [], 0
        elif size <= MAX_RESIDUES:
            parts += stripped.split()
            size = size + len(stripped) if " " not in stripped else sum(map(len, parts))
    if number:
        yield _fasta_record(number, header, "".join(parts))


def _fasta_record(number: int, header: str, sequence: str) -> SequenceRecord:
    words = header.split(maxsplit=1)
    id = words[0] if words else f"record_{number}"
    gene = _GENE_NAME.search(header)
    return SequenceRecord(number, id, sequence, gene[1] if gene else None, accession_in(id))


def accession_in(id: str) -> str | None:
    """Return the accession in a UniProt FASTA id such as ``sp|P04637|P53_HUMAN``; None for other ids."""
    parts = id.split("|")
    return parts[1] if len(parts) == 3 and parts[0] in {"sp", "tr"} else None


_REQUIRED_COLUMNS = {"id", "sequence"}
_DELIMITERS = "\t,;"


def table_records(header: str, lines: Iterator[str], source: str) -> Iterator[SequenceRecord]:
    """Read a table, one row in memory at a time.

    Parameters
    ----------
    header
        The first line: column names in either case, among them ``id`` and ``sequence``; ``gene_symbol`` and
        ``accession`` are read if present, others are ignored. It also determines the delimiter: tab, comma
        or semicolon.
    lines
        The lines after it; cells may be quoted, empty rows are skipped.
    source
        Name of the table, for errors.

    Yields
    ------
    Record
        A row; it has a `problem` if its quotes or its number of cells are wrong.

    Raises
    ------
    InputError
        If a needed column is missing.
    """
    delimiter = _delimiter(header)
    columns = _columns(header, delimiter)
    if not _REQUIRED_COLUMNS.issubset(columns):
        raise InputError(_no_columns(header, columns, source))
    number = 0
    for row, error in _rows(lines, delimiter):
        if error or any(row):
            number += 1
            yield _row_record(number, columns, row, error or _overflow(columns, row))


def _delimiter(header: str) -> str:
    fitting = (mark for mark in _DELIMITERS if _REQUIRED_COLUMNS.issubset(_columns(header, mark)))
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
    # strict: otherwise an unclosed quote silently swallows the rows after it.
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


def _row_record(number: int, columns: list[str], row: list[str], problem: str | None) -> SequenceRecord:
    # Reversed, so that the first of two columns of one name wins.
    cells = dict(reversed(list(zip(columns, row, strict=False))))
    return SequenceRecord(
        number,
        cells.get("id") or f"record_{number}",
        cells.get("sequence", ""),
        cells.get("gene_symbol") or None,
        cells.get("accession") or None,
        problem,
    )


MAX_LINE = 10_000_000

_HEAD = 65_536
_GZIP = b"\x1f\x8b"
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


def text_lines(source: str, stdin: BinaryIO | None = None) -> Iterator[str]:
    r"""Read lines, one in memory at a time.

    Parameters
    ----------
    source
        A path, or ``-`` for stdin. Plain or gzip, detected by content; UTF-8, with or without a byte order
        mark, or UTF-16 with one; bytes that are not UTF-8 are read as Latin-1; line ends ``\n``, ``\r\n`` or
        ``\r``.
    stdin
        A stream to read instead of the process's stdin.

    Yields
    ------
    str
        A line that ends in ``\n``, except perhaps the last.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read, is a folder, is not text, has a line of `MAX_LINE`
        characters or more, or is a damaged gzip file (then after the lines before the damage).
    """
    shown = "stdin" if source == "-" else source
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
        yield stream


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
            raise InputError(
                f"'{source}' has a line of {MAX_LINE:,} characters or more; give a file of proteins."
            )
        yield line


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
