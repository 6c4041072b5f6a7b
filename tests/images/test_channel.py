from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from deepgps.images.read import guess_channel, read_field

RNG = np.random.default_rng(0)


def channels() -> np.ndarray:
    """Noise; cytoplasm around nuclei, merging; nuclei; many tiny vesicles."""
    rows, cols = np.indices((256, 256))
    centres = [(r, c) for r in range(40, 256, 60) for c in range(40, 256, 60)]
    from_nucleus = np.min([np.hypot(rows - r, cols - c) for r, c in centres], axis=0)
    images = (
        np.zeros((256, 256)),
        (from_nucleus > 14) & (from_nucleus < 33),
        from_nucleus < 14,
        RNG.random((256, 256)) > 0.997,
    )
    return np.array([100 + 800.0 * p + RNG.normal(0, 20, p.shape) for p in images]).astype(np.uint16)


def write(path: Path, names: list[str]) -> Path:
    tifffile.imwrite(path, channels(), metadata={"axes": "CYX", "Channel": {"Name": names}})
    return path


@pytest.mark.parametrize("name", ["DAPI", "hoechst 33342", "DNA", "Nucleus", "nuclei-405", "H2B-mCherry"])
def test_a_name_decides_first(tmp_path: Path, name: str) -> None:
    field = read_field(write(tmp_path / "a.ome.tif", ["GFP", name, "nucleoli", "x"]))
    np.testing.assert_array_equal(field.pixels, channels_of(tmp_path / "a.ome.tif")[1])
    assert f"channel 1 was taken as the nucleus, by its name, '{name}'" in field.warnings[0]


def channels_of(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def test_nucleus_like_blobs_decide_otherwise(tmp_path: Path) -> None:
    field = read_field(write(tmp_path / "a.ome.tif", ["GFP", "A", "B", "C"]))
    np.testing.assert_array_equal(field.pixels, channels_of(tmp_path / "a.ome.tif")[2])
    assert "4 channels; channel 2 was taken" in field.warnings[0]
    assert "--channel" in field.warnings[0]


def test_a_chosen_channel_needs_no_warning(tmp_path: Path) -> None:
    assert read_field(write(tmp_path / "a.ome.tif", ["GFP", "A", "B", "C"]), channel=1).warnings == ()


def test_blank_channels_and_nan_do_not_stop_the_guess() -> None:
    stack = channels().astype(np.float32)
    stack[0] = np.nan
    stack[1] = 3
    assert guess_channel(stack, (), "a.tif")[0] == 2


@pytest.mark.parametrize("factor", [0.5, 3])
def test_the_guess_does_not_depend_on_the_pixel_size(factor: float) -> None:
    scaled = ndimage.zoom(channels().astype(np.float32), (1, factor, factor), order=1)
    assert guess_channel(scaled, (), "a.tif")[0] == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("nuclear pore", "Ch2", "DAPI"), 2),
        (("405 actin", "H2B-mCherry"), 1),
        (("Alexa 405 WGA", "nuclei"), 1),
        (("nucleus", "Hoechst33342"), 1),
        (("GFP", "405"), 1),
    ],
)
def test_stains_of_dna_come_before_other_words(names: tuple[str, ...], expected: int) -> None:
    flat = np.arange(1600.0).reshape(40, 40)
    assert guess_channel(np.stack([flat] * len(names)), names, "a.tif")[0] == expected
