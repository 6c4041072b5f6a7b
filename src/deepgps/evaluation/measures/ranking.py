"""Figures of the order of probabilities: AUROC, AUPRC and their curves."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.evaluation.measures.counts import mean, ratio
from deepgps.evaluation.measures.rows import LabelRows

_STEPS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One class against the rest.

    Attributes
    ----------
    false_positive_rate, true_positive_rate
        ROC, from (0, 0) to (1, 1).
    recall, precision
        From recall 1 to recall 0.
    """

    false_positive_rate: Doubles
    true_positive_rate: Doubles
    recall: Doubles
    precision: Doubles


def areas(positive: Doubles, negative: Doubles) -> tuple[Doubles, Doubles]:
    """Areas under both curves.

    Parameters
    ----------
    positive, negative
        (R, S) how many of each kind have each distinct score, from the highest score down.

    Returns
    -------
    auroc, auprc
        (R,) each; of equal scores half the pairs count as ordered; AUPRC is the average precision, a sum of
        steps. NaN without positives; AUROC NaN without negatives too.
    """
    above, false = positive.cumsum(1), negative.cumsum(1)
    positives, negatives = above[:, -1], false[:, -1]
    ordered = (negative * (above - positive / 2)).sum(1)
    steps = np.divide(positive * above, above + false, out=np.zeros_like(above), where=positive > 0).sum(1)
    return ratio(ordered, positives * negatives), ratio(steps, positives)


def ranked(rows: LabelRows, weights: Doubles, *, exact: bool) -> dict[str, Doubles]:
    """Measure the order of probabilities, on each resample.

    Parameters
    ----------
    rows
        Proteins or crops.
    weights
        (R, groups) how often each group counts.
    exact
        Whether every distinct score is a step, however many; else at most 4,096, which moves an area by some
        1e-4 at most and serves intervals.

    Returns
    -------
    dict
        (R,) by name, such as ``auroc_macro`` and ``auprc/er``.
    """
    found = [
        _of(rows.probabilities[:, k], rows.targets[:, k], rows.group, rows.count, weights, exact)
        for k in range(len(rows.classes))
    ]
    figures: dict[str, Doubles] = {}
    for name, values in zip(("auroc", "auprc"), zip(*found, strict=True), strict=True):
        figures[f"{name}_macro"] = mean(np.stack(values, axis=1))
        figures |= {f"{name}/{slug}": each for slug, each in zip(rows.classes, values, strict=True)}
    if rows.multi_label:
        width = len(rows.classes)
        pooled = _of(
            rows.probabilities.ravel(),
            rows.targets.ravel(),
            np.repeat(rows.group, width),
            np.repeat(rows.count, width),
            weights,
            exact,
        )
        figures |= dict(zip(("auroc_micro", "auprc_micro"), pooled, strict=True))
    return figures


def _of(
    scores: Doubles,
    truth: Mask,
    group: Ints,
    count: Doubles,
    weights: Doubles,
    exact: bool,
) -> tuple[Doubles, Doubles]:
    distinct, step = np.unique(-scores, return_inverse=True)
    steps = len(distinct)
    if not exact and steps > _STEPS:
        step, steps = step * _STEPS // steps, _STEPS
    kinds = []
    for kind in (truth, ~truth):
        places = (step[kind], group[kind])
        by_step = csr_array((count[kind], places), shape=(steps, weights.shape[1]))
        kinds.append(np.ascontiguousarray((by_step @ weights.T).T))
    return areas(*kinds)


def curves(rows: LabelRows) -> dict[str, Curve]:
    """Trace the curves of each class that some have and others have not."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    traced = {}
    for k, slug in enumerate(rows.classes):
        truth, scores = rows.targets[:, k], rows.probabilities[:, k]
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, scores, sample_weight=rows.count)
            precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=rows.count)
            traced[slug] = Curve(false, true, recall, precision)
    return traced
