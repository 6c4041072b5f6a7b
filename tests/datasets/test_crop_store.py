import json

import numpy as np
import pytest

from deepgps.datasets.crops.store import MANIFEST, open_crops, write_crops
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


def test_crops_and_rows_come_back_in_order(folder):
    store = open_crops(folder)
    np.testing.assert_array_equal(store.crops, CROPS)
    assert store.index.to_dicts() == ROWS
    assert json.loads((folder / MANIFEST).read_text()) == {"size_px": 8}


def test_crops_stay_on_disk_until_they_are_asked_for(folder):
    assert isinstance(open_crops(folder).crops, np.memmap)


def test_rows_are_found_by_what_they_hold(folder):
    store = open_crops(folder)
    assert store.rows(split="train").tolist() == [0, 1, 3]
    assert store.rows(split="train", source="a").tolist() == [0, 3]
    assert store.rows(source="c").tolist() == []


def test_a_store_that_is_not_there_or_not_complete_is_refused(folder, tmp_path):
    (folder / MANIFEST).unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="is not a complete crop store: it has no manifest"):
            open_crops(path)


def test_a_store_half_rewritten_is_not_complete(folder):
    def dies():
        yield CROPS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(folder, dies(), ROWS, {"size_px": 8})
    with pytest.raises(InputError, match="not a complete"):
        open_crops(folder)
