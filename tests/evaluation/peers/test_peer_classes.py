"""Other tools' classes in ours."""

import csv

import pytest

from deepgps.errors import InputError
from deepgps.evaluation.peers.classes import PEERS, is_place, map_classes
from deepgps.localization import CLASS_SETS

TWO = CLASS_SETS["single-2"].slugs
FOUR = CLASS_SETS["single-4"].slugs


def mapped(names, classes):
    rows = map_classes(names, classes)
    return {
        name: [slug for slug, yes in zip(classes, row, strict=True) if yes]
        for name, row in zip(names, rows, strict=True)
    }


@pytest.mark.parametrize("tool", PEERS)
def test_on_two_classes_all_but_the_nucleus_is_cytoplasm(tool):
    found = mapped(PEERS[tool], TWO)
    nuclear = [name for name, slugs in found.items() if slugs == ["nucleoplasm"]]
    assert nuclear in (["Nucleus"], ["Nuclear"])
    assert all(slugs == ["cytoplasmic"] for name, slugs in found.items() if name not in nuclear)


def test_the_map_onto_two_is_that_of_the_paper(shared_data):
    ours = {"Cytoplasm": "cytoplasmic", "Nucleoplasm": "nucleoplasm"}
    with (shared_data / "peers" / "peer_class_maps.csv").open(encoding="utf-8") as lines:
        published = list(csv.DictReader(lines))
    assert len(published) == 33
    for row in published:
        tool = next(name for name in PEERS if row["tool"].startswith(name))
        assert row["tool_class"] in PEERS[tool]
        assert mapped([row["tool_class"]], TWO) == {row["tool_class"]: [ours[row["two_class"]]]}


def test_the_order_of_our_classes_is_kept():
    assert map_classes(["Nucleus", "Cytoplasm"], ["nucleoplasm", "cytoplasmic"]).tolist() == [[1, 0], [0, 1]]


def test_on_four_classes_a_class_counts_where_all_its_places_do():
    found = mapped(PEERS["DeepLoc 2"], FOUR)
    assert found["Endoplasmic reticulum"] == ["er"]
    assert found["Peroxisome"] == found["Lysosome/Vacuole"] == ["vesicles"]
    assert found["Mitochondrion"] == found["Golgi apparatus"] == []


def test_every_class_of_the_general_tools_has_one_place_among_the_classes_of_mini():
    for tool in ("DeepLoc 1.0", "DeepLoc 2", "MULocDeep", "LAProtT5"):
        found = mapped([name for name in PEERS[tool] if name != "Plastid"], CLASS_SETS["mini"].slugs)
        assert all(len(slugs) == 1 for slugs in found.values())


def test_what_may_be_either_is_refused():
    with pytest.raises(InputError, match="'Secretory pathway' of a peer may be 'vesicles' or 'er'"):
        map_classes(PEERS["MultiLoc2"], FOUR)
    with pytest.raises(InputError, match="'Kitchen' of a peer is not a known place"):
        map_classes(["Kitchen"], TWO)
    with pytest.raises(InputError, match="'kitchen' belongs to no class set"):
        map_classes(["Nucleus"], ["kitchen", "er"])


def test_places_are_known_however_they_are_written():
    for name in ("Golgi_apparatus", "GOLGI APPARATUS", "Golgi.apparatus", "C:Golgi apparatus"):
        assert mapped([name], CLASS_SETS["mini"].slugs) == {name: ["golgi"]}
    assert not is_place("Signals")
