"""Write files so that a crash leaves no half-written file: atomic, append-only, locked and cached."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_dir

from deepgps.errors import InputError

TEMPORARY_PREFIX = ".deepgps-"


def temporary_path(path: Path) -> Path:
    """Hidden name beside a file, with the same extension."""
    return path.with_name(TEMPORARY_PREFIX + path.name)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes ``path`` when the block ends well and vanishes when it does not."""
    draft = temporary_path(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed run left half-written in a folder."""
    # A writer may hide its own draft once more.
    for pattern in (f"{TEMPORARY_PREFIX}*", f".{TEMPORARY_PREFIX}*"):
        for draft in folder.glob(pattern):
            draft.unlink(missing_ok=True)


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


LOCK_FILE = ".deepgps.lock"


def lock_folder(folder: Path) -> int:
    """Lock a folder for this process; the system lets go of it however the process ends.

    Returns
    -------
    int
        A file handle; closing it unlocks the folder.

    Raises
    ------
    InputError
        If another process has locked it.
    """
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    if sys.platform == "win32":
        return handle
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"Another deepGPS process is writing to '{folder}'; wait for it, or use another --out."
        ) from None
    except OSError:
        # Some network file systems have no locks; working without one beats not working.
        pass
    return handle


def cache_root() -> Path:
    """Where the cache lies: in the environment's ``DEEPGPS_CACHE``, else in the user's cache folder."""
    return Path(os.environ.get("DEEPGPS_CACHE") or user_cache_dir("deepgps"))


def cache_files(target: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder of files into the cache, whole or not at all; any number of processes may try at once.

    A cache that cannot be written, or is full, must not keep anyone from a prediction: then nothing is kept.

    Parameters
    ----------
    target
        What it is to be called; one that is there, and cannot be used, is replaced.
    fill
        Called with an empty folder to write into.
    """
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".deepgps-", dir=target.parent) as name:
            draft = Path(name) / "whole"
            draft.mkdir()
            fill(draft)
            for path in draft.iterdir():
                _to_disk(path)
            # Fails where another process was first, which kept the same.
            draft.rename(target)


def _to_disk(path: Path) -> None:
    """Have the content on the disk before its name is: a lost supply of power leaves no files of zeros."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
