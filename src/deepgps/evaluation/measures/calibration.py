"""How far probabilities can be believed: the reliability diagram and its error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Ints

BINS = 15
"""Equal-width bins of [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Probability against frequency, bin by bin.

    Attributes
    ----------
    edges
        (B + 1,) of the bins; a probability on an edge belongs to the bin above it, 1 to the last.
    count
        (B,) probabilities in each bin.
    probability, frequency
        (B,) mean probability, and share that was true; NaN where a bin is empty.
    ece
        Expected calibration error: mean distance of the two, weighted by count.
    """

    edges: Doubles
    count: Doubles
    probability: Doubles
    frequency: Doubles
    ece: float


def bin_of(probabilities: NDArray[np.floating], bins: int = BINS) -> Ints:
    """Number of the bin of each probability, in the shape given."""
    # Times bins, rounded where a product misses an edge by its last digit (0.6 * 15 is one such).
    return np.asarray(np.minimum(np.floor(np.round(probabilities * bins, 9)), bins - 1), np.int64)


def reliability(
    probabilities: NDArray[np.floating], outcomes: NDArray[np.generic], count: Doubles | None = None
) -> Reliability:
    """Hold probabilities against what came true.

    Parameters
    ----------
    probabilities, outcomes
        (N,) in [0, 1]; outcomes may be shares.
    count
        (N,) how often each stands for; 1 if None.
    """
    chances, truth = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    weight: Doubles = np.ones(len(chances)) if count is None else count
    place = bin_of(chances)
    total, chance, true = (
        np.bincount(place, each, minlength=BINS).astype(np.float64)
        for each in (weight, weight * chances, weight * truth)
    )
    with np.errstate(invalid="ignore"):
        means = chance / total, true / total
    ece = float(np.abs(chance - true).sum() / weight.sum())
    return Reliability(np.linspace(0, 1, BINS + 1), total, *means, ece)


def ece_by_chance(probabilities: NDArray[np.floating], *, draws: int = 500, seed: int = 0) -> float:
    """Expected calibration error that exact probabilities would show, for want of numbers.

    Parameters
    ----------
    probabilities
        (N,) in [0, 1], as in `reliability`.
    draws, seed
        How often outcomes are drawn from them, and from what.

    Returns
    -------
    float
        The mean over the draws: about 0 for very many probabilities, and no error of theirs.
    """
    rng, chances = np.random.default_rng(seed), np.asarray(probabilities, np.float64)
    errors = [reliability(chances, rng.random(len(chances)) < chances).ece for _ in range(draws)]
    return float(np.mean(errors))
