"""Image metrics with intervals, from what was measured of each crop.

They are named ``images/<kind>/<measure>``; definitions: ``docs/reference/metrics.md``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Mask, Strings
from deepgps.bundle import Metric
from deepgps.evaluation.bootstrap import (
    balanced_interval,
    correlation_interval,
    mean_interval,
    stacked_psnr,
)
from deepgps.evaluation.dataset import EvaluationDataset
from deepgps.evaluation.images.baselines import CLASS_MEAN, IMAGE_BASELINES
from deepgps.evaluation.images.distances import Moments, frechet_distance
from deepgps.evaluation.images.features import BANDS, PROFILE, fine_detail
from deepgps.evaluation.images.measure import (
    DRAWN,
    REAL,
    STRUCTURED_KINDS,
    WRONG_CLASS,
    WRONG_PROTEIN,
    CropMeasurements,
)
from deepgps.evaluation.images.reference import LocalizationClassifier, TrainingReference

COMPARED_KINDS = (DRAWN, WRONG_PROTEIN, WRONG_CLASS, *IMAGE_BASELINES)
"""The images that are compared with the real ones, in the order of every table."""
EFFECTS = {"sequence_effect": WRONG_CLASS, "sequence_effect_same_class": WRONG_PROTEIN}
"""Metrics that compare the right protein with a wrong one, and the control that each uses."""
CLASSIFIERS = {"classifier_accuracy": False, "profile_classifier_accuracy": True}
"""Metrics of the two classifiers, and whether each sees the profile around the nucleus alone."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class ImageMetrics:
    """All metrics of images.

    Attributes
    ----------
    kinds
        By kind of image, metrics by measure.
    effects
        `EFFECTS` by name.
    by_class
        By class shown, metrics of the drawn images.
    """

    kinds: dict[str, dict[str, Metric]]
    effects: dict[str, Metric]
    by_class: dict[str, dict[str, Metric]]

    def metrics(self) -> dict[str, Metric]:
        """Return every metric by its whole name; undefined ones are left out."""
        named = {f"images/{kind}/{name}": m for kind, row in self.kinds.items() for name, m in row.items()}
        named |= {f"images/{name}": metric for name, metric in self.effects.items()}
        named |= {
            f"images/by class/{slug}/{name}": metric
            for slug, row in self.by_class.items()
            for name, metric in row.items()
        }
        return {name: metric for name, metric in named.items() if np.isfinite(metric.value)}


def image_metrics(
    measurements: CropMeasurements,
    dataset: EvaluationDataset,
    reference: TrainingReference,
    *,
    seed: int = 0,
) -> ImageMetrics:
    """Summarise what was measured of all crops."""
    groups, classifier = dataset.groups, reference.classifiers[0] if reference.classifiers else None
    kinds: dict[str, dict[str, Metric]] = {REAL: {}}
    kinds |= {kind: _similarity(measurements, kind, groups, seed) for kind in COMPARED_KINDS}
    for kind in STRUCTURED_KINDS:
        kinds[kind] |= _structure(measurements, kind, groups, seed)
        if classifier is not None:
            kinds[kind] |= _classification(measurements, kind, classifier, dataset, seed)
    for kind, distance in _distances(measurements, reference).items():
        kinds[kind]["frechet_distance"] = Metric(value=distance, n=len(groups))
    right = measurements.measure(DRAWN, "pearson")
    effects = {
        name: mean_interval(right - measurements.measure(wrong, "pearson"), groups, seed=seed)
        for name, wrong in EFFECTS.items()
    }
    by_class = {
        str(name): _class_metrics(measurements, dataset, classifier, dataset.crop_classes == name, seed)
        for name in np.unique(dataset.crop_classes)
    }
    return ImageMetrics(kinds, effects, by_class)


def _similarity(
    measurements: CropMeasurements, kind: str, groups: NDArray[np.integer], seed: int
) -> dict[str, Metric]:
    real, drawn = (measurements.measure(each, "intranuclear") for each in (REAL, kind))
    metrics = {
        name: mean_interval(measurements.measure(kind, name), groups, seed=seed)
        for name in ("psnr", "ssim", "pearson")
    }
    metrics["psnr_stacked"] = stacked_psnr(measurements.measure(kind, "psnr"), groups, seed=seed)
    metrics["intranuclear_r"] = correlation_interval(real, drawn, groups, seed=seed)
    metrics["intranuclear_mae"] = mean_interval(np.abs(real - drawn), groups, seed=seed)
    return metrics


def _structure(
    measurements: CropMeasurements, kind: str, groups: NDArray[np.integer], seed: int
) -> dict[str, Metric]:
    if kind == REAL:
        return {}
    profile, detail = _structure_errors(measurements, kind)
    return {
        "profile_error": mean_interval(profile, groups, seed=seed),
        "fine_detail": mean_interval(detail, groups, seed=seed),
    }


def _structure_errors(measurements: CropMeasurements, kind: str) -> tuple[Doubles, Doubles]:
    """Error of the profile, and log2 of the share of fine detail over that of the real image, (N,) each."""
    errors, details = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, len(measurements.records), _CHUNK):
        rows = slice(start, start + _CHUNK)
        real, drawn = (measurements.features(each, rows) for each in (REAL, kind))
        difference = np.abs(real - drawn)[:, :PROFILE]
        known = ~np.isnan(difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors.append(np.where(known.any(1), np.nansum(difference, 1) / known.sum(1), np.nan))
            shares = [fine_detail(10 ** each[:, PROFILE : PROFILE + BANDS]) for each in (drawn, real)]
            details.append(np.log2(shares[0] / shares[1]))
    return np.concatenate(errors), np.concatenate(details)


def classifier_hits(
    measurements: CropMeasurements,
    kind: str,
    classifier: LocalizationClassifier,
    classes: Strings,
    *,
    by_profile: bool = False,
) -> Doubles:
    """Return 1 where the class shown was predicted, else 0; NaN where the classifier does not know it."""
    truth = classifier.numbers(classes)
    missing = np.isnan(measurements.measure(kind, "psnr"))
    hits = measurements.predicted(kind, by_profile=by_profile) == truth
    return np.where((truth < 0) | missing, np.nan, hits)


def _classification(
    measurements: CropMeasurements,
    kind: str,
    classifier: LocalizationClassifier,
    dataset: EvaluationDataset,
    seed: int,
) -> dict[str, Metric]:
    numbers, metrics = classifier.numbers(dataset.crop_classes), {}
    for name, by_profile in CLASSIFIERS.items():
        hits = classifier_hits(measurements, kind, classifier, dataset.crop_classes, by_profile=by_profile)
        metrics[name] = mean_interval(hits, dataset.groups, seed=seed)
        metrics[f"{name}_balanced"] = balanced_interval(hits, numbers, dataset.groups, seed=seed)
    return metrics


def _distances(measurements: CropMeasurements, reference: TrainingReference) -> dict[str, float]:
    """Fréchet distance of each kind to the real images; of the real ones, to the real training images."""
    if reference.classifiers is None:
        return {}
    classifier, width = reference.classifiers[0], reference.features.shape[1]
    moments = {}
    for kind in STRUCTURED_KINDS:
        moments[kind] = Moments.empty(width)
        for start in range(0, len(measurements.records), _CHUNK):
            features = measurements.features(kind, slice(start, start + _CHUNK))
            moments[kind].add(classifier.standardised(features[~np.isnan(features).all(1)]))
    training = Moments.empty(width)
    training.add(classifier.standardised(reference.features))
    to_real = {kind: frechet_distance(each, moments[REAL]) for kind, each in moments.items()}
    return to_real | {REAL: frechet_distance(moments[REAL], training)}


def _class_metrics(
    measurements: CropMeasurements,
    dataset: EvaluationDataset,
    classifier: LocalizationClassifier | None,
    chosen: Mask,
    seed: int,
) -> dict[str, Metric]:
    def mean(values: Doubles) -> Metric:
        return mean_interval(values[chosen], dataset.groups[chosen], seed=seed)

    right, wrong = (measurements.measure(kind, "pearson") for kind in (DRAWN, WRONG_CLASS))
    real, drawn = (measurements.measure(kind, "intranuclear") for kind in (REAL, DRAWN))
    metrics = {
        "psnr": mean(measurements.measure(DRAWN, "psnr")),
        "psnr_class_mean": mean(measurements.measure(CLASS_MEAN, "psnr")),
        "pearson": mean(right),
        "sequence_effect": mean(right - wrong),
        "intranuclear_mae": mean(np.abs(real - drawn)),
    }
    if classifier is not None:
        for name, by_profile in CLASSIFIERS.items():
            for suffix, kind in (("", DRAWN), ("_real", REAL)):
                hits = classifier_hits(
                    measurements, kind, classifier, dataset.crop_classes, by_profile=by_profile
                )
                metrics[f"{name}{suffix}"] = mean(hits)
    return metrics
