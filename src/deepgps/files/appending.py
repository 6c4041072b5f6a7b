"""Files that only grow, record by record, and survive being cut off at any moment."""

import os
from collections.abc import Iterator
from pathlib import Path


def record_ends(path: Path, *, quoted: bool) -> Iterator[int]:
    """Walk through the whole records of a file; a torn last one is left out.

    Parameters
    ----------
    path
        A file of lines; one that does not exist has no records.
    quoted
        Whether a line break inside double quotes belongs to the record (CSV, TSV).

    Yields
    ------
    int
        Offset in bytes just after each record.
    """
    if not path.exists():
        return
    offset = 0
    quotes = 0
    with path.open("rb") as file:
        for line in file:
            offset += len(line)
            quotes += line.count(b'"') if quoted else 0
            if line.endswith(b"\n") and quotes % 2 == 0:
                yield offset


def offset_after(path: Path, records: int, *, quoted: bool) -> int:
    """Offset in bytes just after the first ``records`` records."""
    offset = 0
    for count, end in enumerate(record_ends(path, quoted=quoted), start=1):
        if count > records:
            break
        offset = end
    return offset


class AppendFile:
    """A file to which whole records are appended, each handed to the system before the next.

    Parameters
    ----------
    path
        The file; made if missing.
    keep
        Bytes of it to keep; what follows is cut off.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self._end = keep
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._handle, keep)
        os.lseek(self._handle, keep, os.SEEK_SET)

    def append(self, record: bytes) -> None:
        """Append one record; if it does not fit on the disk, the file ends after the record before it.

        Raises
        ------
        OSError
            If it cannot be written whole.
        """
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            os.ftruncate(self._handle, self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._end += len(record)

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
