import pickle
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from deepgps.images import segmentation
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import NetworkWatershed

UM = 0.2


def ellipses(*places: tuple[float, float], level: float = 0.6, edge: int = 256) -> np.ndarray:
    """Blurred ellipses of 60 × 44 px on a faint noisy ground."""
    rows, cols = np.indices((edge, edge))
    bright = np.any([np.hypot((rows - r) / 30, (cols - c) / 22) < 1 for r, c in places], axis=0)
    noise = np.random.default_rng(0).normal(0, 0.01, bright.shape)
    return np.clip(0.05 + level * ndimage.gaussian_filter(bright * 1.0, 1) + noise, 0, 1).astype(np.float32)


def test_separate_and_touching_nuclei_get_their_own_label() -> None:
    places = ((60, 60), (60, 104), (180, 180))
    labels = NetworkWatershed()(ellipses(*places), UM)
    assert labels.dtype == np.int32
    assert sorted({int(labels[place]) for place in places}) == [1, 2, 3] == sorted(np.unique(labels))[1:]
    for place in places:
        assert (labels == labels[place]).sum() == pytest.approx(np.pi * 30 * 22, rel=0.12)


def test_a_dim_nucleus_beside_a_bright_one() -> None:
    pixels = ellipses((70, 70), level=0.12) + ellipses((190, 190), level=0.8)
    assert NetworkWatershed()(pixels, UM).max() == 2


@pytest.mark.parametrize("um", [0.1, 0.2, 0.4])
def test_the_scale_is_in_micrometres(um: float) -> None:
    pixels = ndimage.zoom(ellipses((70, 70), (180, 180)), UM / um, order=1)
    areas = np.bincount(NetworkWatershed()(pixels, um).ravel())[1:] * um**2
    assert areas == pytest.approx([np.pi * 6 * 4.4] * 2, rel=0.12)


def test_small_objects_are_dropped_by_area() -> None:
    assert NetworkWatershed(min_area_um2=200)(ellipses((70, 70)), UM).max() == 0


def test_a_large_field_in_tiles_is_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.tile(ellipses((60, 60), (180, 180)), (2, 3))[:500, :700]
    whole = NetworkWatershed()(pixels, UM)
    monkeypatch.setattr(segmentation, "_TILE", 96)
    tiled = NetworkWatershed()(pixels, UM)
    assert tiled.max() == whole.max() >= 8
    assert ((tiled > 0) == (whole > 0)).mean() > 0.998


@pytest.mark.parametrize("edge", [16, 37])
def test_small_and_odd_images(edge: int) -> None:
    assert NetworkWatershed()(np.zeros((edge, edge + 5), np.float32), UM).shape == (edge, edge + 5)


def test_noise_has_no_nuclei() -> None:
    noise = percentile_normalise(np.random.default_rng(0).normal(size=(300, 300)))
    assert not NetworkWatershed()(noise, UM).any()


def test_it_travels_to_workers_and_the_weights_are_small() -> None:
    NetworkWatershed()(ellipses((70, 70)), UM)
    assert pickle.loads(pickle.dumps(NetworkWatershed(threads=2))) == NetworkWatershed(threads=2)
    assert (resources.files("deepgps.images") / "nuclei.onnx").stat().st_size < 2e6  # type: ignore[attr-defined]


def test_real_hek_fields_by_the_network(shared_data: Path) -> None:
    folder = shared_data / "images" / "opencell_hoechst"
    found = {}
    for name in ("sparse-3", "FOV_00076_RAW"):
        pixels = percentile_normalise(tifffile.imread(folder / f"{name}.tif"))
        labels = NetworkWatershed()(pixels, 0.206)
        assert 90 < np.median(np.bincount(labels.ravel())[1:]) * 0.206**2 < 260
        found[name] = labels.max()
    # Counted by eye: about 19 and 140.
    assert 14 <= found["sparse-3"] <= 25
    assert 120 <= found["FOV_00076_RAW"] <= 165
