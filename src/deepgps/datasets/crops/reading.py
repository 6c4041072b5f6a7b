"""The crop store: pairs of nucleus and protein crops in one memory-mapped array beside a table.

A folder with ``crops.npy`` (N, 2, S, S) uint8, channel 0 the nucleus and channel 1 the protein, 0-255
standing for [0, 1]; ``index.parquet``, one row a crop; and ``manifest.json``, written last. How it comes to
be: `deepgps.datasets.crops.writing`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Floats, Ints
from deepgps.datasets.crops.writing import CROPS, INDEX, MANIFEST, StoreDraft
from deepgps.errors import InputError

__all__ = ["CROPS", "INDEX", "MANIFEST", "CropStore", "open_crops", "sample", "write_crops"]


@dataclass(frozen=True, slots=True, eq=False)
class CropStore:
    """Crops and their table, row by row.

    Attributes
    ----------
    crops
        (N, 2, S, S) uint8, memory-mapped: nucleus and protein.
    index
        One row a crop: at least ``source``, ``field``, ``cell``, ``localizations`` (joined by ``|``),
        ``accession``, ``cell_line``, ``split``.
    """

    crops: Bytes
    index: pl.DataFrame

    def rows(self, **equal: str) -> Ints:
        """Row numbers where every named column has the given value."""
        matches = pl.all_horizontal(pl.col(name) == value for name, value in equal.items())
        return self.index.select(pl.arg_where(matches)).to_series().to_numpy().astype(np.int64)

    def images(self, rows: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Read the crops of some rows: (n, 2, S, S) float32 in [0, 1], nucleus and protein."""
        return np.asarray(self.crops[np.asarray(rows, np.int64)] / np.float32(255), np.float32)


def write_crops(
    folder: Path, crops: Iterable[Bytes], rows: Iterable[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Write a crop store of pairs (2, S, S) and, when these have come to an end, their rows.

    One that is there is replaced. Nothing is kept of one that does not come to its end.
    """
    with StoreDraft(folder, {}, overwrite=True) as draft:
        for pair in crops:
            draft.add_crops(pair[None])
        draft.add_rows(rows)
        draft.finish(manifest)


def open_crops(folder: Path) -> CropStore:
    """Open a crop store.

    Raises
    ------
    InputError
        If the folder holds no complete crop store, or its table and its crops do not fit.
    """
    if not (folder / MANIFEST).exists():
        raise InputError(f"'{folder}' is not a complete crop store: it has no {MANIFEST}; prepare it again.")
    try:
        crops, index = np.load(folder / CROPS, mmap_mode="r"), pl.read_parquet(folder / INDEX)
    except (FileNotFoundError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"Crop store '{folder}' is damaged ({error}); prepare it again.") from None
    if len(crops) != len(index):
        raise InputError(
            f"Crop store '{folder}' is damaged: {len(crops):,} crops, {len(index):,} rows; prepare it again."
        )
    return CropStore(crops, index)


def sample(store: CropStore, count: int, seed: int) -> Ints:
    """Draw rows by chance, fields in turn, so that a field of many nuclei does not take all the room.

    Returns
    -------
    At most ``count`` row numbers, in the order of the store.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(store.index))
    fields = store.index["field"].to_numpy()[order]
    # How many crops of the same field come before each.
    by_field = np.argsort(fields, kind="stable")
    starts = np.unique(fields[by_field], return_index=True)[1]
    turn = np.empty(len(order), np.int64)
    turn[by_field] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])
