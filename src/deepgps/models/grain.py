"""Detail for a smooth image: what its grain is like is learned, where each grain lies is chance.

A network that is right on average draws the mean of all images that could be, which is smooth. Beside it
stand, pixel by pixel, the odds that the cell reaches there, how the intensities there spread around their
mean, and of what texture they are. An image is one draw from that: a field of noise becomes intensities by
their quantiles, and another an outline of the cell. The noise is taken from the nucleus, so that whatever
is drawn into one nucleus shares it, and two proteins differ by what the model says of them.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.models.noise import TEXTURES

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
"""Quantiles that the spread of intensities is told by."""
_SCORES = (-2.326, -1.282, -0.674, 0.0, 0.674, 1.282, 1.881, 2.576)
_BEYOND = 1.6
_HIDDEN, _SAID = 48, [1, len(LEVELS), TEXTURES]
STRAY, SHARP = 0.5, 12.0
"""How far outlines stray from the likeliest one, where 1 would follow the odds, and how sharp they are."""
_LOGISTIC = 1.7
LEAST_ODDS = 0.25
"""Odds below which smooth images are not made up for."""


class GrainMaps(NamedTuple):
    """What is known of the detail of images.

    Attributes
    ----------
    reach
        (B, 1, H, W) logits of the cell reaching there.
    steps
        (B, `LEVELS`, H, W) steps from one quantile to the next of intensity over its mean, the first from 0.
    weights
        (B, `TEXTURES`, H, W) of each texture; their squares sum to about 1.
    """

    reach: Tensor
    steps: Tensor
    weights: Tensor


class GrainHead(nn.Module):
    """Tells the detail of images from the features that they are drawn from.

    Parameters
    ----------
    channels
        Channels of the features.
    fold
        Pixels along the edge of one of their positions.
    latent_dim
        Size of a latent token.
    """

    def __init__(self, channels: int, fold: int, latent_dim: int) -> None:
        super().__init__()
        self.fold = float(fold)
        self.hidden = nn.Conv2d(channels, _HIDDEN, 3, padding=1)
        self.film = nn.Linear(latent_dim, 2 * _HIDDEN)
        self.say = nn.Conv2d(_HIDDEN, sum(_SAID), 1)
        nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, latent: Tensor) -> GrainMaps:
        """Look at features (B, C, H / fold, W / fold) and tokens (B, T, D)."""
        scale, shift = self.film(latent.sum(1))[:, :, None, None].chunk(2, 1)
        hidden = F.relu(self.hidden(features) * (1 + scale) + shift)
        reach, steps, textures = torch.split(self.say(hidden).float(), _SAID, 1)
        told = reach, F.softplus(steps - 1), torch.softmax(textures, 1).sqrt()
        return GrainMaps(*(F.interpolate(each, scale_factor=self.fold, mode="bilinear") for each in told))


def grained(smooth: Tensor, maps: GrainMaps, noise: Tensor) -> Tensor:
    """Draw one image (B, 1, H, W) of those that could be.

    Parameters
    ----------
    smooth
        (B, 1, H, W) mean of all of them, in [0, 1].
    maps
        What is known of their detail.
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
    """Noise (B, 1, H, W) of the textures that are told, from fields of them (B, `TEXTURES` or more, H, W)."""
    return (maps.weights * noise[:, :TEXTURES]).sum(1, keepdim=True)


def intensities(maps: GrainMaps, field: Tensor) -> Tensor:
    """Turn noise (B, 1, H, W) of variance 1 into intensities over their mean, by their quantiles."""
    drawn = maps.steps[:, :1]
    for level, (low, high) in enumerate(pairwise(_SCORES), 1):
        most = _BEYOND if level == len(_SCORES) - 1 else 1.0
        drawn = drawn + maps.steps[:, level : level + 1] * ((field - low) / (high - low)).clamp(0.0, most)
    return drawn
