"""What is learned from the real training images before any drawn one is measured."""

from collections.abc import Callable, Iterator

import numpy as np

from deepgps.arrays import Doubles, Floats, Ints, Mask, Strings
from deepgps.errors import InputError
from deepgps.evaluation.images.baselines import training_levels
from deepgps.evaluation.images.measuring import BATCH, Readers, Trained, cells
from deepgps.evaluation.images.reader import fit_reader
from deepgps.evaluation.images.structure import PROFILE, structure_features
from deepgps.evaluation.subjects import Subjects

MOST = 4000
"""Training crops that are learned from, drawn by chance where there are more."""


def learn(
    subjects: Subjects, pixel_size_um: float, seed: int = 0, on_crops: Callable[[int], None] = lambda _: None
) -> tuple[Trained, str]:
    """Measure the levels of the baselines and train the readers, on real training images only.

    Returns
    -------
    trained
        Without readers where too few classes have images.
    note
        Why there is no reader, or nothing.

    Raises
    ------
    InputError
        If no crop has the split ``train``.
    """
    if not len(subjects.training):
        raise InputError(
            "No crop of the store has the split 'train'; the baselines and the classifier that reads drawn "
            "images are made from such crops."
        )
    rows, shown = training_sample(subjects, seed)
    features: list[Doubles] = []

    def batches() -> Iterator[tuple[Floats, Mask, Strings]]:
        for start in range(0, len(rows), BATCH):
            real, around = cells(subjects, rows[start : start + BATCH], pixel_size_um)
            features.append(structure_features(real, around))
            yield real, around.masks, shown[start : start + BATCH]
            on_crops(len(real))

    levels = training_levels(batches())
    readers, note = _readers(np.concatenate(features), shown)
    return Trained(levels, readers, np.concatenate(features)), note


def training_sample(subjects: Subjects, seed: int) -> tuple[Ints, Strings]:
    """At most `MOST` training rows and what they show, drawn by chance, in the order of the store."""
    chosen = np.random.default_rng(seed).permutation(len(subjects.training))[:MOST]
    chosen.sort()
    return subjects.training[chosen], subjects.training_shown[chosen]


def _readers(features: Doubles, shown: Strings) -> tuple[Readers, str]:
    try:
        return (fit_reader(features, shown), fit_reader(features, shown, PROFILE)), ""
    except InputError as error:
        return None, str(error)
