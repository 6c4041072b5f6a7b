"""A classifier that has seen real images only, to say what localization an image shows.

Support vector machines over `structure_features`: one over all of them, which also sees texture and so asks
whether an image looks like a real one, and one over the profile around the nucleus alone, which asks where
the protein is. Their accuracy on real held-out images is the ceiling for drawn ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from deepgps.arrays import Doubles, Indices, Strings
from deepgps.errors import InputError
from deepgps.evaluation.images.structure import FEATURES, filled

MIN_IMAGES = 20
"""Training images that a class needs, to be read."""
UNREAD = -1
_SPREAD = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class ImageReader:
    """Reads a class from the features of an image.

    Attributes
    ----------
    classes
        The classes that it knows.
    counts
        Training images of each.
    columns
        How many of the features it looks at, from the first.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    columns: int
    _mean: Doubles
    _spread: Doubles
    _machine: Any

    def standardised(self, features: Doubles) -> Doubles:
        """Its features (N, `columns`) in units of their spread over training images, cut at 5 of them."""
        own = filled(features)[:, : self.columns]
        return np.clip((own - self._mean) / self._spread, -_SPREAD, _SPREAD)

    def read(self, features: Doubles) -> Indices:
        """Class numbers (N,) read from features (N, F)."""
        return np.asarray(self._machine.predict(self.standardised(features)), np.intp)

    def numbers(self, names: Strings) -> Indices:
        """Numbers (N,) of class names; `UNREAD` for those that it does not know."""
        known = {name: number for number, name in enumerate(self.classes)}
        return np.array([known.get(str(name), UNREAD) for name in names], np.intp)


def fit_reader(features: Doubles, names: Strings, columns: int = FEATURES) -> ImageReader:
    """Train on real training images.

    Parameters
    ----------
    features
        (N, F) of `structure_features`.
    names
        (N,) class of each; those with ``|``, of several, are left out.
    columns
        How many of the features to look at, from the first: `PROFILE` for the profile alone.

    Raises
    ------
    InputError
        If fewer than two classes have `MIN_IMAGES` images.
    """
    from sklearn.svm import SVC

    found, counts = np.unique(names, return_counts=True)
    enough = [("|" not in name and count >= MIN_IMAGES) for name, count in zip(found, counts, strict=True)]
    classes, counts = found[enough], counts[enough]
    if len(classes) < 2:
        raise InputError(
            f"Classes with {MIN_IMAGES} training images: {len(classes)}; to read drawn images two are "
            "needed: give more crops the split 'train'."
        )
    kept = np.isin(names, classes)
    known = filled(features[kept])[:, :columns]
    # A feature that never varies says nothing, whatever its unit.
    spread = np.where(known.std(0) > 1e-9, known.std(0), 1.0)
    machine = SVC(C=3, class_weight="balanced", random_state=0)
    reader = ImageReader(
        tuple(map(str, classes)), tuple(map(int, counts)), columns, known.mean(0), spread, machine
    )
    machine.fit(reader.standardised(features[kept]), np.searchsorted(classes, names[kept]))
    return reader


@dataclass(slots=True)
class Moments:
    """Mean and covariance of vectors that come in batches."""

    count: int
    total: Doubles
    products: Doubles

    @classmethod
    def empty(cls, dimension: int) -> "Moments":
        """Moments of nothing."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    def add(self, vectors: Doubles) -> None:
        """Take in a batch (n, F)."""
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
    """
    if min(a.count, b.count) < 2:
        return float("nan")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b.covariance @ root), 0)).sum()
    apart = float(((a.mean - b.mean) ** 2).sum())
    return max(apart + float(np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross), 0.0)
