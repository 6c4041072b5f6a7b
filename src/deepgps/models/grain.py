"""Texture for a smooth image: its statistics are learned, its position is random.

A regression network draws the mean of all possible images, which is smooth. Beside it, this head predicts for
each pixel the odds that the cell reaches it, the quantiles of the intensity relative to the mean, and the
kind of texture. An image is one sample: one noise field becomes intensities by their quantiles, another the
outline of the cell. The noise depends on the nucleus alone, so proteins drawn into one nucleus share it.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.models.noise import TEXTURES

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
"""Quantiles of the intensities that are predicted."""
_SCORES = (-2.326, -1.282, -0.674, 0.0, 0.674, 1.282, 1.881, 2.576)
_BEYOND = 1.6
_HIDDEN, _OUTPUTS = 48, [1, len(LEVELS), TEXTURES]
STRAY, SHARP = 0.5, 12.0
"""Randomness of outlines, where 1 would follow the odds, and their sharpness."""
_LOGISTIC = 1.7
LEAST_ODDS = 0.25
"""Odds below which the mean image is not scaled up any further."""


class GrainMaps(NamedTuple):
    """Predicted statistics of the grain.

    Attributes
    ----------
    reach
        (B, 1, H, W) logits that the cell reaches a pixel.
    steps
        (B, `LEVELS`, H, W) steps from one quantile of the relative intensity to the next, the first from 0.
    weights
        (B, `TEXTURES`, H, W) of each texture; their squares sum to about 1.
    """

    reach: Tensor
    steps: Tensor
    weights: Tensor


class GrainHead(nn.Module):
    """Predicts the statistics of the grain from the last features of the U-Net.

    Parameters
    ----------
    channels
        Channels of the features.
    fold
        Pixels along the edge of one position.
    latent_dim
        Size of a latent token.
    """

    def __init__(self, channels: int, fold: int, latent_dim: int) -> None:
        super().__init__()
        self.fold = float(fold)
        self.hidden = nn.Conv2d(channels, _HIDDEN, 3, padding=1)
        self.film = nn.Linear(latent_dim, 2 * _HIDDEN)
        self.say = nn.Conv2d(_HIDDEN, sum(_OUTPUTS), 1)
        nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, latent: Tensor) -> GrainMaps:
        """Predict from features (B, C, H / fold, W / fold) and tokens (B, T, D)."""
        scale, shift = self.film(latent.sum(1))[:, :, None, None].chunk(2, 1)
        hidden = F.relu(self.hidden(features) * (1 + scale) + shift)
        reach, steps, textures = torch.split(self.say(hidden).float(), _OUTPUTS, 1)
        maps = reach, F.softplus(steps - 1), torch.softmax(textures, 1).sqrt()
        return GrainMaps(*(F.interpolate(each, scale_factor=self.fold, mode="bilinear") for each in maps))


def grained(smooth: Tensor, maps: GrainMaps, noise: Tensor) -> Tensor:
    """Sample one image (B, 1, H, W).

    Parameters
    ----------
    smooth
        (B, 1, H, W) mean image in [0, 1].
    maps
        Predicted statistics.
    noise
        (B, `TEXTURES` + 1, H, W) of `Noise`.

    Returns
    -------
    Tensor
        In [0, 1].
    """
    reach = torch.sigmoid(maps.reach)
    outline = torch.sigmoid(SHARP * (maps.reach / _LOGISTIC + STRAY * noise[:, -1:]))
    within = smooth / reach.clamp(min=LEAST_ODDS) * intensities(maps, grain_field(maps, noise))
    return (within * outline).clamp(0.0, 1.0)


def grain_field(maps: GrainMaps, noise: Tensor) -> Tensor:
    """Mix noise fields (B, `TEXTURES` or more, H, W) by the predicted weights to (B, 1, H, W)."""
    return (maps.weights * noise[:, :TEXTURES]).sum(1, keepdim=True)


def intensities(maps: GrainMaps, field: Tensor) -> Tensor:
    """Map noise (B, 1, H, W) of variance 1 to relative intensities, by their quantiles."""
    drawn = maps.steps[:, :1]
    for level, (low, high) in enumerate(pairwise(_SCORES), 1):
        most = _BEYOND if level == len(_SCORES) - 1 else 1.0
        drawn = drawn + maps.steps[:, level : level + 1] * ((field - low) / (high - low)).clamp(0.0, most)
    return drawn
