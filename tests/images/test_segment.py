from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed, refined_otsu

UM = 0.2


def discs(*places: tuple[float, float, float], edge: int = 256, level: float = 0.6) -> np.ndarray:
    """Blurred discs (row, column, radius in pixels) on a faint noisy ground."""
    rows, cols = np.indices((edge, edge))
    bright = np.any([np.hypot(rows - r, cols - c) < radius for r, c, radius in places], axis=0)
    noise = np.random.default_rng(0).normal(0, 0.01, bright.shape)
    return (0.05 + level * ndimage.gaussian_filter(bright.astype(float), 1) + noise).astype(np.float32)


def test_separate_nuclei_get_their_own_label_and_area() -> None:
    labels = OtsuWatershed()(discs((60, 60, 30), (60, 190, 25), (190, 120, 35)), UM)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == [0, 1, 2, 3]
    for r, c, radius in ((60, 60, 30), (60, 190, 25), (190, 120, 35)):
        assert (labels == labels[r, c]).sum() == pytest.approx(np.pi * radius**2, rel=0.08)


def test_touching_nuclei_are_parted() -> None:
    labels = OtsuWatershed()(discs((128, 100, 32), (128, 158, 32)), UM)
    assert labels.max() == 2
    assert labels[128, 100] != labels[128, 158]


def test_a_dark_nucleolus_is_filled() -> None:
    pixels = discs((128, 128, 40))
    pixels[120:132, 120:132] = 0.05
    labels = OtsuWatershed()(pixels, UM)
    assert labels.max() == 1
    assert labels[126, 126] == 1


def test_a_dim_nucleus_beside_a_bright_one() -> None:
    pixels = discs((70, 70, 35)) + discs((190, 190, 35), level=0.25)
    assert OtsuWatershed()(pixels, UM).max() == 2


def test_uneven_background() -> None:
    slope = np.linspace(0, 0.25, 256, dtype=np.float32)
    labels = OtsuWatershed()(discs((60, 60, 30), (200, 190, 30)) + slope, UM)
    assert labels.max() == 2
    assert (labels > 0).mean() < 0.15


def test_small_objects_are_dropped_by_area_in_micrometres() -> None:
    pixels = discs((60, 60, 30), (190, 190, 13))
    assert OtsuWatershed()(pixels, UM).max() == 1  # the second covers 21 µm²
    assert OtsuWatershed(min_area_um2=10)(pixels, UM).max() == 2
    assert OtsuWatershed()(pixels, 2 * UM).max() == 2  # there it covers 85 µm²


@pytest.mark.parametrize("pixels", [np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32)])
def test_a_constant_image_has_no_nuclei(pixels: np.ndarray) -> None:
    assert not OtsuWatershed()(pixels, UM).any()


@pytest.mark.parametrize("um", [0.1, 0.2, 0.4])
def test_noise_has_no_nuclei(um: float) -> None:
    noise = np.random.default_rng(0).normal(size=(300, 300))
    assert not OtsuWatershed()(percentile_normalise(noise), um).any()


def test_real_hek_fields(shared_data: Path) -> None:
    folder = shared_data / "images" / "opencell_hoechst"
    found = {}
    for name in ("sparse-3", "FOV_00076_RAW"):
        pixels = percentile_normalise(tifffile.imread(folder / f"{name}.tif"))
        labels = OtsuWatershed()(pixels, 0.206)
        areas = np.bincount(labels.ravel())[1:] * 0.206**2
        assert 90 < np.median(areas) < 260
        found[name] = labels.max()
    # Counted by eye: about 19 and 140.
    assert 14 <= found["sparse-3"] <= 25
    assert 120 <= found["FOV_00076_RAW"] <= 165


def mottled(radius: int = 35, level: float = 0.2) -> np.ndarray:
    """A dim nucleus of uneven stain and a bright smooth one."""
    stain = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(256, 256)), 4)
    stain = np.clip(1 + 0.3 * stain / stain.std(), 0.4, 2)
    bright = discs((190, 190, radius), level=0.9)
    return (bright + discs((70, 70, radius), level=level) * stain).astype(np.float32)


def test_the_refined_outline_of_a_dim_mottled_nucleus() -> None:
    pixels, area = mottled(), np.pi * 35**2
    labels = refined_otsu()(pixels, UM)
    assert labels.max() == 2
    assert (labels == labels[70, 70]).sum() == pytest.approx(area, rel=0.1)
    assert (OtsuWatershed()(pixels, UM)[:128, :128] > 0).sum() < 0.9 * area  # what refining is for


def test_haze_is_no_nucleus_when_refined() -> None:
    rows, cols = np.indices((256, 256))
    haze = 0.2 + 0.2 * np.exp(-((rows - 80) ** 2 + (cols - 80) ** 2) / (2 * 22**2))
    pixels = (discs((190, 190, 30)) + haze).astype(np.float32)
    assert OtsuWatershed()(pixels, UM).max() == 2
    assert refined_otsu()(pixels, UM).max() == 1


@pytest.mark.parametrize("um", [0.1, 0.2, 0.4])
def test_noise_has_no_nuclei_when_refined(um: float) -> None:
    noise = percentile_normalise(np.random.default_rng(0).normal(size=(300, 300)))
    assert not refined_otsu()(noise, um).any()
