"""Images as one Zarr store: an array of all rows, where files would be too many."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.errors import InputError, MissingExtraError
from deepgps.images.cell import Cell
from deepgps.results.rows import FULL_SCALE, Row, as_bytes
from deepgps.results.table import Record

STORE = "images.zarr"
TOGETHER = 16
"""Images of a chunk: 0.2 MB of a file, and milliseconds to read one of them."""
LEVEL = 3


class ImageArray:
    """The store ``images.zarr`` of a run: image ``i`` of ``protein`` is that of row ``i`` of the table.

    Parameters
    ----------
    folder
        The run's folder.
    cells
        The cells that each protein is drawn into, in order.
    done
        Rows whose images an earlier call wrote; those behind are given up.
    mean
        Whether images are means of all that could be; the store says so.

    Raises
    ------
    MissingExtraError
        If there is no ``zarr``.
    InputError
        If the store has not all of those.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], done: int, *, mean: bool) -> None:
        path, self._rows = folder / STORE, done
        _sweep(path)
        self._array = _opened(path, cells, mean=mean)
        found = self._array.shape[0]
        if found < done:
            raise InputError(
                f"'{path}' has {found:,} images for {done:,} rows of the table; "
                "use --overwrite to start anew, or another --out."
            )
        self._resize(done)

    @property
    def room(self) -> int:
        """Rows to write at once, so that a chunk is written once."""
        return TOGETHER - self._rows % TOGETHER

    def pass_over(self, record: Record) -> None:
        """Do nothing: a row's image is found by its number."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write the images of further rows, and name each by its number."""
        start = self._rows
        self._resize(start + len(rows))
        self._array[start:] = np.stack([np.asarray(row.content) for row in rows])
        for number, row in enumerate(rows, start=start):
            row.record["images"] = str(number)
        self._rows += len(rows)

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]))


def check_zarr() -> None:
    """See that Zarr stores can be written.

    Raises
    ------
    MissingExtraError
        If not.
    """
    try:
        import zarr  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--image-format zarr needs '{error.name}', which is not installed: pip install 'deepgps[scale]'."
        ) from None


def remove_store(folder: Path) -> None:
    """Remove the store from a run's folder."""
    if (folder / STORE / "zarr.json").is_file() and not (folder / STORE).is_symlink():
        shutil.rmtree(folder / STORE)


def _opened(path: Path, cells: Sequence[Cell], *, mean: bool) -> Any:
    """Open the array of images, or make the store; the nuclei come first, and the array last."""
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.open_group(path, mode="a", zarr_format=3)
    if "protein" in group:
        return group["protein"]
    drawn = as_bytes(np.stack([cell.nucleus for cell in cells]))
    group.create_array("nucleus", data=drawn, overwrite=True)
    group.attrs.update(
        {
            "nuclei": [cell.name for cell in cells],
            "pixel_size_um": cells[0].pixel_size_um,
            "full_scale": FULL_SCALE,
            "mean": mean,
        }
    )
    return group.create_array(
        "protein",
        shape=(0, *drawn.shape[1:]),
        chunks=(TOGETHER, *drawn.shape[1:]),
        dtype=np.uint8,
        compressors=ZstdCodec(level=LEVEL),
        dimension_names=("row", "y", "x"),
    )


def _sweep(path: Path) -> None:
    """Remove what a killed run left half-written."""
    with suppress(OSError):
        for draft in path.rglob("*.partial"):
            draft.unlink(missing_ok=True)
