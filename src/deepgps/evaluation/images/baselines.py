"""Baseline images, which need no model: every drawn image is compared with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from deepgps.arrays import Doubles, Floats, Mask, Strings

CONSTANT, CLASS_MEAN, MASK, COPY = "constant mean", "class mean", "nuclear mask", "copied nucleus"
OWN_MEAN, OWN_MASK = "own mean", "own nuclear mask"
IMAGE_BASELINES = (CONSTANT, CLASS_MEAN, MASK, COPY, OWN_MEAN, OWN_MASK)
"""In the order of every table; the last two are oracles, which know the image they are compared with."""


class Intensities(NamedTuple):
    """Mean intensity inside the nuclei, outside them, and overall."""

    inside: float
    outside: float
    overall: float


@dataclass(frozen=True, slots=True)
class TrainingIntensities:
    """Mean intensities of training images: of all of them, and by class."""

    overall: Intensities
    by_class: Mapping[str, Intensities]

    def of(self, name: str) -> Intensities:
        """Return the intensities of a class; those of all images where training had none of it."""
        return self.by_class.get(name, self.overall)


def training_intensities(batches: Iterable[tuple[Floats, Mask, Strings]]) -> TrainingIntensities:
    """Measure the intensities that the baselines use.

    Parameters
    ----------
    batches
        Training images (n, H, W), their masks, and the class of each.

    Returns
    -------
    TrainingIntensities
        Intensities over all training images, and by class.
    """
    sums: dict[str, Doubles] = {}
    for real, masks, classes in batches:
        for image, mask, name in zip(real, masks, classes, strict=True):
            inside = float(image[mask].sum(dtype=np.float64))
            total = float(image.sum(dtype=np.float64))
            row = np.array([inside, mask.sum(), total - inside, mask.size - mask.sum(), total, mask.size])
            sums[str(name)] = sums.get(str(name), np.zeros(6)) + row
    everything = np.sum(list(sums.values()), axis=0)
    return TrainingIntensities(
        _intensities(everything), {name: _intensities(row) for name, row in sums.items()}
    )


def _intensities(sums: Doubles) -> Intensities:
    return Intensities(
        *(float(value / max(count, 1)) for value, count in zip(sums[::2], sums[1::2], strict=True))
    )


def baseline_images(
    real: Floats, nuclei: Floats, masks: Mask, classes: Strings, training: TrainingIntensities
) -> dict[str, Floats]:
    """Make the trivial baselines.

    Parameters
    ----------
    real, nuclei, masks
        (N, H, W) the real images, the nucleus images and the masks of the nuclei.
    classes
        (N,) the class of each image.
    training
        Intensities measured on training images.

    Returns
    -------
    dict
        ``constant mean`` (training), ``class mean`` (a constant by class), ``nuclear mask`` (two levels by
        class), ``copied nucleus``, and two oracles: ``own mean`` and ``own nuclear mask`` (each image's
        own levels).
    """
    flat = np.ones_like(real)
    inside, outside, means = (_column([training.of(str(c))[k] for c in classes]) for k in range(3))
    own_in, own_out = _column(_masked_mean(real, masks)), _column(_masked_mean(real, ~masks))
    return {
        CONSTANT: flat * np.float32(training.overall.overall),
        CLASS_MEAN: flat * means,
        MASK: np.where(masks, inside, outside),
        COPY: nuclei,
        OWN_MEAN: flat * real.mean((1, 2))[:, None, None],
        OWN_MASK: np.where(masks, own_in, own_out),
    }


def _column(values: object) -> Floats:
    return np.asarray(values, np.float32)[:, None, None]


def _masked_mean(images: Floats, masks: Mask) -> Floats:
    counts = np.maximum(masks.sum((1, 2)), 1)
    return np.asarray((images * masks).sum((1, 2)) / counts, np.float32)
