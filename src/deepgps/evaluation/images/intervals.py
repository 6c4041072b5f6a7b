"""95 % bootstrap intervals over proteins, from sums: a protein is drawn with all its images, or not at all.

Every figure here is a function of sums over images, so that one pass makes the sums of each protein and the
bootstrap draws among those, however many images there are.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles
from deepgps.bundle import Metric

ROUNDS = 1000

Statistic = Callable[[Doubles], Doubles]
"""From sums (…, J) to the figure (…)."""


def sums_by_group(columns: Doubles, groups: NDArray[np.integer]) -> Doubles:
    """Sum columns (N, J) by group (N,): (G, J). Rows with a NaN are left out."""
    kept = ~np.isnan(columns).any(1)
    count = int(groups.max(initial=-1)) + 1
    return np.stack([np.bincount(groups[kept], column, count) for column in columns[kept].T], axis=1)


def interval(sums: Doubles, statistic: Statistic, n: int, *, seed: int = 0, rounds: int = ROUNDS) -> Metric:
    """A figure with its interval.

    Parameters
    ----------
    sums
        (G, J) sums of each group; groups without an image are left out.
    statistic
        The figure, of sums over groups.
    n
        What it was measured on, for the record.
    seed
        Seed of the draws.
    rounds
        Number of draws.

    Returns
    -------
    Metric
        Without an interval where there are fewer than two groups, or it is not defined in most draws.
    """
    sums = sums[(sums != 0).any(1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(sums.sum(0))) if len(sums) else float("nan")
        if len(sums) < 2 or not np.isfinite(value):
            return Metric(value=value, n=n)
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=rounds)
        values = statistic(draws @ sums)
    values = values[np.isfinite(values)]
    if len(values) < rounds / 2:
        return Metric(value=value, n=n)
    low, high = np.percentile(values, (2.5, 97.5))
    return Metric(value=value, low=float(low), high=float(high), n=n)


def mean_interval(values: Doubles, groups: NDArray[np.integer], *, seed: int = 0) -> Metric:
    """Mean of values (N,) with its interval over groups (N,); NaN and infinite values are left out."""
    values = np.where(np.isfinite(values), values, np.nan)
    sums = sums_by_group(np.stack([values, np.ones_like(values)], axis=1), groups)
    return interval(sums, lambda s: s[..., 0] / s[..., 1], int(np.isfinite(values).sum()), seed=seed)


def correlation_interval(a: Doubles, b: Doubles, groups: NDArray[np.integer], *, seed: int = 0) -> Metric:
    """Pearson correlation of two columns (N,), with its interval over groups (N,)."""
    known = np.isfinite(a) & np.isfinite(b)
    kept = int(known.sum())
    if not kept:
        return Metric(value=float("nan"), n=0)
    # About a common centre, so that the moments keep their digits.
    a, b = (np.where(known, each, np.nan) - each[known].mean() for each in (a, b))
    sums = sums_by_group(np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1), groups)
    return interval(sums, _correlation, kept, seed=seed)


def _correlation(sums: Doubles) -> Doubles:
    n, a, b, aa, bb, ab = np.moveaxis(sums, -1, 0)
    spread = (aa - a * a / n) * (bb - b * b / n)
    return np.asarray(np.where(spread > 1e-12 * n * n, (ab - a * b / n) / np.sqrt(np.abs(spread)), np.nan))


def balanced_interval(
    hits: Doubles, classes: NDArray[np.integer], groups: NDArray[np.integer], *, seed: int = 0
) -> Metric:
    """Mean over classes of the share of hits (N,), with its interval over groups (N,).

    Parameters
    ----------
    hits
        1, 0, or NaN for what does not count.
    classes
        (N,) class numbers; below 0 does not count.
    groups
        (N,) group numbers.
    seed
        Seed of the draws.
    """
    counted = ~np.isnan(hits) & (classes >= 0)
    if not counted.any():
        return Metric(value=float("nan"), n=0)
    member = (classes[:, None] == np.unique(classes[counted])) & counted[:, None]
    columns = np.concatenate([member * np.nan_to_num(hits)[:, None], member], axis=1).astype(np.float64)
    return interval(sums_by_group(columns, groups), _balanced, int(counted.sum()), seed=seed)


def _balanced(sums: Doubles) -> Doubles:
    right, seen = np.split(sums, 2, axis=-1)
    return np.asarray(np.nanmean(np.where(seen > 0, right / seen, np.nan), axis=-1))
