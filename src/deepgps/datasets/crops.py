"""The crop store: pairs of nucleus and protein crops in one memory-mapped array beside a table.

A folder with ``crops.npy`` (N, 2, S, S) uint8, channel 0 the nucleus and channel 1 the protein, 0-255
standing for [0, 1]; ``index.parquet``, one row a crop; and ``manifest.json``, written last.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deepgps.errors import InputError

CROPS, INDEX, MANIFEST = "crops.npy", "index.parquet", "manifest.json"


@dataclass(frozen=True, slots=True, eq=False)
class CropStore:
    """Crops and their table, row by row.

    Attributes
    ----------
    crops
        (N, 2, S, S) uint8, memory-mapped: nucleus and protein.
    index
        One row a crop: ``source``, ``field``, ``group``, ``cell``, ``localizations`` (joined by ``|``),
        ``accession``, ``cell_line``, ``split``.
    """

    crops: NDArray[np.uint8]
    index: pl.DataFrame

    def rows(self, **equal: str) -> NDArray[np.int64]:
        """Row numbers where every named column has the given value."""
        matches = pl.all_horizontal(pl.col(name) == value for name, value in equal.items())
        return self.index.select(pl.arg_where(matches)).to_series().to_numpy().astype(np.int64)


def write_crops(
    folder: Path, crops: Iterable[NDArray[np.uint8]], rows: Iterable[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Write a crop store of pairs (2, S, S) and their rows; the manifest comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    np.save(folder / CROPS, np.stack(list(crops)))
    pl.DataFrame(list(rows)).write_parquet(folder / INDEX)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def open_crops(folder: Path) -> CropStore:
    """Open a crop store.

    Raises
    ------
    InputError
        If the folder holds no complete crop store.
    """
    if not (folder / MANIFEST).exists():
        raise InputError(f"'{folder}' is not a complete crop store: it has no {MANIFEST}; prepare it again.")
    return CropStore(np.load(folder / CROPS, mmap_mode="r"), pl.read_parquet(folder / INDEX))
