"""The losses of the second stage of the image half: the grain of the images, beside a smooth mean image.

Plain regression of what a real image shows: the odds that the cell reaches a pixel, quantiles of the
intensity there relative to the mean image, and the energy of the grain at several sizes and its direction.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from deepgps.models.grain import LEAST_ODDS, LEVELS, GrainMaps, grain_field, intensities

GREY, REACH_PX, ALL = 0.02, 9, 0.97
"""A pixel belongs to the cell where the mean of this many pixels around it is above this grey."""
FACTORS = (0.2, 5.0)
"""Range of the brightness of an image relative to the mean."""
MOST = 6.0
"""Highest intensity relative to the mean."""
WINDOW_PX, COHERENCE = 11, 3.0
"""Edge of the windows in which directions are measured, and the weight of an error of coherence."""
ENERGIES, LEAST = 5, 1e-5
"""Number of sizes at which energies are compared, and the smallest energy."""
_NUCLEAR, _SHARP, _RING = 0.3, 30.0, 15
_ENOUGH_PX = 200


def grain_losses(
    smooth: Tensor, maps: GrainMaps, nucleus: Tensor, real: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """Compare the predicted grain with that of real images (B, 1, H, W).

    Parameters
    ----------
    smooth
        (B, 1, H, W) mean image.
    maps
        The predicted grain.
    nucleus, real
        (B, 1, H, W) in [0, 1].
    noise
        (B, `TEXTURES` or more, H, W) noise that the grain is made from.

    Returns
    -------
    dict
        ``reach``: cross-entropy of where the cell is; ``spread``: mean pinball loss of intensities relative
        to the mean; ``energy``: mean absolute difference of log energies, by size and zone; ``coherence``:
        the same of how far structures have one direction, by zone.
    """
    cell = (F.avg_pool2d(real, REACH_PX, 1, REACH_PX // 2) > GREY).float()
    zones = soft_zones(nucleus)
    mean = match_brightness(
        smooth / torch.sigmoid(maps.reach.detach()).clamp(min=LEAST_ODDS), real, cell, zones[:, :1]
    )
    ratio = (real / (mean + 0.01)).clamp(max=MOST)
    levels = torch.tensor(LEVELS, device=real.device)[None, :, None, None]
    error = ratio - torch.cumsum(maps.steps, 1)
    pinball = torch.maximum(levels * error, (levels - 1) * error)
    drawn = (mean * intensities(maps, grain_field(maps, noise))).clamp(0, 1) * cell
    inner = (_windowed(cell) > ALL).float()
    return {
        "reach": F.binary_cross_entropy_with_logits(maps.reach, cell),
        "spread": (pinball * cell).sum() / cell.sum().clamp(min=1),
        "energy": energy_error(drawn, real * cell, zones * cell),
        "coherence": coherence_error(drawn, real * cell, zones * inner),
    }


def match_brightness(mean: Tensor, real: Tensor, cell: Tensor, inside: Tensor) -> Tensor:
    """Scale the mean image (B, 1, H, W) to the brightness of the real one, inside and outside nuclei."""
    scaled = torch.zeros_like(mean)
    for region in (inside, 1 - inside):
        part = region * cell
        factor = (real * part).sum((2, 3)) / ((mean * part).sum((2, 3)) + 1)
        scaled = scaled + region * mean * factor.clamp(*FACTORS)[:, :, None, None]
    return scaled


def soft_zones(nucleus: Tensor) -> Tensor:
    """Return zones (B, 3, H, W) of nuclei (B, 1, H, W): inside, around, and the rest; they sum to 1."""
    smooth = F.avg_pool2d(nucleus, 5, 1, 2)
    inside = torch.sigmoid((smooth - _NUCLEAR * smooth.amax((2, 3), keepdim=True)) * _SHARP)
    wide = F.max_pool2d(F.max_pool2d(inside, _RING, 1, _RING // 2), _RING, 1, _RING // 2)
    around = (wide - inside).clamp(0, 1)
    return torch.cat([inside, around, (1 - inside - around).clamp(0, 1)], 1)


def energy_error(drawn: Tensor, real: Tensor, zones: Tensor) -> Tensor:
    """Return the mean absolute difference of log energies of images, by size and zone (B, Z, H, W)."""
    enough = (zones.sum((2, 3)) > _ENOUGH_PX).float()
    total = drawn.new_zeros(())
    for _ in range(ENERGIES):
        mine, real_ones = (_energies(each, zones) for each in (drawn, real))
        total = total + ((mine.log() - real_ones.log()).abs() * enough).sum() / enough.sum().clamp(min=1)
        drawn, real, zones = (_halved(each) for each in (drawn, real, zones))
    return total / ENERGIES


def _energies(images: Tensor, zones: Tensor) -> Tensor:
    """Return the mean square (B, Z) of what is lost at half the resolution."""
    coarse = F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")
    lost = (images - coarse).square() * zones
    return lost.sum((2, 3)) / zones.sum((2, 3)).clamp(min=1) + LEAST


def coherence_error(drawn: Tensor, real: Tensor, zones: Tensor) -> Tensor:
    """Return the mean absolute difference of coherence of images, by scale and zone (B, Z, H, W)."""
    enough = (zones.sum((2, 3)) > _ENOUGH_PX).float()
    total = drawn.new_zeros(())
    for _ in range(2):
        mine, real_ones = (_coherence(each, zones) for each in (drawn, real))
        total = total + ((mine - real_ones).abs() * enough).sum() / enough.sum().clamp(min=1)
        drawn, real, zones = (_halved(each) for each in (drawn, real, zones))
    return total / 2


def _coherence(images: Tensor, zones: Tensor) -> Tensor:
    """Return how far structures in small windows have one direction, (B, Z): 0 for none, 1 for lines."""
    down = F.pad(images[..., 2:, :] - images[..., :-2, :], [0, 0, 1, 1])
    right = F.pad(images[..., 2:] - images[..., :-2], [1, 1])
    dd, rr, dr = (_windowed(each) for each in (down * down, right * right, down * right))
    one_way = ((dd - rr).square() + 4 * dr.square() + LEAST**2).sqrt()
    return (one_way * zones).sum((2, 3)) / (((dd + rr) * zones).sum((2, 3)) + LEAST * _ENOUGH_PX)


def _windowed(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, WINDOW_PX, 1, WINDOW_PX // 2)


def _halved(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 2)
