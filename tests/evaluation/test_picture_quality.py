import numpy as np
import pytest
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio

from deepgps.evaluation.pictures import (
    baselines,
    bootstrap,
    intranuclear,
    pearson,
    psnr,
    right_side,
    training_levels,
)

RNG = np.random.default_rng(0)
REAL = RNG.random((5, 16, 16), dtype=np.float32)
DRAWN = RNG.random((5, 16, 16), dtype=np.float32)


def test_psnr_is_scikit_images():
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(REAL, DRAWN, strict=True)]
    np.testing.assert_allclose(psnr(REAL, DRAWN), expected)
    assert np.isinf(psnr(REAL, REAL)).all()


def test_pearson_is_scipys_and_undefined_for_a_constant():
    expected = [pearsonr(a.ravel(), b.ravel()).statistic for a, b in zip(REAL, DRAWN, strict=True)]
    np.testing.assert_allclose(pearson(REAL, DRAWN), expected, atol=1e-6)
    assert np.isnan(pearson(REAL, np.full_like(REAL, 0.3))).all()


def test_intranuclear_fraction_of_a_flat_picture_is_the_area_and_of_a_black_one_undefined():
    mask = np.zeros((2, 4, 4), bool)
    mask[:, :2] = True
    pictures = np.stack([np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)])
    fractions = intranuclear(pictures, mask)
    assert fractions[0] == 0.5
    assert np.isnan(fractions[1])


def test_baselines_draw_what_they_are_named_for():
    masks = np.zeros(REAL.shape, bool)
    masks[:, 4:12, 4:12] = True
    classes = np.array(["a", "a", "b", "b", "b"])
    drawn = baselines(REAL, DRAWN, masks, classes, training_levels(REAL, masks, classes))
    assert np.ptp(drawn["constant mean"]) == 0
    assert drawn["constant mean"].mean() == pytest.approx(REAL.mean(), abs=1e-6)
    np.testing.assert_allclose(drawn["own mean"][3], REAL[3].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["class mean"][0], REAL[:2].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["nuclear mask"][4][masks[4]], REAL[2:][masks[2:]].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["own nuclear mask"][1][~masks[1]], REAL[1][~masks[1]].mean(), rtol=1e-5)
    assert drawn["copied nucleus"] is DRAWN


def test_own_nuclear_mask_is_the_best_two_level_picture():
    masks = RNG.random(REAL.shape) < 0.3
    classes = np.full(5, "a")
    drawn = baselines(REAL, DRAWN, masks, classes, training_levels(REAL, masks, classes))
    assert (psnr(REAL, drawn["own nuclear mask"]) >= psnr(REAL, drawn["nuclear mask"]) - 1e-9).all()
    assert (psnr(REAL, drawn["own nuclear mask"]) >= psnr(REAL, drawn["own mean"]) - 1e-9).all()


def test_right_side_counts_both_kinds_around_the_middle():
    fractions = np.array([0.8, 0.6, 0.2, 0.7])
    nuclear = np.array([True, True, False, False])
    share, threshold = right_side(fractions, nuclear, ~nuclear)
    assert threshold == pytest.approx((0.7 + 0.45) / 2)
    assert share == 0.75


def test_bootstrap_resamples_groups_not_values():
    values = np.array([0.0] * 50 + [1.0] * 50)
    by_group = bootstrap(values, np.array(["a"] * 50 + ["b"] * 50))
    by_value = bootstrap(values, np.arange(100).astype(str))
    assert by_group[0] == by_value[0] == 0.5
    assert by_group[2] - by_group[1] > 3 * (by_value[2] - by_value[1])
    assert bootstrap(np.array([1.0, np.nan]), np.array(["a", "b"])) == (1.0, 1.0, 1.0)
