import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.images.nuclear_stain import check_nuclear_stain, find_objects, pixel_size_from_nuclei
from deepgps.images.read import Field, read_field

RNG = np.random.default_rng(5)


def nuclei(
    width_px: float = 60, edge: int = 420, background: float = 100, signal: float = 2000
) -> np.ndarray:
    """Discs on a grid, one and a half widths apart, with noise."""
    rows, columns = np.mgrid[:edge, :edge]
    pitch = 1.6 * width_px
    inside = np.hypot((rows + 7) % pitch - pitch / 2, (columns + 7) % pitch - pitch / 2) < width_px / 2
    return (background + signal * inside + RNG.normal(0, 20, inside.shape)).astype(np.float32)


def field(pixels: np.ndarray, um: float | None = 0.2) -> Field:
    return Field(pixels.astype(np.float32), um, "a.tif")


def check(pixels: np.ndarray, um: float = 0.2) -> tuple[str, ...]:
    return check_nuclear_stain(field(pixels), um, 0.206)[1]


@pytest.mark.parametrize("width", [20, 40, 75, 150])
def test_the_width_of_nuclei_is_measured_at_any_scale(width: float) -> None:
    assert find_objects(nuclei(width, 1000)).width_px == pytest.approx(width, rel=0.2)


def test_a_nuclear_stain_passes_unchanged() -> None:
    known = nuclei()
    pixels, notes = check_nuclear_stain(field(known), 0.2, 0.206)
    np.testing.assert_array_equal(pixels, known)
    assert notes == ()


@pytest.mark.parametrize(("um", "width"), [(1.0, r"(59|60)"), (6.5, r"[34]\d\d"), (0.02, "1.")])
def test_an_implausible_scale_is_told_with_the_estimate(um: float, width: str) -> None:
    (note,) = check(nuclei(), um) if um < 2 else check(nuclei()[:150, :150], um)
    assert re.search(f"would be {width}", note)
    assert "about 0.2" in note
    assert "--pixel-size-um auto" in note


def test_a_scale_that_would_make_it_grow_is_refused_before_it_grows() -> None:
    with pytest.raises(InputError, match=r"resampled to 175,\d+,\d+ pixels.*--pixel-size-um auto"):
        check(nuclei(), 6.5)


def test_auto_estimates_the_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", nuclei().astype(np.uint16))
    estimated = read_field(tmp_path / "a.tif", pixel_size_um="auto")
    assert estimated.pixel_size_um == pytest.approx(13 / 60, rel=0.2)
    assert "was estimated from its nuclei: 0.2" in estimated.warnings[-1]
    cell = Cell.load(tmp_path / "a.tif", image_pixel_size_um="auto")
    assert any("estimated" in note for note in cell.warnings)
    with pytest.raises(InputError, match="cannot be estimated"):
        pixel_size_from_nuclei(np.full((50, 50), 3, np.float32), "a.tif")


def transmitted(pixels: np.ndarray) -> np.ndarray:
    return pixels.max() - pixels


def ramp(pixels: np.ndarray) -> np.ndarray:
    return np.add.outer(np.arange(300.0), 2 * np.arange(300.0)) + RNG.normal(0, 5, (300, 300))


def bowl(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[-1:1:300j, -1:1:300j]
    return 3000 - 1000 * rows**2 - 1200 * columns**2 + RNG.normal(0, 5, rows.shape)


def only_a_bar(pixels: np.ndarray) -> np.ndarray:
    ground = np.full((300, 300), 10.0)
    ground[270:278, 200:280] = 255
    return ground


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (transmitted, "bright in .*transmitted light"),
        (ramp, "smooth gradient"),
        (bowl, "smooth gradient"),
        (only_a_bar, "nothing but a scale bar"),
    ],
)
def test_what_is_no_nuclear_stain_is_refused_unless_told_otherwise(
    tmp_path: Path, wrong: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    pixels = wrong(nuclei())
    with pytest.raises(InputError, match=sentence) as caught:
        check(pixels)
    assert "--no-image-checks" in str(caught.value)
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(np.float32))
    with pytest.raises(InputError, match=sentence):
        Cell.load(tmp_path / "a.tif", image_pixel_size_um=0.2)
    if wrong is not only_a_bar:
        cell = Cell.load(tmp_path / "a.tif", image_pixel_size_um=0.2, image_checks=False)
        assert not cell.checked
    assert Cell.load("hek-1").checked


@pytest.mark.parametrize("vertical", [False, True])
def test_a_scale_bar_beside_nuclei_is_blacked_out(vertical: bool) -> None:
    pixels = nuclei()
    known = pixels.copy()
    bar = (slice(330, 410), slice(380, 388)) if vertical else (slice(380, 388), slice(330, 410))
    pixels[bar] = 5000
    cleaned, notes = check_nuclear_stain(field(pixels), 0.2, 0.206)
    assert cleaned[bar].max() < 200
    assert "scale bar" in notes[0]
    outside = np.ones(pixels.shape, bool)
    outside[tuple(slice(part.start - 3, part.stop + 3) for part in bar)] = False
    np.testing.assert_array_equal(cleaned[outside], known[outside])


def test_saturated_nuclei_are_no_scale_bars() -> None:
    saturated = np.minimum(nuclei(), 1500)
    assert check(saturated) == ()
