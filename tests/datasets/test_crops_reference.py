import json

import numpy as np
import pytest

from deepgps.datasets.crops.reference import (
    ImageField,
    ProteinImage,
    crop_reference_field,
    prepare_reference_crops,
    split_groups,
)
from deepgps.datasets.crops.store import CROPS, CROPS_MANIFEST, open_crops
from deepgps.errors import InputError
from image_sources import discs, ring, write_images

SIZE, UM = 64, 0.4
PLACES = [(80, 90), (150, 210)]


def field(places, source="hpa_fields", edge=256, um=UM, proteins=None) -> ImageField:
    pixels = ring(edge, places, 14)
    default = (ProteinImage(pixels, ("er",), "P27797"),)
    nucleus = discs(edge, places, 14)
    return ImageField("one", source, "group", nucleus, proteins or default, um, "HEK293T")


def cut(image: ImageField, size: int = SIZE, um: float = UM):
    return list(crop_reference_field(image, size, um))


def test_every_nucleus_is_in_the_centre_of_a_pair_of_crops():
    crops = cut(field(PLACES))
    assert len(crops) == len(PLACES)
    for pair, row in crops:
        assert (pair.shape, pair.dtype) == ((2, SIZE, SIZE), np.uint8)
        rows, columns = np.nonzero(pair[0] > 128)
        assert (rows.mean(), columns.mean()) == pytest.approx((32, 32), abs=1.5)
        # The protein forms a ring around the nucleus of the same pair.
        assert pair[1][pair[0] > 128].mean() < 0.2 * pair[1][32, 10:16].mean()
        assert row["localizations"] == "er"


def test_rows_have_the_origin_of_a_crop():
    row = cut(field(PLACES))[1][1]
    assert row == {
        "source": "hpa_fields",
        "field": "one",
        "group": "group",
        "cell": "hpa_fields/one/1",
        "localizations": "er",
        "accession": "P27797",
        "cell_line": "HEK293T",
    }


def test_a_field_is_resampled_to_the_pixel_size():
    (coarse, _), *_ = cut(field(PLACES), um=2 * UM)
    (fine, _), *_ = cut(field(PLACES))
    assert (coarse[0] > 128).sum() == pytest.approx((fine[0] > 128).sum() / 4, rel=0.15)


def test_a_nucleus_too_near_the_border_gives_no_crop():
    assert len(cut(field([*PLACES, (20, 150)]))) == 2


def test_protein_images_that_are_empty_or_without_localization_are_left_out():
    dark, pixels = np.zeros((256, 256), np.float32), ring(256, PLACES, 14)
    proteins = (
        ProteinImage(dark, ("golgi",)),
        ProteinImage(pixels, ()),
        ProteinImage(pixels, ("er", "golgi")),
    )
    rows = [row for _, row in cut(field(PLACES, proteins=proteins))]
    assert [row["localizations"] for row in rows] == ["er|golgi"] * 2


def test_protein_images_of_one_nucleus_have_the_same_cell():
    pixels = ring(256, PLACES, 14)
    proteins = (ProteinImage(pixels, ("er",)), ProteinImage(pixels, ("golgi",)))
    cells = [row["cell"] for _, row in cut(field(PLACES, proteins=proteins))]
    assert cells[0] == cells[1] != cells[2] == cells[3]


@pytest.mark.parametrize("source", ["opencell_tiles", "hpa_dictionary"])
def test_small_fields_are_mirrored_but_nuclei_at_the_border_left_out(source):
    whole, touching = [(20, 60), (60, 25)], [(4, 20)]
    small = field([*whole, *touching], source, edge=80)
    crops = cut(small)
    assert len(crops) == len(whole)
    assert cut(field(whole, edge=80)) == []
    for pair, _ in crops:
        rows, columns = np.nonzero(pair[0][16:48, 16:48] > 128)
        assert (rows.mean(), columns.mean()) == pytest.approx((16, 16), abs=1.5)


def rows_of(source: str, groups: dict[str, str], crops: int = 3) -> list[dict[str, str]]:
    return [
        {"source": source, "group": group, "localizations": place}
        for group, place in groups.items()
        for _ in range(crops)
    ]


def test_one_group_in_five_of_each_localization_is_tested():
    groups = {f"{place}{i}": place for place in ("er", "golgi") for i in range(10)}
    splits = split_groups(rows_of("hpa_u2os_cells", groups))
    assert len(splits) == 20
    for place in ("er", "golgi"):
        tested = [
            group for (_, group), split in splits.items() if split == "test" and group.startswith(place)
        ]
        assert len(tested) == 2


def test_a_group_is_in_one_split_whatever_its_localizations():
    rows = rows_of("hpa_u2os_cells", {f"g{i}": "er" for i in range(10)})
    mixed = [*rows, *({**row, "localizations": "golgi"} for row in rows)]
    assert split_groups(mixed) == split_groups(rows)


def test_the_split_does_not_depend_on_the_order_of_groups():
    rows = rows_of("hpa_fields", {f"g{i}": "er" for i in range(10)})
    assert split_groups(rows) == split_groups(rows[::-1])


def test_groups_of_the_same_name_in_two_sources_are_two_groups():
    groups = {f"g{i}": "er" for i in range(5)}
    splits = split_groups(rows_of("hpa_fields", groups) + rows_of("opencell_tiles", groups))
    assert [list(splits.values()).count("test"), len(splits)] == [2, 10]


def test_all_fields_of_the_hpa_dictionary_are_for_training():
    splits = split_groups(rows_of("hpa_dictionary", {f"g{i}": "er" for i in range(10)}))
    assert set(splits.values()) == {"train"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def prepared(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare_reference_crops(images, folder, size_px=208, pixel_size_um=0.206349)
    return folder


def test_all_sources_are_in_one_store(prepared):
    store = open_crops(prepared)
    assert store.crops.shape == (len(store.index), 2, 208, 208)
    counts = dict(store.index.group_by("source").len().iter_rows())
    # 4 cells of 3 protein images each; 1 nucleus of 2; 2 tiles and 2 fields of 2 nuclei each.
    assert counts == {"hpa_u2os_cells": 12, "hpa_fields": 2, "opencell_tiles": 4, "hpa_dictionary": 4}
    assert set(store.index["split"]) <= {"train", "test"}
    by_group = store.index.group_by("source", "group").n_unique()
    assert set(by_group["split"]) == {1}
    assert json.loads((prepared / CROPS_MANIFEST).read_text())["size_px"] == 208


def test_every_crop_has_a_nucleus_of_plausible_size_in_its_centre(prepared):
    store = open_crops(prepared)
    assert (store.crops[:, 0, 100:108, 100:108].mean((1, 2)) > 128).all()
    diameters = np.sqrt(4 / np.pi * (store.crops[:, 0] > 128).sum((1, 2))) * 0.206349
    assert (diameters > 9).all()


def test_preparing_again_gives_the_same_bytes(images, prepared, tmp_path):
    prepare_reference_crops(images, tmp_path, size_px=208, pixel_size_um=0.206349)
    assert (tmp_path / CROPS).read_bytes() == (prepared / CROPS).read_bytes()
    assert open_crops(tmp_path).index.equals(open_crops(prepared).index)


def test_sources_without_any_crop_are_refused(tmp_path):
    for name in ("hpa_u2os_cells", "hpa_fields", "opencell_tiles", "hpa_dictionary"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.csv").write_text("field\n")
    with pytest.raises(InputError, match="No crop could be cut"):
        prepare_reference_crops(tmp_path, tmp_path / "crops", size_px=208, pixel_size_um=0.2)
