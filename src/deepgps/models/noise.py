"""Noise for the grain of images: tiles of several textures, with an offset for every nucleus."""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from deepgps.arrays import Doubles, Floats

SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes of grain in pixels."""
TEXTURES = len(SIZES) + 2
"""Grain of each size, a network of tubules, and filaments."""
TILE = 256
"""Edge of a tile in pixels; tiles are periodic."""
OUTLINE_PX = 28
"""Coarseness of the noise for outlines of cells."""
_SEED, _NETWORK_PX, _THIN_PX, _FILAMENT_PX = 3, 2.5, 0.8, 1.1
_FILAMENTS, _STEPS, _STREAM_PX, _ASTRAY, _BETWEEN = 150, 90, 45.0, 0.3, 0.05


class Noise(nn.Module):
    """Noise that depends on the nucleus alone.

    Every field has mean 0, variance 1 and, pixel by pixel, a normal distribution.
    """

    tiles: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Rounded, so that a bundle holds exactly this in half precision.
        tiles = torch.from_numpy(_tiles(np.random.default_rng(_SEED))).half().float()
        self.register_buffer("tiles", tiles, persistent=False)

    def forward(self, nucleus: Tensor) -> Tensor:
        """Return `TEXTURES` fields and one for outlines (B, `TEXTURES` + 1, H, W)."""
        height, width = nucleus.shape[-2:]
        # Whole numbers below 2 ** 24 add up exactly, in whatever order a processor does it.
        greys = torch.round(nucleus.float() * 255)
        down, right = greys.sum((1, 2, 3)), greys[..., : height // 2, :].sum((1, 2, 3))
        rows = (torch.arange(height, device=nucleus.device) + down[:, None].long()) % TILE
        columns = (torch.arange(width, device=nucleus.device) + right[:, None].long()) % TILE
        return self.tiles[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def _tiles(rng: np.random.Generator) -> Floats:
    """Make all tiles, (`TEXTURES` + 1, `TILE`, `TILE`)."""
    grains = [_grain(rng, 0.4 * size) for size in SIZES]
    network = _normal(_blurred(-np.abs(_grain(rng, _NETWORK_PX)), _THIN_PX))
    # Between filaments, where nothing would tell one pixel from the next, is a little grain.
    filaments = _normal(_blurred(_curves(rng), _FILAMENT_PX) + _BETWEEN * _grain(rng, 1.6))
    outline = _blurred(rng.standard_normal((TILE, TILE)), OUTLINE_PX)
    tiles = [*grains, network, filaments, outline]
    return np.stack([(each - each.mean()) / each.std() for each in tiles]).astype(np.float32)


def _grain(rng: np.random.Generator, sigma: float) -> Doubles:
    """Noise of one size: what a blur of ``sigma`` pixels leaves and one of twice as many takes away."""
    white = rng.standard_normal((TILE, TILE))
    return _blurred(white, sigma) - _blurred(white, 2 * sigma)


def _blurred(tile: Doubles, sigma: float) -> Doubles:
    """Convolve with a Gaussian, around the edges."""
    frequencies = np.fft.fftfreq(TILE)
    square = frequencies[:, None] ** 2 + frequencies[None, : TILE // 2 + 1] ** 2
    return np.fft.irfft2(np.fft.rfft2(tile) * np.exp(-2 * (np.pi * sigma) ** 2 * square), (TILE, TILE))


def _normal(tile: Doubles) -> Doubles:
    """Keep the order of the values, and make their distribution normal."""
    ranks = tile.ravel().argsort().argsort()
    return np.asarray(ndtri((ranks + 0.5) / tile.size)).reshape(tile.shape)


def _curves(rng: np.random.Generator) -> Doubles:
    """Count the curves through each pixel: neighbours run about the same way, as in a stream."""
    heights = _blurred(rng.standard_normal((TILE, TILE)), _STREAM_PX)
    # Along the contours of a landscape, so that they gather nowhere.
    stream = np.arctan2(heights - np.roll(heights, -1, 1), np.roll(heights, -1, 0) - heights)
    astray = rng.normal(0, _ASTRAY, _FILAMENTS)
    places, tile = rng.uniform(0, TILE, (2, _FILAMENTS)), np.zeros((TILE, TILE))
    for _ in range(_STEPS):
        here = tuple(places.astype(int) % TILE)
        np.add.at(tile, here, 1)
        way = stream[here] + astray
        places += np.stack([np.sin(way), np.cos(way)])
    return tile
