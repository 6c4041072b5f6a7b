"""Where the files of jobs and submissions are kept: a folder of this machine, or a bucket that all share."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from opengps.settings import Settings

_SIGN = "openGPS.txt"


class Shelf:
    """Files under keys, ``jobs/ID/…`` and ``submissions/ID/…``; each is whole or not there.

    Parameters
    ----------
    url
        Where it is, as fsspec says it: ``file:///…``, ``s3://…``, ``memory://…``.

    Attributes
    ----------
    folder
        The folder itself, if it is one of this machine.

    Raises
    ------
    InputError
        If this kind of address is unknown, or its package not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            # What another process has written must be seen.
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            said = str(error).rstrip(".")
            raise InputError(f"Setting OPENGPS_FILES_URL cannot be used ({said}).") from None
        self.folder = Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def check(self) -> None:
        """Leave a sign on it.

        Raises
        ------
        DeepGPSError
            If it cannot be written to.
        """
        try:
            self.write(_SIGN, b"Files of an openGPS website.\n")
        except Exception as error:  # each kind of file system has errors of its own
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise DeepGPSError(
                f"Files cannot be written to OPENGPS_FILES_URL ({reason}); check the address and its keys."
            ) from None

    def read(self, key: str) -> bytes:
        """Read a file.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        """
        content: bytes = self._files.cat_file(self._at(key))
        return content

    def write(self, key: str, content: bytes) -> None:
        """Write a file, or replace it."""
        if self.folder is None:
            self._files.pipe_file(self._at(key), content)
            return
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as draft:
            draft.write_bytes(content)

    def put(self, files: Mapping[str, Path]) -> None:
        """Copy files of this machine to a shelf elsewhere, several at a time."""
        self._files.put(list(map(str, files.values())), [self._at(key) for key in files])

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Copy files under keys to this machine; one that is not there is left out."""
        found = self._files.cat([self._at(key) for key in files], on_error="omit") if files else {}
        for key, path in files.items():
            if (content := found.get(self._at(key))) is not None:
                path.write_bytes(content)

    def names(self, key: str) -> list[str]:
        """List what lies directly below a key, sorted."""
        try:
            found: Iterable[str] = self._files.ls(self._at(key), detail=False)
        except FileNotFoundError:
            return []
        return sorted(each.rstrip("/").rpartition("/")[2] for each in found)

    def changed(self, key: str) -> float:
        """Tell when the last file below a key was written, in seconds since 1970; 0 if there is none."""
        times: Any = (self._files.modified(each).timestamp() for each in self._files.find(self._at(key)))
        return max(times, default=0.0)

    def remove(self, key: str) -> None:
        """Remove a file, or all below a key; there need not be any."""
        try:
            self._files.rm(self._at(key), recursive=True)
        except FileNotFoundError:
            return

    def _at(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


@lru_cache
def shelf_of(settings: Settings) -> Shelf:
    """Find the shelf of a site, which may be empty."""
    return Shelf(settings.files_url or str(settings.data.absolute()))


def job_key(job_id: str) -> str:
    """Name what holds the results of a job."""
    return f"jobs/{job_id}"


def submission_key(submission_id: str) -> str:
    """Name what holds the files of a submission."""
    return f"submissions/{submission_id}"
