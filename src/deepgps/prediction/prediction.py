"""`Prediction`: the label, probabilities and image predicted for a protein."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle.metadata import BundleMetadata
from deepgps.images.cell import Cell
from deepgps.proteins.neighbours import Neighbour
from deepgps.proteins.protein import Protein

UNCLEAR = "unclear"
"""Reported instead of a class if no class is probable enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The prediction for one protein in one cell.

    Attributes
    ----------
    protein
        The protein.
    localizations
        Every class at or above its threshold, most probable first; `UNCLEAR` alone if no class is probable
        enough; empty if the model predicts images only.
    probabilities
        Calibrated probability by class, in [0, 1]; they sum to 1 unless the model is multi-label.
    confidence
        Probability of the first localization, or of the most probable class if it is unclear; None for a
        model without classes.
    evidence
        The nearest annotated proteins, most similar first; empty if the model has no index.
    cell, image
        The cell and the protein image drawn into it, (H, W) float32 in [0, 1]; None without images.
    readouts
        Numbers measured in the image: ``intranuclear_fraction`` in [0, 1].
    model, version
        The bundle's name and version.
    warnings
        What the user should know before trusting the prediction.
    mean
        Whether the image is the mean of all possible images instead of one of them.
    seed
        The seed that the image was drawn with.

    Examples
    --------
    >>> from deepgps import Predictor
    >>> prediction = Predictor.load().predict_one("MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
    >>> 0 <= prediction.readouts["intranuclear_fraction"] <= 1
    True
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
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """The encoder's output for one protein.

    Attributes
    ----------
    logits
        (K,) calibrated logits; K is 0 for a model that predicts images only.
    latent
        (T, D) latent tokens for the generator.
    evidence
        The nearest annotated proteins, most similar first.

    Examples
    --------
    >>> from deepgps import Predictor
    >>> predictor = Predictor.load()
    >>> [encoding] = predictor.encode(["MKRPAATKKAGQAKKKKLDK"])
    >>> encoding.logits.shape == (len(predictor.classes),)
    True
    """

    logits: Floats
    latent: Floats
    evidence: tuple[Neighbour, ...]


def named_line(localizations: Sequence[str], probabilities: Mapping[str, float]) -> str:
    """Join localizations with their probabilities, as in ``er 0.91, golgi 0.55``; `UNCLEAR` has none."""
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
    """Turn logits (K,) into probabilities (K,): by a sigmoid if multi-label, else by a softmax."""
    if multi_label or not len(logits):
        return np.asarray(np.exp(-np.logaddexp(0, -logits)), np.float32)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), np.float32)


def named_classes(
    probabilities: Floats, metadata: BundleMetadata
) -> tuple[tuple[str, ...], float | None, tuple[str, ...]]:
    """Choose the classes to report, with the confidence in the first.

    Parameters
    ----------
    probabilities
        (K,) calibrated, in the order of the model's classes.
    metadata
        The bundle's thresholds.

    Returns
    -------
    tuple
        Localizations, confidence and warnings, as in `Prediction`.
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
    warnings = () if named else ("no class reaches its threshold: the most probable one is given",)
    named = named or [order[0]]
    return tuple(classes[k] for k in named), float(probabilities[named[0]]), warnings
