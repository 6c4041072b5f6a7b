"""The second stage of the picture half: what the detail of pictures is like, told beside the smooth ones.

Plain regression: the odds that the cell reaches a pixel, the quantiles of the intensity there over its mean
in the surroundings, and the energy of the grain at several sizes. What draws the smooth picture stays.
"""

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader

from deepgps.datasets.crops.reading import CropStore
from deepgps.models.deepgps import MiniGenerator
from deepgps.models.grain import BANDS, LEVELS, GrainMaps, grain_field, intensities
from deepgps.training.mini.batches import Batch, Draws, PictureBatches
from deepgps.training.mini.settings import PictureSettings

GREY, REACH_PX = 0.02, 9
"""A pixel belongs to the cell where the mean of so many pixels around it is above this grey."""
SURROUNDINGS_PX = 4
"""Edge of the squares that a pixel's surroundings are made of, about nine of them across."""
MOST = 6.0
"""How many times the mean of its surroundings an intensity may be."""
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
        Settings of the picture half.
    """

    def __init__(
        self, generator: MiniGenerator, store: CropStore, pairing: Draws, settings: PictureSettings
    ) -> None:
        super().__init__()
        self.generator, self.store, self.pairing = generator, store, pairing
        self.grain = settings.grain
        self.settings = settings.model_copy(update={name: getattr(self.grain, name) for name in SHARED})
        for name, parameter in generator.named_parameters():
            parameter.requires_grad_(name.startswith("unet.grain."))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give the batches of the current epoch."""
        batches = PictureBatches(self.store, self.pairing, self.settings, self.current_epoch)
        return DataLoader(batches, batch_size=None)

    def on_train_epoch_start(self) -> None:
        """Leave the batch norms as they are: they are what the bundle will predict with."""
        self.generator.eval()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step."""
        nucleus, real, probabilities = batch
        with torch.autocast("cpu", torch.bfloat16):
            _, maps = self.generator.describe(nucleus, probabilities)
        seed = (self.settings.seed * 1_000_003 + self.current_epoch) * 10_007 + index
        chance = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(real), BANDS, *real.shape[-2:], generator=chance)
        losses = grain_losses(maps, nucleus, real, noise)
        self.log_dict(losses, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(nucleus))
        return losses["reach"] + losses["spread"] + self.grain.energy * losses["energy"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam with a one-cycle schedule over all steps."""
        steps, rate = self.grain.epochs * self.grain.batches, self.grain.learning_rate
        optimizer = torch.optim.Adam(self.generator.unet.grain.parameters(), rate)  # type: ignore[union-attr]
        # Not 0.05: the schedule divides by zero where a warm-up ends on its first step, as of 20 steps.
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.051)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def grain_losses(maps: GrainMaps, nucleus: Tensor, real: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """How well the grain of real pictures (B, 1, H, W) is told.

    Parameters
    ----------
    maps
        What is told of it.
    nucleus, real
        (B, 1, H, W) in [0, 1].
    noise
        (B, `BANDS`, H, W) white noise that grain of the sizes told is made from, to compare energies.

    Returns
    -------
    dict
        ``reach``: cross-entropy of where the cell is; ``spread``: mean pinball loss of intensities over the
        mean of their surroundings; ``energy``: mean absolute difference of log energies, by size and zone.
    """
    cell = (F.avg_pool2d(real, REACH_PX, 1, REACH_PX // 2) > GREY).float()
    zones = soft_zones(nucleus)
    mean = surroundings(real, zones[:, :1], cell)
    ratio = (real / (mean + 0.01)).clamp(max=MOST)
    quantiles = torch.cumsum(maps.steps, 1)
    levels = torch.tensor(LEVELS, device=real.device)[None, :, None, None]
    error = ratio - quantiles
    pinball = torch.maximum(levels * error, (levels - 1) * error)
    drawn = (mean * intensities(maps, grain_field(maps, noise))).clamp(0, 1) * cell
    return {
        "reach": F.binary_cross_entropy_with_logits(maps.reach, cell),
        "spread": (pinball * cell).sum() / cell.sum().clamp(min=1),
        "energy": energy_error(drawn, real * cell, zones * cell),
    }


def soft_zones(nucleus: Tensor) -> Tensor:
    """Zones (B, 3, H, W) of nuclei (B, 1, H, W): inside, around, and the rest; they sum to 1."""
    smooth = F.avg_pool2d(nucleus, 5, 1, 2)
    inside = torch.sigmoid((smooth - _NUCLEAR * smooth.amax((2, 3), keepdim=True)) * _SHARP)
    wide = F.max_pool2d(F.max_pool2d(inside, _RING, 1, _RING // 2), _RING, 1, _RING // 2)
    around = (wide - inside).clamp(0, 1)
    return torch.cat([inside, around, (1 - inside - around).clamp(0, 1)], 1)


def surroundings(real: Tensor, inside: Tensor, cell: Tensor) -> Tensor:
    """Mean (B, 1, H, W) of each pixel's surroundings in the cell, inside of nuclei and outside told apart."""
    means = [
        _wide_mean(real * part) / (_wide_mean(part) + 0.02) for part in (inside * cell, (1 - inside) * cell)
    ]
    return inside * means[0] + (1 - inside) * means[1]


def _wide_mean(values: Tensor) -> Tensor:
    coarse = F.avg_pool2d(values, SURROUNDINGS_PX)
    for _ in range(2):
        coarse = F.avg_pool2d(F.pad(coarse, [2] * 4, mode="replicate"), 5, 1)
    return F.interpolate(coarse, size=values.shape[-2:], mode="bilinear")


def energy_error(drawn: Tensor, real: Tensor, zones: Tensor) -> Tensor:
    """Mean absolute difference of log energies of pictures (B, 1, H, W), by size and zone (B, Z, H, W)."""
    enough = (zones.sum((2, 3)) > _ENOUGH_PX).float()
    total = drawn.new_zeros(())
    for _ in range(ENERGIES):
        mine, wanted = (_energies(each, zones) for each in (drawn, real))
        total = total + ((mine.log() - wanted.log()).abs() * enough).sum() / enough.sum().clamp(min=1)
        drawn, real, zones = (_halved(each) for each in (drawn, real, zones))
    return total / ENERGIES


def _energies(pictures: Tensor, zones: Tensor) -> Tensor:
    """Mean square (B, Z) of what is lost at half the resolution."""
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), size=pictures.shape[-2:], mode="bilinear")
    lost = (pictures - coarse).square() * zones
    return lost.sum((2, 3)) / zones.sum((2, 3)).clamp(min=1) + LEAST


def _halved(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, 2)
