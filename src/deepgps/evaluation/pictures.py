"""How good drawn pictures are: measures of one picture, trivial baselines, and summaries over many.

Images are (N, H, W) float32 in [0, 1], so the data range of every measure is 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Masks = NDArray[np.bool_]


def psnr(real: Floats, drawn: Floats) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio in dB of each picture (N,), data range 1; infinite where they are equal."""
    error = ((real.astype(np.float64) - drawn) ** 2).mean((1, 2))
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(error))


def pearson(real: Floats, drawn: Floats) -> NDArray[np.float64]:
    """Pearson correlation over the pixels of each picture (N,); NaN where either is constant."""
    a = real.reshape(len(real), -1).astype(np.float64)
    b = drawn.reshape(len(drawn), -1).astype(np.float64)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norms = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(norms > 1e-9, (a * b).sum(1) / norms, np.nan))


def intranuclear(pictures: Floats, masks: Masks) -> NDArray[np.float64]:
    """Share of each picture's intensity inside the nuclei (N,); NaN for a black one."""
    inside, total = (pictures * masks).sum((1, 2)), pictures.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, inside / total, np.nan), np.float64)


@dataclass(frozen=True, slots=True)
class TrainingLevels:
    """Mean intensities of training pictures.

    Attributes
    ----------
    mean
        Of all pictures.
    by_class
        By localization: mean inside the nuclei, outside them, and overall.
    """

    mean: float
    by_class: Mapping[str, tuple[float, float, float]]


def baselines(
    real: Floats, nuclei: Floats, masks: Masks, classes: NDArray[np.str_], training: TrainingLevels
) -> dict[str, Floats]:
    """Draw the trivial baselines.

    Parameters
    ----------
    real, nuclei, masks
        (N, H, W) the real pictures, the nucleus images and the masks of the nuclei.
    classes
        (N,) the localization of each picture.
    training
        Levels measured on training pictures.

    Returns
    -------
    dict
        ``constant mean`` (training), ``own mean`` (an oracle: each picture's own), ``class mean`` (a constant
        by localization), ``nuclear mask`` (two levels by localization), ``own nuclear mask`` (an oracle) and
        ``copied nucleus``.
    """
    flat = np.ones_like(real)
    inside, outside = (np.array([training.by_class[c][k] for c in classes], np.float32) for k in (0, 1))
    means = np.array([training.by_class[c][2] for c in classes], np.float32)
    own_in = _masked_mean(real, masks)
    own_out = _masked_mean(real, ~masks)
    return {
        "constant mean": flat * np.float32(training.mean),
        "own mean": flat * real.mean((1, 2))[:, None, None],
        "class mean": flat * means[:, None, None],
        "nuclear mask": np.where(masks, inside[:, None, None], outside[:, None, None]),
        "own nuclear mask": np.where(masks, own_in[:, None, None], own_out[:, None, None]),
        "copied nucleus": nuclei,
    }


def training_levels(real: Floats, masks: Masks, classes: NDArray[np.str_]) -> TrainingLevels:
    """Measure the levels that the baselines draw with, on training pictures (N, H, W)."""
    levels = {}
    for name in np.unique(classes):
        chosen, mask = real[classes == name], masks[classes == name]
        levels[str(name)] = (float(chosen[mask].mean()), float(chosen[~mask].mean()), float(chosen.mean()))
    return TrainingLevels(float(real.mean()), levels)


def right_side(fractions: NDArray[np.float64], nuclear: Masks, cytoplasmic: Masks) -> tuple[float, float]:
    """Share of pictures whose intranuclear fraction lies on the right side of the middle of the two means.

    Parameters
    ----------
    fractions
        (N,) intranuclear fractions.
    nuclear, cytoplasmic
        (N,) which pictures are of which kind.

    Returns
    -------
    share, threshold
    """
    threshold = (np.nanmean(fractions[nuclear]) + np.nanmean(fractions[cytoplasmic])) / 2
    right = np.concatenate([fractions[nuclear] > threshold, fractions[cytoplasmic] <= threshold])
    return float(right.mean()), float(threshold)


def bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.str_], *, rounds: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of values with its 95 % bootstrap interval over groups, such as mosaics.

    NaN values are left out.

    Returns
    -------
    mean, low, high
    """
    keep = ~np.isnan(values)
    values, groups = values[keep], groups[keep]
    _, codes = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(codes, values), np.bincount(codes)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(rounds, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


def _masked_mean(pictures: Floats, masks: Masks) -> Floats:
    counts = np.maximum(masks.sum((1, 2)), 1)
    return np.asarray((pictures * masks).sum((1, 2)) / counts, np.float32)
