"""The parts of the loss, crop by crop, and their weighted sum."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


class PartWeights(Protocol):
    """Weights of the parts; `LossSettings` documents them."""

    @property
    def mae(self) -> float: ...  # noqa: D102
    @property
    def mse(self) -> float: ...  # noqa: D102
    @property
    def ssim(self) -> float: ...  # noqa: D102
    @property
    def label(self) -> float: ...  # noqa: D102
    @property
    def orthogonality(self) -> float: ...  # noqa: D102


def structural_similarity(real: Tensor, drawn: Tensor) -> Tensor:
    """SSIM of images (Wang et al. 2004), differentiable; the same figure as scikit-image's default gives.

    Parameters
    ----------
    real, drawn
        (B, 1, H, W) in [0, 1], at least 7 x 7.

    Returns
    -------
    Tensor
        (B,), 1 where they are equal.
    """
    maps = torch.cat([real, drawn, real * real, drawn * drawn, real * drawn], 1)
    a, b, aa, bb, ab = F.avg_pool2d(maps, WINDOW, 1).unbind(1)
    # Of a sample, not of a population, as scikit-image has it.
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_a, var_b, cov = sample * (aa - a * a), sample * (bb - b * b), sample * (ab - a * b)
    top = (2 * a * b + _C1) * (2 * cov + _C2)
    return (top / ((a * a + b * b + _C1) * (var_a + var_b + _C2))).mean((1, 2))


def label_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Cross-entropy (B,) of logits (B, K) against one- or multi-hot targets (B, K).

    Binary, as the mean over the classes, where a protein may have several.
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return -(targets * F.log_softmax(logits, 1)).sum(1)


def crop_losses(
    image: Tensor, logits: Tensor, real: Tensor, targets: Tensor, weights: PartWeights, *, multi_label: bool
) -> dict[str, Tensor]:
    """Every part of the loss that weighs something, crop by crop.

    Parameters
    ----------
    image, real
        (B, 1, H, W) drawn and real protein images in [0, 1].
    logits, targets
        (B, K).
    weights
        The weights of the parts.
    multi_label
        Whether a protein may have several classes.

    Returns
    -------
    dict
        ``mae``, ``mse``, ``ssim`` (1 - SSIM) and ``label``, (B,) each.
    """
    parts = {}
    if weights.mae:
        parts["mae"] = (image - real).abs().mean((1, 2, 3))
    if weights.mse:
        parts["mse"] = (image - real).square().mean((1, 2, 3))
    if weights.ssim:
        parts["ssim"] = 1 - structural_similarity(real, image)
    if weights.label:
        parts["label"] = label_loss(logits, targets, multi_label=multi_label)
    return parts


def weighted(parts: dict[str, Tensor], weights: PartWeights) -> Tensor:
    """Weighted sum of the parts, of any one shape."""
    return torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum(0)
