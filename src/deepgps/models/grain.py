"""Detail for a smooth picture: what its grain is like is learned, where each grain lies is chance.

A network that is right on average draws the mean of all pictures that could be, which is smooth. Beside it
stand, pixel by pixel, the odds that the cell reaches there, how the intensities there spread around their
mean, and how coarse they are. A picture is one draw from that: a field of noise becomes intensities by their
quantiles, and another an outline of the cell. The noise is taken from the nucleus, so that whatever is drawn
into one nucleus shares it, and two proteins differ by what the model says of them.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

LEVELS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
"""Quantiles that the spread of intensities is told by."""
BANDS = 4
"""Sizes of grain: 1, 2, 4 and 8 px."""
_SCORES = (-2.326, -1.282, -0.674, 0.0, 0.674, 1.282, 1.881, 2.576)
_BEYOND = 1.6
_HIDDEN, _WIDE, _FINE = 48, 16, 24
OUTLINE_PX = 16
STRAY, SHARP = 0.5, 6.0
"""How far outlines stray from the likeliest one, where 1 would follow the odds, and how sharp they are."""
_LOGISTIC = 1.7
_LEAST_ODDS = 0.25
_TILE, _SEED, _APART = 256, 3, 61


class GrainMaps(NamedTuple):
    """What is known of the detail of pictures.

    Attributes
    ----------
    reach
        (B, 1, H, W) logits of the cell reaching there.
    steps
        (B, `LEVELS`, H, W) steps from one quantile to the next of intensity over its mean, the first from 0.
    weights
        (B, `BANDS`, H, W) of each size of grain; their squares sum to 1.
    """

    reach: Tensor
    steps: Tensor
    weights: Tensor


class GrainHead(nn.Module):
    """Tells the detail of pictures from the features that they are drawn from.

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
        self.sizes = nn.Conv2d(_HIDDEN, BANDS, 1)
        self.reduce = nn.Conv2d(_HIDDEN, _WIDE, 1)
        self.fine = nn.Conv2d(_WIDE + 2, _FINE, 3, padding=1)
        self.say = nn.Conv2d(_FINE, 1 + len(LEVELS), 1)
        nn.init.zeros_(self.film.bias)

    def forward(self, features: Tensor, nucleus: Tensor, smooth: Tensor, latent: Tensor) -> GrainMaps:
        """Look at features (B, C, H / fold, W / fold), nuclei, logits of smooth pictures, and tokens."""
        scale, shift = self.film(latent.sum(1))[:, :, None, None].chunk(2, 1)
        hidden = F.relu(self.hidden(features) * (1 + scale) + shift)
        sizes = self._widen(torch.softmax(self.sizes(hidden).float(), 1))
        wide = torch.cat([self._widen(self.reduce(hidden)), nucleus, smooth], 1)
        said = self.say(F.relu(self.fine(wide))).float()
        return GrainMaps(said[:, :1], F.softplus(said[:, 1:] - 1), sizes.sqrt())

    def _widen(self, features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=self.fold, mode="bilinear")


class Noise(nn.Module):
    """Noise that depends on the nucleus alone: a tile of it, beginning somewhere else for every nucleus."""

    tile: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(_SEED)
        # Rounded, so that a bundle holds exactly this in half precision.
        tile = torch.randn(_TILE, _TILE, generator=generator, device="cpu").half().float()
        self.register_buffer("tile", tile, persistent=False)

    def forward(self, nucleus: Tensor) -> Tensor:
        """Give `BANDS` + 1 independent fields (B, `BANDS` + 1, H, W) for nuclei (B, 1, H, W)."""
        height, width = nucleus.shape[-2:]
        # Whole numbers below 2 ** 24 add up exactly, in whatever order a processor does it.
        greys = torch.round(nucleus.float() * 255)
        down, right = greys.sum((1, 2, 3)), greys[..., : height // 2, :].sum((1, 2, 3))
        fields = []
        for number in range(BANDS + 1):
            rows = torch.arange(height, device=nucleus.device) + down[:, None].long() + number * _APART
            columns = torch.arange(width, device=nucleus.device) + right[:, None].long() + number * _APART
            fields.append(self.tile[rows[:, :, None] % _TILE, columns[:, None, :] % _TILE])
        return torch.stack(fields, 1)


def grained(smooth: Tensor, maps: GrainMaps, noise: Tensor) -> Tensor:
    """Draw one picture (B, 1, H, W) of those that could be.

    Parameters
    ----------
    smooth
        (B, 1, H, W) mean of all of them, in [0, 1].
    maps
        What is known of their detail.
    noise
        (B, `BANDS` + 1, H, W) white noise of variance 1.

    Returns
    -------
    Tensor
        In [0, 1].
    """
    reach = torch.sigmoid(maps.reach)
    outline = torch.sigmoid(SHARP * (maps.reach / _LOGISTIC + STRAY * outline_field(noise[:, -1:])))
    within = smooth / reach.clamp(min=_LEAST_ODDS) * intensities(maps, grain_field(maps, noise))
    return (within * outline).clamp(0.0, 1.0)


def grain_field(maps: GrainMaps, noise: Tensor) -> Tensor:
    """Noise (B, 1, H, W) of the size of grain that is known, from white noise (B, `BANDS` or more, H, W)."""
    bands = [_coarse(noise[:, k : k + 1], 2**k) for k in range(BANDS)]
    return (maps.weights * torch.cat(bands, 1)).sum(1, keepdim=True)


def intensities(maps: GrainMaps, field: Tensor) -> Tensor:
    """Turn noise (B, 1, H, W) of variance 1 into intensities over their mean, by their quantiles."""
    drawn = maps.steps[:, :1]
    for level, (low, high) in enumerate(pairwise(_SCORES), 1):
        most = _BEYOND if level == len(_SCORES) - 1 else 1.0
        drawn = drawn + maps.steps[:, level : level + 1] * ((field - low) / (high - low)).clamp(0.0, most)
    return drawn


def outline_field(noise: Tensor) -> Tensor:
    """Smooth noise (B, 1, H, W), about of variance 1, from white noise of the same shape."""
    coarse = F.avg_pool2d(noise, OUTLINE_PX) * OUTLINE_PX
    # The mean of nine has a third of their deviation.
    smooth = F.avg_pool2d(F.pad(coarse, [1] * 4, mode="replicate"), 3, 1) * 3
    return F.interpolate(smooth, size=noise.shape[-2:], mode="bilinear")


def _coarse(noise: Tensor, edge: int) -> Tensor:
    """White noise, coarser by a whole number, of variance 1 again."""
    if edge == 1:
        return noise
    wide = F.interpolate(F.avg_pool2d(noise, edge) * edge, size=noise.shape[-2:], mode="bilinear")
    # What lies between two of them is their mean, which deviates less: these are the deviations.
    return wide / _WIDENED[edge]


_WIDENED = {2: 0.625, 4: 0.65625, 8: 0.6640625}
