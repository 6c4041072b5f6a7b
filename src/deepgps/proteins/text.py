"""Lines of text from a file or stdin, whatever its compression, encoding and line ends."""

import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deepgps.errors import InputError

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


class _Rejoined(io.RawIOBase):
    """A stream whose head was read to look at it, whole again: a pipe cannot be rewound."""

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
        A path, or ``-`` for stdin. Plain or gzip, told by content; UTF-8, with or without its mark, or UTF-16
        with it; bytes that are not UTF-8 are read as Latin-1; line ends ``\n``, ``\r\n`` or ``\r``.
    stdin
        Read in place of the process's own stdin.

    Yields
    ------
    str
        A line, ending in ``\n`` but perhaps for the last.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read, is a folder, is not text, has a line of `MAX_LINE`
        characters or more, or is a damaged gzip (then perhaps after the lines before the damage).
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
    whole: io.RawIOBase | io.BufferedIOBase = _Rejoined(head, stream)
    if head.startswith(_GZIP):
        unzipped = gzip.GzipFile(fileobj=io.BufferedReader(whole))
        head = _read(unzipped, _HEAD)
        whole = _Rejoined(head, unzipped)
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
    # A pipe or gzip may give less at a time than asked for.
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
