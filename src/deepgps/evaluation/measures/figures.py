"""Every figure of labelled probabilities at once, as they are or on resamples."""

import numpy as np
from scipy.sparse import csr_array

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.evaluation.measures import counts as counting
from deepgps.evaluation.measures.calibration import BINS, Reliability, bin_of, reliability
from deepgps.evaluation.measures.counts import Counts
from deepgps.evaluation.measures.ranking import ranked
from deepgps.evaluation.measures.resampling import resampled
from deepgps.evaluation.measures.rows import LabelRows


def figures(rows: LabelRows) -> dict[str, float]:
    """Measure the rows as they are; the names are those of ``docs/reference/metrics.md``."""
    measured = _measure(rows, np.ones((1, rows.groups)), exact=True)
    return {name: float(values[0]) for name, values in measured.items()}


def resampled_figures(rows: LabelRows, seed: int) -> dict[str, Doubles]:
    """Measure on resamples of the groups; the same seed draws the same ones."""
    return resampled(lambda weights: _measure(rows, weights, exact=False), rows.groups, seed=seed)


def confusion(rows: LabelRows) -> Ints:
    """Count which classes were named for which.

    Returns
    -------
    Ints
        (K, K), rows true, columns named; for a multi-label model (K, 2, 2), a class each, rows absent and
        present, columns not named and named.
    """
    everything = np.ones((1, rows.groups))
    if not rows.multi_label:
        return np.asarray(_confusions(rows, everything)[0], np.int64)
    each = _counts(rows, everything)
    table = [[each.tn[0], each.fp[0]], [each.fn[0], each.tp[0]]]
    return np.asarray(np.moveaxis(np.array(table), 2, 0), np.int64)


def calibration(rows: LabelRows) -> Reliability:
    """Hold probabilities against what was true.

    Of a model that names one class: the probability of the class named. Of a multi-label model: all
    probabilities, classes pooled.
    """
    return reliability(*_believed(rows))


def _measure(rows: LabelRows, weights: Doubles, *, exact: bool) -> dict[str, Doubles]:
    if rows.multi_label:
        counts = _counts(rows, weights)
        exactly = (rows.named == rows.targets).all(1)
        found = {"exact_match": _mean(rows, weights, exactly), **counting.several_classes(counts)}
    else:
        confusions = _confusions(rows, weights)
        counts = Counts.of(confusions)
        found = counting.one_class(confusions)
    found |= dict(counting.named_by_class(counting.by_class(counts), rows.classes))
    found |= ranked(rows, weights, exact=exact)
    if len(rows.classes) == 2 and not rows.multi_label:
        found |= {name: found[f"{name}/{rows.classes[0]}"] for name in BINARY}
    squares = ((rows.probabilities - rows.targets) ** 2).sum(1)
    return found | {
        "brier": _mean(rows, weights, squares / (len(rows.classes) if rows.multi_label else 1)),
        "ece": _ece(rows, weights),
    }


BINARY = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")
"""Figures that a model of two classes has under their bare names too, of its first class."""


def _confusions(rows: LabelRows, weights: Doubles) -> Doubles:
    classes = len(rows.classes)
    code = rows.targets.argmax(1) * classes + rows.named.argmax(1)
    return _summed(rows, code, rows.count, classes**2, weights).reshape(-1, classes, classes)


def _counts(rows: LabelRows, weights: Doubles) -> Counts:
    true, named = rows.targets, rows.named
    kinds = (true & named, ~true & named, true & ~named, ~true & ~named)
    classes = np.tile(np.arange(len(rows.classes)), len(rows.count))
    group, count = (np.repeat(each, len(rows.classes)) for each in (rows.group, rows.count))
    sums = []
    for kind in kinds:
        here = kind.ravel()
        by_class = csr_array((count[here], (classes[here], group[here])), shape=(true.shape[1], rows.groups))
        sums.append((by_class @ weights.T).T)
    return Counts(*sums)


def _believed(rows: LabelRows) -> tuple[Doubles, Mask, Doubles]:
    """Probabilities, whether each came true, and how often it counts: (M,) each."""
    if rows.multi_label:
        count = np.repeat(rows.count, len(rows.classes))
        return rows.probabilities.ravel(), rows.targets.ravel(), count
    named = rows.probabilities.argmax(1)
    return rows.probabilities.max(1), rows.targets[np.arange(len(named)), named], rows.count


def _ece(rows: LabelRows, weights: Doubles) -> Doubles:
    chance, came_true, count = _believed(rows)
    group = np.repeat(rows.group, len(chance) // len(rows.group))
    gaps, total = (
        csr_array((each, (bin_of(chance), group)), shape=(BINS, rows.groups)) @ weights.T
        for each in (count * (chance - came_true), count)
    )
    return counting.ratio(np.abs(gaps).sum(0), total.sum(0))


def _mean(rows: LabelRows, weights: Doubles, values: Doubles | Mask) -> Doubles:
    sums = [
        np.bincount(rows.group, each, minlength=rows.groups) for each in (rows.count * values, rows.count)
    ]
    return counting.ratio(*(weights @ each for each in sums))


def _summed(rows: LabelRows, code: Ints, values: Doubles, codes: int, weights: Doubles) -> Doubles:
    """Weighted sums of values by code, (R, codes)."""
    by_code = csr_array((values, (code, rows.group)), shape=(codes, rows.groups))
    return np.ascontiguousarray((by_code @ weights.T).T)
