"""The benchmarks of labels hold out what they say, and read out what they should."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from deepgps.bundle import Metric
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.localization import CLASS_SETS


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module
    names = ("label_protocols", "opencell_labels", "opencell_all", "hou_test", "hpa_u2os_labels", "crowds")
    for name in names:
        sys.modules.pop(name, None)


def test_a_read_out_learns_a_class_from_logits(bench):
    rng = np.random.default_rng(0)
    known, tested = rng.normal(size=(400, 3)), rng.normal(size=(50, 3))
    labels = np.stack([known[:, 1] > 0, np.zeros(400), known[:, 2] > 1], axis=1)
    told = np.ones((400, 3), bool)
    told[:200, 2] = False
    chances, thresholds = bench("label_protocols").read_out(known, labels, told, tested)
    assert ((chances[:, 0] > 0.5) == (tested[:, 1] > 0)).mean() > 0.95
    assert (chances[:, 1].max(), thresholds[1]) == (0, 1)
    assert ((chances[:, 2] >= thresholds[2]) == (tested[:, 2] > 1)).mean() > 0.9


def test_the_best_f1_is_the_one_that_calibrated_probabilities_let_expect(bench):
    found = bench("label_protocols").best_f1
    # Of 0.9 and 0.8 alone 2 * 1.7 / (2 + 2.2) are expected, with 0.4 as well 2 * 2.1 / (3 + 2.2).
    assert found(np.array([0.9, 0.8, 0.4, 0.1])) == pytest.approx(0.41)
    assert found(np.array([0.5, 0.4, 0.4, 0.1])) == pytest.approx(0.11)


def test_the_best_threshold_parts_the_classes(bench):
    scores = np.array([0.1, 0.4, 0.5, 0.9])
    assert bench("opencell_labels").best_threshold(np.array([0, 0, 1, 1]), scores) == 0.5


def test_two_sources_are_a_microscope_and_swissprot_or_what_the_atlas_counts_as_two(bench):
    hou = bench("hou_test")
    slugs = CLASS_SETS["mini"].slugs
    nucleus, nucleolus, seven = slugs.index("nucleoplasm"), slugs.index("nucleolus"), list(hou.LEVEL_3)
    train = bench("label_protocols").unlabelled("abcd", ["A", "B", "C", "D"], [1, 2, 3, 4], slugs)
    train.view_mask[:] = True
    train.view_labels[:3, 0, nucleus] = 1
    train.view_labels[:2, 0, nucleolus] = 1
    train.view_labels[[0, 3], 1, nucleus] = 1  # Swiss-Prot says so of the first, and of one that nobody saw
    supported, told = hou.seven_of(train, {"B": frozenset({"nucleolus"}), "D": frozenset({"er"})})
    found = [{seven[k] for k in np.flatnonzero(row)} for row in supported]
    assert found == [{"nucleus"}, {"nucleoli"}, set(), set()]
    assert told.any(1).tolist() == [True, True, False, False]


def test_a_cell_is_measured_beside_the_brightest_of_its_crop(bench):
    labels = np.zeros((40, 60), int)
    labels[10:20, 5:15], labels[10:20, 40:50] = 1, 2
    image = np.where(labels == 1, 0.8, 0.1)
    assert bench("crowds").shares(image, labels, around=False) == pytest.approx([1, 0.125])
    assert bench("crowds").shares(image, labels, around=True) == pytest.approx([1, 1])


def test_a_table_has_a_row_a_model_and_no_interval_where_there_is_none(bench):
    rows = {
        "ours": {"protein/f1": Metric(value=0.5, low=0.4, high=0.6, n=7)},
        "theirs": {"protein/f1": Metric(value=0.25, n=7)},
        "none": {"protein/f1": Metric(value=math.nan, n=7)},
    }
    lines = bench("label_protocols").table("task", rows, ["f1"])
    assert lines[0] == "| task, n = 7 | f1 |"
    assert lines[2:] == ["| ours | 0.500 (0.400–0.600) |", "| theirs | 0.250 |", "| none | – |"]


@pytest.mark.slow
def test_what_is_tested_is_what_the_pages_say(bench, shared_data):
    proteins = load_labelled_proteins(shared_data, CLASS_SETS["mini"])
    classes = bench("opencell_labels").test_classes(shared_data, proteins)
    assert np.bincount(classes[classes >= 0]).sum() == 571
    assert (classes[classes >= 0] < 2).sum() == 353
    tested, truth = bench("hou_test").tested_proteins(shared_data)
    assert (len(tested), truth.shape) == (3814, (3814, 7))
    assert truth.any(1).all()
    atlas = bench("hpa_u2os_labels").test_classes(shared_data, tested)
    assert np.bincount(atlas[atlas >= 0]).tolist() == [238, 532]
    every = bench("opencell_all").test_categories(shared_data, tested)
    assert 800 < len(every) < 910
    assert all(each.any() for each in every.values())


def test_level_3_is_made_of_known_classes(bench):
    hou = bench("hou_test")
    members = [slug for each in hou.LEVEL_3.values() for slug in each]
    assert sorted(members) == sorted(slug for slug in CLASS_SETS["mini"].slugs if slug != "extracellular")
