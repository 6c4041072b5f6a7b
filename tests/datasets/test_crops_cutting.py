import numpy as np
import pytest
from pydantic import ValidationError

from deepgps.datasets.crops.cutting import cut_field, normalise_field
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.errors import InputError
from deepgps.images.segmentation import OtsuWatershed
from image_sources import discs, ring

UM, SIZE, EDGE, RADIUS = 0.4, 64, 256, 14
PLACES = [(80, 90), (110, 120), (20, 150), (180, 200)]


def settings(**options) -> PrepareSettings:
    return PrepareSettings(**{"size_px": SIZE, "pixel_size_um": UM, **options})


def cut(places=PLACES, segmenter=None, um=UM, **options):
    nucleus, protein = discs(EDGE, places, RADIUS), ring(EDGE, places, RADIUS)
    crop_settings = settings(**options)
    segmenter = OtsuWatershed() if segmenter is None else segmenter
    return list(cut_field(normalise_field(nucleus, [protein], um, crop_settings, segmenter), crop_settings))


def disc_labels(places=PLACES, radius=RADIUS):
    y, x = np.indices((EDGE, EDGE))
    labels = np.zeros((EDGE, EDGE), np.int32)
    for number, (row, col) in enumerate(places, 3):
        labels[np.hypot(y - row, x - col) < radius] = number
    return labels


def centres(pairs):
    return sorted((pair.row, pair.col) for pair in pairs)


def test_the_defaults_are_those_of_the_paper():
    paper = PrepareSettings()
    assert (paper.size_px, paper.pixel_size_um, paper.low, paper.high) == (208, 0.206349, 3, 99.8)
    assert (paper.min_nucleus_px, paper.border, paper.max_overlap, paper.empty_protein) == (
        1000,
        "drop",
        1,
        "keep",
    )
    assert paper.min_area_um2 == pytest.approx(42.58, abs=0.01)


def test_crops_at_the_border_are_dropped_padded_or_mirrored():
    assert len(cut()) == 3
    padded = cut(border="pad")
    assert len(padded) == 4
    low = min(padded, key=lambda pair: pair.row)
    assert low.pixels[0, :10].max() < 20
    assert low.pixels[0, 32, 32] > 200
    mirrored = cut(border="mirror")
    assert np.allclose(centres(mirrored), sorted(PLACES), atol=1)
    low = min(mirrored, key=lambda pair: pair.row)
    np.testing.assert_array_equal(low.pixels[0, :12], low.pixels[0, 13:25][::-1])


def test_a_nucleus_that_touches_its_mirror_image_is_dropped():
    places = [(80, 90), (5, 150)]
    assert len(cut(places, border="mirror")) == 1
    assert len(cut(places, disc_labels(places), border="mirror")) == 1


def test_overlapping_crops_are_dropped():
    assert len(cut(max_overlap=0.3)) == 3
    # Two crops, 30 px apart in both directions, share (34 / 64) squared = 0.28.
    assert len(cut(max_overlap=0.25)) == 2
    assert centres(cut(max_overlap=0.25))[0] == pytest.approx((80, 90), abs=1)


def test_the_smallest_nucleus_is_an_area_at_any_pixel_size():
    # 14 px of 0.4 µm: 98.5 µm², 2,313 pixels of 0.206349 µm.
    for um, scale in ((UM, 1.0), (0.25, 0.625)):
        labels = disc_labels()
        assert len(cut(segmenter=labels, um=um, min_nucleus_px=round(2200 * scale**2))) > 0
        assert len(cut(segmenter=labels, um=um, min_nucleus_px=round(2450 * scale**2))) == 0


def test_labels_of_another_scale_mark_the_same_nuclei():
    pairs = cut(segmenter=disc_labels(), um=0.8, border="pad")
    assert np.allclose(centres(pairs), np.array(sorted(PLACES)) * 2, atol=2)
    assert {pair.area_px for pair in pairs} == {int((disc_labels() == 3).sum()) * 4}


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match="Its labels have 256 × 100 pixels, its nucleus image 256 × 256"):
        cut(segmenter=disc_labels()[:100])


def test_empty_protein_crops_can_be_dropped():
    nucleus = discs(EDGE, PLACES, RADIUS)
    protein = np.zeros_like(nucleus)
    protein[60:100, 70:110] = 200
    for rule, count in (("keep", 3), ("drop", 2)):
        crop_settings = settings(empty_protein=rule)
        field = normalise_field(nucleus, [protein], UM, crop_settings, OtsuWatershed())
        assert len(list(cut_field(field, crop_settings))) == count


@pytest.mark.parametrize("wrong", [{"size": 3}, {"low": 99.9}, {"border": "wrap"}, {"max_overlap": 2}])
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        PrepareSettings(**wrong)
