"""Neighbour indexes in the user's cache, ready to be mapped into memory.

A bundle's index holds residues; to find which protein has which word takes a second and 150 MB. It is done
once on a machine, and all its processes share one copy of the result.
"""

from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.files.cached import cache_folder, keep_folder
from deepgps.proteins.kmers import GROUPS_13, SEED
from deepgps.proteins.neighbours import FORMAT, NeighbourIndex

_SLUGS = "slugs"
# Whatever the arrays depend on, besides the index itself.
_RULE = sha256(repr((FORMAT, GROUPS_13, SEED)).encode()).hexdigest()[:8]


def cached_index(fingerprint: str, read: Callable[[], bytes]) -> NeighbourIndex:
    """Open an index from the cache, or read it and keep it there.

    Parameters
    ----------
    fingerprint
        sha256 of the index as `NeighbourIndex.to_bytes` wrote it.
    read
        Gives that; called where the cache does not have it.

    Raises
    ------
    BundleError
        If what was read is not an index.
    """
    folder = cache_folder() / "neighbours" / f"{fingerprint[:32]}-{_RULE}"
    if (kept := _opened(folder)) is not None:
        return kept
    index = NeighbourIndex.from_bytes(read())
    keep_folder(folder, lambda draft: _write(index, draft))
    # The one in memory is private to this process, and larger.
    return _opened(folder) or index


def _write(index: NeighbourIndex, folder: Path) -> None:
    for field in fields(index):
        value = getattr(index, field.name)
        np.save(folder / f"{field.name}.npy", np.array(value, np.str_) if field.name == _SLUGS else value)


def _opened(folder: Path) -> NeighbourIndex | None:
    """Map the arrays of a folder; None where one is missing or cut short."""
    arrays: dict[str, Any] = {}
    try:
        for field in fields(NeighbourIndex):
            mapped = np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            # A plain array over the same memory: NumPy is slower with its own kind for files.
            arrays[field.name] = mapped.view(np.ndarray)
    except (OSError, ValueError, EOFError):
        return None
    return NeighbourIndex(**{**arrays, _SLUGS: tuple(arrays[_SLUGS].tolist())})
