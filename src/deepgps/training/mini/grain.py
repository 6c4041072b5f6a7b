"""The second stage of the image half: what the detail of images is like, told beside the smooth ones.

Plain regression: the odds that the cell reaches a pixel, the quantiles of the intensity there over the smooth
image, and of the grain its energy at several sizes and how far it has a direction. What draws the smooth
image stays.
"""

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from deepgps.datasets.crops.store import CropStore
from deepgps.models.deepgps import MiniGenerator
from deepgps.models.grain import LEAST_ODDS, LEVELS, GrainMaps, grain_field, intensities
from deepgps.training.mini.batches import Batch, Draws, ImageBatches
from deepgps.training.mini.settings import ImageSettings

GREY, REACH_PX, ALL = 0.02, 9, 0.97
"""A pixel belongs to the cell where the mean of so many pixels around it is above this grey."""
FACTORS = (0.2, 5.0)
"""How many times as bright as the mean an image may be."""
MOST = 6.0
"""How many times the mean an intensity may be."""
WINDOW_PX, COHERENCE = 11, 3.0
"""Edge of the windows that directions are looked for in, and what an error of coherence weighs."""
ENERGIES, LEAST = 5, 1e-5
"""Sizes at which energies are compared, and the least of an energy."""
SHARED = ("batches", "batch_size", "crowded", "sure", "source_shares")
"""Settings that both stages have."""
_NUCLEAR, _SHARP, _RING = 0.3, 30.0, 15
_ENOUGH_PX = 200


class GrainTask(L.LightningModule):
    """Teaches the grain of a generator that draws smoothly.

    Parameters
    ----------
    generator
        The generator.
    store, pairing
        The crops, and what draws the probabilities of each.
    settings
        Settings of the image half.
    """

    def __init__(
        self, generator: MiniGenerator, store: CropStore, pairing: Draws, settings: ImageSettings
    ) -> None:
        super().__init__()
        self.generator, self.store, self.pairing = generator, store, pairing
        self.grain = settings.grain
        self.settings = settings.model_copy(update={name: getattr(self.grain, name) for name in SHARED})
        for name, parameter in generator.named_parameters():
            parameter.requires_grad_(name.startswith("unet.grain."))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give the batches of the current epoch."""
        batches = ImageBatches(self.store, self.pairing, self.settings, self.current_epoch)
        return DataLoader(batches, batch_size=None)

    def on_train_epoch_start(self) -> None:
        """Leave the batch norms as they are: they are what the bundle will predict with."""
        self.generator.eval()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step."""
        nucleus, real, probabilities = batch
        with torch.autocast("cpu", torch.bfloat16):
            smooth, maps = self.generator.describe(nucleus, probabilities)
        noise = self.generator.unet.noise(nucleus)  # type: ignore[misc]
        losses = grain_losses(smooth, maps, nucleus, real, noise)
        self.log_dict(losses, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(nucleus))
        return (
            losses["reach"]
            + losses["spread"]
            + self.grain.energy * (losses["energy"] + COHERENCE * losses["coherence"])
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam with a one-cycle schedule over all steps."""
        steps, rate = self.grain.epochs * self.grain.batches, self.grain.learning_rate
        optimizer = torch.optim.Adam(self.generator.unet.grain.parameters(), rate)  # type: ignore[union-attr]
        # Not 0.05: the schedule divides by zero where a warm-up ends on its first step, as of 20 steps.
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.051)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def grain_losses(
    smooth: Tensor, maps: GrainMaps, nucleus: Tensor, real: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """How well the grain of real images (B, 1, H, W) is told.

    Parameters
    ----------
    smooth
        (B, 1, H, W) mean of all images that could be.
    maps
        What is told of their detail.
    nucleus, real
        (B, 1, H, W) in [0, 1].
    noise
        (B, `TEXTURES` or more, H, W) noise that grain of the textures told is made from.

    Returns
    -------
    dict
        ``reach``: cross-entropy of where the cell is; ``spread``: mean pinball loss of intensities over their
        mean; ``energy``: mean absolute difference of log energies, by size and zone; ``coherence``: that of
        how far structures have one direction, by zone.
    """
    cell = (F.avg_pool2d(real, REACH_PX, 1, REACH_PX // 2) > GREY).float()
    zones = soft_zones(nucleus)
    mean = as_bright(
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


def as_bright(mean: Tensor, real: Tensor, cell: Tensor, inside: Tensor) -> Tensor:
    """Make the mean image (B, 1, H, W) as bright as the real one, inside of nuclei and outside."""
    scaled = torch.zeros_like(mean)
    for side in (inside, 1 - inside):
        part = side * cell
        factor = (real * part).sum((2, 3)) / ((mean * part).sum((2, 3)) + 1)
        scaled = scaled + side * mean * factor.clamp(*FACTORS)[:, :, None, None]
    return scaled


def soft_zones(nucleus: Tensor) -> Tensor:
    """Zones (B, 3, H, W) of nuclei (B, 1, H, W): inside, around, and the rest; they sum to 1."""
    smooth = F.avg_pool2d(nucleus, 5, 1, 2)
    inside = torch.sigmoid((smooth - _NUCLEAR * smooth.amax((2, 3), keepdim=True)) * _SHARP)
    wide = F.max_pool2d(F.max_pool2d(inside, _RING, 1, _RING // 2), _RING, 1, _RING // 2)
    around = (wide - inside).clamp(0, 1)
    return torch.cat([inside, around, (1 - inside - around).clamp(0, 1)], 1)


def energy_error(drawn: Tensor, real: Tensor, zones: Tensor) -> Tensor:
    """Mean absolute difference of log energies of images (B, 1, H, W), by size and zone (B, Z, H, W)."""
    enough = (zones.sum((2, 3)) > _ENOUGH_PX).float()
    total = drawn.new_zeros(())
    for _ in range(ENERGIES):
        mine, wanted = (_energies(each, zones) for each in (drawn, real))
        total = total + ((mine.log() - wanted.log()).abs() * enough).sum() / enough.sum().clamp(min=1)
        drawn, real, zones = (_halved(each) for each in (drawn, real, zones))
    return total / ENERGIES


def _energies(images: Tensor, zones: Tensor) -> Tensor:
    """Mean square (B, Z) of what is lost at half the resolution."""
    coarse = F.interpolate(F.avg_pool2d(images, 2), size=images.shape[-2:], mode="bilinear")
    lost = (images - coarse).square() * zones
    return lost.sum((2, 3)) / zones.sum((2, 3)).clamp(min=1) + LEAST


def coherence_error(drawn: Tensor, real: Tensor, zones: Tensor) -> Tensor:
    """Mean absolute difference of the coherence of images (B, 1, H, W), by scale and zone (B, Z, H, W)."""
    enough = (zones.sum((2, 3)) > _ENOUGH_PX).float()
    total = drawn.new_zeros(())
    for _ in range(2):
        mine, wanted = (_coherence(each, zones) for each in (drawn, real))
        total = total + ((mine - wanted).abs() * enough).sum() / enough.sum().clamp(min=1)
        drawn, real, zones = (_halved(each) for each in (drawn, real, zones))
    return total / 2


def _coherence(images: Tensor, zones: Tensor) -> Tensor:
    """How far structures in small windows have one direction, (B, Z): 0 for none, 1 for lines."""
    down = F.pad(images[..., 2:, :] - images[..., :-2, :], [0, 0, 1, 1])
    right = F.pad(images[..., 2:] - images[..., :-2], [1, 1])
    dd, rr, dr = (_windowed(each) for each in (down * down, right * right, down * right))
    one_way = ((dd - rr).square() + 4 * dr.square() + LEAST**2).sqrt()
    return (one_way * zones).sum((2, 3)) / (((dd + rr) * zones).sum((2, 3)) + LEAST * _ENOUGH_PX)


def _windowed(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, WINDOW_PX, 1, WINDOW_PX // 2)


def _halved(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 2)
