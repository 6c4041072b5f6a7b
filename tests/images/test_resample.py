import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.images.processing import resample


def waves(edge_px: int, um: float, period_um: float) -> np.ndarray:
    x = (np.arange(edge_px) + 0.5) * um
    return np.tile(0.5 + 0.5 * np.sin(2 * np.pi * x / period_um), (edge_px, 1)).astype(np.float32)


@pytest.mark.parametrize(("from_um", "to_um"), [(0.08, 0.2), (0.4, 0.2), (0.13, 0.2)])
def test_structures_keep_their_size_and_place(from_um: float, to_um: float) -> None:
    edge = round(40 / from_um)
    resampled = resample(waves(edge, from_um, 10.0), from_um, to_um)
    expected = waves(round(edge * from_um / to_um), to_um, 10.0)
    assert resampled.shape == expected.shape
    assert resampled.dtype == np.float32
    assert np.abs(resampled - expected)[:, 3:-3].max() < 0.05


@pytest.mark.parametrize("to_um", [0.05, 0.1, 0.37, 1.0])
def test_mean_is_kept(to_um: float) -> None:
    pixels = np.random.default_rng(0).random((120, 90), dtype=np.float32)
    assert resample(pixels, 0.1, to_um).mean() == pytest.approx(pixels.mean(), rel=0.01)


def test_shrinking_does_not_alias() -> None:
    board = np.indices((200, 200)).sum(0) % 2
    assert np.ptp(resample(board.astype(np.float32), 0.1, 0.25)[5:-5, 5:-5]) < 0.2


def test_nearly_equal_pixel_sizes_leave_the_image_alone() -> None:
    pixels = np.eye(20, dtype=np.float32)
    assert resample(pixels, 0.206, 0.206349) is pixels


def test_one_pixel_at_least_remains() -> None:
    assert resample(np.ones((3, 3), np.float32), 0.1, 5.0).shape == (1, 1)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_pixel_sizes_are_refused(size: float) -> None:
    with pytest.raises(InputError, match="positive"):
        resample(np.ones((3, 3), np.float32), size, 0.2)


def test_a_result_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(InputError, match="pixel size"):
        resample(np.ones((1000, 1000), np.float32), 9.0, 0.2)
