"""The image half of the bundled model: two networks trained by conditional flow matching.

The first draws structure at twice the pixel size of the crops; the second adds what is finer. Both are tasks
of the training loop on an image pack. A network is trained beside a moving average of its weights, which is
what draws.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from deepgps.arrays import Ints
from deepgps.datasets.crops.reference import DOMAINS
from deepgps.files import atomic_path
from deepgps.localization import WORDS
from deepgps.models.flow_matching import (
    FlowMatchingUNet,
    between,
    condition,
    draw,
    encode,
    mean_image,
    noise,
    velocity_loss,
)
from deepgps.training.log import TrainingLog
from deepgps.training.loop import Trainer, precision_of, quiet, start
from deepgps.training.mini.image_batches import ImageBatch, ImageExamples, one_hot, plain_batch
from deepgps.training.mini.image_pack import LANDMARKS, PROTEIN, UNKNOWN_DOMAIN, ImagePack
from deepgps.training.mini.muon import MuonAdamW
from deepgps.training.recipe import StageSettings, StructureSettings

STRUCTURE_STAGE, GRAIN_STAGE = "structure", "grain"
"""Names of the stages, of their folders and of their weights."""
DOMAIN_METRICS = {0: "hek293t", 1: "u2os", 2: "other", UNKNOWN_DOMAIN: "crops"}
"""How metrics name the domains."""
MEASURED = ("hpa_u2os_cells", "opencell_crops", "opencell_tiles")
"""Sources of the reference images that are measured on."""
VALIDATED, SHOWN_CELLS = 24, 2
"""Held-out images of a source that are measured, and that are shown in sample sheets."""
_CHUNK = 16


def fit_stage(task: "FlowTask", folder: Path) -> FlowMatchingUNet:
    """Train a stage; a second call continues from the last checkpoint.

    Parameters
    ----------
    task
        The stage.
    folder
        Folder of its checkpoints, ``metrics.csv`` and sample sheets.

    Returns
    -------
    FlowMatchingUNet
        The network with the moving average of the weights, on the CPU.
    """
    with quiet(), TrainingLog(task, folder) as log:
        Trainer.of(task, start("float32"), folder).fit(log)
    network = task.averaged.average.module
    assert isinstance(network, FlowMatchingUNet)
    return network.cpu().eval()


def condition_size(classes: int) -> int:
    """Return the length of the vector that `deepgps.models.flow_matching.condition` makes."""
    return classes + len(WORDS) + len(DOMAINS) + 2


def build_network(settings: StageSettings, classes: int) -> FlowMatchingUNet:
    """Build the network of a stage with fresh weights: the structure's is given the landmarks as well."""
    structure = isinstance(settings, StructureSettings)
    return FlowMatchingUNet(
        1 + len(LANDMARKS) if structure else 2,
        condition_size(classes),
        settings.widths,
        embedding=settings.embedding,
        attention=settings.attention,
    )


def write_network(network: nn.Module, path: Path) -> None:
    """Write the weights of a network."""
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    with atomic_path(path) as draft:
        save_file(weights, draft)


def read_network(path: Path, settings: StageSettings, classes: int) -> FlowMatchingUNet:
    """Read the network of a stage."""
    network = build_network(settings, classes)
    network.load_state_dict(load_file(path))
    return network.eval()


class AveragedNetwork(nn.Module):
    """A network and the moving average of its weights.

    In training mode the network predicts, in evaluation mode the average.

    Parameters
    ----------
    network
        The network.
    decay
        Share of the average that is kept in a step; less in the first ones.
    """

    def __init__(self, network: FlowMatchingUNet, decay: float) -> None:
        super().__init__()
        self.network = network

        def blend(averages: Any, weights: Any, count: Any) -> None:
            kept = min(decay, int(count) / (int(count) + 20))
            torch._foreach_lerp_(list(averages), list(weights), 1 - kept)

        self.average = AveragedModel(network, multi_avg_fn=torch.no_grad()(blend))
        self.average.requires_grad_(False)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict, as `FlowMatchingUNet.forward`."""
        predicted: Tensor = self.network(*inputs) if self.training else self.average(*inputs)
        return predicted

    def update(self) -> None:
        """Move the average to the weights."""
        self.average.update_parameters(self.network)


class Step(NamedTuple):
    """All that a step of the optimiser depends on.

    Attributes
    ----------
    examples
        B examples.
    noise
        (B, 1, S, S) standard normal noise.
    time
        (B,) in [0, 1].
    mean
        (B,) 1 where the mean image is learned.
    """

    examples: ImageBatch
    noise: Tensor
    time: Tensor
    mean: Tensor


class FlowTask(ABC):
    """A network that learns to draw by flow matching: a `deepgps.training.loop.Task` without its data.

    Parameters
    ----------
    network
        The network.
    settings
        The recipe's settings.
    """

    loss_names: tuple[str, ...] = ("loss",)
    batch_norm_learns = True
    accumulate = 1
    best_metric: str | None = None
    patience: int | None = None

    def __init__(self, network: FlowMatchingUNet, settings: StageSettings) -> None:
        self.settings, self.steps = settings, settings.batches
        self.averaged = AveragedNetwork(network, settings.average)
        self.module: nn.Module = self.averaged

    @abstractmethod
    def examples(self, count: int, seed: Sequence[int]) -> ImageBatch:
        """Make so many examples, as a function of the seed."""

    @abstractmethod
    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return metrics on held-out images."""

    @abstractmethod
    def samples(self, model: nn.Module) -> Image.Image | None:
        """Draw a few samples."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Muon for the kernels and AdamW for the rest; each step moves the average of the weights."""
        settings, (kernels, others) = self.settings, _kernels(self.averaged.network)
        factor = settings.kernel_rate / settings.learning_rate
        optimizer = MuonAdamW(
            kernels, others, settings.learning_rate, factor, weight_decay=settings.weight_decay
        )
        optimizer.register_step_post_hook(lambda *_: self.averaged.update())
        return optimizer

    def schedule(self, step: int) -> Mapping[str, Any]:
        """Return the learning rate: it rises in the first steps and falls to 0 in the last."""
        settings, total = self.settings, self.settings.max_epochs * self.steps
        pace = min(1.0, (step + 1) / settings.warm_up_steps)
        if settings.cool_down:
            pace = min(pace, (total - step) / (settings.cool_down * total))
        return {"lr": settings.learning_rate * pace}

    def batches(self, epoch: int, first: int) -> Iterable[Step]:
        """Make the batches of an epoch, in as many processes as the settings say."""
        numbers = range(epoch * self.steps + first, (epoch + 1) * self.steps)
        return DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=numbers,
            num_workers=self.settings.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def step(self, number: int) -> Step:
        """Make the batch of a step, counted from 0 over all epochs."""
        count, size = self.settings.batch_size, self.settings.size_px
        seed = [self.settings.seed, number]
        examples = self.examples(count, seed)
        rng = np.random.default_rng([*seed, 1])
        noisy = rng.standard_normal((count, 1, size, size), np.float32)
        times = 1 / (1 + np.exp(0.4 - rng.standard_normal(count)))
        share = self.settings.mean_share if isinstance(self.settings, StructureSettings) else 0
        means = np.arange(count) < round(share * count)
        return Step(examples, *(torch.from_numpy(each.astype(np.float32)) for each in (noisy, times, means)))

    def losses(self, model: nn.Module, batch: Step) -> Tensor:
        """Return the loss, and the mean errors of the velocity and of the mean image."""
        examples, start, time, mean = batch
        encoded = encode(examples.protein)
        target = torch.where(mean[:, None, None, None] > 0, 2 * examples.protein - 1, encoded)
        mixed = between(start, encoded, time).contiguous(memory_format=torch.channels_last)
        with self.autocast(start):
            predicted = model(mixed, time, examples.images, examples.given, examples.condition, mean)
        predicted = predicted.float()
        guided = encoded + self.guiding(model, mixed, batch, predicted.detach())
        of_drawn = velocity_loss(predicted, guided, time) * (1 - mean)
        of_mean = ((predicted - target) ** 2).mean((1, 2, 3)) * mean
        weight = self.settings.mean_weight if isinstance(self.settings, StructureSettings) else 0
        loss, means = (of_drawn + weight * of_mean).mean(), mean.sum()
        terms = [loss, of_drawn.sum() / (len(mean) - means).clamp(min=1), of_mean.sum() / means.clamp(min=1)]
        return torch.stack(terms[: len(self.loss_names)])

    def guiding(self, model: nn.Module, mixed: Tensor, batch: Step, predicted: Tensor) -> Tensor:
        """Return what is added to true images, so that guidance is learned and costs nothing in drawing.

        Parameters
        ----------
        model
            The network.
        mixed
            (B, 1, S, S) between noise and true image.
        batch
            The examples.
        predicted
            (B, 1, S, S) prediction of the network.

        Returns
        -------
        Tensor
            Broadcasts to (B, 1, S, S); 0 without guidance.
        """
        return torch.zeros((), device=mixed.device)

    def autocast(self, tensor: Tensor) -> torch.autocast:
        """Return the context of a forward pass on the device of a tensor."""
        # Fabric's own mixed precision rounds the inputs, too.
        mixed = precision_of(self.settings) == "bfloat16"
        return torch.autocast(tensor.device.type, torch.bfloat16, enabled=mixed)

    def held_out_losses(self, model: nn.Module, batch: ImageBatch, seeds: Sequence[int]) -> list[float]:
        """Return the error of the velocity of each of B images, at times that are spread evenly."""
        size, count, device = self.settings.size_px, len(batch.protein), batch.protein.device
        time = (torch.arange(count, device=device) % 8 + 0.5) / 8
        encoded = encode(batch.protein)
        mixed = between(noise(seeds, size, size).to(device), encoded, time)
        with self.autocast(mixed):
            predicted = model(mixed, time, batch.images, batch.given, batch.condition, 0 * time)
        losses: list[float] = velocity_loss(predicted.float(), encoded, time).tolist()
        return losses


class StructureTask(FlowTask):
    """The structure of the protein image.

    Parameters
    ----------
    pack
        The fields.
    settings
        The recipe's settings.
    shares
        Share of each source in a batch.
    network
        The network to start from; a new one by default.
    """

    grain = False
    loss_names: tuple[str, ...] = ("loss", "drawn", "mean")

    def __init__(
        self,
        pack: ImagePack,
        settings: StageSettings,
        shares: Mapping[str, float],
        network: FlowMatchingUNet | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        super().__init__(network or build_network(settings, len(pack.arrays["class_names"])), settings)
        self.pack, self.measured = pack, held_out(pack)
        self.training_examples = ImageExamples(
            pack, settings.size_px, shares, crowded=settings.crowded, grain=self.grain
        )

    def examples(self, count: int, seed: Sequence[int]) -> ImageBatch:
        """Make examples of the pack."""
        return self.training_examples.batch(count, seed)

    @torch.no_grad()
    def guiding(self, model: nn.Module, mixed: Tensor, batch: Step, predicted: Tensor) -> Tensor:
        """Return a share of the difference that knowing a protein makes (Tang et al., arXiv:2502.12154).

        With the share ``1 - 1 / g`` the network converges to what guidance of strength g would draw: g times
        as far from the prediction for an unknown protein.

        Parameters
        ----------
        model, mixed, batch, predicted
            As in `FlowTask.guiding`.

        Returns
        -------
        Tensor
            (B, 1, S, S); 0 for unknown proteins and mean images.
        """
        examples, _, time, mean = batch
        classes = len(self.pack.arrays["class_names"])
        rows = torch.nonzero((examples.condition[:, classes] > 0) & (mean == 0))[:, 0]
        difference = torch.zeros_like(predicted)
        settings = self.settings
        if not isinstance(settings, StructureSettings) or settings.guidance == 1 or not len(rows):
            return difference
        unknown = examples.condition[rows].clone()
        unknown[:, : classes + 1 + len(self.pack.arrays["word_names"]) + 1] = 0
        with self.autocast(mixed):
            plain = model(
                mixed[rows], time[rows], examples.images[rows], examples.given[rows], unknown, mean[rows]
            )
        difference[rows] = (1 - 1 / settings.guidance) * (predicted[rows] - plain.float())
        return difference

    @torch.no_grad()
    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the loss on held-out images and the correlation of the mean image, by domain."""
        model.eval()
        found: dict[str, list[float]] = {}
        for first in range(0, len(self.measured), _CHUNK):
            rows = self.measured[first : first + _CHUNK]
            self._measure(model, rows, found, landmarks=False)
            if not self.grain:
                self._measure(model, rows, found, landmarks=True)
        return {name: float(np.mean(values)) for name, values in sorted(found.items())}

    def _measure(
        self, model: nn.Module, rows: Ints, found: dict[str, list[float]], *, landmarks: bool
    ) -> None:
        batch = self._plain(model, rows, landmarks=landmarks)
        if not landmarks:
            seeds = [int(row) for row in rows]
            found.setdefault("loss", []).extend(self.held_out_losses(model, batch, seeds))
        if self.grain:
            return
        with self.autocast(batch.protein):
            means = mean_image(model, batch.images, batch.given, batch.condition)
        domains = self.pack.arrays["domain"][self.pack.fields(rows)]
        for domain, real, mean, given in zip(domains, batch.protein, means, batch.given, strict=True):
            if not landmarks or given[1:].all():
                name = f"mean_r_{DOMAIN_METRICS[int(domain)]}{'_landmarks' if landmarks else ''}"
                r = torch.corrcoef(torch.stack([real.flatten(), mean.flatten()]))[0, 1]
                found.setdefault(name, []).append(float(torch.nan_to_num(r)))

    def _plain(self, model: nn.Module, rows: Ints, *, landmarks: bool = False) -> ImageBatch:
        size = self.settings.size_px
        batch = plain_batch(self.pack, rows, size, landmarks=landmarks, grain=self.grain)
        return ImageBatch(*(part.to(device_of(model)) for part in batch))

    @torch.no_grad()
    def samples(self, model: nn.Module) -> Image.Image | None:
        """Draw each class into a few held-out nuclei.

        A line of the sheet: nucleus and real protein, then a drawn image of each class; below, microtubules
        and the mean images.

        Returns
        -------
        Image or None
            The sheet; None without held-out images.
        """
        model.eval()
        lines = []
        for number, row in enumerate(shown_cells(self.pack, self.measured)):
            lines += self._shown(model, row, landmarks=number == 2 * SHOWN_CELLS - 1)
        return sheet(lines)

    def _shown(self, model: nn.Module, row: int, *, landmarks: bool) -> list[Tensor]:
        arrays, size, device = self.pack.arrays, self.settings.size_px, device_of(model)
        batch = self._plain(model, np.array([row]), landmarks=landmarks)
        classes = len(arrays["class_names"])
        domain = int(arrays["domain"][self.pack.fields(np.array([row]))[0]])
        words, ones = torch.zeros(classes, len(arrays["word_names"])), torch.ones(classes)
        domains = torch.from_numpy(one_hot(self.pack, domain)).expand(classes, -1)
        known = condition(0.97 * torch.eye(classes) + 0.02, ones, words, 0 * ones, domains).to(device)
        images, given = batch.images.expand(classes, -1, -1, -1), batch.given.expand(classes, -1)
        begin = noise(range(classes), size, size).to(device)
        with self.autocast(begin):
            drawn = draw(model, begin, images, given, known)
            means = mean_image(model, images, given, known)
        return [
            torch.cat([batch.images[0, 0], left, *some[:, 0]], 1).cpu()
            for left, some in ((batch.protein[0, 0], drawn), (batch.images[0, 1], means))
        ]


class GrainTask(StructureTask):
    """What is finer than the structure: a task whose network is given nucleus and coarse protein image."""

    grain = True
    loss_names = ("loss",)

    @torch.no_grad()
    def samples(self, model: nn.Module) -> Image.Image | None:
        """Add grain to held-out images: a line is nucleus, real, coarse and two drawn images of a cell."""
        model.eval()
        rows = self.measured[: 4 * SHOWN_CELLS]
        if not len(rows):
            return None
        size, device, batch = self.settings.size_px, device_of(model), self._plain(model, rows)
        columns = [batch.images[:, :1], batch.protein, batch.images[:, 1:]]
        for seed in (0, 1):
            begin = noise(range(seed * len(rows), (seed + 1) * len(rows)), size, size).to(device)
            with self.autocast(begin):
                columns.append(draw(model, begin, batch.images, batch.given, batch.condition, steps=3))
        return sheet(list(torch.cat(columns, 3)[:, 0].cpu()))


class _Steps(Dataset[Step]):
    """The batches of a task by the number of their step."""

    def __init__(self, task: FlowTask) -> None:
        self.task = task

    def __getitem__(self, number: int) -> Step:
        return self.task.step(number)


def held_out(pack: ImagePack) -> Ints:
    """Choose held-out protein images to measure on, of each source `VALIDATED`, localizations in turn."""
    rows = pack.rows("validation") if len(pack.rows("validation")) else pack.rows("test")
    rows = rows[pack.examples[rows, 1] == PROTEIN]
    rng, chosen = np.random.default_rng(0), []
    present = pack.arrays["source"][pack.fields(rows)]
    for source in [each for each in MEASURED if each in present] or np.unique(present):
        members = rng.permutation(rows[pack.arrays["source"][pack.fields(rows)] == source])
        counts: dict[bytes, int] = {}
        order = []
        for row in members:
            classes, _, trust = pack.labels(int(row))
            if trust:
                counts[classes.tobytes()] = turn = counts.get(classes.tobytes(), 0) + 1
                order.append((turn, int(row)))
        chosen += [row for _, row in sorted(order)[:VALIDATED]]
    return np.array(chosen, np.int64)


def shown_cells(pack: ImagePack, rows: Ints) -> list[int]:
    """Choose held-out examples to show: `SHOWN_CELLS` of two sources, with a nucleus in the middle."""
    sources = pack.arrays["source"][pack.fields(rows)]
    usual = [each for each in ("opencell_crops", "hpa_u2os_cells") if each in sources]
    shown = []
    for source in usual or list(dict.fromkeys(sources))[:2]:
        middles = [
            (pack.window(int(pack.examples[row, 0]), 16)[0].mean() < 0.3, int(row))
            for row in rows[sources == source]
        ]
        shown += [row for _, row in sorted(middles, key=lambda each: each[0])[:SHOWN_CELLS]]
    return shown


def sheet(lines: list[Tensor]) -> Image.Image | None:
    """Set rows (H, W) in [0, 1] below each other; None without any."""
    if not lines:
        return None
    grey = np.round(torch.cat(lines).clamp(0, 1).numpy() * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network."""
    return next(model.parameters()).device


def _kernels(network: FlowMatchingUNet) -> tuple[list[Tensor], list[Tensor]]:
    """Return the 3 x 3 kernels between features, and all other parameters."""
    ends, named = ("stem", "unfold", "finish"), list(network.named_parameters())
    inner = {name for name, each in named if each.shape[2:] == (3, 3) and not name.startswith(ends)}
    kernels: list[Tensor] = [each for name, each in named if name in inner]
    return kernels, [each for name, each in named if name not in inner]
