"""Calibration and metrics of a finished run, on its validation part, beside trivial baselines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepgps.arrays import Doubles, Ints
from deepgps.bundle import Metric
from deepgps.evaluation.bootstrap import percentile_interval, resampled, stacked_psnr
from deepgps.evaluation.labels import LabelReport, label_report
from deepgps.training.joint.data import TrainingData
from deepgps.training.joint.task import IMAGE_METRICS, CropMetrics, JointTask, label_loss
from deepgps.training.thresholds import best_thresholds

LABEL_METRICS = {
    False: ("accuracy", "balanced_accuracy", "f1_macro", "auroc_macro", "ece"),
    True: ("exact_match", "f1_macro", "f1_micro", "auroc_macro", "auprc_macro", "ece"),
}
"""Metrics of labels in ``metrics.json``, of single- and of multi-label models."""
STACKED_PSNR = "psnr_stacked"
"""Name of the PSNR of all crops as one image."""
MAJORITY = "majority class"
"""The baseline in ``metrics.json``; the report has the others, too."""
PRIOR = 5.0
"""Weight of the identity in a calibration, in proteins: few proteins change little."""
MIN_PROTEINS = 5
"""Proteins with and without a class below which its threshold stays 0.5."""

_CHUNK = 256
_MAX_CROPS = 4096


@dataclass(frozen=True, slots=True)
class Calibration:
    """Content of ``calibration.json``: calibrated logits are ``scale * logits + bias``.

    Attributes
    ----------
    classes
        The K classes.
    scale, bias
        K of each, Platt scaling; in a single-label model one temperature: equal scales, bias 0.
    thresholds
        Probabilities from which a multi-label model names a class.
    """

    classes: tuple[str, ...]
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    thresholds: tuple[float, ...]

    def probabilities(self, logits: Doubles, *, multi_label: bool) -> Doubles:
        """Return calibrated probabilities (N, K) of logits (N, K)."""
        values = torch.from_numpy(np.asarray(self.scale) * logits + np.asarray(self.bias))
        return np.asarray(torch.sigmoid(values) if multi_label else torch.softmax(values, 1))


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """All that is measured when a run is finished.

    Attributes
    ----------
    images
        Metrics of images, by how they were drawn: by the model and by baselines.
    labels
        Metrics of labels, with calibrated probabilities; None without a classifier.
    calibration
        None without a classifier.
    """

    images: Mapping[str, Mapping[str, Metric]]
    labels: LabelReport | None
    calibration: Calibration | None

    def by_name(self) -> dict[str, Metric]:
        """Return all metrics by the names in ``metrics.json``."""
        found = {
            f"validation/image/{name} ({drawn})": metric
            for drawn, each in self.images.items()
            for name, metric in each.items()
        }
        if self.labels is None:
            return found
        models = {"model": self.labels.metrics, MAJORITY: self.labels.baselines[MAJORITY]}
        for level in ("protein", "crop"):
            for name in LABEL_METRICS[self.labels.multi_label]:
                for model, metrics in models.items():
                    if (metric := metrics.get(f"{level}/{name}")) is not None:
                        found[f"validation/{level}/{name} ({model})"] = metric
        return {name: metric for name, metric in found.items() if np.isfinite(metric.value)}


def measure(task: JointTask, model: nn.Module) -> RunMetrics:
    """Measure a model on the validation part; all processes must call it."""
    data, rows = task.data, task.data.rows["validation"]
    own = task.evaluate(model, rows)
    other = task.evaluate(model, rows, other_proteins(data, own.proteins))
    images = {
        "drawn": mean_image_metrics(own, own.metrics),
        "drawn as another protein": mean_image_metrics(own, other.metrics),
        **{name: mean_image_metrics(own, values) for name, values in grey_baselines(data, rows).items()},
    }
    if not own.logits.shape[1]:
        return RunMetrics(images, None, None)
    calibration = calibrate(
        own.by_protein(own.logits),
        data.targets[np.unique(own.proteins)],
        data.classes,
        multi_label=task.multi_label,
    )
    labels = label_report(
        calibration.probabilities(own.logits, multi_label=task.multi_label),
        data.targets[own.proteins],
        data.classes,
        multi_label=task.multi_label,
        proteins=[data.protein_ids[number] for number in own.proteins],
        thresholds=calibration.thresholds if task.multi_label else None,
    )
    return RunMetrics(images, labels, calibration)


# ---- images ----


def other_proteins(data: TrainingData, proteins: Ints) -> Ints:
    """Assign each crop (N,) another protein of the same part, of other classes if there is one."""
    present = np.unique(proteins)
    rng = np.random.default_rng(0)
    other = {}
    for number in present:
        apart = present[(data.targets[present] != data.targets[number]).any(1)]
        choice = apart if len(apart) else present[present != number]
        other[number] = rng.choice(choice) if len(choice) else number
    return np.array([other[number] for number in proteins], np.int64)


def mean_image_metrics(crops: CropMetrics, values: Mapping[str, Doubles]) -> dict[str, Metric]:
    """Return means over proteins, and the PSNR of all crops as one image, with intervals over proteins."""
    found = {}
    for name in (name for name in IMAGE_METRICS if name in values):
        each = crops.by_protein(values[name])
        draws = resampled(lambda weights, each=each: {"": weights @ each / weights.sum(1)}, len(each))  # type: ignore[misc]
        low, high = percentile_interval(draws[""]) if len(each) > 1 else (np.nan, np.nan)
        found[name] = _metric(float(each.mean()), low, high, len(each))
    if "psnr" in values:
        found[STACKED_PSNR] = stacked_psnr(values["psnr"], crops.proteins)
    return found


def grey_baselines(data: TrainingData, rows: Ints) -> dict[str, dict[str, Doubles]]:
    """Measure two trivial images: one grey for all crops, and one grey for each class.

    The greys are means over training crops; a constant image has no correlation.

    Returns
    -------
    dict
        ``psnr`` (N,) of the crops, by baseline.
    """
    train = data.rows["train"]
    train = train[:: max(1, len(train) // _MAX_CROPS)]
    known, _ = intensity_moments(data, train)
    real, spread = intensity_moments(data, rows)
    kinds = np.unique(data.targets, axis=0, return_inverse=True)[1].reshape(-1)
    train_kinds, kinds = kinds[data.protein_of_row[train]], kinds[data.protein_of_row[rows]]
    means = {kind: known[train_kinds == kind].mean() for kind in np.unique(train_kinds)}
    greys = {
        "constant mean": np.full(len(rows), known.mean()),
        "class mean": np.array([means.get(kind, known.mean()) for kind in kinds]),
    }
    return {
        name: {"psnr": -10 * np.log10(np.maximum(spread + (real - grey) ** 2, 1e-10))}
        for name, grey in greys.items()
    }


def intensity_moments(data: TrainingData, rows: Ints) -> tuple[Doubles, Doubles]:
    """Return mean and variance (N,) of the protein images of some rows."""
    means, variances = np.empty(len(rows)), np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        pixels = data.store.crops[rows[chunk], 1] / np.float64(255)
        means[chunk], variances[chunk] = pixels.mean((1, 2)), pixels.var((1, 2))
    return means, variances


def _metric(value: float, low: float | None, high: float | None, n: int) -> Metric:
    """Make a metric; a NaN of the interval becomes None, as JSON has no NaN."""
    low, high = (None if end is None or np.isnan(end) else end for end in (low, high))
    return Metric(value=value, low=low, high=high, n=n)


# ---- calibration ----


def calibrate(
    logits: Doubles, targets: NDArray[np.floating], classes: Sequence[str], *, multi_label: bool
) -> Calibration:
    """Fit a calibration to proteins that the model was not trained on.

    The fit minimises the label loss plus a penalty on the distance from the identity that weighs as much as
    `PRIOR` proteins: without proteins it is the identity, and a class that none or all of them have keeps its
    own logits.

    Parameters
    ----------
    logits, targets
        (P, K), a row for each protein.
    classes
        The K classes.
    multi_label
        Whether a protein may have several classes.

    Returns
    -------
    Calibration
        Scale, bias and threshold of each class.
    """
    count = len(classes)
    x, y = torch.from_numpy(np.asarray(logits, np.float64)), torch.from_numpy(np.asarray(targets, np.float64))
    if multi_label:
        scale, bias = _platt(x, y)
    else:
        scale, bias = _temperature(x, y).expand(count), torch.zeros(count, dtype=torch.float64)
    thresholds = _thresholds(torch.sigmoid(scale * x + bias), y) if multi_label else [0.5] * count
    return Calibration(tuple(classes), tuple(scale.tolist()), tuple(bias.tolist()), tuple(thresholds))


def _temperature(logits: Tensor, targets: Tensor) -> Tensor:
    log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        fitted = label_loss(log_scale.exp() * logits, targets, multi_label=False).sum()
        return fitted + PRIOR * log_scale.square().sum()

    _minimise([log_scale], loss)
    return log_scale.detach().exp()


def _platt(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    classes = logits.shape[1]
    log_scale, bias = (torch.zeros(classes, dtype=torch.float64, requires_grad=True) for _ in range(2))
    known = (targets.sum(0) > 0) & (targets.sum(0) < len(targets))

    def loss() -> Tensor:
        # The loss is a mean over the classes; every class is fitted for itself.
        scaled = (log_scale.exp() * logits + bias)[:, known]
        fitted = label_loss(scaled, targets[:, known], multi_label=True).sum() * known.sum()
        return fitted + PRIOR * (log_scale.square().sum() + bias.square().sum())

    if len(logits) and known.any():
        _minimise([log_scale, bias], loss)
    return log_scale.detach().exp(), bias.detach()


def _thresholds(probabilities: Tensor, targets: Tensor) -> list[float]:
    found = best_thresholds(probabilities.float(), targets.float(), torch.ones(targets.shape))
    positive = targets.sum(0)
    enough = (positive >= MIN_PROTEINS) & (len(targets) - positive >= MIN_PROTEINS)
    return [best if enough[k] else 0.5 for k, best in enumerate(found)]


def _minimise(parameters: list[Tensor], loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
