import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from deepgps.prediction import Prediction
from deepgps.proteins.protein import Protein
from deepgps.results.labelled_images import (
    CROP_CAPTION,
    CROP_COLUMNS,
    CROP_PANEL,
    MARGIN,
    NUCLEUS_COLOUR,
    PROTEIN_COLOUR,
    contact_sheet,
    crop_sheet,
    image_files,
    labelled_image,
    overlay,
    scale_bar_um,
    stretch,
)


@pytest.fixture
def prediction(drawn_nucleus):
    def make(protein_id="P1", nucleus=drawn_nucleus, *, mean=False):
        image = np.roll(drawn_nucleus.nucleus, 60, axis=1) / 2
        return Prediction(
            protein=Protein(protein_id, "MKLV"),
            localizations=("cytoplasmic", "vesicles"),
            probabilities={"cytoplasmic": 0.9, "vesicles": 0.6},
            confidence=0.9,
            evidence=(),
            cell=nucleus,
            image=image,
            readouts={},
            model="tiny",
            version="1",
            mean=mean,
        )

    return make


def test_the_tiff_has_both_channels_their_names_and_the_pixel_size(prediction, drawn_nucleus):
    _, content = image_files(prediction())
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        series = tiff.series[0]
        metadata = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        pixels = series.asarray() / 65535
    assert series.axes == "CYX"
    assert [channel["Name"] for channel in metadata["Channel"]] == ["nucleus", "protein_predicted"]
    assert float(metadata["PhysicalSizeX"]) == pytest.approx(0.206)
    np.testing.assert_allclose(pixels[0], drawn_nucleus.nucleus, atol=1e-4)
    np.testing.assert_allclose(pixels[1], np.roll(drawn_nucleus.nucleus, 60, axis=1) / 2, atol=1e-4)


def test_a_mean_image_is_called_so_in_both_files(prediction):
    png, content = image_files(prediction(mean=True))
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        channels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
    assert [channel["Name"] for channel in channels] == ["nucleus", "protein_mean"]
    assert png != image_files(prediction())[0]


def test_the_png_shows_three_panels_and_nothing_is_clipped_by_long_or_odd_ids(prediction):
    for protein_id in ("P1", "x" * 500, "β-tubulin \n\0 中", ""):
        content, _ = image_files(prediction(protein_id))
        with Image.open(io.BytesIO(content)) as png:
            assert png.format == "PNG"
            assert png.width > 2.5 * png.height * 0.8


def test_the_overlay_is_blue_for_nucleus_yellow_for_protein():
    off, on = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    red, green, blue = (int(v) for v in overlay(on, off)[0, 0])
    assert blue > 2 * red
    red, green, blue = (int(v) for v in overlay(off, on)[0, 0])
    assert min(red, green) > 2 * blue
    assert overlay(on, on)[0, 0].min() > 200


def test_the_panels_show_what_the_images_hold(prediction):
    pixels = np.asarray(labelled_image(prediction()))
    panel, margin = 260, 12
    middle = pixels[52 + panel // 2]
    # Nucleus in the middle of the first panel; protein 60 px (75 on screen) to its right in the second.
    assert middle[margin + panel // 2].min() > 200
    assert middle[2 * margin + panel + panel // 2 + 75].min() > 200
    assert middle[2 * margin + panel + 20].max() < 60


def test_display_stretches_a_dim_image_and_leaves_a_black_one_black():
    dim = np.full((8, 8), 0.1, np.float32)
    assert stretch(dim).max() == 1
    assert stretch(np.zeros((8, 8), np.float32)).max() == 0


@pytest.mark.parametrize(("field", "bar"), [(43, 10), (17, 2), (400, 50), (0.1, 0.5)])
def test_the_scale_bar_is_round_and_at_most_a_quarter_of_the_field(field, bar):
    assert scale_bar_um(field) == bar


def test_the_contact_sheet_has_a_tile_for_each_nucleus(drawn_nucleus):
    assert contact_sheet([drawn_nucleus] * 5).size[1] > contact_sheet([drawn_nucleus] * 4).size[1]


def drawn_crops(count):
    crops = np.zeros((count, 2, 64, 64), np.float32)
    crops[:, 0, 16:48, 16:48] = 1
    crops[:, 1, :8] = 1
    return np.asarray(crop_sheet(crops, [("ATL3", "er, golgi", "f1")] * count, 0.2))


def test_a_crop_is_drawn_as_nucleus_protein_and_overlay():
    drawn = drawn_crops(1)
    middle = MARGIN + CROP_PANEL // 2
    assert drawn[middle, middle].tolist() == [255, 255, 255]
    assert drawn[middle, middle + CROP_PANEL].tolist() == [0, 0, 0]
    third = MARGIN + 2 * (CROP_PANEL + 2)
    assert drawn[middle, third + CROP_PANEL // 2].tolist() == list(NUCLEUS_COLOUR)
    assert drawn[MARGIN + 5, third + CROP_PANEL // 2].tolist() == list(PROTEIN_COLOUR)
    assert drawn[MARGIN + CROP_PANEL + 2 : MARGIN + CROP_PANEL + CROP_CAPTION].max() > 150


def test_crops_fill_one_row_after_another():
    one, row, two = drawn_crops(1).shape, drawn_crops(CROP_COLUMNS).shape, drawn_crops(CROP_COLUMNS + 1).shape
    assert one[0] == row[0] < two[0]
    assert one[1] < row[1] == two[1]
