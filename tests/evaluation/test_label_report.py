"""Labels are measured by protein and by crop, and nonsense is refused by name."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from deepgps.errors import InputError
from deepgps.evaluation.label_metrics import LabelCollector
from deepgps.evaluation.labels import label_report, report_on

CLASSES = ("cytoplasmic", "nucleoplasm", "er")


def crops(rng, proteins=40, of_each=5):
    """Crops of proteins: probabilities differ from crop to crop, classes do not."""
    truth = np.repeat(rng.integers(0, 3, proteins), of_each)
    chances = rng.dirichlet(np.ones(3), len(truth)) + 0.15 * np.eye(3)[truth]
    ids = np.repeat([f"P{number}" for number in range(proteins)], of_each)
    return chances / chances.sum(1, keepdims=True), np.eye(3)[truth], ids


def report(chances, targets, ids, **options):
    return label_report(chances, targets, CLASSES, multi_label=False, proteins=ids, **options)


def test_crops_become_proteins_by_mean_probability():
    chances, targets, ids = crops(np.random.default_rng(0))
    found = report(chances, targets, ids)
    means = chances.reshape(40, 5, 3).mean(1)
    truth = targets.reshape(40, 5, 3)[:, 0].argmax(1)
    assert found.metrics["protein/accuracy"].value == (means.argmax(1) == truth).mean()
    assert found.metrics["crop/accuracy"].value == (chances.argmax(1) == targets.argmax(1)).mean()
    assert (found.proteins, found.crops) == (40, 200)
    assert found.confusion_by_protein.sum() == found.metrics["protein/f1/er"].n == 40
    assert found.confusion_by_crop.sum() == found.metrics["crop/f1/er"].n == 200


def test_one_row_a_protein_has_no_crop_level():
    chances, targets, ids = crops(np.random.default_rng(0), of_each=1)
    found = report(chances, targets, ids)
    assert found.crops is None
    assert found.confusion_by_crop is None
    assert {name.partition("/")[0] for name in found.metrics} == {"protein"}


def test_intervals_hold_the_value_and_are_wider_over_clusters():
    chances, targets, ids = crops(np.random.default_rng(1), proteins=60)
    by_protein = report(chances, targets, ids)
    clusters = np.char.add("c", (targets.argmax(1)).astype(str))
    by_cluster = report(chances, targets, ids, clusters=clusters)
    assert (by_protein.clusters, by_cluster.clusters) == (None, 3)
    one = by_protein.metrics["protein/accuracy"]
    assert one.low < one.value < one.high
    # Resampling whole classes moves the share of one, as resampling proteins cannot.
    narrow, wide = (each.metrics["protein/accuracy/er"] for each in (by_protein, by_cluster))
    assert narrow.value == wide.value
    prior = [each.baselines["class prior"]["protein/accuracy"] for each in (by_protein, by_cluster)]
    assert prior[1].high - prior[1].low > prior[0].high - prior[0].low


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(2)
    chances, targets, ids = crops(rng, proteins=200, of_each=1)
    right = chances.argmax(1) == targets.argmax(1)
    drawn = right[rng.integers(0, 200, (4000, 200))].mean(1)
    found = report(chances, targets, ids).metrics["protein/accuracy"]
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.011)


def test_one_protein_has_a_value_and_no_interval():
    chances, targets, ids = crops(np.random.default_rng(0), proteins=1)
    found = report(chances, targets, ids).metrics["protein/accuracy"]
    assert found.value in (0, 1)
    assert (found.low, found.high) == (None, None)


def test_the_same_seed_gives_the_same_report():
    data = crops(np.random.default_rng(0))
    first, again, other = (report(*data, seed=seed).metrics["crop/mcc"] for seed in (3, 3, 4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_baselines_know_nothing_but_frequencies():
    chances, targets, ids = crops(np.random.default_rng(5))
    found = report(chances, targets, ids)
    share = targets.mean(0)
    for baseline in found.baselines.values():
        assert baseline["protein/accuracy"].value == pytest.approx(share.max())
        assert baseline["protein/auroc_macro"].value == 0.5
        assert baseline["protein/auprc/er"].value == pytest.approx(share[2])
        assert baseline["protein/mcc"].value == 0
        assert baseline.keys() == found.metrics.keys()
    assert found.baselines["class prior"]["protein/ece"].value == pytest.approx(0)
    assert found.baselines["majority class"]["protein/ece"].value == pytest.approx(1 - share.max())


def test_the_curves_are_those_of_the_proteins():
    chances, targets, ids = crops(np.random.default_rng(6), of_each=1)
    found = report(chances, targets, ids).curves["er"]
    false, true, _ = roc_curve(targets[:, 2], chances[:, 2])
    np.testing.assert_allclose(found.false_positive_rate, false)
    np.testing.assert_allclose(found.true_positive_rate, true)
    assert found.recall[0] == 1
    assert found.precision[-1] == 1


def test_a_class_that_nobody_has_has_no_curve_and_no_area():
    chances, targets, ids = crops(np.random.default_rng(6), of_each=1)
    keep = targets[:, 2] == 0
    found = report(chances[keep], targets[keep], ids[keep])
    assert set(found.curves) == {"cytoplasmic", "nucleoplasm"}
    assert np.isnan(found.metrics["protein/auroc/er"].value)
    assert not np.isnan(found.metrics["protein/auroc_macro"].value)


def test_chunks_make_the_report_of_the_whole():
    chances, targets, ids = crops(np.random.default_rng(7))
    order = np.random.default_rng(8).permutation(len(ids))
    collector = LabelCollector(CLASSES, multi_label=False)
    for rows in np.array_split(order, 7):
        collector.add(chances[rows], targets[rows], ids[rows])
    whole, parts = report(chances, targets, ids), report_on(collector, by_cluster=False)
    for name, metric in whole.metrics.items():
        assert parts.metrics[name].value == pytest.approx(metric.value, nan_ok=True), name
    np.testing.assert_array_equal(whole.confusion_by_crop, parts.confusion_by_crop)


def test_crops_of_equal_probabilities_are_kept_once():
    collector = LabelCollector(CLASSES, multi_label=False)
    for _ in range(50):
        collector.add(np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]]), np.eye(3)[[1, 2]], ["a", "b"])
    kept = collector.crops()
    assert len(kept.count) == 2
    assert kept.count.tolist() == [50, 50]
    # The mean of equal probabilities is the probability, to the last digit.
    assert collector.proteins().probabilities.tolist() == [[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]]


ROW = np.array([[0.2, 0.5, 0.3]])
YES = np.array([[0, 1, 0]])


@pytest.mark.parametrize(
    ("chances", "targets", "says"),
    [
        ([[0.2, np.nan, 0.3]], YES, "'P1' has probability nan for class 'nucleoplasm'"),
        ([[0.2, 1.2, 0.3]], YES, "'P1' has probability 1.2 for class 'nucleoplasm'"),
        ([[-0.1, 0.2, 0.9]], YES, "'P1' has probability -0.1 for class 'cytoplasmic'"),
        ([[0.2, np.inf, 0.3]], YES, "probability inf"),
        (ROW, [[0, np.nan, 0]], "'P1' has target nan for class 'nucleoplasm'"),
        (ROW, [[0, 0.5, 0]], "target 0.5"),
        (ROW, [[0, 1, 1]], "'P1' has 2 true classes"),
        (ROW, [[0, 0, 0]], "'P1' has 0 true classes"),
        (ROW, [[0, 1]], "do not fit"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "no labelled protein"),
    ],
)
def test_what_cannot_be_measured_is_refused(chances, targets, says):
    ids = ["P1"][: len(chances)]
    with pytest.raises(InputError, match=says):
        report(np.array(chances), np.array(targets), ids)


def test_contradictions_are_refused():
    twice, both = np.repeat(ROW, 2, axis=0), ["P1", "P1"]
    with pytest.raises(InputError, match="'P1' has different true classes"):
        report(twice, np.eye(3)[[0, 1]], both)
    with pytest.raises(InputError, match="'P1' is in more than one homology cluster"):
        report(twice, np.eye(3)[[1, 1]], both, clusters=[1, 2])
    with pytest.raises(InputError, match="do not fit"):
        report(twice, np.eye(3)[[1, 1]], both, thresholds=[0.5])
