import numpy as np
import pytest
from PIL import Image

from deepgps.datasets.crops import reference
from deepgps.datasets.crops.reference import estimate_pixel_size, reference_fields, remove_scale_bar
from deepgps.errors import InputError
from deepgps.localization import localizations_of
from image_sources import (
    dictionary,
    discs,
    hpa_field,
    landmark_fields,
    opencell_crops,
    opencell_tiles,
    other_pairs,
    ring,
    save,
    u2os_mosaics,
    write_images,
)

TUBULIN, CALRETICULIN = (("cytoskeleton",), "Q71U36"), (("er",), "P27797")


def fields(source, folder):
    return list(source(folder))


def proteins_of(field):
    return [(image.localizations, image.accession) for image in field.proteins]


def test_u2os_cells_are_tiles_of_a_mosaic_with_their_landmarks(tmp_path):
    u2os_mosaics(tmp_path / "hpa_u2os_cells")
    upper, lower, other, _ = fields(reference.u2os_cells, tmp_path / "hpa_u2os_cells")
    assert (upper.name, upper.group, upper.source) == ("mosaic0_11", "mosaic0", "hpa_u2os_cells")
    assert (lower.name, other.group) == ("mosaic0_21", "mosaic1")
    assert (upper.pixel_size_um, upper.cell_line) == (0.2, "U-2 OS")
    assert upper.nucleus.shape == (512, 512)
    for cell in (upper, lower):  # each tile has its own nucleus in its centre, and nothing else
        rows, columns = np.nonzero(cell.nucleus > 128)
        assert (abs(rows.mean() - 256), abs(columns.mean() - 256)) < (1, 1)
    assert proteins_of(upper) == [(("cytoplasmic",), ""), TUBULIN, CALRETICULIN]
    assert proteins_of(other) == [(("nucleoplasm",), ""), TUBULIN, CALRETICULIN]
    assert other.proteins[0].pixels[256, 256] > 150 > 20 > upper.proteins[0].pixels[256, 256]


def test_hpa_fields_name_their_protein_and_show_microtubules(tmp_path):
    hpa_field(tmp_path / "hpa_fields")
    (field,) = fields(reference.hpa_fields, tmp_path / "hpa_fields")
    assert (field.name, field.group, field.cell_line) == ("1_2_A1_1", "DAXX A-431", "A-431")
    assert field.pixel_size_um == 0.08
    assert proteins_of(field) == [(("nuclear_punctae", "nucleoplasm"), "Q9UER7"), TUBULIN]
    assert field.nucleus[320, 320] > 150 > 30 > field.proteins[1].pixels[320, 320]


def test_opencell_tiles_follow_the_grade_rule_and_unusable_ones_are_left_out(tmp_path):
    opencell_tiles(tmp_path / "opencell_tiles")
    gallery, thumbnail = fields(reference.opencell_tiles, tmp_path / "opencell_tiles")
    assert proteins_of(gallery) == [(("cytoskeleton",), "A0")]
    assert proteins_of(thumbnail) == [(("cytoplasmic", "vesicles"), "A1")]
    assert (gallery.name, gallery.group, gallery.cell_line) == ("gallery_ACTB", "ACTB", "HEK293T")
    assert gallery.pixel_size_um == pytest.approx(0.3558, abs=1e-3)
    # Nuclei of 36 px are taken to be 12.5 µm across.
    assert thumbnail.pixel_size_um == pytest.approx(12.5 / 36, rel=0.1)
    assert thumbnail.proteins[0].pixels[141, 110] < 50  # the scale bar is gone


def test_the_pixel_size_of_dictionary_fields_is_estimated(tmp_path):
    dictionary(tmp_path / "hpa_dictionary")
    first, second = fields(reference.hpa_dictionary, tmp_path / "hpa_dictionary")
    assert [proteins_of(first), proteins_of(second)] == [
        [(("mitochondria",), "")],
        [(("big_aggregates",), "")],
    ]
    assert (first.name, first.group) == ("mitochondria_1", "mitochondria_1")
    assert first.pixel_size_um == pytest.approx(15 / 90, rel=0.1)


def test_all_sources_are_read_and_a_missing_one_is_named(tmp_path):
    write_images(tmp_path)
    assert [field.source for field in reference_fields(tmp_path)] == [
        *["hpa_u2os_cells"] * 4,
        "hpa_fields",
        *["hpa_dictionary"] * 2,
        *["hpa_landmark_fields"] * 2,
        *["opencell_crops"] * 6,
        *["opencell_tiles"] * 2,
        *["other_pairs"] * 2,
    ]
    only = reference_fields(tmp_path, ["opencell_tiles"])
    assert {field.source for field in only} == {"opencell_tiles"}
    (tmp_path / "hpa_fields" / "index.csv").unlink()
    with pytest.raises(InputError, match=r"'.*hpa_fields' has no index\.csv"):
        list(reference_fields(tmp_path))


@pytest.mark.parametrize("colour", [None, 0, 1, 2])
def test_a_colour_image_is_read_as_grey(tmp_path, colour):
    drawn = discs(64, [(32, 32)], 10)
    save(tmp_path / "one.png", drawn, colour)
    np.testing.assert_array_equal(reference._grey(tmp_path / "one.png"), np.rint(drawn))


def test_transparency_is_ignored(tmp_path):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 1], rgba[..., 3] = 40, 255
    Image.fromarray(rgba).save(tmp_path / "one.png")
    assert (reference._grey(tmp_path / "one.png") == 40).all()


def test_location_names_are_mapped_in_any_case_without_duplicates_and_unknown_names():
    words = reference._hpa_words("Rods & rings; Cytosol;cytosol;Cytoplasmic bodies;Moon")
    assert words == ("Rods & Rings", "cytoplasmic", "Cytoplasmic bodies")
    assert localizations_of(words) == ("big_aggregates", "cytoplasmic")
    assert reference._hpa_words("") == ()


def test_landmark_fields_have_a_channel_for_each_row(tmp_path):
    landmark_fields(tmp_path / "hpa_landmark_fields")
    whole, cell = fields(reference.hpa_landmark_fields, tmp_path / "hpa_landmark_fields")
    channels = {image.channel: image.words for image in whole.proteins}
    assert channels == {"microtubules": ("Microtubules",), "er": ("er",), "protein": ("nuclear_membrane",)}
    assert (whole.masked, cell.masked, cell.name, len(cell.proteins)) == (False, True, "cell_0", 1)
    assert whole.pixel_size_um == 0.16


def test_opencell_crops_are_weakly_labelled_and_lose_their_outermost_pixels(tmp_path):
    opencell_crops(tmp_path / "opencell_crops")
    first, second, *_ = fields(reference.opencell_crops, tmp_path / "opencell_crops")
    assert first.nucleus.shape == first.proteins[0].pixels.shape == (96, 96)
    assert (first.group, second.group, first.pixel_size_um) == ("one", "one", pytest.approx(0.412698))
    assert [each.proteins[0].words for each in (first, second)] == [("er", "golgi"), ()]
    assert first.proteins[0].label_weight < 1


def test_pairs_of_unknown_content_are_left_out(tmp_path):
    other_pairs(tmp_path / "other_pairs")
    named, tubulin = fields(reference.other_pairs, tmp_path / "other_pairs")
    assert (named.proteins[0].words, named.pixel_size_um) == (("membrane",), 0.08)
    assert (tubulin.proteins[0].channel, tubulin.proteins[0].words) == ("microtubules", ("Microtubules",))
    assert tubulin.pixel_size_um == pytest.approx(15 / 70, rel=0.1)


@pytest.mark.parametrize("blur", [0, 0.8])
@pytest.mark.parametrize("bar", [(280, 240, 4, 40), (285, 10, 2, 60)])
def test_only_the_scale_bar_is_removed(bar, blur):
    row, column, height, width = bar
    places = [(80, 100), (200, 180)]
    clean = ring(300, places, 30)
    with_bar = clean.copy()
    with_bar[row : row + height, column : column + width] = 255
    if blur:
        from scipy import ndimage

        # A bar that was scaled down: none of it is quite saturated, while a pixel of the cell is.
        strip = slice(row - 4, row + height + 4)
        with_bar[strip] = ndimage.gaussian_filter(with_bar[strip], (0.35, 0.35))
        with_bar[100, 100] = clean[100, 100] = 255
    found = remove_scale_bar(with_bar)
    near = np.zeros(clean.shape, bool)
    near[row - 5 : row + height + 5, column - 5 : column + width + 5] = True
    np.testing.assert_array_equal(found[~near], with_bar[~near])
    assert found[near].max() < 60


@pytest.mark.parametrize(
    "field_image",
    [
        discs(200, [(180, 100), (60, 60)], 15, 255),
        np.zeros((50, 60), np.float32),
        np.full((50, 60), 7, np.float32),
        np.eye(120, dtype=np.float32) * 255,
    ],
    ids=["nuclei", "black", "flat", "line"],
)
def test_an_image_without_a_scale_bar_is_unchanged(field_image):
    before = field_image.copy()
    np.testing.assert_array_equal(remove_scale_bar(field_image), before)
    np.testing.assert_array_equal(field_image, before)


def test_a_bright_strip_in_the_upper_part_is_not_a_scale_bar():
    field_image = discs(200, [(100, 100)], 20)
    field_image[20:23, 50:90] = 255
    np.testing.assert_array_equal(remove_scale_bar(field_image), field_image)


@pytest.mark.parametrize("diameter_px", [30, 50, 70, 100])
@pytest.mark.parametrize("edge", [300, 500])
def test_the_pixel_size_is_estimated_within_15_percent(edge, diameter_px):
    spacing = 1.5 * diameter_px
    steps = np.arange(diameter_px, edge - 0.7 * diameter_px, spacing)
    nuclei = discs(edge, [(row, column) for row in steps for column in steps], diameter_px / 2)
    assert estimate_pixel_size(nuclei, 15.0) == pytest.approx(15.0 / diameter_px, rel=0.15)


def test_debris_does_not_change_the_pixel_size():
    nuclei = discs(400, [(100, 100), (250, 150), (150, 300), (320, 320)], 25)
    debris = discs(400, [(30 + 60 * i, 370 - 55 * i) for i in range(6)], 4) - 8
    assert estimate_pixel_size(nuclei + debris, 12.5) == pytest.approx(0.25, rel=0.15)


def test_without_nuclei_the_pixel_size_is_the_first_guess():
    assert estimate_pixel_size(np.zeros((160, 200), np.float32), 12.0) == pytest.approx(12.0 / 20)


def test_the_real_tiles(shared_data):
    tiles = fields(reference.opencell_tiles, shared_data / "images" / "opencell_tiles")
    assert len(tiles) == 35
    assert all(tile.proteins[0].localizations for tile in tiles)
    assert all(0.05 < tile.pixel_size_um < 0.4 for tile in tiles)
    thumbnails = [tile for tile in tiles if tile.name.startswith("thumb")]
    assert len(thumbnails) == 14
    for tile in thumbnails:  # every one of them has a scale bar
        raw = reference._grey(shared_data / "images" / "opencell_tiles" / f"{tile.name}_protein.png")
        assert 0 < (raw != tile.proteins[0].pixels).sum() < 0.015 * raw.size


def test_every_location_of_the_real_dictionary_is_known(shared_data):
    rows = reference._rows(shared_data / "images" / "hpa_dictionary")
    assert all(reference._hpa_words(row["locations"]) for row in rows)
