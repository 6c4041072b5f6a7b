"""The reliability diagram and its error."""

import numpy as np
import pytest

from deepgps.evaluation.label_metrics import CALIBRATION_BINS, bin_of, ece_by_chance, reliability


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
    assert (len(found.edges), found.count.sum()) == (CALIBRATION_BINS + 1, 4)
    assert found.frequency[0] == 0.5
    assert found.probability[0] == pytest.approx(0.005)
    assert (found.frequency[-1], found.probability[-1]) == (1, 1)
    assert np.isnan(found.frequency[1])


def test_a_probability_on_an_edge_belongs_to_the_bin_above():
    assert bin_of(np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS).tolist() == [
        *range(CALIBRATION_BINS),
        CALIBRATION_BINS - 1,
    ]


def test_exact_probabilities_show_an_error_for_want_of_numbers():
    rng = np.random.default_rng(1)
    few, many = rng.random(200), rng.random(50_000)
    assert 0.05 < ece_by_chance(few) < 0.12
    assert ece_by_chance(many, draws=20) < 0.01
    assert ece_by_chance(np.array([0.0, 1.0])) == 0
    found = [reliability(few, rng.random(200) < few).ece for _ in range(100)]
    assert ece_by_chance(few) == pytest.approx(np.mean(found), abs=0.01)
