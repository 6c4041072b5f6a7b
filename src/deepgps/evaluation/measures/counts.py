"""Figures from counts: how often which class was named for which.

Everything is an array over resamples (R,), so that a thousand of them cost little more than one. What is
undefined (sensitivity to a class that no protein has) is NaN and left out of the means over classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Doubles


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """One class against the rest, for each of K classes: (R, K) each."""

    tp: Doubles
    fp: Doubles
    fn: Doubles
    tn: Doubles

    @classmethod
    def of(cls, confusion: Doubles) -> "Counts":
        """From confusion matrices (R, K, K), rows true, columns named."""
        tp = np.diagonal(confusion, axis1=1, axis2=2)
        fn, fp = confusion.sum(2) - tp, confusion.sum(1) - tp
        return cls(tp, fp, fn, confusion.sum((1, 2))[:, None] - tp - fp - fn)

    @property
    def support(self) -> Doubles:
        """(R, K) how many have the class."""
        return self.tp + self.fn

    def pooled(self) -> "Counts":
        """All classes' decisions as those of one: (R, 1) each."""
        return Counts(*(each.sum(1, keepdims=True) for each in (self.tp, self.fp, self.fn, self.tn)))


def by_class(counts: Counts) -> dict[str, Doubles]:
    """Figures of each class against the rest, (R, K) each.

    A class that some have and that is never named has precision 0; one that is neither had nor named has
    neither precision nor F1.
    """
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    f1 = ratio(2 * tp, 2 * tp + fp + fn)
    precision = ratio(tp, tp + fp)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "precision": np.where(np.isnan(precision) & (fn > 0), 0, precision),
        "f1": f1,
        "mcc": np.where(spread > 0, (tp * tn - fp * fn) / np.where(spread > 0, spread, 1), 0),
    }


def averages(counts: Counts, each: dict[str, Doubles]) -> dict[str, Doubles]:
    """Means over classes, plain (macro) and by how many proteins have each (weighted), (R,) each."""
    found = {}
    for name in ("sensitivity", "specificity", "precision", "f1"):
        known = ~np.isnan(each[name])
        weight = np.where(known, counts.support, 0)
        found[f"{name}_macro"] = mean(each[name])
        found[f"{name}_weighted"] = ratio((np.where(known, each[name], 0) * weight).sum(1), weight.sum(1))
    return found


def one_class(confusion: Doubles) -> dict[str, Doubles]:
    """Figures of a model that names one class, from confusion matrices (R, K, K); (R,) each."""
    counts = Counts.of(confusion)
    each = by_class(counts)
    return {
        "accuracy": ratio(counts.tp.sum(1), confusion.sum((1, 2))),
        "balanced_accuracy": mean(each["sensitivity"]),
        "mcc": _matthews(confusion),
        "one_vs_rest_accuracy": mean(each["accuracy"]),
        **averages(counts, each),
    }


def several_classes(counts: Counts) -> dict[str, Doubles]:
    """Figures of a model that may name several classes; (R,) each."""
    each, pooled = by_class(counts), by_class(counts.pooled())
    return {
        "label_accuracy": mean(each["accuracy"]),
        "mcc_macro": mean(each["mcc"]),
        **{f"{name}_micro": pooled[name][:, 0] for name in ("sensitivity", "specificity", "precision", "f1")},
        **averages(counts, each),
    }


def named_by_class(each: dict[str, Doubles], classes: Sequence[str]) -> Iterator[tuple[str, Doubles]]:
    """Spread figures (R, K) over names such as ``f1/er``, (R,) each."""
    for name, values in each.items():
        for number, slug in enumerate(classes):
            yield f"{name}/{slug}", values[:, number]


def ratio(part: Doubles, whole: Doubles) -> Doubles:
    """Part over whole; NaN where the whole is nothing."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def mean(values: Doubles) -> Doubles:
    """Mean over classes (R,) of values (R, K), the undefined left out."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(1), known.sum(1).astype(np.float64))


def _matthews(confusion: Doubles) -> Doubles:
    """Matthews' correlation for K classes (Gorodkin's R_K); 0 where one side is constant."""
    total, right = confusion.sum((1, 2)), np.trace(confusion, axis1=1, axis2=2)
    true, named = confusion.sum(2), confusion.sum(1)
    spread = np.sqrt((total**2 - (true**2).sum(1)) * (total**2 - (named**2).sum(1)))
    agreement = (right * total - (true * named).sum(1)) / np.where(spread > 0, spread, 1)
    return np.asarray(np.where(spread > 0, agreement, 0.0))
