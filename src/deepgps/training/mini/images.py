"""The image half of ``deepgps-mini``: the generator, trained on crops paired with proteins."""

from pathlib import Path

import lightning as L  # noqa: N812
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader

from deepgps.datasets.crops.store import CropStore
from deepgps.models.deepgps import MiniGenerator
from deepgps.training.mini.batches import Batch, Draws, ImageBatches
from deepgps.training.mini.grain import GrainTask
from deepgps.training.mini.settings import ImageSettings


class ImageTask(L.LightningModule):
    """Mean squared error between drawn and real protein images, under a warm-up and cosine schedule."""

    def __init__(
        self, generator: MiniGenerator, store: CropStore, pairing: Draws, settings: ImageSettings
    ) -> None:
        super().__init__()
        self.generator, self.store, self.pairing, self.settings = generator, store, pairing, settings

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give the batches of the current epoch."""
        batches = ImageBatches(self.store, self.pairing, self.settings, self.current_epoch)
        return DataLoader(batches, batch_size=None)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step."""
        nucleus, protein, probabilities = batch
        with torch.autocast("cpu", torch.bfloat16):
            smooth, _ = self.generator.describe(nucleus, probabilities)
        loss = torch.nn.functional.mse_loss(smooth.float(), protein)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(nucleus))
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a one-cycle schedule over all steps."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        # Not 0.05: the schedule divides by zero where a warm-up ends on its first step, as of 20 steps.
        steps, warm_up = settings.epochs * settings.batches, 0.051
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=steps, pct_start=warm_up
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_images(
    store: CropStore,
    pairing: Draws,
    settings: ImageSettings,
    folder: Path,
    generator: MiniGenerator | None = None,
) -> MiniGenerator:
    """Train a generator, a fresh one if none is given: the smooth image first, then its grain.

    A second call goes on from the last finished epoch. Each stage leaves ``last.ckpt`` and, for each call,
    its losses in ``log/version_N/metrics.csv``, the second stage in the folder ``grain``.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    generator = generator or build_generator(len(pairing.classes.slugs), settings)
    first = ImageTask(generator, store, pairing, settings)
    _run(first, settings.epochs, settings.batches, folder)
    second = GrainTask(generator, store, pairing, settings)
    _run(second, settings.grain.epochs, settings.grain.batches, folder / "grain")
    return generator.eval()


def _run(task: L.LightningModule, epochs: int, batches: int, folder: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        reload_dataloaders_every_n_epochs=1,
        logger=CSVLogger(folder, name="log"),
        callbacks=[
            ModelCheckpoint(folder, "last", enable_version_counter=False),
            RichProgressBar(console_kwargs={"stderr": True}),
        ],
        enable_model_summary=False,
        log_every_n_steps=batches,
    )
    last = folder / "last.ckpt"
    trainer.fit(task, ckpt_path=last if last.exists() else None, weights_only=True)


def build_generator(classes: int, settings: ImageSettings) -> MiniGenerator:
    """Build the generator of these settings, with fresh weights."""
    generator = MiniGenerator(classes, settings.latent_dim, settings.widths, settings.fold, settings.margin)
    return generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
