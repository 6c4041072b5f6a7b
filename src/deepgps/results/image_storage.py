"""Where a run keeps its images: two files for each row, or one Zarr store for all rows."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Bytes, Floats
from deepgps.errors import InputError, MissingExtraError
from deepgps.files import UniqueNames, remove_temporary_files, safe_file_name, temporary_path
from deepgps.images.cell import Cell
from deepgps.results.records import Record, ResultRow, read_records

IMAGE_FOLDER = "images"
IMAGE_EXTENSIONS = (".png", ".ome.tif")

IMAGE_STORE = "images.zarr"
STORE_SCALE = 255
"""The uint8 value that stands for 1.0 in a Zarr store."""
STORE_CHUNK = 16
"""Images in a chunk of a Zarr store: a file of 0.2 MB, from which one image is read in milliseconds."""
_ZSTD_LEVEL = 3


class ImageNames:
    """File names of images, without extension: the same for the same rows in the same order.

    Parameters
    ----------
    several_cells
        Whether proteins are drawn into several cells; names then have both ids, as in ``P1__hek-1``.
    """

    def __init__(self, *, several_cells: bool = False) -> None:
        self._several_cells = several_cells
        self._names = UniqueNames()

    def add(self, protein_id: str, cell_name: str | None = None) -> str:
        """Name the images of the next row."""
        ids = [protein_id, cell_name or ""] if self._several_cells else [protein_id]
        return self._names.add("__".join(map(safe_file_name, ids)))


class ImageFolder:
    """The folder ``images/`` of a run, with a PNG and an OME-TIFF for each row.

    Parameters
    ----------
    folder
        The run's folder.
    several_cells
        Whether proteins are drawn into several cells; see `ImageNames`.
    """

    batch_size = 1
    """Rows to write at once."""

    def __init__(self, folder: Path, *, several_cells: bool) -> None:
        self._folder = folder / IMAGE_FOLDER
        self._folder.mkdir(exist_ok=True)
        remove_temporary_files(self._folder)
        self._names = ImageNames(several_cells=several_cells)

    def skip(self, record: Record) -> None:
        """Skip a row whose images an earlier call wrote; call it once per row, in order."""
        self._names.add(record["protein_id"], record["nucleus"])

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Write the images of further rows, and name them in the records."""
        for record, image in rows:
            name = self._names.add(record["protein_id"], record["nucleus"])
            for extension, content in zip(IMAGE_EXTENSIONS, image or (), strict=True):
                path = self._folder / f"{name}{extension}"
                temporary_path(path).write_bytes(content)
                temporary_path(path).replace(path)
            record["images"] = name


class ImageStore:
    """The Zarr store ``images.zarr`` of a run: image ``i`` of ``protein`` belongs to row ``i`` of the table.

    Parameters
    ----------
    folder
        The run's folder.
    cells
        The cells that each protein is drawn into, in order.
    rows
        Rows whose images an earlier call wrote; images behind them are discarded.
    mean
        Whether images are mean images; recorded in the store.

    Raises
    ------
    MissingExtraError
        If ``zarr`` is not installed.
    InputError
        If the store has fewer images than rows.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], rows: int, *, mean: bool) -> None:
        path, self._rows = folder / IMAGE_STORE, rows
        _remove_partial_chunks(path)
        self._array = _open_array(path, cells, mean=mean)
        found = self._array.shape[0]
        if found < rows:
            raise InputError(
                f"'{path}' has {found:,} images for {rows:,} rows of the table; "
                "use --overwrite to start again, or another --out."
            )
        self._resize(rows)

    @property
    def batch_size(self) -> int:
        """Rows to write at once, so that each chunk is written once."""
        return STORE_CHUNK - self._rows % STORE_CHUNK

    def skip(self, record: Record) -> None:
        """Do nothing: the image of a row is found by its number."""

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Write the images of further rows, and name each by its number."""
        start = self._rows
        self._resize(start + len(rows))
        self._array[start:] = np.stack([np.asarray(row.image) for row in rows])
        for number, row in enumerate(rows, start=start):
            row.record["images"] = str(number)
        self._rows += len(rows)

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]))


def to_stored_pixels(pixels: Floats) -> Bytes:
    """Turn pixels in [0, 1] into uint8, with `STORE_SCALE` for 1."""
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * STORE_SCALE), np.uint8)


def check_zarr() -> None:
    """Check that Zarr stores can be written.

    Raises
    ------
    MissingExtraError
        If a library is missing.
    """
    try:
        import zarr  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--image-format zarr needs '{error.name}', which is not installed: pip install 'deepgps[scale]'."
        ) from None


def remove_images(folder: Path, records: Path) -> None:
    """Remove a run's images, and no other files, from its folder.

    Parameters
    ----------
    folder
        The run's folder.
    records
        The ``results.jsonl`` that names the images.
    """
    images, store = folder / IMAGE_FOLDER, folder / IMAGE_STORE
    for record in read_records(records):
        if name := record.get("images"):
            for extension in IMAGE_EXTENSIONS:
                # The name comes from a file that anyone may have edited: it must stay in its folder.
                (images / Path(name + extension).name).unlink(missing_ok=True)
    if images.is_dir():
        remove_temporary_files(images)
        # The folder stays if somebody keeps other files there.
        with suppress(OSError):
            images.rmdir()
    if (store / "zarr.json").is_file() and not store.is_symlink():
        shutil.rmtree(store)


def _open_array(path: Path, cells: Sequence[Cell], *, mean: bool) -> Any:
    """Open the array of images or make the store, the array last, so that it tells a complete store."""
    import zarr
    from zarr.codecs import ZstdCodec

    group = zarr.open_group(path, mode="a", zarr_format=3)
    if "protein" in group:
        return group["protein"]
    nuclei = to_stored_pixels(np.stack([cell.nucleus for cell in cells]))
    group.create_array("nucleus", data=nuclei, overwrite=True)
    group.attrs.update(
        {
            "nuclei": [cell.name for cell in cells],
            "pixel_size_um": cells[0].pixel_size_um,
            "full_scale": STORE_SCALE,
            "mean": mean,
        }
    )
    return group.create_array(
        "protein",
        shape=(0, *nuclei.shape[1:]),
        chunks=(STORE_CHUNK, *nuclei.shape[1:]),
        dtype=np.uint8,
        compressors=ZstdCodec(level=_ZSTD_LEVEL),
        dimension_names=("row", "y", "x"),
    )


def _remove_partial_chunks(path: Path) -> None:
    """Remove what a killed run left half-written."""
    with suppress(OSError):
        for draft in path.rglob("*.partial"):
            draft.unlink(missing_ok=True)
