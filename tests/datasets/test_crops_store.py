import json

import numpy as np
import pytest

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
    assert json.loads((folder / CROPS_MANIFEST).read_text()) == {"size_px": 8}


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
