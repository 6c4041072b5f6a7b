"""Where a run keeps its images: two files for each row, or one Zarr store for all rows."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Bytes, Floats
from deepgps.errors import InputError, MissingExtraError
from deepgps.files import (
    UniqueNames,
    flush_to_disk,
    remove_temporary_files,
    safe_file_name,
    temporary_path,
    write_durably,
)
from deepgps.images.cell import Cell
from deepgps.images.ome_zarr import ome_metadata
from deepgps.results.records import Record, ResultRow, read_records

IMAGE_FOLDER = "images"
IMAGE_EXTENSIONS = (".png", ".ome.tif")
_ENDS = {".png": (b"\x89PNG", b"IEND\xaeB`\x82"), ".ome.tif": (b"II", b"")}

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

    def skip(self, record: Record) -> str:
        """Return the images' name of a row that an earlier call wrote; call it once per row, in order."""
        return self._names.add(record["protein_id"], record["nucleus"])

    def has(self, row: int, name: str) -> bool:
        """Return whether the images of a row are there, and whole as far as their size and ends tell."""
        return all(
            _is_whole(self._folder / f"{name}{extension}", *_ENDS[extension])
            for extension in IMAGE_EXTENSIONS
        )

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Write the images of further rows, and name them in the records."""
        for record, image in rows:
            name = self._names.add(record["protein_id"], record["nucleus"])
            record["images"] = name
            self._write(name, image)
        flush_to_disk(self._folder)

    def write_again(self, row: int, name: str, image: tuple[bytes, bytes] | Bytes | None) -> None:
        """Write the images of a row that an earlier call has finished."""
        self._write(name, image)
        flush_to_disk(self._folder)

    def _write(self, name: str, image: tuple[bytes, bytes] | Bytes | None) -> None:
        for extension, content in zip(IMAGE_EXTENSIONS, image or (), strict=True):
            path = self._folder / f"{name}{extension}"
            write_durably(temporary_path(path), content)
            temporary_path(path).replace(path)


def _is_whole(path: Path, start: bytes, end: bytes) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(len(start)) != start:
                return False
            file.seek(-max(1, len(end)), os.SEEK_END)
            return file.read().endswith(end)
    except OSError:
        return False


class ImageStore:
    """The Zarr store ``images.zarr`` of a run: image ``i`` of ``protein`` belongs to row ``i`` of the table.

    Parameters
    ----------
    folder
        The run's folder.
    cells
        The cells that each protein is drawn into, in order.
    mean
        Whether images are mean images; recorded in the store.

    Attributes
    ----------
    rows
        Rows whose images it has.

    Raises
    ------
    MissingExtraError
        If ``zarr`` is not installed.
    InputError
        If the store cannot be read.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], *, mean: bool) -> None:
        self._path, self._skipped = folder / IMAGE_STORE, 0
        _remove_partial_chunks(self._path)
        try:
            self._array = _open_array(self._path, cells, mean=mean)
            self.rows = int(self._array.shape[0])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"'{self._path}' cannot be read ({error}); use --overwrite to start again, or another --out."
            ) from None

    @property
    def batch_size(self) -> int:
        """Rows to write at once, so that each chunk is written once."""
        return STORE_CHUNK - self.rows % STORE_CHUNK

    def cut(self, rows: int) -> None:
        """Discard the images behind a number of rows."""
        self._resize(rows)
        self.rows = rows

    def skip(self, record: Record) -> str:
        """Return the name of the image of a row that an earlier call wrote: its number."""
        self._skipped += 1
        return str(self._skipped - 1)

    def has(self, row: int, name: str) -> bool:
        """Return whether the chunk of a row's image is there; Zarr reads a missing one as zeros."""
        try:
            return self._chunk(row).stat().st_size > 0
        except OSError:
            return False

    def _chunk(self, row: int) -> Path:
        return self._path / "protein" / "c" / str(row // STORE_CHUNK) / "0" / "0"

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Write the images of further rows, and name each by its number."""
        start = self.rows
        self._resize(start + len(rows))
        self._array[start:] = np.stack([np.asarray(row.image) for row in rows])
        for number, row in enumerate(rows, start=start):
            row.record["images"] = str(number)
        self.rows += len(rows)
        self._flush(start)

    def write_again(self, row: int, name: str, image: tuple[bytes, bytes] | Bytes | None) -> None:
        """Write the image of a row that an earlier call has finished."""
        if not self.has(row, name):
            # Zarr cannot read an empty chunk, and writes its other images as zeros: they are written next.
            self._chunk(row).unlink(missing_ok=True)
        self._array[row] = np.asarray(image)
        self._flush(row)

    def _flush(self, row: int) -> None:
        # Chunks of nothing but zeros are not written.
        if (chunk := self._chunk(row)).is_file():
            flush_to_disk(chunk)
            flush_to_disk(chunk.parent)

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
    group.create_array("nucleus", data=nuclei, overwrite=True, dimension_names=("cell", "y", "x"))
    group.attrs.update(
        {
            "nuclei": [cell.name for cell in cells],
            "pixel_size_um": cells[0].pixel_size_um,
            "full_scale": STORE_SCALE,
            "mean": mean,
            "ome": ome_metadata({"protein": "row", "nucleus": "cell"}, cells[0].pixel_size_um),
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
