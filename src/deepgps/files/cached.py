"""The user's cache: what can be had again, and is faster from here."""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Where the cache lies: in the environment's ``DEEPGPS_CACHE``, else in the user's cache folder."""
    return Path(os.environ.get("DEEPGPS_CACHE") or user_cache_dir("deepgps"))


def keep_folder(target: Path, fill: Callable[[Path], None]) -> None:
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
