"""Which residues a prediction depends on: windows are masked, and the protein is encoded again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError

WIDTH = 15
"""Residues of a masked window; wider in proteins of more than about 2,000 residues."""
STEP = 3
MAX_WINDOWS = 400
RANDOM_DRAWS = 1000
FLOOR_PERCENTILE = 95
MAX_RESIDUES_EXPLAINED = 10_000

Logits = Callable[[Sequence[str]], Floats]
"""From N sequences to their logits (N, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """How much each residue contributes to each class.

    Attributes
    ----------
    values
        (K, L) mean fall of the logit of the class when a window around the residue is masked; above 0 where
        the residue speaks for the class.
    floor
        (K,) noise floor: 19 of 20 means of as many masks at random places, instead of around one residue, are
        closer to 0.
    width
        Residues of a window.
    """

    values: Floats
    floor: Floats
    width: int


def importance(sequence: str, logits: Logits, *, seed: int = 0) -> Importance:
    """Mask windows of a sequence and measure how far the logits fall.

    Parameters
    ----------
    sequence
        A checked sequence.
    logits
        The model.
    seed
        Of the random draws.

    Returns
    -------
    Importance
        For each class of the model.

    Raises
    ------
    InputError
        If the sequence is longer than `MAX_RESIDUES_EXPLAINED`.
    """
    length = len(sequence)
    if length > MAX_RESIDUES_EXPLAINED:
        raise InputError(
            f"A sequence of {length:,} residues is too long to explain; give at most "
            f"{MAX_RESIDUES_EXPLAINED:,}, such as one domain."
        )
    step: int = max(STEP, -(-length // MAX_WINDOWS))
    width: int = min(max(WIDTH, 3 * step), max(1, length // 2))
    # The first and the last window begin outside, so that termini are covered as often as the middle.
    starts = np.arange(step - width, length, step)
    masks = [np.arange(max(0, at), min(length, at + width)) for at in starts.tolist()]
    found = logits([sequence, *(_masked(sequence, mask) for mask in masks)])
    falls = found[0] - found[1:]
    sums, counts = np.zeros((length, falls.shape[1])), np.zeros((length, 1))
    for mask, fall in zip(masks, falls, strict=True):
        sums[mask] += fall
        counts[mask] += 1
    around = round(float(counts.mean()))
    random = np.random.default_rng(seed).integers(len(masks), size=(RANDOM_DRAWS, around))
    floor = np.percentile(np.abs(falls[random].mean(1)), FLOOR_PERCENTILE, axis=0)
    return Importance((sums / counts).T.astype(np.float32), floor.astype(np.float32), width)


def _masked(sequence: str, places: "np.ndarray[tuple[int], np.dtype[np.integer]]") -> str:
    letters = list(sequence)
    for place in places:
        letters[place] = "X"
    return "".join(letters)
