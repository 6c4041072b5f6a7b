"""95 % bootstrap intervals: each protein, or homology cluster, is drawn with all its rows or not at all.

Label metrics are measured again on weighted rows (`resampled`). Image metrics are functions of sums over
images (`mean_interval` and its neighbours), so that one pass makes the sums of each group and the bootstrap
draws among those, however many images there are.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles
from deepgps.bundle import Metric

RESAMPLES = 1000
"""Resamples behind every interval."""

_BLOCK = 4_000_000


def group_weights(groups: int, *, rounds: int = RESAMPLES, seed: int = 0) -> Iterator[Doubles]:
    """Draw groups with replacement, as many as there are, again and again.

    Yields
    ------
    (R, groups)
        How often each group was drawn; the R of all blocks add up to ``rounds``.
    """
    rng = np.random.default_rng(seed)
    size = max(1, min(rounds, _BLOCK // groups))
    for start in range(0, rounds, size):
        count = min(size, rounds - start)
        drawn = rng.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)


def resampled(
    measure: Callable[[Doubles], Mapping[str, Doubles]],
    groups: int,
    *,
    rounds: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Doubles]:
    """Measure on each resample.

    Parameters
    ----------
    measure
        From weights (R, groups) to metrics (R,) by name.
    groups
        Number of proteins or homology clusters.
    rounds, seed
        Of the draws; the same seed draws the same groups, so that two models can be compared in pairs.

    Returns
    -------
    dict
        (rounds,) by name.
    """
    blocks = [measure(weights) for weights in group_weights(groups, rounds=rounds, seed=seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def percentile_interval(values: Doubles) -> tuple[float, float]:
    """Return the 95 % interval of a metric over resamples; those where it is undefined (NaN) are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def sums_by_group(columns: Doubles, groups: NDArray[np.integer]) -> Doubles:
    """Sum columns (N, J) by group (N,): (G, J). Rows with a NaN are left out."""
    kept = ~np.isnan(columns).any(1)
    count = int(groups.max(initial=-1)) + 1
    return np.stack([np.bincount(groups[kept], column, count) for column in columns[kept].T], axis=1)


def interval_of_sums(
    sums: Doubles,
    statistic: Callable[[Doubles], Doubles],
    n: int,
    *,
    seed: int = 0,
    rounds: int = RESAMPLES,
) -> Metric:
    """Return a metric with its interval.

    Parameters
    ----------
    sums
        (G, J) sums of each group; groups without an image are left out.
    statistic
        From sums over groups (…, J) to the metric (…).
    n
        Number of images that it was measured on.
    seed
        Seed of the draws.
    rounds
        Number of draws.

    Returns
    -------
    Metric
        Without an interval where there are fewer than two groups, or where the metric is undefined in most
        draws.
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
    low, high = percentile_interval(values)
    return Metric(value=value, low=low, high=high, n=n)


def mean_interval(values: Doubles, groups: NDArray[np.integer], *, seed: int = 0) -> Metric:
    """Mean of values (N,) with its interval over groups (N,); NaN and infinite values are left out."""
    values = np.where(np.isfinite(values), values, np.nan)
    sums = sums_by_group(np.stack([values, np.ones_like(values)], axis=1), groups)
    n = int(np.isfinite(values).sum())
    return interval_of_sums(sums, lambda s: s[..., 0] / s[..., 1], n, seed=seed)


def stacked_psnr(decibels: Doubles, groups: NDArray[np.integer], *, seed: int = 0) -> Metric:
    """Return the PSNR of all images as one: of the mean of their squared errors.

    What the paper's code computes over its stacked crops; poor images weigh more than in a mean of decibels.

    Parameters
    ----------
    decibels
        (N,) PSNR of each image, data range 1; infinite where the images are equal, NaN where
        it does not count.
    groups
        (N,) group numbers, such as the proteins.
    seed
        Seed of the draws.

    Returns
    -------
    Metric
        In dB, with its 95 % interval over groups and the number of images.
    """
    errors = 10 ** (-decibels / 10)
    sums = sums_by_group(np.stack([errors, np.ones_like(errors)], axis=1), groups)
    n = int((~np.isnan(errors)).sum())
    return interval_of_sums(sums, lambda s: -10 * np.log10(s[..., 0] / s[..., 1]), n, seed=seed)


def correlation_interval(a: Doubles, b: Doubles, groups: NDArray[np.integer], *, seed: int = 0) -> Metric:
    """Pearson correlation of two columns (N,) with its interval over groups (N,)."""
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return Metric(value=float("nan"), n=0)
    # About a common centre, so that the moments keep their digits.
    a, b = (np.where(known, each, np.nan) - each[known].mean() for each in (a, b))
    sums = sums_by_group(np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1), groups)
    return interval_of_sums(sums, _correlation, int(known.sum()), seed=seed)


def _correlation(sums: Doubles) -> Doubles:
    # Pearson's r of every resample from its sums; `deepgps.images` correlates pixels.
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

    Returns
    -------
    Metric
        The mean, its 95 % interval, and the number of groups; NaN without hits.
    """
    counted = ~np.isnan(hits) & (classes >= 0)
    if not counted.any():
        return Metric(value=float("nan"), n=0)
    member = (classes[:, None] == np.unique(classes[counted])) & counted[:, None]
    columns = np.concatenate([member * np.nan_to_num(hits)[:, None], member], axis=1).astype(np.float64)
    return interval_of_sums(sums_by_group(columns, groups), _balanced, int(counted.sum()), seed=seed)


def _balanced(sums: Doubles) -> Doubles:
    right, seen = np.split(sums, 2, axis=-1)
    return np.asarray(np.nanmean(np.where(seen > 0, right / seen, np.nan), axis=-1))
