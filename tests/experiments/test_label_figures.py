"""The experiments on labels test the documented proteins and read out the right classes."""

import numpy as np
import pytest

from deepgps.datasets.labels import load_labelled_proteins
from deepgps.evaluation.labels import label_report
from deepgps.evaluation.protocols import unlabelled_proteins
from deepgps.localization import CLASS_SETS
from label_training import with_baselines
from opencell_labels import best_threshold, single_classes
from public_benchmark import (
    LEVEL_3,
    atlas_classes,
    benchmark_proteins,
    best_expected_threshold,
    level_3_labels,
    opencell_categories,
    read_out,
)


def test_a_read_out_learns_a_class_from_logits():
    rng = np.random.default_rng(0)
    train, tested = rng.normal(size=(400, 3)), rng.normal(size=(50, 3))
    labels = np.stack([train[:, 1] > 0, np.zeros(400), train[:, 2] > 1], axis=1)
    known = np.ones((400, 3), bool)
    known[:200, 2] = False
    chances, thresholds = read_out(train, labels, known, tested)
    assert ((chances[:, 0] > 0.5) == (tested[:, 1] > 0)).mean() > 0.95
    assert (chances[:, 1].max(), thresholds[1]) == (0, 1)
    assert ((chances[:, 2] >= thresholds[2]) == (tested[:, 2] > 1)).mean() > 0.9


def test_the_best_f1_is_the_one_that_calibrated_probabilities_let_expect():
    # Of 0.9 and 0.8 alone 2 * 1.7 / (2 + 2.2) are expected, with 0.4 as well 2 * 2.1 / (3 + 2.2).
    assert best_expected_threshold(np.array([0.9, 0.8, 0.4, 0.1])) == pytest.approx(0.41)
    assert best_expected_threshold(np.array([0.5, 0.4, 0.4, 0.1])) == pytest.approx(0.11)


def test_the_best_threshold_separates_the_classes():
    scores = np.array([0.1, 0.4, 0.5, 0.9])
    assert best_threshold(np.array([0, 0, 1, 1]), scores) == 0.5


def test_two_sources_are_a_microscope_and_swissprot_or_two_of_the_atlas():
    slugs = CLASS_SETS["mini"].slugs
    nucleus, nucleolus, seven = slugs.index("nucleoplasm"), slugs.index("nucleolus"), list(LEVEL_3)
    train = unlabelled_proteins("abcd", ["A", "B", "C", "D"], [1, 2, 3, 4], slugs)
    train.view_mask[:] = True
    train.view_labels[:3, 0, nucleus] = 1
    train.view_labels[:2, 0, nucleolus] = 1
    train.view_labels[[0, 3], 1, nucleus] = 1  # Swiss-Prot: the first, and one that no microscope has seen
    supported, known = level_3_labels(train, {"B": frozenset({"nucleolus"}), "D": frozenset({"er"})})
    found = [{seven[k] for k in np.flatnonzero(row)} for row in supported]
    assert found == [{"nucleus"}, {"nucleoli"}, set(), set()]
    assert known.any(1).tolist() == [True, True, False, False]


def test_a_report_is_followed_by_its_baselines():
    chances = np.array([[0.9, 0.1], [0.2, 0.8]])
    report = label_report(chances, np.eye(2), ("a", "b"), multi_label=False, proteins=["p", "q"])
    rows = with_baselines({"model": report})
    assert list(rows) == ["model", "majority class", "class prior"]
    assert rows["model"]["accuracy"].value == 1


def test_the_tested_proteins_are_those_documented(shared_data):
    proteins = load_labelled_proteins(shared_data, CLASS_SETS["mini"])
    classes = single_classes(shared_data, proteins)
    assert np.bincount(classes[classes >= 0]).sum() == 571
    assert (classes[classes >= 0] < 2).sum() == 353
    tested, truth = benchmark_proteins(shared_data)
    assert (len(tested), truth.shape) == (3814, (3814, 7))
    assert truth.any(1).all()
    atlas = atlas_classes(shared_data, tested)
    assert np.bincount(atlas[atlas >= 0]).tolist() == [238, 532]
    every = opencell_categories(shared_data, tested)
    assert 800 < len(every) < 910
    assert all(each.any() for each in every.values())


def test_level_3_is_made_of_known_classes():
    members = [slug for each in LEVEL_3.values() for slug in each]
    assert sorted(members) == sorted(slug for slug in CLASS_SETS["mini"].slugs if slug != "extracellular")
