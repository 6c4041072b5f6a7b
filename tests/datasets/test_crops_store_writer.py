"""The writer of crop stores, killed before, during and after each change on disk."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from deepgps.datasets.crops.store import CROPS, CROPS_INDEX, CROPS_MANIFEST, CropStoreWriter, open_crops
from deepgps.errors import InputError
from deepgps.files import AppendFile

INPUTS = {"list of fields": "abc", "settings": {"size_px": 8}}
# Number of crops of each field; the third is left out.
FIELDS = (2, 3, 0, 1)
SCHEMA = {"field": pl.String, "number": pl.Int32, "split": pl.String}


def crops_of(field: int) -> np.ndarray:
    return np.random.default_rng(field).integers(0, 256, (FIELDS[field], 2, 8, 8), np.uint8)


def write(folder: Path, fields: int = len(FIELDS), inputs=INPUTS, **options) -> int:
    """Write or resume a store; return how many fields were finished before, or -1 if all were."""
    with CropStoreWriter(folder, inputs, **options) as writer:
        done = writer.done
        if writer.complete:
            return -1
        for field in range(done, fields):
            rows = [{"field": f"f{field}", "number": n, "split": None} for n in range(FIELDS[field])]
            problem = None if FIELDS[field] else "It cannot be read."
            writer.add(crops_of(field), rows, {"field": f"f{field}", "problem": problem})
        if fields == len(FIELDS):
            writer.finish({"size_px": 8}, SCHEMA)
        return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".deepgps.lock"}


@pytest.fixture(scope="module")
def complete_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete_store") / "store"
    assert write(folder) == 0
    return folder


def test_a_finished_store_has_no_drafts(complete_store):
    assert set(content(complete_store)) == {CROPS, CROPS_INDEX, CROPS_MANIFEST}
    store = open_crops(complete_store)
    np.testing.assert_array_equal(store.crops, np.concatenate([crops_of(field) for field in range(4)]))
    assert store.index["field"].to_list() == ["f0"] * 2 + ["f1"] * 3 + ["f3"]
    assert store.index.schema["split"] == pl.String


def snapshots(folder: Path, copies: Path, monkeypatch) -> list[Path]:
    """Write a store, and copy the folder before, during and after each write or rename."""
    copied: list[Path] = []

    def copy() -> None:
        copied.append(copies / str(len(copied)))
        shutil.copytree(folder, copied[-1])

    def append(self, record, original=AppendFile.append):
        copy()
        handle = self.path.open("ab")
        handle.write(record[: len(record) // 2])
        handle.close()
        copy()
        with self.path.open("r+b") as file:
            file.truncate(self._end)
        original(self, record)

    def replace(self, target, original=Path.replace):
        copy()
        result = original(self, target)
        copy()
        return result

    def unlink(self, missing_ok=False, original=Path.unlink):
        original(self, missing_ok=missing_ok)
        copy()

    monkeypatch.setattr(AppendFile, "append", append)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlink)
    write(folder)
    monkeypatch.undo()
    return copied


def test_a_run_killed_at_any_time_is_resumed_to_the_same_store(complete_store, tmp_path, monkeypatch):
    copied = snapshots(tmp_path / "store", tmp_path / "copies", monkeypatch)
    assert len(copied) > 40
    resumed = [write(copy) for copy in copied]
    assert {0, 1, 2, 3, 4, -1} == set(resumed)
    assert [copy.name for copy in copied if content(copy) != content(complete_store)] == []


def test_a_store_is_complete_or_refused_at_any_time(tmp_path, monkeypatch):
    for copy in snapshots(tmp_path / "store", tmp_path / "copies", monkeypatch):
        if (copy / CROPS_MANIFEST).exists():
            assert len(open_crops(copy).crops) == sum(FIELDS)
        else:
            with pytest.raises(InputError, match="not a complete"):
                open_crops(copy)


def test_a_field_whose_data_is_lost_is_written_again(complete_store, tmp_path):
    write(tmp_path, fields=3)
    crops = tmp_path / f".deepgps-{CROPS}"
    with crops.open("r+b") as file:
        file.truncate(crops.stat().st_size - 1)
    assert write(tmp_path) == 1
    assert content(tmp_path) == content(complete_store)


def test_a_finished_store_is_unchanged(complete_store):
    before = content(complete_store)
    assert write(complete_store) == -1
    assert content(complete_store) == before


@pytest.mark.parametrize("fields", [2, 4])
def test_a_store_of_other_inputs_is_refused_or_overwritten(complete_store, tmp_path, fields):
    write(tmp_path, fields=fields, inputs={**INPUTS, "settings": {"size_px": 9}})
    with pytest.raises(InputError, match="made with another settings; use --overwrite"):
        write(tmp_path)
    write(tmp_path, overwrite=True)
    assert content(tmp_path)[CROPS] == content(complete_store)[CROPS]


def test_crops_of_unknown_origin_are_not_overwritten(tmp_path):
    (tmp_path / CROPS).write_bytes(b"mine")
    with pytest.raises(InputError, match="nothing to resume from"):
        write(tmp_path)
    assert content(tmp_path) == {CROPS: b"mine"}


def test_a_store_has_one_writer_at_a_time(tmp_path):
    with (
        CropStoreWriter(tmp_path, INPUTS),
        pytest.raises(InputError, match="Another deepGPS process is writing"),
        CropStoreWriter(tmp_path, INPUTS),
    ):
        pass
    write(tmp_path)


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "store").touch()
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "store")
