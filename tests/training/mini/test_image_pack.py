import numpy as np
import polars as pl
import pytest

from deepgps.datasets.crops.reference import ImageField, ProteinImage, reference_fields
from deepgps.datasets.crops.store import open_crops, write_crops
from deepgps.errors import InputError
from deepgps.localization import WORDS, class_set
from deepgps.training.mini.image_pack import (
    CHANNELS,
    UNKNOWN_DOMAIN,
    ImagePack,
    detail_correlation,
    pack_fields,
    reference_pack,
    silhouettes,
    store_pack,
    without_negative,
    without_unseen_words,
)
from image_sources import discs, ring, write_images
from mini_packs import EDGE, small_pack

UM = 0.206349
MINI = class_set("mini")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def packed(images) -> ImagePack:
    return reference_pack(images, MINI, 2 * UM)


def field_of(pack: ImagePack, name: str) -> int:
    return int(np.flatnonzero(pack.arrays["name"] == name)[0])


def words_of(pack: ImagePack, number: int) -> set[str]:
    return {word for word, on in zip(WORDS, pack.arrays["words"][number], strict=True) if on}


def classes_of(pack: ImagePack, number: int) -> set[str]:
    return {slug for slug, on in zip(MINI.slugs, pack.arrays["classes"][number], strict=True) if on}


def test_every_source_is_packed_with_its_channels_and_labels(packed):
    sources = dict(zip(*np.unique(packed.arrays["source"], return_counts=True), strict=True))
    assert sources == {
        "hpa_u2os_cells": 4,
        "hpa_fields": 1,
        "hpa_dictionary": 2,
        "hpa_landmark_fields": 2,
        "opencell_crops": 6,
        "opencell_tiles": 2,
        "other_pairs": 2,
    }
    landmarks = field_of(packed, "field_1")
    assert packed.arrays["present"][landmarks].all()
    assert (words_of(packed, landmarks), classes_of(packed, landmarks)) == (
        {"nuclear_membrane"},
        {"nuclear_membrane"},
    )
    daxx = field_of(packed, "1_2_A1_1")
    assert (words_of(packed, daxx), classes_of(packed, daxx)) == (
        {"Nuclear bodies", "nucleoplasm"},
        {"nucleoplasm"},
    )
    judged, unknown = field_of(packed, "one_00"), field_of(packed, "one_01")
    assert packed.arrays["label_weight"][[judged, unknown]].tolist() == pytest.approx([0.6, 0])
    held_out = packed.arrays["name"][packed.arrays["split"] == "test"]
    assert set(held_out) == {"883d381517_00", "883d381517_01", "gallery_ACTB"}


def test_a_cell_is_around_its_nucleus_and_a_masked_one_is_trimmed(packed):
    for cell, (number, _, _) in enumerate(packed.arrays["cells"]):
        nucleus = packed.window(cell, 8)[0]
        assert nucleus.mean() > 0.4, packed.arrays["name"][number]
    masked = field_of(packed, "mosaic0_11")
    assert packed.arrays["masked"][masked]
    assert max(packed.arrays["shape"][masked]) < 512 * 0.2 / (2 * UM)


def test_the_pixel_size_is_the_one_asked_for(images, packed):
    fine = reference_pack(images, MINI, UM)
    name = "thumb_CLTA"
    shapes = [pack.arrays["shape"][field_of(pack, name)] for pack in (packed, fine)]
    np.testing.assert_allclose(shapes[1] / shapes[0], 2, rtol=0.02)


def test_the_grain_is_packed_of_fields_that_show_it(images):
    grain = reference_pack(images, MINI, UM, grain=True)
    assert "opencell_crops" not in grain.arrays["source"]
    assert (grain.arrays["source"] == "hpa_u2os_cells").sum() == 1
    assert grain.arrays["shape"].max() <= 422


def test_a_pack_is_read_as_it_was_written(packed, tmp_path):
    packed.save(tmp_path / "packed.npz")
    again = ImagePack.load(tmp_path / "packed.npz")
    assert packed.arrays.keys() == again.arrays.keys()
    for name, value in packed.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], value)
    np.testing.assert_array_equal(again.examples, packed.examples)
    (tmp_path / "packed.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"packed.npz' cannot be read; delete it and pack"):
        ImagePack.load(tmp_path / "packed.npz")


def test_images_without_a_nucleus_are_refused():
    empty = np.zeros((64, 64), np.float32)
    field = ImageField("a", "hpa_fields", "a", empty, (ProteinImage(empty, ("er",)),), 0.4, "HeLa")
    with pytest.raises(InputError, match="No nucleus was found in any image"):
        pack_fields([field], MINI, 0.4)


def test_beyond_its_border_a_field_is_mirrored_and_a_masked_cell_is_empty():
    size = 2 * EDGE
    for masked in (False, True):
        pack = small_pack(masked)
        square, whole = pack.window(1, size), pack.channels(1) / 255
        top, left = 18 - size // 2, 22 - size // 2
        np.testing.assert_allclose(
            square[:, -top : EDGE - top, -left : EDGE - left], whole.astype(np.float32)
        )
        mirrored = square[:, -top - 1, -left : EDGE - left]
        np.testing.assert_allclose(mirrored, 0 if masked else whole[:, 1].astype(np.float32))


def test_a_landmark_is_an_example_of_its_protein():
    pack = small_pack()
    labels = {
        channel: pack.labels(int(np.flatnonzero((pack.examples == (1, channel)).all(1))[0]))
        for channel in range(1, len(CHANNELS))
    }
    assert labels[2][0].tolist() == [0, 1, 0]
    assert labels[3][0].tolist() == [1, 0, 0]
    assert WORDS[int(labels[2][1].argmax())] == "Microtubules"
    assert labels[2][2] == labels[3][2] == 1


def textured(sign: int, um: float = 0.2) -> ImageField:
    """A tile whose nuclei carry the protein's texture, or with -1 its negative."""
    places = [(60, 60), (150, 150), (60, 150)]
    texture = np.random.default_rng(0).random((210, 210)) * 60
    nucleus, cells = discs(210, places, 28, 160), discs(210, places, 52, 100)
    protein = (ProteinImage((cells + texture).astype(np.float32), ("cytoskeleton",)),)
    return ImageField("a", "opencell_tiles", "a", (nucleus + sign * texture).clip(0), protein, um, "HEK293T")


def test_nuclei_that_carry_the_negative_of_the_protein_become_silhouettes():
    tile = textured(-1)
    assert detail_correlation(tile.nucleus, tile.proteins[0].pixels, tile.pixel_size_um) < -0.4
    flat = without_negative(tile).nucleus
    np.testing.assert_array_equal(flat, silhouettes(tile.nucleus, tile.pixel_size_um))
    assert flat[55:65, 55:65].std() < 0.1 * tile.nucleus[55:65, 55:65].std() / tile.nucleus.max()
    clean = textured(1)
    assert without_negative(clean) is clean


def test_of_an_antibody_and_cell_line_one_field_is_packed(images, monkeypatch):
    from deepgps.training.mini import image_pack

    twice = [*reference_fields(images, ["hpa_fields"])] * 2
    monkeypatch.setattr(image_pack, "reference_fields", lambda _: iter(twice))
    assert len(reference_pack(images, MINI, 2 * UM).arrays["offset"]) == 1


@pytest.mark.parametrize("source", ["opencell_crops", "hpa_fields"])
def test_a_word_that_an_opencell_image_does_not_show_is_dropped(source):
    edge, spots = 96, [(48, 64), (20, 30)]
    nuclei = discs(edge, [(48, 48), (20, 20)], 12)
    haze, dots = ring(edge, [(48, 48), (20, 20)], 12), discs(edge, spots, 2)
    words = ("centrosome", "cytoplasmic")
    fields = [
        ImageField(name, source, name, nuclei, (ProteinImage(pixels, words),), 2 * UM, "HEK293T")
        for name, pixels in (("haze", haze), ("dots", dots))
    ]
    pack = without_unseen_words(pack_fields(fields, MINI, 2 * UM), MINI)
    kept = set(words) if source == "hpa_fields" else {"cytoplasmic"}
    assert [words_of(pack, n) for n in range(2)] == [kept, set(words)]
    assert classes_of(pack, 0) == kept


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 2, 32, 32), np.uint8)
    places = ["er|golgi", "nucleolus_gc", ""]
    rows = [
        {"source": "lab", "field": f"f{n}", "cell": f"c{n}", "localizations": place, "split": "train"}
        for n, place in enumerate(places)
    ]
    write_crops(tmp_path / "store", crops, rows, {})
    return open_crops(tmp_path / "store")


def test_each_crop_of_a_store_is_a_field(store):
    fine, coarse = (store_pack(store, MINI, 0.2, grain=grain) for grain in (True, False))
    assert np.shares_memory(fine.arrays["pixels"], store.crops)
    np.testing.assert_array_equal(fine.channels(1), store.crops[1])
    halved = store.crops[1].reshape(2, 16, 2, 16, 2).mean((2, 4))
    np.testing.assert_allclose(coarse.channels(1), halved, atol=0.5)
    assert (float(coarse.arrays["pixel_size_um"]), float(fine.arrays["pixel_size_um"])) == (0.4, 0.2)
    assert [classes_of(fine, n) for n in range(3)] == [{"er", "golgi"}, {"nucleolus"}, set()]
    assert words_of(fine, 1) == {"nucleolus_gc"}
    assert fine.arrays["label_weight"].tolist() == [1, 1, 0]
    assert set(fine.arrays["domain"]) == {UNKNOWN_DOMAIN}
    assert len(fine.rows("train")) == 3


def test_crops_that_are_left_out_are_in_no_split(store):
    index = store.index.with_columns(pl.Series("split", ["train", None, "validation"]))
    pack = store_pack(type(store)(store.crops, index), MINI, 0.2)
    assert (pack.rows("train").tolist(), pack.rows("validation").tolist()) == ([0], [2])
