"""Logits to probabilities that can be believed, learned on proteins of the validation part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepgps.arrays import Doubles
from deepgps.training.joint.learning.losses import label_loss
from deepgps.training.mini.label_quality import best_thresholds

PRIOR = 5.0
"""Proteins' worth of belief in the logits as they are: few proteins change little."""
FEWEST = 5
"""Proteins of a class, and of the others, below which its threshold stays at one half."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What ``calibration.json`` holds, K of each: calibrated logits are ``scale * logits + bias``.

    Attributes
    ----------
    classes
        The classes.
    scale, bias
        Platt's, class by class; of a model that names one class the scale is one, the inverse of a
        temperature, and the bias 0.
    thresholds
        Probabilities from which a class is named by a model that may name several.
    """

    classes: tuple[str, ...]
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    thresholds: tuple[float, ...]

    def probabilities(self, logits: Doubles, *, multi_label: bool) -> Doubles:
        """Calibrated probabilities (N, K) of logits (N, K)."""
        values = torch.from_numpy(np.asarray(self.scale) * logits + np.asarray(self.bias))
        return np.asarray(torch.sigmoid(values) if multi_label else torch.softmax(values, 1))


def calibrate(
    logits: Doubles, targets: NDArray[np.floating], classes: Sequence[str], *, multi_label: bool
) -> Calibration:
    """Fit a calibration to proteins that the model did not learn from.

    The fit minimises the label loss plus a pull towards the identity that weighs as much as `PRIOR` proteins:
    without proteins it is the identity, and a class that none or all of them have keeps its own logits.

    Parameters
    ----------
    logits, targets
        (P, K), a row a protein.
    classes
        The K classes.
    multi_label
        Whether a protein may have several.
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


def _thresholds(chances: Tensor, targets: Tensor) -> list[float]:
    found = best_thresholds(chances.float(), targets.float(), torch.ones(targets.shape))
    positive = targets.sum(0)
    enough = (positive >= FEWEST) & (len(targets) - positive >= FEWEST)
    return [best if enough[k] else 0.5 for k, best in enumerate(found)]


def _minimise(parameters: list[Tensor], loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
