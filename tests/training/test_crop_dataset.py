import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepgps.datasets.crops.store import write_crops
from deepgps.errors import InputError
from deepgps.training.crop_dataset import CropDataset

CROPS = np.random.default_rng(0).integers(0, 256, (6, 2, 8, 8), np.uint8)


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"protein_id": f"ENSG{n}", "localizations": "er|golgi", "split": "train" if n % 2 else "test"}
        for n in range(len(CROPS))
    ]
    write_crops(tmp_path, CROPS, rows, {})
    return tmp_path


def test_a_sample_is_a_nucleus_a_protein_image_and_what_it_shows(folder):
    dataset = CropDataset(folder)
    sample = dataset[4]
    assert len(dataset) == 6
    assert (sample.protein_id, sample.localizations) == ("ENSG4", "er|golgi")
    assert sample.nucleus.dtype == torch.float32
    np.testing.assert_allclose(sample.nucleus.numpy(), CROPS[4, :1] / 255, atol=1e-6)
    np.testing.assert_allclose(sample.protein.numpy(), CROPS[4, 1:] / 255, atol=1e-6)


def test_only_some_rows(folder):
    assert CropDataset(folder, split="train").protein_ids == ["ENSG1", "ENSG3", "ENSG5"]


def test_workers_open_the_store_themselves(folder):
    dataset = CropDataset(folder, split="test")
    assert len(pickle.dumps(dataset)) < CROPS.nbytes + 1500
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._store is None
    torch.testing.assert_close(copy[1].nucleus, dataset[1].nucleus)


def test_batches(folder):
    batches = list(DataLoader(CropDataset(folder), batch_size=4, num_workers=1))
    assert [batch.nucleus.shape for batch in batches] == [(4, 1, 8, 8), (2, 1, 8, 8)]
    assert list(batches[1].protein_id) == ["ENSG4", "ENSG5"]


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a complete crop store"):
        CropDataset(tmp_path)
