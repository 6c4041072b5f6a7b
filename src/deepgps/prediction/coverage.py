"""Prediction sets and intervals that cover the truth as often as they say, by conformal calibration.

A prediction set has every class whose probability is at least the class's bound. The bound is chosen so that
the set holds the class in at least 90 % of the proteins of which it is true, class by class (Mondrian
conformal prediction: Vovk 2012, arXiv:1209.2673; Angelopoulos and Bates 2021, arXiv:2107.07511). The interval
of a pixel is the mean of several drawn images, give or take their spread times a factor; the factor is chosen
so that it covers 90 % of the pixels of real images.

Bounds and factors of the bundled model are in ``coverage.json`` beside this file; they were computed from
predictions of held-out proteins and images (``experiments/deepgps-mini/coverage.py``). They hold for the
networks and indexes that they were computed with, and no others.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from deepgps.arrays import Doubles, Floats
from deepgps.bundle import KNOWN_FILE, NEIGHBOURS_FILE, OVERALL_FILE, BundleMetadata

COVERAGE = 0.9
"""Share of the proteins, or pixels, that a set or an interval is to cover."""
COVERAGE_FILE = "coverage.json"
LABEL_FILES = ("encoder.onnx", NEIGHBOURS_FILE, KNOWN_FILE, OVERALL_FILE)
"""Files of a bundle that decide its probabilities."""
IMAGE_FILES = ("generator.onnx", "grain.onnx")
"""Files of a bundle that decide its images."""
SPREAD_FLOOR = 0.05
"""Least spread of a pixel, of the square root of its intensity: the grain of a microscope's image."""
FEWEST_SAMPLES = 4
"""Drawn images that an interval needs at least."""


@dataclass(frozen=True, slots=True)
class ClassBounds:
    """Least probabilities of the classes of a prediction set.

    Attributes
    ----------
    predicted
        By class, where nothing is known of a protein.
    known
        By class, where a source says something of it.
    """

    predicted: Mapping[str, float]
    known: Mapping[str, float]

    def prediction_set(
        self, probabilities: Mapping[str, float], named: Sequence[str], *, known: bool
    ) -> tuple[str, ...]:
        """Return the classes that reach their bound, and those that are named in any case.

        Parameters
        ----------
        probabilities
            Of each class.
        named
            The classes that the answer names.
        known
            Whether a source says something of the protein.

        Returns
        -------
        tuple of str
            The classes, most probable first; the most probable one alone if none reaches its bound.
        """
        bounds = self.known if known else self.predicted
        order = sorted(probabilities, key=lambda slug: -probabilities[slug])
        chosen = (slug for slug in order if slug in named or probabilities[slug] >= bounds[slug])
        return tuple(chosen) or tuple(order[:1])


def conformal_bound(probabilities: Doubles, coverage: float = COVERAGE) -> float:
    """Return the bound of a class.

    Parameters
    ----------
    probabilities
        (n,) held-out probabilities of the class for proteins of which it is true.
    coverage
        Share of such proteins that shall reach the bound.

    Returns
    -------
    float
        The ``floor((1 - coverage) (n + 1))``-th smallest; 0, which includes the class always, where there are
        too few.
    """
    rank = int(np.floor((1 - coverage) * (len(probabilities) + 1) + 1e-9))
    return float(np.sort(probabilities)[rank - 1]) if rank else 0.0


def conformal_factor(scores: Sequence[Floats], coverage: float = COVERAGE) -> float:
    """Return the factor of the intervals of pixels.

    Parameters
    ----------
    scores
        For each held-out image its pixels' `pixel_scores`.
    coverage
        Share of the pixels that shall be covered, as a mean over images.

    Returns
    -------
    float
        The quantile of the scores in which every image counts alike.
    """
    values = np.concatenate([each.ravel() for each in scores]).astype(np.float64)
    weights = np.concatenate([np.full(each.size, 1 / each.size) for each in scores])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / len(scores)
    place = int(np.searchsorted(reached, coverage))
    return float(values[order][min(place, len(values) - 1)])


def pixel_scores(real: Floats, samples: Floats) -> Floats:
    """Return how far real pixels (H, W) are from drawn ones (N, H, W), in units of their spread: (H, W)."""
    middle, spread = _middle_and_spread(samples)
    return np.asarray(np.abs(np.sqrt(np.clip(real, 0, 1)) - middle) / spread, np.float32)


def pixel_interval(samples: Floats, factor: float) -> tuple[Floats, Floats]:
    """Return the interval of each pixel.

    Parameters
    ----------
    samples
        (N, H, W) images drawn with N seeds, in [0, 1].
    factor
        As `conformal_factor` returns it.

    Returns
    -------
    low, high : Floats
        (H, W) each, in [0, 1].
    """
    middle, spread = _middle_and_spread(samples)
    ends = (np.clip(middle + sign * factor * spread, 0, 1) ** 2 for sign in (-1, 1))
    low, high = (np.asarray(end, np.float32) for end in ends)
    return low, high


def _middle_and_spread(samples: Floats) -> tuple[Floats, Floats]:
    # On square roots, because the noise of a microscope grows with the square root of the signal.
    roots = np.sqrt(np.clip(samples, 0, 1)).astype(np.float32)
    return roots.mean(0), roots.std(0, ddof=1) + np.float32(SPREAD_FLOOR)


def class_bounds(metadata: BundleMetadata, class_set: str | None) -> ClassBounds | None:
    """Return the bounds of a bundle's classes.

    Parameters
    ----------
    metadata
        The bundle's.
    class_set
        Name of the class set that its classes are.

    Returns
    -------
    ClassBounds or None
        None if none were computed for this very bundle.
    """
    document = _document()
    if class_set is None or not _same_files(metadata, document["labels"]["files"]):
        return None
    bounds = document["labels"]["sets"].get(class_set)
    return None if bounds is None else ClassBounds(bounds["predicted"], bounds["known"])


def interval_factor(metadata: BundleMetadata, samples: int) -> float | None:
    """Return the factor of the intervals from so many drawn images; None if none fits this very bundle."""
    document = _document()
    if samples < FEWEST_SAMPLES or not _same_files(metadata, document["images"]["files"]):
        return None
    factors = {int(count): factor for count, factor in document["images"]["factors"].items()}
    # More images than were tried have the factor of the most that were: it is no larger than needed.
    fitting = [count for count in factors if count <= samples]
    return factors[max(fitting)] if fitting else None


def files_of(metadata: BundleMetadata, names: Sequence[str]) -> dict[str, str]:
    """Return the hashes of some of a bundle's files, those that it has."""
    return {name: metadata.files[name] for name in names if name in metadata.files}


def _same_files(metadata: BundleMetadata, hashes: Mapping[str, str]) -> bool:
    return bool(hashes) and all(metadata.files.get(name) == value for name, value in hashes.items())


@cache
def _document() -> dict[str, Any]:
    file = resources.files("deepgps.prediction") / COVERAGE_FILE
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document
