"""What deepGPS says of a protein: a label with probabilities, and an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle.metadata import BundleMetadata
from deepgps.images.cell import Cell
from deepgps.proteins.neighbours import Neighbour
from deepgps.proteins.protein import Protein

UNCLEAR = "unclear"
"""What stands in place of a class where none is probable enough to be named."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What deepGPS says of one protein in one nucleus.

    Attributes
    ----------
    protein
        The protein asked about.
    localizations
        The classes named: every class at or above its threshold, most probable first; `UNCLEAR` alone where
        none is probable enough; empty only where the model has no classes and draws only.
    probabilities
        Calibrated probability by class; they sum to 1 unless the model is multi-label.
    confidence
        Probability of the first localization, or of the most probable class where it is unclear; None where
        there is none.
    evidence
        The nearest annotated proteins, most similar first; empty where the model has no index.
    cell, image
        The cell and the protein image drawn into it, (H, W) float32
        in [0, 1]; None without images.
    readouts
        Numbers read off the image: ``intranuclear_fraction`` in [0, 1].
    model, version
        The bundle's name and version.
    warnings
        What the user should know before trusting this.
    mean
        Whether the image is the mean of all images that could be, and not one of them.
    """

    protein: Protein
    localizations: tuple[str, ...]
    probabilities: Mapping[str, float]
    confidence: float | None
    evidence: tuple[Neighbour, ...]
    cell: Cell | None
    image: Floats | None
    readouts: Mapping[str, float]
    model: str
    version: str
    warnings: tuple[str, ...] = ()
    mean: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What the encoder says of one protein, before it is drawn anywhere.

    Attributes
    ----------
    logits
        (K,) calibrated logits; K is 0 for a model that only draws.
    latent
        (T, D) latent tokens for the generator.
    evidence
        The nearest annotated proteins, most similar first.
    """

    logits: Floats
    latent: Floats
    evidence: tuple[Neighbour, ...]


def named_line(localizations: Sequence[str], probabilities: Mapping[str, float]) -> str:
    """Join what is named, each class with its probability; `UNCLEAR` has none."""
    return ", ".join(
        f"{slug} {probabilities[slug]:.2f}" if slug in probabilities else slug for slug in localizations
    )


def intranuclear_fraction(image: Floats, mask: Mask) -> float:
    """Share of a protein image's intensity that lies inside the nuclei.

    Parameters
    ----------
    image
        (H, W) in [0, 1].
    mask
        (H, W), true inside any nucleus.

    Returns
    -------
    float
        In [0, 1]; NaN for an image without intensity.
    """
    total = float(image.sum())
    return float(image[mask].sum()) / total if total > 0 else float("nan")


def class_probabilities(logits: Floats, *, multi_label: bool) -> Floats:
    """Turn logits (K,) into probabilities (K,): each by itself where a protein may be in several classes."""
    if multi_label or not len(logits):
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), np.float32)


def named_classes(
    probabilities: Floats, metadata: BundleMetadata
) -> tuple[tuple[str, ...], float | None, tuple[str, ...]]:
    """Name classes, with the confidence in the first, and say so where none is believed or sure.

    Parameters
    ----------
    probabilities
        (K,) calibrated, of the model's classes.
    metadata
        What the bundle says of them.

    Returns
    -------
    tuple
        Localizations, confidence and warnings, as of `Prediction`.
    """
    classes = metadata.classes
    if not classes:
        return (), None, ()
    order = np.argsort(-probabilities, kind="stable")
    highest = float(probabilities[order[0]])
    if highest < metadata.unclear_below:
        bound = metadata.unclear_below
        return (UNCLEAR,), highest, (f"unclear: no class has a probability of {bound:g} or more",)
    if not metadata.multi_label:
        return (classes[order[0]],), highest, ()
    named = [k for k in order if probabilities[k] >= metadata.thresholds[k]]
    doubt = () if named else ("no class reaches its threshold: the most probable one is given",)
    named = named or [order[0]]
    return tuple(classes[k] for k in named), float(probabilities[named[0]]), doubt
