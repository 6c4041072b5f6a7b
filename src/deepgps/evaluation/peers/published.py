"""What can be learned from a published row of figures: the counts behind it, if there are any."""

from collections.abc import Mapping

import numpy as np

from deepgps.arrays import Doubles, Ints


def counts_behind(published: Mapping[str, str], positives: int, negatives: int) -> list[tuple[int, int]]:
    """Find the confusion matrices of two classes that print as published.

    Parameters
    ----------
    published
        Some of ``accuracy``, ``sensitivity``, ``specificity`` and ``f1`` as printed, digits and all.
    positives, negatives
        Size of each class.

    Returns
    -------
    list of (int, int)
        True positives and true negatives of each such matrix; none if the figures are not of one matrix of
        these proteins.
    """
    tp, tn = np.meshgrid(np.arange(positives + 1), np.arange(negatives + 1), indexing="ij")
    found = np.ones(tp.shape, np.bool_)
    for name, value in figures_of(tp, tn, positives, negatives).items():
        if name in published:
            digits = len(published[name].partition(".")[2])
            found &= np.abs(value - float(published[name])) <= 0.5 * 10.0**-digits + 1e-9
    return [(int(a), int(b)) for a, b in zip(tp[found], tn[found], strict=True)]


def figures_of(tp: Ints, tn: Ints, positives: int, negatives: int) -> dict[str, Doubles]:
    """Figures of confusion matrices of two classes, by the names of a published table."""
    wrong = positives - tp + negatives - tn
    return {
        "accuracy": (tp + tn) / (positives + negatives),
        "sensitivity": tp / positives,
        "specificity": tn / negatives,
        "f1": 2 * tp / np.maximum(2 * tp + wrong, 1),
    }
