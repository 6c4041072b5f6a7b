"""What a finished run measures on its validation part, beside what costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepgps.arrays import Doubles, Ints
from deepgps.bundle import Metric
from deepgps.evaluation.bootstrap import percentile_interval, resampled
from deepgps.evaluation.labels import LabelReport, label_report
from deepgps.localization import class_set
from deepgps.training.joint.calibrate import Calibration, calibrate
from deepgps.training.joint.inputs.data import TrainingData
from deepgps.training.joint.learning.loop import Fit
from deepgps.training.joint.learning.validate import IMAGE_FIGURES, Evaluation, evaluate

LABEL_FIGURES = {
    False: ("accuracy", "balanced_accuracy", "f1_macro", "auroc_macro", "ece"),
    True: ("exact_match", "f1_macro", "f1_micro", "auroc_macro", "auprc_macro", "ece"),
}
"""Which figures of labels are quoted, of models of one class a protein and of several."""

MAJORITY = "majority class"
"""The baseline that is quoted beside them; the report has the others, too."""

_CHUNK = 256
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is measured when a run is finished.

    Attributes
    ----------
    images
        Figures of drawn images and of trivial ones: what was drawn, then figure, then its value with its
        interval over proteins.
    labels
        The labels', of calibrated probabilities; None without a classifier.
    calibration
        None without a classifier.
    """

    images: Mapping[str, Mapping[str, Metric]]
    labels: LabelReport | None
    calibration: Calibration | None

    def metrics(self) -> dict[str, Metric]:
        """All of them by one name, for ``metrics.json``."""
        found = {
            f"validation/image/{figure} ({drawn})": metric
            for drawn, each in self.images.items()
            for figure, metric in each.items()
        }
        if self.labels is None:
            return found
        for level in ("protein", "crop"):
            for figure in LABEL_FIGURES[self.labels.multi_label]:
                of = {"model": self.labels.metrics, MAJORITY: self.labels.baselines[MAJORITY]}
                for name in [name for name, metrics in of.items() if f"{level}/{figure}" in metrics]:
                    found[f"validation/{level}/{figure} ({name})"] = of[name][f"{level}/{figure}"]
        return {name: metric for name, metric in found.items() if np.isfinite(metric.value)}


def measure(task: Fit) -> Measured:
    """Measure the task's present weights on the validation part; every process must call it."""
    data, rows = task.data, task.data.rows["validation"]
    settings = (task.fabric, task.model, task.recipe, data, task.inputs, rows)
    right = evaluate(*settings)
    other = evaluate(*settings, drawn_as=exchanged(data, right.proteins))
    images = {
        "drawn": image_figures(right, right.figures),
        "drawn as another protein": image_figures(right, other.figures),
        **{name: image_figures(right, figures) for name, figures in trivial(data, rows).items()},
    }
    if not right.logits.shape[1]:
        return Measured(images, None, None)
    multi_label = class_set(task.recipe.class_set).multi_label
    numbers = np.unique(right.proteins)
    calibration = calibrate(
        right.by_protein(right.logits), data.targets[numbers], data.classes, multi_label=multi_label
    )
    labels = label_report(
        calibration.probabilities(right.logits, multi_label=multi_label),
        data.targets[right.proteins],
        data.classes,
        multi_label=multi_label,
        proteins=[data.protein_ids[number] for number in right.proteins],
        thresholds=calibration.thresholds if multi_label else None,
    )
    return Measured(images, labels, calibration)


def exchanged(data: TrainingData, proteins: Ints) -> Ints:
    """Give every crop (N,) another protein of the same part, of other classes where there is one."""
    there = np.unique(proteins)
    rng = np.random.default_rng(0)
    other = {}
    for number in there:
        apart = there[(data.targets[there] != data.targets[number]).any(1)]
        choice = apart if len(apart) else there[there != number]
        other[number] = rng.choice(choice) if len(choice) else number
    return np.array([other[number] for number in proteins], np.int64)


def image_figures(of: Evaluation, figures: Mapping[str, Doubles]) -> dict[str, Metric]:
    """Means over proteins with their 95 % intervals, drawn over proteins."""
    found = {}
    for name in (name for name in IMAGE_FIGURES if name in figures):
        each = of.by_protein(figures[name])
        draws = resampled(lambda weights, each=each: {"": weights @ each / weights.sum(1)}, len(each))  # type: ignore[misc]
        ends = percentile_interval(draws[""]) if len(each) > 1 else (np.nan, np.nan)
        found[name] = _known(float(each.mean()), *ends, len(each))
    return found


def trivial(data: TrainingData, rows: Ints) -> dict[str, dict[str, Doubles]]:
    """Measure images that anybody can draw: one grey for all, and one grey for each class.

    The greys are means over training crops; a grey has no correlation.
    """
    train = data.rows["train"]
    train = train[:: max(1, len(train) // _MOST)]
    known, _ = levels(data, train)
    real, spread = levels(data, rows)
    names = _classes(data)
    train_class, class_ = names[data.protein_of_row[train]], names[data.protein_of_row[rows]]
    means = {name: known[train_class == name].mean() for name in np.unique(train_class)}
    greys = {
        "constant mean": np.full(len(rows), known.mean()),
        "class mean": np.array([means.get(name, known.mean()) for name in class_]),
    }
    return {
        name: {"psnr": -10 * np.log10(np.maximum(spread + (real - grey) ** 2, 1e-10))}
        for name, grey in greys.items()
    }


def levels(data: TrainingData, rows: Ints) -> tuple[Doubles, Doubles]:
    """Mean and variance (N,) of the protein images of some rows."""
    means, variances = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        pixels = data.store.crops[rows[chunk], 1] / np.float64(255)
        means[chunk], variances[chunk] = pixels.mean((1, 2)), pixels.var((1, 2))
    return means, variances


def _classes(data: TrainingData) -> Ints:
    """Number the sets of classes that proteins have, (P,)."""
    return np.unique(data.targets, axis=0, return_inverse=True)[1].reshape(-1)


def _known(value: float, low: float, high: float, n: int) -> Metric:
    """Write NaN as nothing, for JSON has no word for it."""
    ends = [None if np.isnan(end) else end for end in (low, high)]
    return Metric(value=value, low=ends[0], high=ends[1], n=n)


def as_json(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Figures as ``metrics.json`` holds them."""
    return {name: metric.model_dump() for name, metric in metrics.items()}
