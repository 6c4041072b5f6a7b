import numpy as np
import pytest

from deepgps.images.processing import percentile_normalise

# 0, 1 … 1000: the q-th percentile (linear interpolation) is 10 q, so p3 = 30 and p99.8 = 998, and CSBDeep's
# normalize gives (x - 30) / 968.
RAMP = np.arange(1001, dtype=np.uint16).reshape(7, 143)


def test_equals_the_formula_of_csbdeep() -> None:
    scaled = percentile_normalise(RAMP, clip=False)
    assert scaled.dtype == np.float32
    assert scaled.flat[0] == pytest.approx(-30 / 968)
    assert scaled.flat[30] == 0
    assert scaled.flat[514] == pytest.approx(484 / 968)
    assert scaled.flat[998] == pytest.approx(1)
    assert scaled.flat[1000] == pytest.approx(970 / 968)


def test_percentiles_between_two_pixels_are_interpolated() -> None:
    # Of 0, 10, 20, 30 the 25th percentile is 7.5 and the 75th 22.5.
    scaled = percentile_normalise(np.array([[0, 10], [20, 30]]), 25, 75, clip=False)
    assert scaled.ravel() == pytest.approx([-0.5, 1 / 6, 5 / 6, 1.5])


def test_clips_to_the_unit_interval_unless_told() -> None:
    scaled = percentile_normalise(RAMP)
    assert (scaled.min(), scaled.max()) == (0, 1)


def test_constant_image_becomes_zero() -> None:
    assert not percentile_normalise(np.full((4, 4), 7.0)).any()


def test_uint8_does_not_wrap_around() -> None:
    assert percentile_normalise(np.array([[0, 255]], np.uint8), 50, 100, clip=False)[0, 0] == pytest.approx(
        -1
    )
