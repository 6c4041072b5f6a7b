"""Files that a crash leaves complete (atomic, append-only, locked, cached), file names and file hashes."""

import csv
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_dir

from deepgps.errors import InputError

TEMPORARY_PREFIX = ".deepgps-"


def temporary_path(path: Path) -> Path:
    """Return a hidden path in the same folder, with the same suffix."""
    return path.with_name(TEMPORARY_PREFIX + path.name)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    Parameters
    ----------
    path
        The file to write or replace.

    Yields
    ------
    Path
        A temporary path to write to. It becomes `path` when the block ends, and is removed if it raises.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        if temporary.is_file():
            # The content must be on the disk before its name is, or a power failure leaves a file of zeros.
            flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file completely, or leave the one that is there if the process is killed."""
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def remove_temporary_files(folder: Path) -> None:
    """Remove files that a killed process left half-written in a folder."""
    # A library that writes to a temporary path may itself use a temporary name beside it.
    for pattern in (f"{TEMPORARY_PREFIX}*", f".{TEMPORARY_PREFIX}*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def record_ends(path: Path, *, quoted: bool) -> Iterator[int]:
    """Yield the end of each complete record of a file; an incomplete last one is skipped.

    Parameters
    ----------
    path
        A text file; one that does not exist has no records.
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
    """Return the offset in bytes just after the first `records` records."""
    offset = 0
    for count, end in enumerate(record_ends(path, quoted=quoted), start=1):
        if count > records:
            break
        offset = end
    return offset


class AppendFile:
    """A file to which complete records are appended, each written before the next.

    Parameters
    ----------
    path
        The file; created if missing.
    keep
        Bytes to keep; the rest is truncated.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        self._end = keep
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._handle, keep)
        os.lseek(self._handle, keep, os.SEEK_SET)

    def append(self, record: bytes) -> None:
        """Append one record; if the disk is full, the file still ends after a complete record.

        Raises
        ------
        OSError
            If the record cannot be written completely.
        """
        try:
            rest = memoryview(record)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            os.ftruncate(self._handle, self._end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._end += len(record)

    def sync(self) -> None:
        """Return when what was appended is on the disk."""
        if self._handle >= 0:
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


LOCK_FILE = ".deepgps.lock"


def lock_folder(folder: Path) -> int:
    """Lock a folder for this process; the system unlocks it however the process ends.

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
        # Some network file systems have no locks; then the folder is used without one.
        pass
    return handle


MAX_NAME_LENGTH = 60
"""Characters of a safe file name, at most."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# Windows reserves these names for devices, with any extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by name; a folder stands for its files, as ``folder/name``."""
    hashes = {}
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            name = f"{path.name}/{file.name}" if path.is_dir() else file.name
            hashes[name] = hash_file(file)
    return hashes


class UniqueNames:
    """Names that differ from each other, also where a file system ignores case.

    A name that is taken gets a number: ``P1``, ``P1-2``, ``P1-3``. The same names in the same order get the
    same numbers.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def add(self, name: str) -> str:
        """Take a name, with a number if it is taken already."""
        key = name.casefold()
        if key in self._taken:
            number = self._next.get(key, 2)
            while f"{key}-{number}" in self._taken:
                number += 1
            self._next[key] = number + 1
            name = f"{name}-{number}"
        self._taken.add(name.casefold())
        return name


def unique_names(names: Iterable[str]) -> list[str]:
    """Number the names that occur more than once; see `UniqueNames`."""
    unique = UniqueNames()
    return [unique.add(name) for name in names]


def safe_file_name(text: str) -> str:
    """Turn any text into a file name without extension that every file system can hold.

    It has at most `MAX_NAME_LENGTH` ASCII letters, digits, ``.``, ``_`` and ``-``. It neither starts nor ends
    with a dot: it is not hidden and does not leave its folder.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        The same for the same text; different texts may share one.
    """
    name = _UNSAFE.sub("_", text).strip("._-")[:MAX_NAME_LENGTH].rstrip(".") or "unnamed"
    return f"id-{name}" if _DEVICE.match(name) else name


def cache_root() -> Path:
    """Return the cache folder: ``DEEPGPS_CACHE`` from the environment, or the user's cache folder."""
    return Path(os.environ.get("DEEPGPS_CACHE") or user_cache_dir("deepgps"))


def belongs_to_user(path: Path) -> bool:
    """Return whether a file or folder belongs to this user or to root, so that no other one may change it."""
    return sys.platform == "win32" or path.stat().st_uid in (os.getuid(), 0)


def cache_files(target: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder into the cache, completely or not at all; several processes may do so at once.

    Nothing is cached if the cache cannot be written or is full: predictions work without it.

    Parameters
    ----------
    target
        The folder; an existing one is replaced.
    fill
        Called with an empty folder to write into.
    """
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".deepgps-", dir=target.parent) as name:
            temporary = Path(name) / "files"
            temporary.mkdir()
            fill(temporary)
            # The content must be on the disk before its name is, or a power failure leaves files of zeros.
            for path in temporary.iterdir():
                flush_to_disk(path)
            # Fails if another process was faster, which wrote the same.
            temporary.rename(target)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and return when it is on the disk: after a power failure it is not a file of zeros."""
    path.write_bytes(content)
    flush_to_disk(path)


def flush_to_disk(path: Path) -> None:
    """Return when a file, or the list of files of a folder, is on the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
