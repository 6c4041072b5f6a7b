"""What is learned from real training images: intensities for the baselines, and classifiers of localizations.

The classifiers are support vector machines over `structure_features`. One sees all features, texture
included, and so asks whether an image looks like a real one of its class; the other sees the profile around
the nucleus alone, and asks where the protein is. They are trained on real images only, and their accuracy on
real held-out images is the ceiling for drawn ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepgps.arrays import Doubles, Floats, Indices, Ints, Mask, Strings
from deepgps.errors import InputError
from deepgps.evaluation.dataset import SEPARATOR, EvaluationDataset
from deepgps.evaluation.images.baselines import TrainingIntensities, training_intensities
from deepgps.evaluation.images.features import FEATURES, PROFILE, filled, load_cells, structure_features

BATCH = 8
"""Crops that are read and measured together."""
MAX_TRAINING_CROPS = 4000
"""Training crops that are learned from, drawn at random where there are more."""
MIN_CLASS_IMAGES = 20
"""Training images that a class needs for the classifiers to know it."""
UNKNOWN_CLASS = -1
"""Number of a class that a classifier does not know."""
_MAX_DEVIATION = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class LocalizationClassifier:
    """Classifies images by their features.

    Attributes
    ----------
    classes
        The classes that it knows.
    counts
        Training images of each.
    columns
        How many of the features it uses, from the first.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    columns: int
    _mean: Doubles
    _spread: Doubles
    _svm: Any

    def standardised(self, features: Doubles) -> Doubles:
        """Return its features (N, `columns`) in standard deviations of the training images, clipped at 5."""
        own = filled(features)[:, : self.columns]
        return np.clip((own - self._mean) / self._spread, -_MAX_DEVIATION, _MAX_DEVIATION)

    def predict(self, features: Doubles) -> Indices:
        """Predict class numbers (N,) from features (N, F)."""
        return np.asarray(self._svm.predict(self.standardised(features)), np.intp)

    def numbers(self, names: Strings) -> Indices:
        """Return the numbers (N,) of class names; `UNKNOWN_CLASS` for those that it does not know."""
        known = {name: number for number, name in enumerate(self.classes)}
        return np.array([known.get(str(name), UNKNOWN_CLASS) for name in names], np.intp)


Classifiers = tuple[LocalizationClassifier, LocalizationClassifier] | None
"""The classifier of all features and that of the profile alone; None where classes have too few images."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReference:
    """What was learned from real training images.

    Attributes
    ----------
    intensities
        Mean intensities, for the baselines.
    classifiers
        None where too few classes have images.
    features
        (T, F) features of the training images.
    note
        Why there are no classifiers, or nothing.
    """

    intensities: TrainingIntensities
    classifiers: Classifiers
    features: Doubles
    note: str = ""


def fit_training_reference(
    dataset: EvaluationDataset,
    pixel_size_um: float,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> TrainingReference:
    """Measure the intensities of the baselines and train the classifiers, on real training images only.

    Returns
    -------
    TrainingReference
        Intensities and features of training images; the classifiers, or why there are none.

    Raises
    ------
    InputError
        If no crop has the split ``train``.
    """
    if not len(dataset.training_rows):
        raise InputError(
            "No crop of the store has the split 'train'; the baselines and the classifier of localizations "
            "are made from such crops."
        )
    rows, classes = _training_sample(dataset, seed)
    features: list[Doubles] = []

    def batches() -> Iterator[tuple[Floats, Mask, Strings]]:
        for start in range(0, len(rows), BATCH):
            real, cells = load_cells(dataset, rows[start : start + BATCH], pixel_size_um)
            features.append(structure_features(real, cells))
            yield real, cells.masks, classes[start : start + BATCH]
            on_progress("training crops", start + len(real), len(rows))

    intensities = training_intensities(batches())
    every = np.concatenate(features)
    try:
        classifiers = fit_classifier(every, classes), fit_classifier(every, classes, PROFILE)
    except InputError as error:
        return TrainingReference(intensities, None, every, str(error))
    return TrainingReference(intensities, classifiers, every)


def _training_sample(dataset: EvaluationDataset, seed: int) -> tuple[Ints, Strings]:
    """At most `MAX_TRAINING_CROPS` rows and what they show, drawn at random, in the order of the store."""
    chosen = np.random.default_rng(seed).permutation(len(dataset.training_rows))[:MAX_TRAINING_CROPS]
    chosen.sort()
    return dataset.training_rows[chosen], dataset.training_classes[chosen]


def fit_classifier(features: Doubles, names: Strings, columns: int = FEATURES) -> LocalizationClassifier:
    """Train a classifier on real training images.

    Parameters
    ----------
    features
        (N, F) of `structure_features`.
    names
        (N,) class of each; images of several classes are left out.
    columns
        How many of the features to use, from the first: `PROFILE` for the profile alone.

    Returns
    -------
    LocalizationClassifier
        The classifier, of the classes with enough images.

    Raises
    ------
    InputError
        If fewer than two classes have `MIN_CLASS_IMAGES` images.
    """
    from sklearn.svm import SVC

    found, counts = np.unique(names, return_counts=True)
    enough = [
        (SEPARATOR not in name and count >= MIN_CLASS_IMAGES)
        for name, count in zip(found, counts, strict=True)
    ]
    classes, counts = found[enough], counts[enough]
    if len(classes) < 2:
        raise InputError(
            f"Classes with {MIN_CLASS_IMAGES} training images: {len(classes)}; to classify drawn images two "
            "are needed: give more crops the split 'train'."
        )
    kept = np.isin(names, classes)
    known = filled(features[kept])[:, :columns]
    # A feature that never varies carries no information, whatever its unit.
    spread = np.where(known.std(0) > 1e-9, known.std(0), 1.0)
    svm = SVC(C=3, class_weight="balanced", random_state=0)
    classifier = LocalizationClassifier(
        tuple(map(str, classes)), tuple(map(int, counts)), columns, known.mean(0), spread, svm
    )
    svm.fit(classifier.standardised(features[kept]), np.searchsorted(classes, names[kept]))
    return classifier
