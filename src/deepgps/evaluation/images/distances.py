"""Distances of two sets of images, by the features of a network or of another description of them.

Both compare distributions, so that drawn images need not be of the cells that the real ones show. Compare
only distances by the same features, and Fréchet distances only of the same number of images.
"""

from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Doubles
from deepgps.bundle import Metric
from deepgps.evaluation.bootstrap import percentile_interval


@dataclass(slots=True)
class Moments:
    """Mean and covariance of vectors that come in batches."""

    count: int
    total: Doubles
    products: Doubles

    @classmethod
    def empty(cls, dimension: int) -> "Moments":
        """Return the moments of no vectors."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    def add(self, vectors: Doubles) -> None:
        """Add a batch (n, F)."""
        self.count += len(vectors)
        self.total += vectors.sum(0)
        self.products += vectors.T @ vectors

    @property
    def mean(self) -> Doubles:
        """(F,)."""
        return self.total / max(self.count, 1)

    @property
    def covariance(self) -> Doubles:
        """(F, F), of a sample."""
        return (self.products - self.count * np.outer(self.mean, self.mean)) / max(self.count - 1, 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance between two normal distributions, as in FID (Heusel et al. 2017).

    |mean_a - mean_b|² + trace(cov_a + cov_b - 2 (cov_a cov_b)^½); NaN with fewer than two vectors.

    Returns
    -------
    float
        The distance; 0 for equal distributions.
    """
    if min(a.count, b.count) < 2:
        return float("nan")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b.covariance @ root), 0)).sum()
    apart = float(((a.mean - b.mean) ** 2).sum())
    return max(apart + float(np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross), 0.0)


def kernel_distance(a: Doubles, b: Doubles) -> float:
    """Kernel distance of two sets of features, as in KID (Bińkowski et al. 2018, arXiv:1801.01401).

    The unbiased estimate of the squared maximum mean discrepancy under the kernel ``(x·y / F + 1)³``. Unlike
    the Fréchet distance, it does not depend on the number of images, and is around 0, or below, for two
    samples of one distribution.

    Parameters
    ----------
    a, b
        (N, F) and (M, F) features.

    Returns
    -------
    float
        NaN with fewer than two rows in either.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    within = sum(_mean_off_diagonal(_kernel(each, each)) for each in (a, b))
    return float(within - 2 * _kernel(a, b).mean())


def kernel_distance_interval(a: Doubles, b: Doubles, *, rounds: int = 200, seed: int = 0) -> Metric:
    """Return the kernel distance with the range of 95 % of the distances of random halves of both sets.

    Halves have no row twice, which would change the estimate; the range is wider than a 95 % interval.

    Parameters
    ----------
    a, b
        (N, F) and (M, F) features.
    rounds, seed
        Number of halves, and the seed of their choice.

    Returns
    -------
    Metric
        Of ``n`` = N images; without a range below four rows in either.
    """
    value = kernel_distance(a, b)
    if min(len(a), len(b)) < 4:
        return Metric(value=value, n=len(a))
    rng = np.random.default_rng(seed)
    halves = [
        kernel_distance(*(each[rng.permutation(len(each))[: len(each) // 2]] for each in (a, b)))
        for _ in range(rounds)
    ]
    low, high = percentile_interval(np.array(halves))
    return Metric(value=value, low=low, high=high, n=len(a))


def _kernel(a: Doubles, b: Doubles) -> Doubles:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def _mean_off_diagonal(square: Doubles) -> float:
    count = len(square)
    return float((square.sum() - np.trace(square)) / (count * (count - 1)))
