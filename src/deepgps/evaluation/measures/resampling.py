"""The bootstrap: what a figure might have been had other proteins been drawn."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from deepgps.arrays import Doubles

ROUNDS = 1000
"""Resamples behind every interval."""

_BLOCK = 4_000_000


def draws(groups: int, *, rounds: int = ROUNDS, seed: int = 0) -> Iterator[Doubles]:
    """Draw groups with replacement, as many as there are, again and again.

    Yields
    ------
    Doubles
        (R, groups) how often each was drawn; the R of all blocks add up to ``rounds``.
    """
    rng = np.random.default_rng(seed)
    size = max(1, min(rounds, _BLOCK // groups))
    for start in range(0, rounds, size):
        count = min(size, rounds - start)
        drawn = rng.integers(groups, size=(count, groups)) + groups * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)


def resampled(
    measure: Callable[[Doubles], Mapping[str, Doubles]], groups: int, *, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, Doubles]:
    """Measure on each resample.

    Parameters
    ----------
    measure
        From weights (R, groups) to figures (R,) by name.
    groups
        Number of proteins or homology clusters.
    rounds, seed
        Of the draws; the same seed draws the same groups, so that two models can be compared in pairs.

    Returns
    -------
    dict
        (rounds,) by name.
    """
    blocks = [measure(block) for block in draws(groups, rounds=rounds, seed=seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def interval(values: Doubles) -> tuple[float, float]:
    """95 % interval of a figure over resamples, those left out in which it is undefined (NaN)."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
