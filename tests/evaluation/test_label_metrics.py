"""Every figure agrees with scikit-learn or torchmetrics, on awkward input too."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from deepgps.evaluation.label_metrics import (
    LabelCollector,
    bootstrap_metrics,
    confusion_matrix,
    metric_values,
)


def gathered(probabilities, targets, *, multi_label=False, thresholds=None, proteins=None, clusters=None):
    classes = [f"c{number}" for number in range(np.shape(probabilities)[1])]
    collector = LabelCollector(classes, multi_label=multi_label, thresholds=thresholds)
    names = [f"P{number}" for number in range(len(probabilities))] if proteins is None else proteins
    collector.add(probabilities, targets, names, clusters)
    return collector


def drawn(classes, rng, count=120, *, ties=False):
    """Classes and probabilities that lean towards them."""
    truth = rng.integers(0, classes, count)
    chances = rng.dirichlet(np.ones(classes), count) + 0.4 * np.eye(classes)[truth]
    chances /= chances.sum(1, keepdims=True)
    return truth, np.round(chances, 1) if ties else chances


def one_class_cases():
    rng = np.random.default_rng(1)
    truth, chances = drawn(4, rng)
    missing = np.where(truth == 2, 0, truth)
    never_named = chances.copy()
    never_named[:, 1] = 0
    return {
        "four classes": (truth, chances),
        "two classes": drawn(2, rng),
        "ties": drawn(4, rng, ties=True),
        "no protein has class 2": (missing, chances),
        "class 1 is never named": (truth, never_named),
        "all of one class": (np.zeros_like(truth), chances),
        "all the same probabilities": (truth, np.full_like(chances, 0.25)),
        "one protein": (truth[:1], chances[:1]),
    }


CASES = one_class_cases()


@pytest.fixture(params=CASES)
def one_class(request):
    return CASES[request.param]


def expected_averages(truth, named, classes):
    """Means of scikit-learn over the classes for which a figure is defined, and weighted by support."""
    labels = [label for label in range(classes) if label in {*truth, *named}]
    present = sorted(set(truth))
    each = {"labels": labels, "zero_division": 0.0}
    return {
        "sensitivity_macro": sk.recall_score(truth, named, average="macro", labels=present),
        "sensitivity_weighted": sk.recall_score(truth, named, average="weighted"),
        "f1_macro": sk.f1_score(truth, named, average="macro", **each),
        "f1_weighted": sk.f1_score(truth, named, average="weighted", **each),
        "precision_macro": sk.precision_score(truth, named, average="macro", **each),
        "precision_weighted": sk.precision_score(truth, named, average="weighted", **each),
    }


def test_one_class_agrees_with_scikit_learn(one_class):
    truth, chances = one_class
    classes = chances.shape[1]
    named = chances.argmax(1)
    rows = gathered(chances, np.eye(classes)[truth]).proteins()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(truth, named),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, named),
            "mcc": sk.matthews_corrcoef(truth, named),
            **expected_averages(truth.tolist(), named.tolist(), classes),
        }
    found = metric_values(rows)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    matrix = sk.confusion_matrix(truth, named, labels=range(classes))
    np.testing.assert_array_equal(confusion_matrix(rows), matrix)


def test_each_class_agrees_with_scikit_learn(one_class):
    truth, chances = one_class
    classes = chances.shape[1]
    found = metric_values(gathered(chances, np.eye(classes)[truth]).proteins())
    for k in range(classes):
        yes, named = truth == k, chances.argmax(1) == k
        assert found[f"accuracy/c{k}"] == pytest.approx(sk.accuracy_score(yes, named))
        assert found[f"mcc/c{k}"] == pytest.approx(sk.matthews_corrcoef(yes, named), abs=1e-12)
        sure = {"zero_division": np.nan}
        assert found[f"sensitivity/c{k}"] == pytest.approx(sk.recall_score(yes, named, **sure), nan_ok=True)
        assert found[f"specificity/c{k}"] == pytest.approx(sk.recall_score(~yes, ~named, **sure), nan_ok=True)
        assert found[f"f1/c{k}"] == pytest.approx(sk.f1_score(yes, named, **sure), nan_ok=True)
        never = np.nan if not yes.any() else 0.0
        precision = sk.precision_score(yes, named, zero_division=never)
        assert found[f"precision/c{k}"] == pytest.approx(precision, nan_ok=True)


def test_ranking_agrees_with_scikit_learn(one_class):
    truth, chances = one_class
    classes = chances.shape[1]
    found = metric_values(gathered(chances, np.eye(classes)[truth]).proteins())
    aurocs, precisions = [], []
    for k in range(classes):
        yes, scores = truth == k, chances[:, k]
        aurocs.append(sk.roc_auc_score(yes, scores) if yes.any() and not yes.all() else np.nan)
        precisions.append(sk.average_precision_score(yes, scores) if yes.any() else np.nan)
        assert found[f"auroc/c{k}"] == pytest.approx(aurocs[-1], nan_ok=True)
        assert found[f"auprc/c{k}"] == pytest.approx(precisions[-1], nan_ok=True)
    mean = np.nan if np.isnan(aurocs).all() else np.nanmean(aurocs)
    assert found["auroc_macro"] == pytest.approx(mean, nan_ok=True)
    assert found["auprc_macro"] == pytest.approx(np.nanmean(precisions))


def test_calibration_agrees_with_torchmetrics_and_scikit_learn(one_class):
    truth, chances = one_class
    classes = chances.shape[1]
    # Off the edges of bins, where torchmetrics draws the line elsewhere.
    chances = np.clip(chances, 0.003, 0.993)
    chances /= chances.sum(1, keepdims=True)
    found = metric_values(gathered(chances, np.eye(classes)[truth]).proteins())
    error = MulticlassCalibrationError(classes, n_bins=15)(torch.tensor(chances), torch.tensor(truth))
    assert found["ece"] == pytest.approx(float(error), abs=1e-5)
    squares = [sk.brier_score_loss(truth == k, chances[:, k], pos_label=True) for k in range(classes)]
    assert found["brier"] == pytest.approx(sum(squares))


def test_a_model_of_two_has_its_first_class_as_the_positive_one():
    truth, chances = CASES["two classes"]
    found = metric_values(gathered(chances, np.eye(2)[truth]).proteins())
    positive, named = truth == 0, chances[:, 0] >= 0.5
    expected = {
        "sensitivity": sk.recall_score(positive, named),
        "specificity": sk.recall_score(~positive, ~named),
        "precision": sk.precision_score(positive, named),
        "f1": sk.f1_score(positive, named),
        "auroc": sk.roc_auc_score(positive, chances[:, 0]),
        "auprc": sk.average_precision_score(positive, chances[:, 0]),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def several(rng, *, count=150, classes=5):
    targets = rng.random((count, classes)) < np.linspace(0.1, 0.6, classes)
    chances = np.clip(rng.random((count, classes)) * 0.8 + 0.3 * targets, 0, 1)
    return targets, chances


def several_cases():
    rng = np.random.default_rng(2)
    targets, chances = several(rng)
    absent = targets.copy()
    absent[:, 2] = False
    return {
        "as they are": (targets, chances),
        "ties": (targets, np.round(chances, 1)),
        "no protein has class 2": (absent, chances),
        "no protein has any": (np.zeros_like(targets), chances),
        "one protein": (targets[:1], chances[:1]),
    }


SEVERAL = several_cases()
THRESHOLDS = (0.2, 0.5, 0.5, 0.6, 0.7)


@pytest.fixture(params=SEVERAL)
def multi_label(request):
    return SEVERAL[request.param]


def test_several_classes_agree_with_scikit_learn(multi_label):
    targets, chances = multi_label
    rows = gathered(chances, targets, multi_label=True, thresholds=THRESHOLDS).proteins()
    found, named = metric_values(rows), chances >= np.array(THRESHOLDS)
    present = np.flatnonzero(targets.any(0) | named.any(0))
    never = {"zero_division": np.nan if not targets.any() and not named.any() else 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "exact_match": sk.accuracy_score(targets, named),
            "label_accuracy": 1 - sk.hamming_loss(targets, named),
            "f1_macro": sk.f1_score(targets, named, average="macro", labels=present, **never),
            "f1_micro": sk.f1_score(targets, named, average="micro", **never),
            "precision_macro": sk.precision_score(targets, named, average="macro", labels=present, **never),
        }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(confusion_matrix(rows), sk.multilabel_confusion_matrix(targets, named))


def test_several_classes_with_positives_rank_as_in_scikit_learn():
    targets, chances = SEVERAL["ties"]
    rows = gathered(chances, targets, multi_label=True, thresholds=THRESHOLDS).proteins()
    found = metric_values(rows)
    for average in ("macro", "micro"):
        auroc = sk.roc_auc_score(targets, chances, average=average)
        auprc = sk.average_precision_score(targets, chances, average=average)
        assert found[f"auroc_{average}"] == pytest.approx(auroc)
        assert found[f"auprc_{average}"] == pytest.approx(auprc)
    weighted = sk.f1_score(targets, rows.predicted, average="weighted")
    assert found["f1_weighted"] == pytest.approx(weighted)


def test_calibration_of_several_classes_pools_them():
    targets, chances = SEVERAL["as they are"]
    found = metric_values(gathered(chances, targets, multi_label=True).proteins())
    error = BinaryCalibrationError(n_bins=15)(torch.tensor(chances).ravel(), torch.tensor(targets).ravel())
    assert found["ece"] == pytest.approx(float(error), abs=1e-5)
    assert found["brier"] == pytest.approx(((chances - targets) ** 2).mean())


def test_resampling_counts_proteins_as_often_as_they_are_drawn():
    """A resample measured by weights is one measured on proteins written down again and again."""
    truth, chances = drawn(3, np.random.default_rng(3), 40)
    clusters = np.arange(40) // 4
    rows = gathered(chances, np.eye(3)[truth], clusters=clusters).proteins()
    spread = bootstrap_metrics(rows, seed=5)
    weights = np.random.default_rng(5).integers(10, size=(1000, 10))[7]
    again = np.concatenate([np.flatnonzero(clusters == cluster) for cluster in weights])
    copied = metric_values(gathered(chances[again], np.eye(3)[truth[again]]).proteins())
    assert {name: values[7] for name, values in spread.items()} == pytest.approx(copied, nan_ok=True)


def test_many_scores_are_ranked_in_steps_only_for_intervals():
    rng = np.random.default_rng(4)
    scores, truth = rng.random(9000), rng.random(9000) < 0.3
    rows = gathered(scores[:, None], truth[:, None], multi_label=True).proteins()
    exact = metric_values(rows)
    assert exact["auroc/c0"] == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    assert np.mean(bootstrap_metrics(rows, 0)["auroc/c0"]) == pytest.approx(exact["auroc/c0"], abs=2e-3)
