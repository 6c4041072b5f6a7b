import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr

from deepgps.errors import InputError
from deepgps.evaluation.images.measure import check_images
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim

RNG = np.random.default_rng(0)
REAL = RNG.random((5, 24, 24), dtype=np.float32)
DRAWN = RNG.random((5, 24, 24), dtype=np.float32)
CONSTANT = np.full_like(REAL, 0.3)
BLACK = np.zeros_like(REAL)


def test_psnr_is_scikit_images_and_torchmetrics():
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(REAL, DRAWN, strict=True)]
    np.testing.assert_allclose(psnr(REAL, DRAWN), expected)
    theirs = [
        float(torch_psnr(torch.from_numpy(b), torch.from_numpy(a), data_range=1.0))
        for a, b in zip(REAL, DRAWN, strict=True)
    ]
    np.testing.assert_allclose(psnr(REAL, DRAWN), theirs, rtol=1e-5)
    assert np.isinf(psnr(REAL, REAL)).all()


@pytest.mark.parametrize("drawn", [DRAWN, CONSTANT, BLACK, REAL, np.clip(REAL + 0.01, 0, 1)])
def test_ssim_is_scikit_images_on_constant_images_too(drawn):
    expected = [structural_similarity(a, b, data_range=1) for a, b in zip(REAL, drawn, strict=True)]
    np.testing.assert_allclose(ssim(REAL, drawn), expected, atol=1e-5)


def test_ssim_of_two_constant_images():
    expected = structural_similarity(CONSTANT[0], BLACK[0], data_range=1)
    assert ssim(CONSTANT[:1], BLACK[:1])[0] == pytest.approx(expected, abs=1e-6)


def test_pearson_is_scipys_and_undefined_for_a_constant():
    expected = [pearsonr(a.ravel(), b.ravel()).statistic for a, b in zip(REAL, DRAWN, strict=True)]
    np.testing.assert_allclose(pearson(REAL, DRAWN), expected, atol=1e-6)
    assert np.isnan(pearson(REAL, CONSTANT)).all()
    # What single precision leaves of a constant image is no structure.
    almost = CONSTANT + np.float32(1e-8)
    assert np.isnan(pearson(REAL, almost)).all()


def test_a_single_image_is_measured_alone():
    for measure in (psnr, ssim, pearson):
        assert measure(REAL[:1], DRAWN[:1])[0] == pytest.approx(measure(REAL, DRAWN)[0])


def test_intranuclear_fraction_of_a_flat_image_is_the_area():
    mask = np.zeros((1, 4, 4), bool)
    mask[:, :2] = True
    assert intranuclear(np.ones((1, 4, 4), np.float32), mask)[0] == 0.5


def test_intranuclear_fraction_of_a_black_image_or_without_a_nucleus_is_undefined():
    mask = np.zeros((2, 4, 4), bool)
    mask[0, :2] = True
    images = np.stack([np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)])
    assert np.isnan(intranuclear(images, mask)).all()


def test_images_that_are_no_numbers_are_refused_by_name():
    broken = REAL.copy()
    broken[3, 5, 5] = np.nan
    with pytest.raises(InputError, match="'drawn' has pixels that are not numbers"):
        check_images(broken, "drawn")
    broken[3, 5, 5] = np.inf
    with pytest.raises(InputError, match="not numbers"):
        check_images(broken, "drawn")
    with pytest.raises(InputError, match=r"from 0 to 2"):
        check_images(np.linspace(0, 2, 16, dtype=np.float32).reshape(1, 4, 4), "drawn")
    check_images(REAL, "real")


def test_the_training_loop_computes_the_same_correlation():
    from deepgps.training.joint.task import correlation

    rng = np.random.default_rng(5)
    real, drawn = rng.random((2, 3, 16, 16)).astype(np.float32)
    expected = pearson(real, drawn)
    found = correlation(*(torch.from_numpy(each)[:, None] for each in (real, drawn)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
