import json

import numpy as np
import pytest

from deepgps.cli.app import run
from deepgps.datasets.crops.store import CROPS_MANIFEST, open_crops, write_crops
from deepgps.errors import InputError

CROPS = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8), np.uint8)
ROWS = [
    {"source": source, "split": split, "cell": f"{source}/{number}"}
    for number, (source, split) in enumerate([("a", "train"), ("b", "train"), ("a", "test"), ("a", "train")])
]


@pytest.fixture
def folder(tmp_path):
    write_crops(tmp_path / "crops", iter(CROPS), iter(ROWS), {"size_px": 8})
    return tmp_path / "crops"


def test_crops_and_rows_are_read_in_order(folder):
    store = open_crops(folder)
    np.testing.assert_array_equal(store.crops, CROPS)
    assert store.index.to_dicts() == ROWS
    manifest = json.loads((folder / CROPS_MANIFEST).read_text())
    assert manifest["size_px"] == 8
    assert set(manifest["sha256"]) == {"crops.npy", "index.parquet"}


def test_crops_are_memory_mapped(folder):
    assert isinstance(open_crops(folder).crops, np.memmap)


def test_rows_are_selected_by_their_values(folder):
    store = open_crops(folder)
    assert store.rows(split="train").tolist() == [0, 1, 3]
    assert store.rows(split="train", source="a").tolist() == [0, 3]
    assert store.rows(source="c").tolist() == []


def test_a_missing_or_incomplete_store_is_refused(folder, tmp_path):
    (folder / CROPS_MANIFEST).unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is not a complete crop store: it has no manifest"):
            open_crops(path)


def test_a_partly_rewritten_store_is_incomplete(folder):
    def interrupted():
        yield CROPS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(folder, interrupted(), ROWS, {"size_px": 8})
    with pytest.raises(InputError, match="not a complete"):
        open_crops(folder)


def test_a_store_with_another_table_is_refused(folder):
    other = folder.parent / "other"
    write_crops(other, iter(CROPS), iter(ROWS[::-1]), {"size_px": 8})
    (folder / "index.parquet").write_bytes((other / "index.parquet").read_bytes())
    with pytest.raises(InputError, match=r"'index\.parquet' is not what was written"):
        open_crops(folder)


def test_every_byte_of_a_store_is_checked(folder, capsys):
    assert run(["data", "check", str(folder)]) == 0
    assert "crops.npy" in capsys.readouterr().out
    path = folder / "crops.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_crops(folder)
    assert run(["data", "check", str(folder)]) == 2
    assert "'crops.npy' is not what was written; prepare it again" in capsys.readouterr().err


def test_a_store_without_checksums_opens_and_cannot_be_checked(folder, capsys):
    (folder / CROPS_MANIFEST).write_text('{"size_px": 8}')
    assert len(open_crops(folder).index) == 4
    assert run(["data", "check", str(folder)]) == 2
    assert "no checksums" in capsys.readouterr().err
