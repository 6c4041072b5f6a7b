"""File storage of jobs and submissions: a folder of this machine, or a bucket that several machines share."""

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from deepgps.errors import DeepGPSError, InputError
from deepgps.files import write_durably

TEST_FILE = "openGPS.txt"


class Storage:
    """Files by key, ``jobs/ID/…`` and ``submissions/ID/…``; a file is complete or absent.

    Parameters
    ----------
    url
        An fsspec URL: a path, ``file:///…``, ``s3://…``, ``memory://…``.

    Raises
    ------
    InputError
        If the protocol is unknown or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            # Without a cache, so that files written by another process are seen.
            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise InputError(f"Setting OPENGPS_STORAGE_URL cannot be used ({reason}).") from None
        self._folder = Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def check(self) -> None:
        """Write a test file.

        Raises
        ------
        DeepGPSError
            If it cannot be written.
        """
        try:
            self.write({TEST_FILE: b"Files of an openGPS website.\n"})
        except Exception as error:  # each file system has exceptions of its own
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise DeepGPSError(
                f"OPENGPS_STORAGE_URL cannot be written to ({reason}); check the address and the credentials."
            ) from None

    def read(self, key: str) -> bytes:
        """Read a file.

        Raises
        ------
        FileNotFoundError
            If it does not exist.
        """
        content: bytes = self._files.cat_file(self._path(key))
        return content

    def read_existing(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Read several files at once; those that do not exist are left out."""
        paths = {self._path(key): key for key in keys}
        found = self._files.cat(list(paths), on_error="omit") if paths else {}
        return {paths[path]: content for path, content in found.items()}

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files, several at a time where the file system can; existing ones are replaced."""
        if self._folder is None:
            self._files.pipe({self._path(key): content for key, content in files.items()})
            return
        for key, content in files.items():
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes may write the same file at the same time: each has a draft of its own.
            draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            try:
                write_durably(draft, content)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)

    def names(self, key: str) -> list[str]:
        """List the names directly below a key, sorted."""
        try:
            found: Iterable[str] = self._files.ls(self._path(key), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def modified(self, key: str) -> float:
        """Return when the newest file below a key was written, in seconds since 1970; 0 if there is none."""
        times: Any = (self._files.modified(path).timestamp() for path in self._files.find(self._path(key)))
        return max(times, default=0.0)

    def size(self, key: str) -> int:
        """Return the bytes of all files below a key."""
        return int(self._files.du(self._path(key))) if self._files.exists(self._path(key)) else 0

    def remove(self, key: str) -> None:
        """Remove a file, or everything below a key, if it exists."""
        try:
            self._files.rm(self._path(key), recursive=True)
        except FileNotFoundError:
            return

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


def job_key(job_id: str) -> str:
    """Return the key of a job's files."""
    return f"jobs/{job_id}"


def submission_key(submission_id: str) -> str:
    """Return the key of a submission's files."""
    return f"submissions/{submission_id}"
