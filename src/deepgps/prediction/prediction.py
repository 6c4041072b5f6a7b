"""`Prediction`: the label, probabilities and image predicted for a protein."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from deepgps.arrays import Floats, Mask
from deepgps.bundle.metadata import BundleMetadata
from deepgps.images.cell import Cell
from deepgps.proteins.known import KnownProtein
from deepgps.proteins.neighbours import Neighbour
from deepgps.proteins.protein import Protein

UNCLEAR = "unclear"
"""Reported instead of a class if no class is probable enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one protein in one cell: what is known of it, what is predicted, and both together.

    Attributes
    ----------
    protein
        The protein.
    localizations
        The classes of the overall answer, most probable first, see `named_classes`; `UNCLEAR` alone if no
        class is probable enough; empty if the model predicts images only.
    probabilities
        Overall probability by class, in [0, 1]: what is known and what is predicted, combined by the measured
        reliability of each; the predicted ones if nothing is known. They sum to 1 unless the model is
        multi-label.
    confidence
        Overall probability of the first localization, or of the most probable class if it is unclear; None
        for a model without classes.
    evidence
        The nearest annotated proteins that the prediction used, most similar first; without the protein
        itself where it is known; empty if the model has no index.
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
    known
        The known protein that the sequence is, with what sources say of it; None if nothing is known.
    predicted
        Calibrated probability by class, predicted from the sequence and its relatives without the protein's
        own record.
    prediction_set
        The classes that the protein may be in, most probable first: class by class, at least 90 % of the
        proteins that are there have it in their set (`deepgps.prediction.coverage`). None if this was not
        calibrated for the model.
    low, high
        (H, W) the interval of each pixel, which covers 90 % of the pixels of real images; None unless several
        samples were drawn.

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
    known: KnownProtein | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)
    prediction_set: tuple[str, ...] | None = None
    low: Floats | None = None
    high: Floats | None = None

    def _repr_html_(self) -> str:
        # Jupyter shows it.
        from deepgps.prediction.html import prediction_html

        return prediction_html(self)


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
        The nearest annotated proteins, most similar first; without the protein itself where it is known.
    own_logits, votes
        (K,) logits and votes for the model's own classes, of which the logits of a class set are made.
    known
        The known protein that the sequence is, or None.
    held_out
        (K,) logits for the model's own classes, predicted by models that never saw the protein in training;
        None if it did not train.
    own_records
        Rows of the neighbour index that are the protein itself, and were left out.

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
    own_logits: Floats
    votes: Floats
    known: KnownProtein | None = None
    held_out: Floats | None = None
    own_records: tuple[int, ...] = ()


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


NAMED_FROM = 0.35
"""Lowest probability from which a class is named that no source says."""
SAID_FROM = 0.15
"""Lowest probability from which a class that a source says is named after the first one."""


def class_thresholds(metadata: BundleMetadata) -> dict[str, float]:
    """Return by class the probability from which it is named beside a more probable one.

    Parameters
    ----------
    metadata
        The bundle's thresholds.

    Returns
    -------
    dict
        Empty for a model that names one class.
    """
    if not metadata.multi_label:
        return {}
    bounds = (max(NAMED_FROM, each) for each in metadata.thresholds)
    return dict(zip(metadata.classes, bounds, strict=True))


def named_classes(
    probabilities: Floats, metadata: BundleMetadata, said: Collection[str] = (), *, known: bool = False
) -> tuple[tuple[str, ...], float | None, tuple[str, ...]]:
    """Choose the classes to report, with the confidence in the first.

    The most probable class is named if a source says it, or its probability is at least `NAMED_FROM` for a
    protein of which something is known, and the model's ``unclear_below`` for any other. In a multi-label
    model the next ones follow, in the order of their probability, as long as each has at least `SAID_FROM`
    where a source says it, and else `NAMED_FROM` and the model's threshold. So no class is named that is
    less probable than an unnamed one.

    Parameters
    ----------
    probabilities
        (K,) calibrated, in the order of the model's classes.
    metadata
        The bundle's thresholds.
    said
        The classes that a source says of the protein.
    known
        Whether a source says anything of its localization, reliable or not.

    Returns
    -------
    tuple
        Localizations, confidence and warnings, as in `Prediction`.
    """
    classes, thresholds = metadata.classes, class_thresholds(metadata)
    if not classes:
        return (), None, ()
    order = np.argsort(-probabilities, kind="stable")
    highest, first = float(probabilities[order[0]]), classes[order[0]]
    bound = min(NAMED_FROM, metadata.unclear_below) if known or said else metadata.unclear_below
    if highest < bound and first not in said:
        return (UNCLEAR,), highest, (f"unclear: no class has a probability of {bound:g} or more",)
    if not metadata.multi_label:
        return (first,), highest, ()
    named = [first]
    for k in order[1:]:
        bound = SAID_FROM if classes[k] in said else thresholds[classes[k]]
        if probabilities[k] < bound:
            break
        named.append(classes[k])
    return tuple(named), highest, ()
