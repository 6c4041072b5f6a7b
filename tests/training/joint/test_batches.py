from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepgps.training.joint.data import (
    ORIENTATIONS,
    BatchParts,
    balanced_rows,
    epoch_order,
    orient,
    read_batch,
    sample_evenly,
)
from deepgps.training.recipe import TrainingSettings

SIZE = 6


class Numbers:
    """The number of each protein is all there is to know."""

    def batch(self, proteins):
        return {"embedding": torch.from_numpy(np.asarray(proteins, np.float32))[:, None]}


def data(crops_of=(9, 3, 1, 5, 2), targets=((1, 0), (1, 0), (1, 0), (0, 1), (0, 1))):
    """Proteins with so many crops each; crops are numbered in their first pixel."""
    proteins = np.repeat(np.arange(len(crops_of)), crops_of)
    crops = np.random.default_rng(0).integers(0, 255, (len(proteins), 2, SIZE, SIZE), np.uint8)
    return SimpleNamespace(
        store=SimpleNamespace(crops=crops),
        targets=np.array(targets, np.float32),
        protein_of_row=proteins.astype(np.int64),
    )


def order(made, rows=None, **options):
    rows = np.arange(len(made.protein_of_row)) if rows is None else rows
    usual = {"batch_size": 4, "balanced": False, "augment": True, "seed": 7}
    epoch = options.pop("epoch", 0)
    return epoch_order(made, rows, epoch, TrainingSettings(**(usual | options)))


def test_cycling_takes_each_as_often():
    drawn = sample_evenly(np.arange(5), 23, np.random.default_rng(0))
    assert set(Counter(drawn.tolist()).values()) <= {4, 5}
    assert all(sorted(drawn[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, 20, 5))


def test_the_natural_order_takes_every_crop_once_but_for_an_incomplete_batch():
    made = order(data(), batch_size=6)
    assert made.rows.shape == made.orientations.shape == (3, 6)
    assert len(set(made.rows.ravel())) == 18


def test_fewer_crops_than_a_batch_still_make_one():
    made = order(data(), rows=np.array([1, 4, 5]), batch_size=8)
    assert made.rows.shape == (1, 8)
    assert set(Counter(made.rows.ravel().tolist()).values()) == {2, 3}


@pytest.mark.parametrize("many", [40, 400])
def test_balance_is_of_classes_then_of_proteins_then_of_crops(many):
    made = data()
    rows = np.arange(len(made.protein_of_row))
    drawn = balanced_rows(rows, made.protein_of_row, made.targets, many, [1])
    proteins = Counter(made.protein_of_row[drawn].tolist())
    first, second = (sum(proteins[p] for p in group) for group in ((0, 1, 2), (3, 4)))
    assert first == second == many // 2
    assert max(proteins[p] for p in (0, 1, 2)) - min(proteins[p] for p in (0, 1, 2)) <= 1
    assert abs(proteins[3] - proteins[4]) <= 1
    of_the_first = Counter(row for row in drawn.tolist() if made.protein_of_row[row] == 0)
    assert max(of_the_first.values()) - min(of_the_first.get(row, 0) for row in range(9)) <= 1


def test_balance_of_one_batch():
    made = order(data(), balanced=True)
    assert all(np.sum(made_of < 3) == 2 for made_of in data().protein_of_row[made.rows])


def test_balance_draws_from_the_given_rows_only_and_from_classes_that_are_there():
    made = data(targets=((1, 0, 0), (1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0)))
    rows = np.array([0, 1, 9, 13, 14])
    drawn = balanced_rows(rows, made.protein_of_row[rows], made.targets, 64, [3])
    assert set(drawn.tolist()) == set(rows.tolist())


def test_a_protein_of_two_classes_is_drawn_for_both():
    made = data(crops_of=(1, 1, 1), targets=((1, 1), (1, 0), (0, 1)))
    drawn = balanced_rows(np.arange(3), np.arange(3), made.targets, 40, [0])
    assert Counter(drawn.tolist()) == {0: 20, 1: 10, 2: 10}


@pytest.mark.parametrize("balanced", [True, False])
def test_an_epoch_is_the_same_each_time_and_another_is_another(balanced):
    first, again = (order(data(), balanced=balanced) for _ in range(2))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.orientations, again.orientations)
    for other in ({"epoch": 1}, {"seed": 8}):
        changed = order(data(), balanced=balanced, **other)
        assert not np.array_equal(first.rows, changed.rows)
        assert not np.array_equal(first.orientations, changed.orientations)


def test_without_augmentation_everything_is_as_it_was():
    made = data()
    batch = BatchParts(made, Numbers(), order(made, augment=False))[0]
    rows = order(made, augment=False).rows[0]
    assert np.array_equal(batch.pairs.numpy(), made.store.crops[rows])


def test_the_eight_ways_are_all_there_are_and_lay_both_images_alike():
    pair = np.random.default_rng(0).integers(0, 255, (2, 5, 5), np.uint8)
    ways = {orient(pair, way).tobytes() for way in range(ORIENTATIONS)}
    assert len(ways) == 8
    by_hand = {np.rot90(base, k, (1, 2)).tobytes() for base in (pair, pair[:, ::-1]) for k in range(4)}
    assert ways == by_hand
    same = np.stack([pair[0], pair[0]])
    assert all(np.array_equal(*orient(same, way)) for way in range(ORIENTATIONS))


def test_the_ways_are_drawn_alike():
    counts = np.bincount(
        order(data(crops_of=(800,) * 5), batch_size=40).orientations.ravel(), minlength=ORIENTATIONS
    )
    assert len(counts) == ORIENTATIONS
    assert counts.min() > 400


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 2), (2, 1), (2, 2), (4, 1), (1, 4)])
def test_parts_of_all_processes_make_the_same_batches(accumulate, processes):
    made = data()
    epoch = order(made, batch_size=4)
    whole = BatchParts(made, Numbers(), epoch)
    cut = [BatchParts(made, Numbers(), epoch, accumulate, rank, processes) for rank in range(processes)]
    assert {len(each) for each in cut} == {len(whole) * accumulate}
    for number in range(len(whole)):
        parts = [
            cut[rank][number * accumulate + part] for part in range(accumulate) for rank in range(processes)
        ]
        for field in ("pairs", "targets"):
            together = torch.cat([getattr(part, field) for part in parts])
            assert torch.equal(together, getattr(whole[number], field))
        proteins = torch.cat([part.protein["embedding"] for part in parts])
        assert torch.equal(proteins, whole[number].protein["embedding"])


def test_a_batch_goes_with_its_proteins_or_with_others():
    made = data()
    rows = np.array([0, 12, 17])
    batch = read_batch(made, Numbers(), rows)
    assert batch.protein["embedding"].flatten().tolist() == [0, 2, 3]
    assert torch.equal(batch.targets, torch.tensor([[1.0, 0], [1, 0], [0, 1]]))
    assert batch.pairs.dtype == torch.uint8
    other = read_batch(made, Numbers(), rows, proteins=np.array([4, 4, 0]))
    assert other.protein["embedding"].flatten().tolist() == [4, 4, 0]
    assert torch.equal(other.pairs, batch.pairs)
