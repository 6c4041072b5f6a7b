"""The image half of the bundled model: a generator, trained on crops paired with proteins.

The proteins of most training crops are unknown; only their localization is. At every step such a crop is
drawn from the class probabilities of a training protein with the same localization, so the image is true to
the localization and not to the one protein.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.datasets.crops.settings import Source
from deepgps.datasets.crops.store import CropStore
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet
from deepgps.models.deepgps import MiniGenerator
from deepgps.training.log import TrainingLog
from deepgps.training.loop import Trainer, one_cycle, precision_of, quiet, start
from deepgps.training.mini.grain import COHERENCE, grain_losses
from deepgps.training.recipe import ImageSettings, StageSettings

ImageBatch = tuple[Tensor, Tensor, Tensor]

WARM_UP = 0.051
"""Share of the steps in which the learning rate rises."""


def fit_images(
    store: CropStore,
    pairing: "Probabilities",
    settings: ImageSettings,
    folder: Path,
    generator: MiniGenerator | None = None,
) -> MiniGenerator:
    """Train a generator: the mean image first, then its grain.

    A second call continues from the last checkpoint. Each stage has a folder, ``mean`` and ``grain``, with
    its checkpoints and ``metrics.csv``.

    Parameters
    ----------
    store, pairing
        The crops, and the probabilities that each is drawn from.
    settings
        The recipe's settings.
    folder
        Folder of the stages.
    generator
        The generator to start from; a new one by default.

    Returns
    -------
    MiniGenerator
        The trained generator, on the CPU.
    """
    torch.manual_seed(settings.seed)
    generator = generator or build_generator(len(pairing.classes.slugs), settings)
    stages = {"mean": MeanTask(generator, store, pairing, settings)}
    stages["grain"] = GrainTask(generator, store, pairing, settings.grain)
    for name, task in stages.items():
        task.freeze()
        with quiet(), TrainingLog(task, folder / name) as log:
            Trainer.of(task, start("float32"), folder / name).fit(log)
    return generator.cpu().eval()


def build_generator(classes: int, settings: ImageSettings) -> MiniGenerator:
    """Build the generator of these settings, with fresh weights."""
    return MiniGenerator(classes, settings.latent_dim, settings.widths, settings.fold, settings.margin)


# ---- the two stages: tasks of the training loop ----


class MeanTask:
    """The mean image: mean squared error against the real one. A `deepgps.training.loop.Task`."""

    loss_names: tuple[str, ...] = ("loss",)
    batch_norm_learns = True
    accumulate = 1
    best_metric: str | None = None
    patience: int | None = None

    def __init__(
        self, generator: MiniGenerator, store: CropStore, pairing: "Probabilities", settings: StageSettings
    ) -> None:
        self.module: nn.Module = generator
        self.store, self.pairing, self.settings = store, pairing, settings
        self.steps = settings.batches

    def freeze(self) -> None:
        """Freeze the parameters that the stage does not train."""
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(not name.startswith("unet.grain."))

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW for the parameters that are not frozen."""
        trained = [each for each in self.module.parameters() if each.requires_grad]
        return torch.optim.AdamW(
            trained, self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )

    def schedule(self, step: int) -> Mapping[str, Any]:
        """Return learning rate and betas of one cycle over all steps."""
        steps = self.settings.max_epochs * self.steps
        return one_cycle(self.settings.learning_rate, step, steps, WARM_UP)

    def batches(self, epoch: int, first: int) -> Iterable[ImageBatch]:
        """Yield augmented batches; skipped ones are drawn as well, as they share a random generator."""
        return islice(ImageBatches(self.store, self.pairing, self.settings, epoch), first, None)

    def losses(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """Return the loss."""
        nucleus, real, probabilities = batch
        with self._autocast(nucleus):
            mean, _ = model(nucleus, probabilities)
        return torch.nn.functional.mse_loss(mean.float(), real)[None]

    def _autocast(self, nucleus: Tensor) -> torch.autocast:
        # Fabric's own mixed precision rounds the inputs, too.
        mixed = precision_of(self.settings) == "bfloat16"
        return torch.autocast(nucleus.device.type, torch.bfloat16, enabled=mixed)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return nothing: the number of epochs is fixed."""
        return {}

    def samples(self, model: nn.Module) -> None:
        """Return nothing."""


class GrainTask(MeanTask):
    """The grain of the images, beside a mean image that stays as it is."""

    loss_names = ("loss", "reach", "spread", "energy", "coherence")
    batch_norm_learns = False

    def freeze(self) -> None:
        """Freeze all parameters but those of the grain."""
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name.startswith("unet.grain."))

    def losses(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """Return the loss and its terms."""
        nucleus, real, probabilities = batch
        with self._autocast(nucleus):
            mean, maps = model(nucleus, probabilities)
        noise = self.module.unet.noise(nucleus)  # type: ignore[operator,union-attr]
        terms = grain_losses(mean, maps, nucleus, real, noise)
        loss = terms["reach"] + terms["spread"] + (terms["energy"] + COHERENCE * terms["coherence"])
        return torch.stack([loss, *(terms[name] for name in self.loss_names[1:])])


# ---- batches ----

MIXED_SHARE = 0.15
"""Share of the cells with several protein images that are drawn as one dual-localized protein."""
MASKED = "hpa_u2os_cells"
"""The source whose cells are cut out of their surroundings, so several can be placed side by side."""
YES, NO = 0.9, 0.02
"""Probabilities that stand for certainty; the generator never sees higher or lower ones."""
CROWD, CROWD_ZOOM, CROWD_SPREAD = (2, 3), (0.55, 0.9), 0.35
"""Additional cells of a crowd, how much smaller they are, and how far apart, as a share of the edge."""


class Probabilities(Protocol):
    """Draws the class probabilities of a crop; `Pairing` is one."""

    classes: ClassSet

    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats:
        """Return probabilities (K,) for a crop with these localizations, of this protein."""


class ImageBatches:
    """One epoch of augmented batches: nucleus, protein image (B, 1, S, S) and probabilities (B, K)."""

    def __init__(self, store: CropStore, pairing: Probabilities, settings: StageSettings, epoch: int) -> None:
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
        sources = store.index["source"].to_list()
        self.masked = {int(row) for row in rows if sources[row] == MASKED}
        self.alike: dict[str, list[int]] = {}
        for row in sorted(self.masked):
            self.alike.setdefault(self.localizations[row], []).append(row)

    def __iter__(self) -> Iterator[ImageBatch]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.settings.batches):
            chosen = rng.choice(self.rows, self.settings.batch_size, p=self.weights)
            samples = [self._sample(int(row), rng) for row in chosen]
            pairs = torch.from_numpy(np.stack([pair for pair, _ in samples]))
            yield pairs[:, :1], pairs[:, 1:], torch.from_numpy(np.stack([p for _, p in samples]))

    def _sample(self, row: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        pair = self.store.crops[row].astype(np.float32) / 255
        if self.settings.sure and rng.random() < self.settings.sure:
            probabilities = certain(self.pairing.classes, self.localizations[row])
        else:
            probabilities = self.pairing.draw(self.localizations[row], self.accessions[row], rng)
        others = [
            other for other in self.partners[row] if self.localizations[other] != self.localizations[row]
        ]
        if others and rng.random() < MIXED_SHARE:
            other = int(rng.choice(others))
            theirs = self.pairing.draw(self.localizations[other], self.accessions[other], rng)
            pair, probabilities = self._mixed(pair, other), np.maximum(probabilities, theirs)
        elif row in self.masked and rng.random() < self.settings.crowded:
            more = rng.choice(self.alike[self.localizations[row]], int(rng.integers(*CROWD, endpoint=True)))
            pair = crowd([pair, *self.store.crops[more].astype(np.float32) / 255], rng)
        return augment(pair, rng), probabilities

    def _mixed(self, pair: Floats, other: int) -> Floats:
        """Draw a dual-localized protein: the sum, dimmed, of two protein images of the same cell."""
        second = self.store.crops[other, 1].astype(np.float32) / 255
        return np.stack([pair[0], np.clip(0.6 * (pair[1] + second), 0, 1)])


def certain(classes: ClassSet, localizations: str) -> Floats:
    """Return probabilities (K,) that are certain of localizations joined by ``|``."""
    named = classes.of(localizations.split("|"))
    return np.array([YES if slug in named else NO for slug in classes.slugs], np.float32)


def sampling_weights(store: CropStore, rows: Ints, shares: Mapping[Source, float]) -> Doubles:
    """Return the probability of each row: sources by their shares, rare localizations more often."""
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


def augment(pair: Floats, rng: np.random.Generator) -> Floats:
    """Rotate and flip both images; vary brightness, background and noise of the nucleus as microscopes do.

    Parameters
    ----------
    pair
        (2, S, S) nucleus and protein image in [0, 1].
    rng
        Random generator.

    Returns
    -------
    Floats
        (2, S, S) in [0, 1].
    """
    pair = np.rot90(pair, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        pair = pair[:, :, ::-1]
    nucleus = pair[0] ** rng.uniform(0.6, 1.5) * rng.uniform(0.7, 1.1)
    if rng.random() < 0.6:
        nucleus = nucleus + rng.uniform(0, 0.06)
        nucleus = nucleus + rng.normal(0, rng.uniform(0, 0.05), nucleus.shape)
    return np.stack([np.clip(nucleus, 0, 1), pair[1]]).astype(np.float32)


def crowd(pairs: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """Place masked cells (2, S, S) side by side in one crop (2, S, S), smaller, as in crowded fields.

    All have one size; the first lies near the middle, and where cells overlap the brighter one is visible.

    Returns
    -------
    Floats
        (2, S, S) in [0, 1].
    """
    edge = pairs[0].shape[-1]
    zoom, field = rng.uniform(*CROWD_ZOOM), np.zeros_like(pairs[0])
    for number, pair in enumerate(pairs):
        turned = np.rot90(pair, int(rng.integers(4)), (1, 2))
        cell = ndimage.zoom(turned, (1, zoom, zoom), order=1, grid_mode=True, mode="nearest")
        reach = CROWD_SPREAD if number else CROWD_SPREAD / 7
        corner = rng.integers(-int(reach * edge), int(reach * edge) + 1, 2) + (edge - cell.shape[1]) // 2
        (top, left), size = corner, cell.shape[1]
        rows = slice(max(0, top), min(edge, top + size))
        columns = slice(max(0, left), min(edge, left + size))
        visible = cell[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        visible = visible * np.float32(rng.uniform(0.7, 1))
        np.maximum(field[:, rows, columns], visible, out=field[:, rows, columns])
    return field


# ---- pairing ----

# Secreted proteins have no image of their own: a cell shows them on their way, in the ER.
EXTRACELLULAR_SHARE_OF_ER = 0.15
UNSEEN_SHARE = 0.3


class Pairing:
    """Draws the class probabilities of a training protein for a crop.

    Parameters
    ----------
    proteins
        The labelled proteins.
    seen, unseen
        (N, K) probabilities of each by an encoder that was trained on it, and by one that saw neither its
        cluster nor the protein among the neighbours, as for proteins new to the model.
    classes
        The class set of both.
    """

    def __init__(self, proteins: LabelledProteins, seen: Floats, unseen: Floats, classes: ClassSet) -> None:
        self.classes = classes
        self.seen, self.unseen = seen, unseen
        self.by_accession: Mapping[str, int] = {str(a): i for i, a in enumerate(proteins.ids)}
        groups: dict[frozenset[str], list[int]] = {}
        for i, row in enumerate(proteins.labels >= 0.5):
            named = frozenset(slug for slug, positive in zip(classes.slugs, row, strict=True) if positive)
            groups.setdefault(named, []).append(i)
        self.by_classes = {named: np.array(rows) for named, rows in groups.items()}

    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats:
        """Return the probabilities (K,) of a protein with the crop's localizations.

        Every other time, that is the crop's own protein where it is known: there are too few of them to show
        the generator more than their own probabilities.

        Parameters
        ----------
        localizations
            Localizations of the crop, joined by ``|``.
        accession
            UniProt accession of its protein, or an empty string.
        rng
            Random generator.

        Returns
        -------
        Floats
            (K,) in [0, 1].
        """
        if accession in self.by_accession and rng.random() < 0.5:
            return self._vary(self.by_accession[accession], rng)
        named = self.classes.of(localizations.split("|"))
        if (
            named == {"er"}
            and "extracellular" in self.classes.slugs
            and rng.random() < EXTRACELLULAR_SHARE_OF_ER
        ):
            named = frozenset({"extracellular"})
        if named not in self.by_classes:
            return certain(self.classes, localizations)
        return self._vary(int(rng.choice(self.by_classes[named])), rng)

    def _vary(self, row: int, rng: np.random.Generator) -> Floats:
        """Sharpen or soften the probabilities, so the generator meets certain and uncertain proteins."""
        source = self.unseen if rng.random() < UNSEEN_SHARE else self.seen
        p = np.clip(source[row], 1e-4, 1 - 1e-4)
        logits = np.log(p / (1 - p)) * rng.uniform(0.6, 1.6)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


class TablePairing:
    """Draws the probabilities of a crop from its localizations alone, for crops whose proteins are annotated.

    Parameters
    ----------
    classes
        The class set.
    """

    def __init__(self, classes: ClassSet) -> None:
        self.classes = classes

    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats:
        """Return probabilities (K,), more or less certain, as predicted ones are."""
        logits = np.log(1 / certain(self.classes, localizations) - 1) * -rng.uniform(0.6, 1.6)
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
