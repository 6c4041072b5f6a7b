import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepgps.errors import InputError
from deepgps.images.cell import DEFAULT_CELLS, Cell
from deepgps.images.read import image_stem

UM = 0.206349


def field(*places: tuple[int, int], shape: tuple[int, int] = (400, 500), radius: float = 35) -> np.ndarray:
    rows, cols = np.indices(shape)
    bright = np.any([np.hypot(rows - r, cols - c) < radius for r, c in places], axis=0)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    return (300 + 3000.0 * bright + noise).astype(np.uint16)


def load(path: Path, pixels: np.ndarray, um: float | None = UM, **options: float) -> Cell:
    metadata = {"axes": "YX"} | ({"PhysicalSizeX": um, "PhysicalSizeY": um} if um else {})
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata)
    return Cell.load(path, size_px=208, pixel_size_um=UM, **options)


def centre_level(cell: Cell) -> float:
    return float(cell.nucleus[94:114, 94:114].mean())


def test_the_nucleus_nearest_to_the_centre(tmp_path: Path) -> None:
    pixels = field((150, 150), (190, 270), (280, 380))
    pixels[190:200, 270:280] += 500  # marks the middle one
    cell = load(tmp_path / "my.field.ome.tif", pixels)
    assert cell.name == "my.field"
    assert cell.nucleus.shape == (208, 208)
    assert cell.nucleus.dtype == np.float32
    assert (cell.nucleus.min(), cell.nucleus.max()) == (0, 1)
    assert cell.nucleus[108, 108] == 1
    assert cell.pixel_size_um == UM
    assert cell.source == str(tmp_path / "my.field.ome.tif")
    assert cell.warnings == ()


def test_a_complete_crop_wins_over_a_nearer_nucleus(tmp_path: Path) -> None:
    cell = load(tmp_path / "a.tif", field((60, 200), (140, 140), shape=(260, 400)))
    assert cell.warnings == ()
    assert centre_level(cell) > 0.8
    assert cell.nucleus[24, 164] > 0.8  # the other, 80 px up and 60 to the right


def test_a_nucleus_at_the_border_is_padded_with_a_warning(tmp_path: Path) -> None:
    cell = load(tmp_path / "a.tif", field((50, 250)))
    assert "border" in cell.warnings[0]
    assert centre_level(cell) > 0.8
    assert cell.nucleus[:50].max() < 0.2


def test_other_pixel_sizes_are_resampled(tmp_path: Path) -> None:
    cell = load(tmp_path / "a.tif", field((500, 500), shape=(1000, 1000), radius=90), um=0.08)
    width_um = (cell.nucleus[104] > 0.5).sum() * UM
    assert width_um == pytest.approx(180 * 0.08, rel=0.03)


def test_a_missing_pixel_size_is_taken_as_the_models(tmp_path: Path) -> None:
    cell = load(tmp_path / "a.tif", field((200, 250)), um=None)
    assert "0.206349 µm per pixel was assumed" in cell.warnings[0]
    given = load(tmp_path / "a.tif", field((200, 250)), um=None, image_pixel_size_um=UM)
    assert given.warnings == ()
    np.testing.assert_array_equal(given.nucleus, cell.nucleus)


def test_no_nucleus(tmp_path: Path) -> None:
    pixels = field((200, 250), radius=4)
    with pytest.raises(InputError, match=r"No nucleus was found in image .*a\.tif.*nuclear stain"):
        load(tmp_path / "a.tif", pixels)


@pytest.mark.parametrize("edge", [208, 120])
def test_an_image_no_larger_than_a_crop_is_a_crop(tmp_path: Path, edge: int) -> None:
    pixels = field((edge // 2 + 9, edge // 2), shape=(edge, edge))
    cell = load(tmp_path / "a.tif", pixels)
    off = (208 - edge) // 2
    inner = cell.nucleus[off : off + edge, off : off + edge]
    assert np.corrcoef(inner.ravel(), pixels.ravel())[0, 1] > 0.99
    assert ["smaller" in warning for warning in cell.warnings] == ([] if edge == 208 else [True])


def test_a_small_image_without_nucleus_is_used_as_it_is(tmp_path: Path) -> None:
    cell = load(tmp_path / "a.tif", field((60, 60), shape=(120, 120), radius=4))
    assert "No nucleus was found" in cell.warnings[0]


def test_an_image_far_too_small_at_its_pixel_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check its pixel size"):
        load(tmp_path / "a.tif", field((50, 50), shape=(100, 100)), um=0.02)


def test_a_segmenter_of_ones_own(tmp_path: Path) -> None:
    def corner(pixels: np.ndarray, pixel_size_um: float) -> np.ndarray:
        assert pixel_size_um == UM
        labels = np.zeros(pixels.shape, np.int32)
        labels[140:161, 340:361] = 1
        return labels

    tifffile.imwrite(
        tmp_path / "a.tif", pixels := field((200, 250)), resolution=(1e4 / UM,) * 2, resolutionunit=3
    )
    cell = Cell.load(tmp_path / "a.tif", size_px=64, pixel_size_um=UM, segmenter=corner)
    assert np.corrcoef(cell.nucleus.ravel(), pixels[118:182, 318:382].ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.ome.tif", "a"),
        ("x/a.OME.TIFF", "a"),
        ("a.b.png", "a.b"),
        ("a.tif.png", "a.tif"),
        ("a", "a"),
        (".png", ".png"),
    ],
)
def test_image_stem(name: str, stem: str) -> None:
    assert image_stem(name) == stem


def test_default_nuclei_are_ready_to_draw_into() -> None:
    cells = [Cell.load(name) for name in DEFAULT_CELLS]
    assert len(cells) == 6
    for cell in cells:
        assert cell.nucleus.shape == (208, 208)
        assert cell.nucleus.dtype == np.float32
        assert (cell.nucleus.min(), cell.nucleus.max()) == (0, 1)
        assert (cell.source, cell.warnings) == ("drawn", ())


def test_a_default_nucleus_survives_a_round_trip_through_a_file(tmp_path: Path) -> None:
    cell = Cell.load("hek-2")
    Image.fromarray(np.rint(cell.nucleus * 255).astype(np.uint8)).save(tmp_path / "a.png")
    again = Cell.load(tmp_path / "a.png", size_px=208, pixel_size_um=UM, image_pixel_size_um=UM)
    assert np.abs(again.nucleus - cell.nucleus).max() < 0.05


def test_an_unknown_default_nucleus() -> None:
    with pytest.raises(InputError, match="Nucleus 'hela' is neither a file nor one of hek-1"):
        Cell.load("hela")


def test_a_default_nucleus_needs_neither_scipy_nor_skimage() -> None:
    code = (
        "import sys; from deepgps.images.cell import Cell; Cell.load('hek-1'); "
        "print([m for m in ('scipy', 'skimage', 'tifffile', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_real_field(shared_data: Path) -> None:
    path = shared_data / "images" / "opencell_hoechst" / "good-1.tif"
    cell = Cell.load(path, size_px=208, pixel_size_um=UM, image_pixel_size_um=UM)
    assert cell.warnings == ()
    assert centre_level(cell) > 2 * np.median(cell.nucleus)


def test_a_shipped_nucleus_is_itself_where_it_fits():
    cell = Cell.load("hek-1")
    assert cell.resampled(size_px=208, pixel_size_um=0.2064) is cell


@pytest.mark.parametrize(("size", "um"), [(104, 0.412698), (64, 0.8), (300, 0.1), (208, 0.325)])
def test_a_shipped_nucleus_is_brought_to_another_size_and_scale(size, um):
    cell = Cell.load("hek-1")
    fitted = cell.resampled(size_px=size, pixel_size_um=um)
    assert (fitted.nucleus.shape, fitted.pixel_size_um, fitted.name) == ((size, size), um, cell.name)
    assert 0 <= fitted.nucleus.min() <= fitted.nucleus.max() <= 1
    # The nucleus in the middle stays in the middle, as large in micrometres as it was.
    reach_um = 4.0
    middles = []
    for each in (cell, fitted):
        half, reach = len(each.nucleus) // 2, round(reach_um / each.pixel_size_um)
        middles.append(each.nucleus[half - reach : half + reach, half - reach : half + reach].mean())
    assert middles[1] == pytest.approx(middles[0], rel=0.1)


def test_landmarks_are_cropped_where_the_nucleus_is(tmp_path: Path) -> None:
    pixels = field((150, 150), (190, 270))
    marked = np.zeros(pixels.shape, np.uint16)
    marked[170:180, 280:290] = 900
    tifffile.imwrite(tmp_path / "mt.tif", marked)
    cell = load(tmp_path / "a.tif", pixels, microtubules=tmp_path / "mt.tif")
    assert list(cell.landmarks) == ["microtubules"]
    assert cell.microtubules.shape == cell.nucleus.shape
    rows, columns = np.nonzero(cell.microtubules > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (84, 93, 114, 123)


def test_landmarks_are_taken_from_channels_of_their_name(tmp_path: Path) -> None:
    nucleus, tubulin, er = field((200, 250)), field((100, 100)), field((300, 400))
    metadata = {"axes": "CYX", "Channel": {"Name": ["Tubulin", "DAPI", "Calnexin"]}, "PhysicalSizeX": UM}
    metadata |= {"PhysicalSizeY": UM}
    tifffile.imwrite(tmp_path / "all.ome.tif", np.stack([tubulin, nucleus, er]), ome=True, metadata=metadata)
    cell = Cell.load(tmp_path / "all.ome.tif")
    assert centre_level(cell) > 0.8
    assert set(cell.landmarks) == {"microtubules", "er"}
    assert any("'Calnexin'" in warning and "'Tubulin'" in warning for warning in cell.warnings)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (field((50, 50), shape=(200, 200)), "200 × 200"),
        (np.stack([field((90, 90))] * 4), "none is named like er"),
        (np.full((400, 500), 7, np.uint16), "blank"),
    ],
)
def test_a_landmark_that_does_not_fit_is_refused(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "er.tif", pixels, photometric="minisblack")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "a.tif", field((200, 250)), er=tmp_path / "er.tif")


def test_a_default_cell_has_no_landmarks_of_its_own(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "er.tif", field((90, 90)))
    with pytest.raises(InputError, match=r"er\.tif"):
        Cell.load("hek-1", er=tmp_path / "er.tif")


def test_resampling_keeps_the_landmarks(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "er.tif", field((200, 250)))
    cell = load(tmp_path / "a.tif", field((200, 250)), er=tmp_path / "er.tif")
    smaller = cell.resampled(size_px=64, pixel_size_um=0.4)
    assert smaller.er.shape == (64, 64)
    assert np.corrcoef(smaller.er.ravel(), smaller.nucleus.ravel())[0, 1] > 0.9
