import numpy as np
import pytest

from deepgps.evaluation.images.baselines import IMAGE_BASELINES, baseline_images, training_intensities
from deepgps.images.similarity import psnr

RNG = np.random.default_rng(0)
REAL = RNG.random((5, 16, 16), dtype=np.float32)
NUCLEI = RNG.random((5, 16, 16), dtype=np.float32)
MASKS = np.zeros(REAL.shape, bool)
MASKS[:, 4:12, 4:12] = True
CLASSES = np.array(["a", "a", "b", "b", "b"])


def intensities(masks=MASKS):
    return training_intensities([(REAL[:2], masks[:2], CLASSES[:2]), (REAL[2:], masks[2:], CLASSES[2:])])


def test_baselines_draw_what_they_are_named_for():
    drawn = baseline_images(REAL, NUCLEI, MASKS, CLASSES, intensities())
    assert tuple(drawn) == IMAGE_BASELINES
    assert np.ptp(drawn["constant mean"]) == 0
    assert drawn["constant mean"].mean() == pytest.approx(REAL.mean(), abs=1e-6)
    np.testing.assert_allclose(drawn["own mean"][3], REAL[3].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["class mean"][0], REAL[:2].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["nuclear mask"][4][MASKS[4]], REAL[2:][MASKS[2:]].mean(), rtol=1e-5)
    np.testing.assert_allclose(drawn["own nuclear mask"][1][~MASKS[1]], REAL[1][~MASKS[1]].mean(), rtol=1e-5)
    assert drawn["copied nucleus"] is NUCLEI


def test_own_nuclear_mask_is_the_best_two_level_image():
    drawn = baseline_images(REAL, NUCLEI, MASKS, CLASSES, intensities())
    best = psnr(REAL, drawn["own nuclear mask"])
    assert (best >= psnr(REAL, drawn["nuclear mask"]) - 1e-9).all()
    assert (best >= psnr(REAL, drawn["own mean"]) - 1e-9).all()


def test_a_class_without_training_images_gets_the_overall_intensities():
    drawn = baseline_images(REAL, NUCLEI, MASKS, np.array(["new"] * 5), intensities())
    np.testing.assert_allclose(drawn["class mean"], drawn["constant mean"], rtol=1e-6)


def test_intensities_without_any_nucleus_are_finite():
    none = np.zeros_like(MASKS)
    measured = intensities(none)
    assert measured.overall.inside == 0
    assert measured.overall.outside == pytest.approx(measured.overall.overall)
