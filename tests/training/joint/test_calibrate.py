import numpy as np
import pytest
from scipy.special import expit, softmax

from deepgps.training.joint.measure import calibrate

CLASSES = ("a", "b", "c")


def single(count, confidence, seed=0):
    """Logits of proteins whose classes are drawn from the softmax of the logits over ``confidence``."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (count, 3))
    labels = [rng.choice(3, p=chances) for chances in softmax(true, 1)]
    return true * confidence, np.eye(3)[labels]


@pytest.mark.parametrize("confidence", [0.5, 1.0, 3.0])
def test_a_temperature_is_found(confidence):
    logits, targets = single(4000, confidence)
    found = calibrate(logits, targets, CLASSES, multi_label=False)
    assert found.scale == pytest.approx([1 / confidence] * 3, rel=0.1)
    assert found.bias == (0, 0, 0)
    assert found.thresholds == (0.5,) * 3


def test_few_proteins_change_little():
    logits, targets = single(3, 10)
    assert calibrate(logits * 0, targets, CLASSES, multi_label=False).scale == pytest.approx([1] * 3)
    few, many = (calibrate(*single(n, 5), CLASSES, multi_label=False).scale[0] for n in (4, 400))
    assert abs(np.log(few)) < abs(np.log(many))


def test_scale_and_shift_are_found_class_by_class():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (4000, 3))
    targets = (rng.random(true.shape) < expit(true)).astype(float)
    scale, shift = np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
    found = calibrate((true - shift) / scale, targets, CLASSES, multi_label=True)
    assert found.scale == pytest.approx(scale, rel=0.15)
    assert found.bias == pytest.approx(shift, abs=0.15)
    chances = found.probabilities((true - shift) / scale, multi_label=True)
    assert np.abs(chances - expit(true)).mean() < 0.02


def test_a_class_that_none_or_all_have_keeps_its_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (50, 3))
    targets = np.stack([np.zeros(50), np.ones(50), logits[:, 2] > 0], 1)
    found = calibrate(logits, targets, CLASSES, multi_label=True)
    assert found.scale[:2] == (1, 1)
    assert found.bias[:2] == (0, 0)
    assert found.thresholds[:2] == (0.5, 0.5)
    assert found.scale[2] > 1


def test_without_proteins_nothing_changes():
    none = np.zeros((0, 3))
    for multi_label in (False, True):
        found = calibrate(none, none, CLASSES, multi_label=multi_label)
        assert (found.scale, found.bias, found.thresholds) == ((1,) * 3, (0,) * 3, (0.5,) * 3)


def test_a_threshold_follows_the_rarity_of_a_class_with_enough_proteins():
    rng = np.random.default_rng(1)
    logits = rng.normal(-2.5, 1, (600, 3))
    targets = (rng.random(logits.shape) < expit(logits)).astype(float)
    targets[:, 2] = 0
    targets[:4, 2] = 1
    found = calibrate(logits, targets, CLASSES, multi_label=True)
    assert found.thresholds[0] < 0.3
    assert found.thresholds[2] == 0.5


def test_probabilities_of_one_class_a_protein_sum_to_one():
    found = calibrate(*single(20, 2), CLASSES, multi_label=False)
    assert found.probabilities(np.random.default_rng(0).normal(size=(5, 3)), multi_label=False).sum(
        1
    ) == pytest.approx([1] * 5)
