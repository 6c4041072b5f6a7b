"""The crop store: pairs of nucleus and protein crops in a memory-mapped array, with a table.

A folder with ``crops.npy`` (N, 2, S, S) uint8, channel 0 the nucleus and channel 1 the protein, 0-255 for
[0, 1]; ``index.parquet``, one row per crop; and ``manifest.json``, written last.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Floats, Ints
from deepgps.errors import InputError
from deepgps.files import (
    TEMPORARY_PREFIX,
    AppendFile,
    atomic_path,
    hash_file,
    hash_files,
    lock_folder,
    offset_after,
    record_ends,
    temporary_path,
)

CROPS, CROPS_INDEX, CROPS_MANIFEST = "crops.npy", "index.parquet", "manifest.json"
PROTEINS = "proteins.parquet"
HASHES = "sha256"
"""Field of the manifest: the sha256 of each file of the store, by name."""
_FILES = (CROPS, CROPS_INDEX, PROTEINS)
_DRAFT_ROWS, _JOURNAL, _DRAFT_INPUTS = (
    f"{TEMPORARY_PREFIX}rows.jsonl",
    f"{TEMPORARY_PREFIX}fields.jsonl",
    f"{TEMPORARY_PREFIX}begun.json",
)


class CropStoreWriter:
    """Writes a crop store field by field, and resumes an interrupted one; use it in a ``with`` block.

    Parameters
    ----------
    folder
        Folder of the store; created if missing.
    inputs
        What determines the crops: an unfinished store of the same inputs is resumed, one of other inputs
        refused. If empty, nothing is resumed.
    overwrite
        Remove what an earlier run left, finished or not, and start again.

    Attributes
    ----------
    done
        Number of finished fields, those of earlier runs included.
    complete
        Whether an earlier run has finished the store.

    Raises
    ------
    InputError
        If another process writes to the folder, or the folder contains crops made from other inputs.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file; give --out a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.inputs = folder, dict(inputs)
        self._lock = lock_folder(folder)
        self._files: list[AppendFile] = []
        try:
            self._prepare(overwrite=overwrite)
        except BaseException:
            self._close()
            raise

    def _prepare(self, *, overwrite: bool) -> None:
        if overwrite:
            self._remove(CROPS_MANIFEST, CROPS, CROPS_INDEX, *self._drafts)
        self.done, self.crops, self.complete = 0, 0, False
        if manifest := _read_json(self.folder / CROPS_MANIFEST):
            self._check_same(manifest.get("inputs"))
            self.complete = True
            self._remove(*self._drafts)
            return
        if earlier := _read_json(self.folder / _DRAFT_INPUTS):
            self._check_same(earlier)
        else:
            self._check_empty()
            with atomic_path(self.folder / _DRAFT_INPUTS) as draft:
                draft.write_text(json.dumps(self.inputs), encoding="utf-8")
        self._restore_draft()
        self._open_drafts()

    @property
    def _drafts(self) -> tuple[str, ...]:
        return (
            _DRAFT_INPUTS,
            _JOURNAL,
            _DRAFT_ROWS,
            temporary_path(Path(CROPS)).name,
            temporary_path(Path(CROPS_INDEX)).name,
        )

    def _open_drafts(self) -> None:
        """Truncate the drafts to the last field that is complete in all of them, and open them to append."""
        crops, rows, journal = (
            self.folder / name for name in (temporary_path(Path(CROPS)).name, _DRAFT_ROWS, _JOURNAL)
        )
        ends = list(accumulate(int(record["crops"]) for record in self.fields()))
        header, size = _header_and_crop_bytes(crops)
        complete = sum(1 for _ in record_ends(rows, quoted=False))
        complete = min(complete, (crops.stat().st_size - header) // size) if size else 0
        kept = list(takewhile(lambda end: end <= complete, ends))
        self.done, self.crops = len(kept), kept[-1] if kept else 0
        self._header = header
        self._pixels = AppendFile(crops, header + self.crops * size if size else 0)
        self._rows = AppendFile(rows, offset_after(rows, self.crops, quoted=False))
        self._journal = AppendFile(journal, offset_after(journal, self.done, quoted=False))
        self._files = [self._pixels, self._rows, self._journal]

    def fields(self) -> Iterator[dict[str, Any]]:
        """Yield the records of the finished fields, in order; an incomplete last one is skipped."""
        journal = self.folder / _JOURNAL
        end = max(record_ends(journal, quoted=False), default=0)
        if not end:
            return
        with journal.open("rb") as lines:
            while lines.tell() < end:
                yield json.loads(lines.readline())

    def add(self, crops: Bytes, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
        """Append the crops of a field (n, 2, S, S), their rows, and last its record, which completes it."""
        self.add_crops(crops)
        self.add_rows(rows)
        self._journal.append(_line({**record, "crops": len(crops)}))
        self.done += 1

    def add_crops(self, crops: Bytes) -> None:
        """Append crops (n, 2, S, S) without their rows."""
        if not len(crops):
            return
        if not self._header:
            header = _npy_header(0, crops.shape[1:])
            self._pixels.append(header)
            self._header = len(header)
        self._pixels.append(np.ascontiguousarray(crops).tobytes())
        self.crops += len(crops)

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows to the table."""
        for row in rows:
            self._rows.append(_line(row))

    def finish(self, manifest: dict[str, Any], schema: Mapping[str, Any] | None = None) -> None:
        """Finish the store: write crops, table, and last the manifest.

        Parameters
        ----------
        manifest
            Further entries of the manifest.
        schema
            Columns of the table; inferred from the rows by default.
        """
        for file in self._files:
            file.close()
        crops, index = temporary_path(self.folder / CROPS), temporary_path(self.folder / CROPS_INDEX)
        with crops.open("r+b") as array:
            npy.read_magic(array)
            shape, _, _ = npy.read_array_header_1_0(array)
            array.seek(0)
            array.write(_npy_header(self.crops, shape[1:]))
            array.flush()
            os.fsync(array.fileno())
        table = pl.scan_ndjson(self.folder / _DRAFT_ROWS, schema=schema, infer_schema_length=None)
        table.sink_parquet(index)
        crops.replace(self.folder / CROPS)
        index.replace(self.folder / CROPS_INDEX)
        document = {**manifest, "inputs": self.inputs} if self.inputs else dict(manifest)
        document[HASHES] = hash_files(path for name in _FILES if (path := self.folder / name).exists())
        with atomic_path(self.folder / CROPS_MANIFEST) as draft:
            draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._remove(*self._drafts)

    def _restore_draft(self) -> None:
        """Turn crops back into a draft if a run was killed between renaming them and the manifest."""
        draft, published = temporary_path(self.folder / CROPS), self.folder / CROPS
        if published.exists() and not draft.exists():
            published.replace(draft)

    def _check_same(self, earlier: Any) -> None:
        if earlier != self.inputs or not self.inputs:
            different = [name for name in self.inputs if (earlier or {}).get(name) != self.inputs[name]]
            raise InputError(
                f"'{self.folder}' holds crops made with another {' and '.join(different) or 'input'}; "
                "use --overwrite to start again, or another --out."
            )

    def _check_empty(self) -> None:
        for name in (CROPS, CROPS_INDEX):
            if (self.folder / name).exists():
                raise InputError(
                    f"'{self.folder}' holds a {name} but nothing to resume from; "
                    "use --overwrite to start again, or another --out."
                )

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _close(self) -> None:
        for file in self._files:
            file.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if error is not None and not self.inputs:
            self._remove(*self._drafts)


def _npy_header(count: int, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file; NumPy pads it, so its length is the same for any count."""
    header = BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return header.getvalue()


def _header_and_crop_bytes(crops: Path) -> tuple[int, int]:
    """Return the bytes of the header of a draft, and of each crop; zeros if the header is incomplete."""
    try:
        with crops.open("rb") as file:
            npy.read_magic(file)
            shape, _, _ = npy.read_array_header_1_0(file)
            return file.tell(), int(np.prod(shape[1:]))
    except (FileNotFoundError, ValueError, EOFError):
        return 0, 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True, eq=False)
class CropStore:
    """Crops and their table, in the same order.

    Attributes
    ----------
    crops
        (N, 2, S, S) uint8, memory-mapped: nucleus and protein.
    index
        One row per crop: at least ``source``, ``field``, ``cell``, ``localizations`` (joined by ``|``),
        ``accession``, ``cell_line``, ``split``.
    """

    crops: Bytes
    index: pl.DataFrame

    def rows(self, **equal: str) -> Ints:
        """Return the numbers of the rows where every named column has the given value."""
        matches = pl.all_horizontal(pl.col(name) == value for name, value in equal.items())
        return self.index.select(pl.arg_where(matches)).to_series().to_numpy().astype(np.int64)

    def images(self, rows: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Return the crops of some rows: (n, 2, S, S) float32 in [0, 1], nucleus and protein."""
        return np.asarray(self.crops[np.asarray(rows, np.int64)] / np.float32(255), np.float32)


def write_crops(
    folder: Path, crops: Iterable[Bytes], rows: Iterable[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Write a crop store at once; replace an existing one, and leave nothing if it fails.

    Parameters
    ----------
    folder
        Folder of the store.
    crops
        Pairs (2, S, S) uint8.
    rows
        Rows of the table; read after all crops.
    manifest
        Entries of the manifest.
    """
    with CropStoreWriter(folder, {}, overwrite=True) as writer:
        for pair in crops:
            writer.add_crops(pair[None])
        writer.add_rows(rows)
        writer.finish(manifest)


def open_crops(folder: Path) -> CropStore:
    """Open a crop store.

    Returns
    -------
    CropStore
        The crops, memory-mapped, and their table.

    Raises
    ------
    InputError
        If the folder has no complete crop store, its table is not the one that was written, or its table and
        its crops differ in length. `check_crops` looks at the pixels, too.
    """
    hashes = _read_manifest(folder).get(HASHES)
    if isinstance(hashes, dict):
        _check_hash(folder, CROPS_INDEX, hashes)
    try:
        crops, index = np.load(folder / CROPS, mmap_mode="r"), pl.read_parquet(folder / CROPS_INDEX)
    except (FileNotFoundError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"Crop store '{folder}' is damaged ({error}); prepare it again.") from None
    if len(crops) != len(index):
        raise InputError(
            f"Crop store '{folder}' is damaged: {len(crops):,} crops, {len(index):,} rows; prepare it again."
        )
    return CropStore(crops, index)


def check_crops(folder: Path) -> dict[str, str]:
    """Check every byte of a crop store.

    Parameters
    ----------
    folder
        Folder of the store.

    Returns
    -------
    dict of str to str
        The sha256 of each file.

    Raises
    ------
    InputError
        If a file is missing or is not the one that was written, or the store was written by a version of
        deepGPS that noted no checksums.
    """
    open_crops(folder)
    hashes = _read_manifest(folder).get(HASHES)
    if not isinstance(hashes, dict):
        raise InputError(
            f"Crop store '{folder}' has no checksums, as this version of deepGPS notes; prepare it again."
        )
    for name in hashes:
        _check_hash(folder, name, hashes)
    return hashes


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / CROPS_MANIFEST).exists():
        raise InputError(
            f"'{folder}' is not a complete crop store: it has no {CROPS_MANIFEST}; prepare it again."
        )
    return _read_json(folder / CROPS_MANIFEST)


def _check_hash(folder: Path, name: str, hashes: Mapping[str, Any]) -> None:
    path = folder / name
    if name not in _FILES or not path.is_file():
        raise InputError(f"Crop store '{folder}' is damaged: '{name}' is missing; prepare it again.")
    if hash_file(path) != hashes.get(name):
        raise InputError(
            f"Crop store '{folder}' is damaged: '{name}' is not what was written; prepare it again."
        )


def sample_crops(store: CropStore, count: int, seed: int) -> Ints:
    """Choose random rows, as evenly over the fields as possible.

    Parameters
    ----------
    store
        The crop store.
    count
        Number of rows; all if there are fewer.
    seed
        Seed of the random choice.

    Returns
    -------
    (n,) int64
        Row numbers, in the order of the store.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(store.index))
    fields = store.index["field"].to_numpy()[order]
    # Number of crops of the same field before each.
    by_field = np.argsort(fields, kind="stable")
    starts = np.unique(fields[by_field], return_index=True)[1]
    rank = np.empty(len(order), np.int64)
    rank[by_field] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])


def write_store_proteins(table: Path, ids: Iterable[str], store: Path) -> None:
    """Write the rows of some proteins in the order of the table; of several rows of a protein, the last."""
    proteins = pl.read_parquet(table).with_columns(pl.col("protein_id").cast(pl.String))
    rows = proteins.filter(pl.col("protein_id").is_in(list(ids)))
    with atomic_path(store / PROTEINS) as draft:
        rows.unique("protein_id", keep="last", maintain_order=True).write_parquet(draft)


def read_store_proteins(store: Path) -> pl.DataFrame:
    """Read the proteins of a crop store.

    Returns
    -------
    DataFrame
        One row per protein, with the columns of the table that the store was prepared with.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    try:
        return pl.read_parquet(store / PROTEINS)
    except FileNotFoundError:
        raise InputError(
            f"Crop store '{store}' has no {PROTEINS}, the table of its proteins; prepare it with --overwrite."
        ) from None
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"'{store / PROTEINS}' is damaged ({error}); prepare the crops with --overwrite."
        ) from None
