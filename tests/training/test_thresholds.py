import numpy as np
import pytest
import torch

from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.thresholds import top_class, unclear_below, unlike_below


def test_the_bound_keeps_three_quarters_of_the_errors_out():
    highest = np.array([0.3, 0.5, 0.7, 0.9])
    # Two of four are wrong; from 0.31 on one of three is, and 1/3 is at most three quarters of 1/2.
    assert unclear_below(highest, np.array([False, True, False, True])) == pytest.approx(0.31)
    # The surest is wrong: no bound helps, and none is set.
    assert unclear_below(highest, np.array([True, True, True, False])) == 0
    assert unclear_below(highest, np.ones(4, bool)) == 0


def test_only_what_was_looked_at_decides():
    chances = torch.tensor([[0.9, 0.1], [0.2, 0.6], [0.3, 0.4]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    known = torch.tensor([[True, True], [True, True], [True, False]])
    highest, right, weight = top_class(chances, labels, known)
    assert weight.tolist() == [1, 1]
    assert highest.tolist() == pytest.approx([0.9, 0.6])
    assert right.tolist() == [True, False]


def test_shuffled_sequences_are_unlike_everything():
    rng = np.random.default_rng(1)
    sequences = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 300)) for _ in range(40)]
    labels = np.ones((40, 1))
    index = NeighbourIndex.build([str(n) for n in range(40)], sequences, labels, labels > 0, ("er",))
    bound = unlike_below(index, sequences)
    assert 0 < bound < 0.1
    assert index.similarities(sequences[0]).max() > bound
