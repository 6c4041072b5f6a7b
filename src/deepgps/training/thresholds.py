"""Bounds of a model's labels: from which probability a class is named, below which a protein is unclear."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Floats, Mask
from deepgps.proteins.neighbours import NeighbourIndex

SHARE_OF_ERRORS = 0.75
"""Highest error rate of named classes, as a share of the error rate if all were named."""
SHUFFLED, SHARE_UNLIKE = 500, 0.98
"""Number of shuffled proteins, and the share of them that must be unlike everything."""


def best_thresholds(probabilities: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> list[float]:
    """Return the threshold of each class with the best weighted F1.

    Parameters
    ----------
    probabilities, labels
        (N, K) probabilities and labels in [0, 1].
    weight
        (N, K); 0 where a label is unknown.

    Returns
    -------
    list[float]
        K thresholds, on a grid of 0.01 from 0.05 to 0.95.
    """
    grid = torch.arange(5, 96) / 100
    named, classes = probabilities[:, :, None] >= grid, range(probabilities.shape[1])
    hits = torch.stack([(weight * labels)[:, k] @ named[:, k].float() for k in classes])
    total = torch.stack([weight[:, k] @ named[:, k].float() for k in classes])
    f1 = 2 * hits / (total + (weight * labels).sum(0)[:, None]).clamp(min=1e-9)
    return [round(float(grid[best]), 2) for best in f1.argmax(1)]


def top_class(
    probabilities: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor
) -> tuple[Floats, Mask, Doubles]:
    """Return the highest probability (n,) of each protein of known label, whether it is right, its weight.

    Parameters
    ----------
    probabilities, labels
        (N, K) probabilities and labels in [0, 1].
    weight
        (N, K); the weight of a known label, or 0 or less.

    Returns
    -------
    tuple of ndarray
        (n,) probabilities, whether each is right, and weights.
    """
    highest, best = probabilities.max(1)
    right = labels.gather(1, best[:, None])[:, 0] > 0.5
    counts = weight.gather(1, best[:, None])[:, 0].double()
    known = counts > 0
    return highest[known].numpy(), right[known].numpy(), counts[known].numpy()


def unclear_below(highest: NDArray[np.floating], right: Mask, weights: Doubles | None = None) -> float:
    """Return the lowest probability from which the top class is wrong clearly less often than overall.

    Parameters
    ----------
    highest
        (N,) highest probability of each protein.
    right
        (N,) whether the protein is in that class.
    weights
        (N,) weight of each; equal by default.

    Returns
    -------
    float
        On a grid of 0.01; errors above it are at most `SHARE_OF_ERRORS` of the overall rate. 0 where there
        are no errors, or no such bound.
    """
    grid = np.arange(100) / 100
    named = highest[:, None] >= grid
    counts = np.ones(len(highest)) if weights is None else weights
    wrong = counts @ (named & ~right[:, None]) / np.maximum(1e-9, counts @ named)
    low_enough = (wrong <= SHARE_OF_ERRORS * wrong[0]) & named.any(0)
    return float(grid[np.argmax(low_enough)])


def unlike_below(index: NeighbourIndex, sequences: Sequence[str]) -> float:
    """Return the similarity to the nearest protein that `SHARE_UNLIKE` of shuffled sequences stay below."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(sequences), min(SHUFFLED, len(sequences)), replace=False)
    shuffled = ["".join(rng.permutation(list(sequences[row]))) for row in chosen]
    nearest = [float(index.similarities(text).max(initial=0)) for text in shuffled]
    return round(float(np.quantile(nearest, SHARE_UNLIKE)), 3)
