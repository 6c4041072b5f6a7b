"""Two models on the same proteins."""

import numpy as np
import pytest
from scipy.stats import norm

from deepgps.errors import InputError
from deepgps.evaluation.label_metrics import LabelCollector
from deepgps.evaluation.peers.compare import differences, mcnemar


def rows(right, *, proteins=None, clusters=None):
    """A model of two classes that is right for some proteins; half of them are of each class."""
    truth = np.arange(len(right)) % 2
    named = np.where(right, truth, 1 - truth)
    collector = LabelCollector(("a", "b"), multi_label=False)
    ids = [f"P{number}" for number in range(len(right))] if proteins is None else proteins
    collector.add(0.2 + 0.6 * np.eye(2)[named], np.eye(2)[truth], ids, clusters)
    return collector.proteins()


def test_a_model_does_not_differ_from_itself():
    right = np.random.default_rng(0).random(100) < 0.7
    found = differences(rows(right), rows(right))["accuracy"]
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert mcnemar(rows(right), rows(right)).p == 1


def test_a_clear_difference_is_found_and_signed():
    rng = np.random.default_rng(1)
    good, bad = rng.random(300) < 0.9, rng.random(300) < 0.5
    found, back = (
        differences(*pair)["accuracy"] for pair in ((rows(good), rows(bad)), (rows(bad), rows(good)))
    )
    assert found.value == pytest.approx(good.mean() - bad.mean())
    assert 0 < found.low < found.value < found.high
    assert found.p == pytest.approx(2 / 1001)
    assert (back.value, back.low) == (pytest.approx(-found.value), pytest.approx(-found.high))


def test_pairing_is_sharper_than_two_intervals():
    rng = np.random.default_rng(2)
    shared = rng.random(400) < 0.6
    better = shared | (np.arange(400) % 25 == 0)
    found = differences(rows(better), rows(shared))["accuracy"]
    # The difference of two independent accuracies would spread this far.
    independent = norm.ppf(0.975) * np.sqrt(2 * 0.6 * 0.4 / 400)
    assert (found.high - found.low) / 2 < independent / 2
    assert found.p < 0.01


def test_mcnemar_counts_where_only_one_is_right():
    first = rows([True] * 9 + [False] * 1 + [True] * 5)
    second = rows([False] * 9 + [True] * 1 + [True] * 5)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    # Two-sided binomial: both tails of 10 tosses at 9 or beyond.
    assert found.p == pytest.approx(2 * (10 + 1) / 2**10)


def test_one_protein_has_no_interval():
    found = differences(rows([True]), rows([False]))["accuracy"]
    assert found.value == 1
    assert (found.low, found.high, found.p) == (None, None, None)


def test_clusters_are_drawn_whole():
    right, other = np.repeat([True, False, True, True], 25), np.repeat([True, True, False, False], 25)
    clusters = np.repeat(np.arange(4), 25)
    loose = differences(rows(right), rows(other))["accuracy"]
    whole = differences(rows(right, clusters=clusters), rows(other, clusters=clusters))["accuracy"]
    assert whole.value == loose.value
    assert whole.high - whole.low > 2 * (loose.high - loose.low)


def test_different_proteins_are_refused():
    with pytest.raises(InputError, match="different proteins"):
        differences(rows([True, False]), rows([True, False], proteins=["P0", "Q"]))
    with pytest.raises(InputError, match="different proteins"):
        mcnemar(rows([True, False]), rows([True, False], clusters=[1, 1]))
