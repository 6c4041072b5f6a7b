import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import balanced_accuracy_score

from deepgps.evaluation.bootstrap import balanced_interval, correlation_interval, mean_interval, stacked_psnr

RNG = np.random.default_rng(0)
VALUES = RNG.normal(2, 1, 60)
SINGLE = np.arange(60)


def test_interval_of_a_mean_is_scipys_where_groups_are_single():
    ours = mean_interval(VALUES, SINGLE)
    theirs = scipy_bootstrap(
        (VALUES,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(VALUES.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_groups_are_drawn_whole():
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([0, 1], 50)
    by_group, by_value = mean_interval(values, groups), mean_interval(values, np.arange(100))
    assert by_group.value == by_value.value == 0.5
    assert by_group.high - by_group.low > 3 * (by_value.high - by_value.low)


def test_undefined_values_are_left_out_and_counted_out():
    metric = mean_interval(np.array([1.0, np.nan, 3.0, np.inf]), np.arange(4))
    assert (metric.value, metric.n) == (2.0, 2)


def test_a_single_group_has_no_interval_and_nothing_at_all_is_undefined():
    alone = mean_interval(np.array([1.0, 2.0]), np.zeros(2, int))
    assert (alone.value, alone.low, alone.high) == (1.5, None, None)
    nothing = mean_interval(np.array([np.nan]), np.zeros(1, int))
    assert np.isnan(nothing.value)
    assert nothing.n == 0
    assert np.isnan(correlation_interval(np.array([np.nan]), np.array([1.0]), np.zeros(1, int)).value)


def test_the_stacked_psnr_is_that_of_one_image():
    real, drawn = RNG.random((2, 5, 8, 8))
    errors = ((real - drawn) ** 2).mean((1, 2))
    metric = stacked_psnr(-10 * np.log10(errors), np.array([0, 0, 1, 2, 2]))
    assert metric.value == pytest.approx(peak_signal_noise_ratio(real, drawn, data_range=1))
    assert metric.low < metric.value < metric.high
    assert metric.n == 5
    equal = stacked_psnr(np.array([np.inf, 10.0, np.nan]), np.arange(3))
    assert (equal.value, equal.n) == (pytest.approx(-10 * np.log10(0.05)), 2)


def test_correlation_is_scipys_and_undefined_for_a_constant():
    other = VALUES + RNG.normal(0, 1, 60)
    metric = correlation_interval(VALUES + 1e4, other, SINGLE)
    assert metric.value == pytest.approx(pearsonr(VALUES, other).statistic, abs=1e-9)
    assert metric.low < metric.value < metric.high
    assert np.isnan(correlation_interval(VALUES, np.full(60, 0.25), SINGLE).value)


def test_balanced_accuracy_is_scikit_learns():
    truth, named = RNG.integers(0, 3, 60), RNG.integers(0, 3, 60)
    metric = balanced_interval((truth == named).astype(float), truth, SINGLE)
    assert metric.value == pytest.approx(balanced_accuracy_score(truth, named))


def test_what_the_reader_does_not_know_does_not_count():
    hits, classes = np.array([1.0, 0.0, np.nan, 1.0]), np.array([0, 0, 1, -1])
    metric = balanced_interval(hits, classes, np.arange(4))
    assert (metric.value, metric.n) == (0.5, 2)
    assert np.isnan(balanced_interval(np.full(3, np.nan), np.full(3, -1), np.arange(3)).value)
