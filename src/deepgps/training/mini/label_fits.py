"""The fits that the sequence half is made of: a member, the head and the calibration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from deepgps.models.sequence_encoder import VIEWS, FeatureMLP


@dataclass(frozen=True, slots=True)
class Examples:
    """What a fit learns from.

    Attributes
    ----------
    features
        (N, F) sequence features.
    labels
        (N, `VIEWS` K) in [0, 1].
    weight
        (N, `VIEWS` K); 0 where a label is unknown.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor

    def targets(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and weights of some rows."""
        return self.labels[rows], self.weight[rows]


class MemberSettings(Protocol):
    """What `fit_member` needs to know; `LabelSettings` documents it."""

    @property
    def widths(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dropout(self) -> float: ...  # noqa: D102
    @property
    def input_dropout(self) -> float: ...  # noqa: D102
    @property
    def epochs(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (F,) of features (N, F); 1 where a feature never varies."""
    scale, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, torch.where(scale < 1e-6, torch.ones_like(scale), scale)


def weighted_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy over the known labels, weighted."""
    loss = binary_cross_entropy_with_logits(logits, labels, weight, reduction="sum")
    return loss / weight.sum().clamp(min=1e-9)


def fit_member(examples: Examples, settings: MemberSettings, progress: Progress, name: str) -> FeatureMLP:
    """Train one MLP on standardised examples; torch's own seed decides weights, dropout and order."""
    count, features = examples.features.shape
    classes = examples.labels.shape[1] // VIEWS
    size = min(settings.batch_size, count)
    net = FeatureMLP(features, classes, settings.widths, settings.dropout)
    optimiser = torch.optim.AdamW(
        net.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * (count // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, steps, pct_start=0.1)
    task = progress.add_task(name, total=steps)
    for _ in range(settings.epochs):
        for rows in torch.randperm(count)[: count // size * size].reshape(-1, size):
            optimiser.zero_grad()
            inputs = dropout(examples.features[rows], settings.input_dropout)
            weighted_loss(net(inputs), *examples.targets(rows)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress.advance(task)
    return net.eval()


def fit_head(seen: Tensor, labels: Tensor, weight: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Fit the logistic head.

    Parameters
    ----------
    seen
        (N, K, E) evidence per class.
    labels, weight
        (N, K) labels in [0, 1] and their weights.
    penalty
        Weight of the squared weights.

    Returns
    -------
    tuple[Tensor, Tensor]
        Weights (K, E) and bias (K,).
    """
    weights = torch.zeros(seen.shape[1:])
    weights[:, :VIEWS] = 1 / VIEWS
    return _minimise(
        [weights, torch.zeros(seen.shape[1])],
        lambda w, b: weighted_loss((seen * w).sum(2) + b, labels, weight) + penalty * w.square().mean(),
    )


def fit_calibration(logits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Fit Platt's scale and shift per class, (K,) each, on held-out logits (N, K)."""
    classes = logits.shape[1]
    return _minimise(
        [torch.ones(classes), torch.zeros(classes)],
        lambda scale, shift: weighted_loss(logits * scale + shift, labels, weight),
    )


def _minimise(start: list[Tensor], loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Minimise a smooth loss of two tensors by L-BFGS."""
    first, second = (tensor.requires_grad_() for tensor in start)
    optimiser = torch.optim.LBFGS([first, second], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = loss(first, second)
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return first.detach(), second.detach()
