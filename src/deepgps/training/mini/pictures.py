"""The picture half of ``deepgps-mini``: the generator, trained on crops paired with proteins."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from deepgps.datasets.crops.reading import CropStore
from deepgps.datasets.crops.settings import Source
from deepgps.localization import ClassSet
from deepgps.models.deepgps import MiniGenerator
from deepgps.training.mini.settings import PictureSettings

Batch = tuple[Tensor, Tensor, Tensor]


class Draws(Protocol):
    """Draws the probabilities that a crop is drawn from; `Pairing` documents it."""

    @property
    def classes(self) -> ClassSet: ...  # noqa: D102
    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> NDArray[np.float32]: ...  # noqa: D102


MIXED_SHARE = 0.15
"""Share of the cells with several protein images that are drawn as one dual-localized protein."""


class PictureBatches(IterableDataset[Batch]):
    """One epoch of augmented batches: nucleus, protein image (B, 1, S, S) and probabilities (B, K).

    Every iteration gives the same batches, for a resumed run takes the first one twice.
    """

    def __init__(self, store: CropStore, pairing: Draws, settings: PictureSettings, epoch: int) -> None:
        self.store, self.pairing, self.settings = store, pairing, settings
        self.seed = [settings.seed, epoch]
        rows = store.rows(split="train")
        self.rows, self.weights = rows, sampling_weights(store, rows, settings.source_shares)
        self.localizations = store.index["localizations"].to_list()
        self.accessions = store.index["accession"].to_list()
        names = store.index["cell"].to_list()
        cells: dict[str, list[int]] = {}
        for row in rows:
            cells.setdefault(names[row], []).append(int(row))
        self.partners = [cells.get(name, []) for name in names]

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.settings.batches):
            chosen = rng.choice(self.rows, self.settings.batch_size, p=self.weights)
            samples = [self._sample(int(row), rng) for row in chosen]
            pairs = torch.from_numpy(np.stack([pair for pair, _ in samples]))
            yield pairs[:, :1], pairs[:, 1:], torch.from_numpy(np.stack([p for _, p in samples]))

    def _sample(self, row: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pair = self.store.crops[row].astype(np.float32) / 255
        probabilities = self.pairing.draw(self.localizations[row], self.accessions[row], rng)
        others = [
            other for other in self.partners[row] if self.localizations[other] != self.localizations[row]
        ]
        if others and rng.random() < MIXED_SHARE:
            other = int(rng.choice(others))
            theirs = self.pairing.draw(self.localizations[other], self.accessions[other], rng)
            pair, probabilities = self._mixed(pair, other), np.maximum(probabilities, theirs)
        return augment(pair, rng), probabilities

    def _mixed(self, pair: NDArray[np.float32], other: int) -> NDArray[np.float32]:
        """Draw a dual-localized protein: the sum, dimmed, of two protein images of the same cell."""
        second = self.store.crops[other, 1].astype(np.float32) / 255
        return np.stack([pair[0], np.clip(0.6 * (pair[1] + second), 0, 1)])


def sampling_weights(
    store: CropStore, rows: NDArray[np.int64], shares: Mapping[Source, float]
) -> NDArray[np.float64]:
    """Probability of each row: sources by their shares, within them rare localizations more often."""
    table = store.index[rows.tolist()]
    counts = table.group_by("source", "localizations").len()
    sizes = table.join(counts, on=["source", "localizations"], how="left", maintain_order="left")["len"]
    rarity = sizes.to_numpy() ** -0.75
    sources = table["source"].to_numpy()
    weights = np.zeros(len(rows))
    for source, share in shares.items():
        members = sources == source
        if members.any():
            weights[members] = share * rarity[members] / rarity[members].sum()
    return np.asarray(weights / weights.sum())


def augment(pair: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn and flip both images; vary the nucleus's brightness, background and noise as microscopes do.

    Parameters
    ----------
    pair
        (2, S, S) nucleus and protein image in [0, 1].
    rng
        Source of chance.
    """
    pair = np.rot90(pair, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        pair = pair[:, :, ::-1]
    nucleus = pair[0] ** rng.uniform(0.6, 1.5) * rng.uniform(0.7, 1.1)
    if rng.random() < 0.6:
        nucleus = nucleus + rng.uniform(0, 0.06)
        nucleus = nucleus + rng.normal(0, rng.uniform(0, 0.05), nucleus.shape)
    return np.stack([np.clip(nucleus, 0, 1), pair[1]]).astype(np.float32)


class PictureTask(L.LightningModule):
    """Mean squared error between drawn and real protein images, under a warm-up and cosine schedule."""

    def __init__(
        self, generator: MiniGenerator, store: CropStore, pairing: Draws, settings: PictureSettings
    ) -> None:
        super().__init__()
        self.generator, self.store, self.pairing, self.settings = generator, store, pairing, settings

    def train_dataloader(self) -> DataLoader[Batch]:
        """Give the batches of the current epoch."""
        batches = PictureBatches(self.store, self.pairing, self.settings, self.current_epoch)
        return DataLoader(batches, batch_size=None)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step."""
        nucleus, protein, probabilities = batch
        with torch.autocast("cpu", torch.bfloat16):
            drawn = self.generator(nucleus, probabilities)
        loss = torch.nn.functional.mse_loss(drawn.float(), protein)
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


def fit_pictures(
    store: CropStore,
    pairing: Draws,
    settings: PictureSettings,
    folder: Path,
    generator: MiniGenerator | None = None,
) -> MiniGenerator:
    """Train a generator, a fresh one if none is given; a second call goes on from the last finished epoch.

    Leaves ``last.ckpt`` and, for each call, the losses in ``log/version_N/metrics.csv``.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    generator = generator or build_generator(len(pairing.classes.slugs), settings)
    task = PictureTask(generator, store, pairing, settings)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        reload_dataloaders_every_n_epochs=1,
        logger=CSVLogger(folder, name="log"),
        callbacks=[
            ModelCheckpoint(folder, "last", enable_version_counter=False),
            RichProgressBar(console_kwargs={"stderr": True}),
        ],
        enable_model_summary=False,
        log_every_n_steps=settings.batches,
    )
    last = folder / "last.ckpt"
    trainer.fit(task, ckpt_path=last if last.exists() else None, weights_only=True)
    return generator.eval()


def build_generator(classes: int, settings: PictureSettings) -> MiniGenerator:
    """Build the generator of these settings, with fresh weights."""
    generator = MiniGenerator(classes, settings.latent_dim, settings.widths, settings.fold, settings.margin)
    return generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
