"""The reliability diagram and its error."""

import numpy as np
import pytest

from deepgps.evaluation.measures.calibration import BINS, bin_of, reliability


def test_a_calibrated_model_has_no_error():
    chance, label = np.full(100, 0.3), np.arange(100) < 30
    assert reliability(chance, label).ece == pytest.approx(0)
    assert reliability(chance + 0.2, label).ece == pytest.approx(0.2)
    assert reliability(chance[:30], label[:30]).ece == pytest.approx(0.7)


def test_outcomes_may_be_shares_and_rows_may_count_often():
    assert reliability(np.array([0.4]), np.array([0.4])).ece == pytest.approx(0)
    twice = reliability(np.array([0.1, 0.9]), np.array([0, 0]), np.array([3.0, 1.0]))
    assert twice.ece == pytest.approx((3 * 0.1 + 0.9) / 4)


def test_the_diagram_has_what_lies_in_each_bin():
    found = reliability(np.array([0.0, 0.01, 0.5, 1.0]), np.array([0, 1, 1, 1]))
    assert (len(found.edges), found.count.sum()) == (BINS + 1, 4)
    assert found.frequency[0] == 0.5
    assert found.probability[0] == pytest.approx(0.005)
    assert (found.frequency[-1], found.probability[-1]) == (1, 1)
    assert np.isnan(found.frequency[1])


def test_a_probability_on_an_edge_belongs_to_the_bin_above():
    assert bin_of(np.arange(BINS + 1) / BINS).tolist() == [*range(BINS), BINS - 1]
