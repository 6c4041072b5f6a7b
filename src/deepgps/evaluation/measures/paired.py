"""Two models on the same proteins, and whether they differ by more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from deepgps.arrays import Doubles
from deepgps.errors import InputError
from deepgps.evaluation.measures.figures import figures, resampled_figures
from deepgps.evaluation.measures.resampling import interval
from deepgps.evaluation.measures.rows import LabelRows


@dataclass(frozen=True, slots=True)
class Difference:
    """What the first model has more than the second.

    Attributes
    ----------
    value
        Difference of a figure.
    low, high
        95 % paired bootstrap interval; NaN for a single protein or cluster.
    p
        Two-sided: twice the smaller share of resamples on which the difference is not above, or not below, 0.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """The exact test of McNemar on which model is right where only one is.

    Attributes
    ----------
    only_first, only_second
        Proteins that only one of the two names rightly; of a multi-label model, exactly.
    p
        Two-sided binomial; 1 where they never differ. It knows nothing of homology clusters.
    """

    only_first: int
    only_second: int
    p: float


def differences(first: LabelRows, second: LabelRows, seed: int = 0) -> Mapping[str, Difference]:
    """Compare every figure of two models by a paired bootstrap: both are measured on the same resamples.

    Parameters
    ----------
    first, second
        The same proteins in the same order, with the same classes and clusters.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        If they are not the same proteins.
    """
    _same_proteins(first, second)
    values, spreads = zip(
        *((figures(rows), resampled_figures(rows, seed)) for rows in (first, second)), strict=True
    )
    return {
        name: _difference(values[0][name] - values[1][name], spreads[0][name] - spreads[1][name], first)
        for name in values[0]
    }


def mcnemar(first: LabelRows, second: LabelRows) -> McNemar:
    """Test whether one of two models is right more often where only one is.

    Raises
    ------
    InputError
        If they are not measured on the same proteins.
    """
    _same_proteins(first, second)
    right, other = ((rows.named == rows.targets).all(1) for rows in (first, second))
    only = int((right & ~other).sum()), int((other & ~right).sum())
    return McNemar(*only, float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0)


def _difference(value: float, spread: Doubles, rows: LabelRows) -> Difference:
    known = spread[~np.isnan(spread)]
    if rows.groups == 1 or not len(known):
        return Difference(value, np.nan, np.nan, np.nan)
    # One added: a thousand resamples cannot tell a chance below one in a thousand.
    tails = ((known <= 0).sum() + 1) / (len(known) + 1), ((known >= 0).sum() + 1) / (len(known) + 1)
    return Difference(value, *interval(spread), float(min(1, 2 * min(tails))))


def _same_proteins(first: LabelRows, second: LabelRows) -> None:
    same = first.ids == second.ids and np.array_equal(first.targets, second.targets)
    if not same or not np.array_equal(first.group, second.group):
        raise InputError(
            "The two models were measured on different proteins, classes or clusters; give both the same."
        )
