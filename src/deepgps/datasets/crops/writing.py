"""How a crop store comes to be: files that only grow, and a store at once when all is there.

While it grows, the folder holds hidden drafts: the crops, one line for each of their rows, and a journal with
one line for each finished field. What the journal does not know of is cut off when a killed run goes on, so
that no field is lost and none is there twice.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from itertools import accumulate, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.lib import format as npy

from deepgps.arrays import Bytes
from deepgps.errors import InputError
from deepgps.files import (
    TEMPORARY_PREFIX,
    AppendFile,
    atomic_path,
    lock_folder,
    offset_after,
    record_ends,
    temporary_path,
)

CROPS, INDEX, MANIFEST = "crops.npy", "index.parquet", "manifest.json"
_ROWS, _JOURNAL, _BEGUN = (
    f"{TEMPORARY_PREFIX}rows.jsonl",
    f"{TEMPORARY_PREFIX}fields.jsonl",
    f"{TEMPORARY_PREFIX}begun.json",
)


class StoreDraft:
    """A crop store on its way; use it in a ``with`` block.

    Parameters
    ----------
    folder
        The store's folder; made if missing.
    inputs
        What it is made of; a draft of the same is continued, a draft or store of anything else refused.
        Empty: a draft is never continued.
    overwrite
        Remove what an earlier run left, finished or not, and start anew.

    Attributes
    ----------
    done
        Fields that an earlier run finished.
    complete
        Whether the store is there already.

    Raises
    ------
    InputError
        If another process writes to the folder, or it holds anything made of other inputs.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file; give --out a folder.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.inputs = folder, dict(inputs)
        self._lock = lock_folder(folder)
        self._files: list[AppendFile] = []
        try:
            self._begin(overwrite=overwrite)
        except BaseException:
            self._close()
            raise

    def _begin(self, *, overwrite: bool) -> None:
        if overwrite:
            self._remove(MANIFEST, CROPS, INDEX, *self._drafts)
        self.done, self.crops, self.complete = 0, 0, False
        if manifest := _read_json(self.folder / MANIFEST):
            self._check_same(manifest.get("inputs"))
            self.complete = True
            self._remove(*self._drafts)
            return
        if begun := _read_json(self.folder / _BEGUN):
            self._check_same(begun)
        else:
            self._check_free()
            with atomic_path(self.folder / _BEGUN) as draft:
                draft.write_text(json.dumps(self.inputs), encoding="utf-8")
        self._unpublish()
        self._open()

    @property
    def _drafts(self) -> tuple[str, ...]:
        return (_BEGUN, _JOURNAL, _ROWS, temporary_path(Path(CROPS)).name, temporary_path(Path(INDEX)).name)

    def _open(self) -> None:
        """Cut the drafts back to the last field that is whole in all of them, and open them to append."""
        crops, rows, journal = (
            self.folder / name for name in (temporary_path(Path(CROPS)).name, _ROWS, _JOURNAL)
        )
        ends = list(accumulate(int(record["crops"]) for record in self.fields()))
        header, size = _shape(crops)
        whole = sum(1 for _ in record_ends(rows, quoted=False))
        whole = min(whole, (crops.stat().st_size - header) // size) if size else 0
        kept = list(takewhile(lambda end: end <= whole, ends))
        self.done, self.crops = len(kept), kept[-1] if kept else 0
        self._header = header
        self._pixels = AppendFile(crops, header + self.crops * size if size else 0)
        self._rows = AppendFile(rows, offset_after(rows, self.crops, quoted=False))
        self._journal = AppendFile(journal, offset_after(journal, self.done, quoted=False))
        self._files = [self._pixels, self._rows, self._journal]

    def fields(self) -> Iterator[dict[str, Any]]:
        """Read the journal: a record of each field that is done, in order; a torn last one is left out."""
        journal = self.folder / _JOURNAL
        end = max(record_ends(journal, quoted=False), default=0)
        if not end:
            return
        with journal.open("rb") as lines:
            while lines.tell() < end:
                yield json.loads(lines.readline())

    def add(self, crops: Bytes, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
        """Append the crops of one field (n, 2, S, S) and their rows; its record, last, makes them count."""
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
        """Append rows of crops."""
        for row in rows:
            self._rows.append(_line(row))

    def finish(self, manifest: dict[str, Any], schema: Mapping[str, Any] | None = None) -> None:
        """Make a store of it: crops, table, and last the manifest.

        Parameters
        ----------
        manifest
            What else it should say.
        schema
            The table's columns; told from the rows where it is not given.
        """
        for each in self._files:
            each.close()
        crops, index = temporary_path(self.folder / CROPS), temporary_path(self.folder / INDEX)
        with crops.open("r+b") as file:
            npy.read_magic(file)
            shape, _, _ = npy.read_array_header_1_0(file)
            file.seek(0)
            file.write(_npy_header(self.crops, shape[1:]))
            file.flush()
            os.fsync(file.fileno())
        table = pl.scan_ndjson(self.folder / _ROWS, schema=schema, infer_schema_length=None)
        table.sink_parquet(index)
        crops.replace(self.folder / CROPS)
        index.replace(self.folder / INDEX)
        document = {**manifest, "inputs": self.inputs} if self.inputs else manifest
        with atomic_path(self.folder / MANIFEST) as draft:
            draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        self._remove(*self._drafts)

    def _unpublish(self) -> None:
        """Take back the crops that a run published just before it was killed."""
        draft, published = temporary_path(self.folder / CROPS), self.folder / CROPS
        if published.exists() and not draft.exists():
            published.replace(draft)

    def _check_same(self, earlier: Any) -> None:
        if earlier != self.inputs or not self.inputs:
            different = [name for name in self.inputs if (earlier or {}).get(name) != self.inputs[name]]
            raise InputError(
                f"'{self.folder}' holds crops made with another {' and '.join(different) or 'input'}; "
                "use --overwrite to start anew, or another --out."
            )

    def _check_free(self) -> None:
        for name in (CROPS, INDEX):
            if (self.folder / name).exists():
                raise InputError(
                    f"'{self.folder}' holds a {name} but nothing to continue from; "
                    "use --overwrite to start anew, or another --out."
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
    """The head of a .npy file; NumPy leaves room in it, so that its length is the same for any count."""
    head = BytesIO()
    npy.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return head.getvalue()


def _shape(crops: Path) -> tuple[int, int]:
    """Bytes of the header of a draft, and of each crop in it; zeros where not even the header is whole."""
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
