"""The training loop: epochs, steps, checkpoints, resuming, devices.

It knows nothing of what is learned; that is a `Task`. Every step depends on the seed, the epoch and the
number of the step alone, so a run that was killed within an epoch continues at the same batch and ends with
the same weights. Devices, processes and precision are those of Lightning's Fabric.
"""

import logging
import math
import os
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.fabric.wrappers import _FabricModule
from PIL import Image
from torch import Tensor, nn

from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from deepgps.training.recipe import LoopSettings, TrainingSettings
from deepgps.training.sync_batch_norm import synchronise

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"

EpochMetrics = dict[str, float]
"""Metrics of one epoch, by name: a row of ``metrics.csv``."""


class Task(Protocol):
    """What is learned: a network, its data and its loss.

    Attributes
    ----------
    module
        The network.
    steps
        Optimiser steps in an epoch.
    accumulate
        Batches whose gradients make one step.
    loss_names
        Names of the values that `losses` returns; the first is the loss.
    batch_norm_learns
        Whether batch norms update their statistics.
    best_metric
        The metric of `validate` by which the best epoch is chosen, lowest first; None without validation.
    patience
        Epochs without a better one before training stops; None never stops early.
    """

    module: nn.Module
    steps: int
    accumulate: int
    loss_names: tuple[str, ...]
    batch_norm_learns: bool
    best_metric: str | None
    patience: int | None

    @property
    def settings(self) -> LoopSettings:
        """Settings of the loop."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the module's parameters."""

    def schedule(self, step: int) -> Mapping[str, Any]:
        """Return the optimiser's options in a step, counted from 0 over all epochs; ``lr`` among them."""

    def batches(self, epoch: int, first: int) -> Iterable[Any]:
        """Yield the batches of an epoch from number ``first`` on, ``steps * accumulate`` in all."""

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the values named by `loss_names`, means over the batch."""

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return metrics on data that is not trained on; may be empty."""

    def samples(self, model: nn.Module) -> Image.Image | None:
        """Draw a few samples, for the log; called by the main process only."""


@dataclass(slots=True)
class Progress:
    """How far a run has come.

    Attributes
    ----------
    epoch
        Finished epochs.
    batch
        Batches of the current epoch that are done.
    sums
        Sums of the losses over these batches, in the order of `Task.loss_names`.
    history
        Metrics of every finished epoch.
    best
        Lowest value of `Task.best_metric` so far.
    stale
        Epochs since it was reached.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[EpochMetrics] = field(default_factory=list)
    best: float = float("inf")
    stale: int = 0


class Log(Protocol):
    """Reports the progress of a run; `deepgps.training.log` has the one that is used."""

    def begin(self, progress: Progress) -> None:
        """Report that a run begins, or continues from this progress."""

    def batch(self, progress: Progress) -> None:
        """Report that a batch is done."""

    def epoch(self, progress: Progress, samples: Image.Image | None) -> None:
        """Report that an epoch is done, with the images of `Task.samples`."""


@dataclass(slots=True)
class Trainer:
    """A task on its devices.

    Attributes
    ----------
    task, fabric
        What is learned, and on what.
    folder
        Folder of the checkpoints.
    model, optimizer
        The task's network and optimiser, as Fabric wraps them.
    """

    task: Task
    fabric: L.Fabric
    folder: Path
    model: _FabricModule
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, task: Task, fabric: L.Fabric, folder: Path) -> "Trainer":
        """Move a task's network to its devices and make its optimiser."""
        task.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1:
            synchronise(task.module)
        model, optimizer = fabric.setup(task.module, task.optimizer())
        return cls(task, fabric, folder, model, optimizer)

    def fit(self, log: Log | None = None) -> Progress:
        """Train to the end, from where the checkpoint in the folder is.

        Parameters
        ----------
        log
            Reports the progress; None in all processes but the main one.

        Returns
        -------
        Progress
            Epochs, history and best epoch.

        Raises
        ------
        DeepGPSError
            If the loss is not finite, or another process of the run has ended.
        OSError
            If a checkpoint cannot be written.
        """
        with _peers_alive():
            return self._fit(log)

    def _fit(self, log: Log | None) -> Progress:
        progress = load_last(self.folder, self.task.module, self.optimizer)
        if log:
            log.begin(progress)
        patience = self.task.patience or math.inf
        while progress.epoch < self.task.settings.max_epochs and progress.stale < patience:
            self._train_epoch(progress, log)
            self._end_epoch(progress, self.task.validate(self.model))
            if log:
                log.epoch(progress, self.task.samples(self.model))
        return progress

    def _train_epoch(self, progress: Progress, log: Log | None) -> None:
        task = self.task
        sums = torch.zeros(len(task.loss_names), dtype=torch.float64, device=self.fabric.device)
        sums += torch.tensor(progress.sums or [0.0], dtype=torch.float64, device=self.fabric.device)
        saved = time.monotonic()
        self.model.train(task.batch_norm_learns)
        for number, batch in enumerate(task.batches(progress.epoch, progress.batch), progress.batch):
            sums += self._train_batch(self.fabric.to_device(batch), progress.epoch, number)
            progress.batch = number + 1
            if log:
                log.batch(progress)
            due = time.monotonic() - saved > 60 * task.settings.checkpoint_minutes
            if due and progress.batch % task.accumulate == 0:
                progress.sums = self._finite(sums.tolist(), progress)
                self._save(progress)
                saved = time.monotonic()
        progress.sums = self._finite(sums.tolist(), progress)

    def _train_batch(self, batch: Any, epoch: int, number: int) -> Tensor:
        """Compute gradients of a batch, and step where it is the last of a step.

        Returns
        -------
        Tensor
            The losses, in the order of `Task.loss_names`; means over all processes.
        """
        task, fabric = self.task, self.fabric
        seeds = np.random.SeedSequence([task.settings.seed, epoch, number, fabric.global_rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        last = (number + 1) % task.accumulate == 0
        with fabric.no_backward_sync(self.model, enabled=not last):
            losses = task.losses(self.model, batch)
            fabric.backward(losses[0] / task.accumulate)
        if last:
            options = task.schedule(epoch * task.steps + number // task.accumulate)
            for group in self.optimizer.param_groups:
                group.update(options)
            self.optimizer.step()
            self.optimizer.zero_grad()
        values = losses.detach().double()
        return fabric.all_reduce(values, reduce_op="mean") if fabric.world_size > 1 else values  # type: ignore[return-value]

    def _finite(self, losses: list[float], progress: Progress) -> list[float]:
        """Return the losses if they are finite; weights that are not are never saved."""
        if not np.isfinite(losses).all():
            raise DeepGPSError(
                f"The loss is not finite in epoch {progress.epoch + 1}; lower learning_rate "
                f"(now {self.task.settings.learning_rate:g}) and train into another folder."
            )
        return losses

    def _end_epoch(self, progress: Progress, validation: Mapping[str, float]) -> None:
        """Record the epoch's metrics, and save the weights, also as the best if they are."""
        self._finite([value for name, value in validation.items() if name.startswith("loss")], progress)
        progress.history.append(self._metrics(progress, validation))
        better = False
        if self.task.best_metric is not None:
            value = validation[self.task.best_metric]
            better = value < progress.best
            progress.best, progress.stale = (value, 0) if better else (progress.best, progress.stale + 1)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, []
        if better and self.fabric.global_rank == 0:
            save_checkpoint(
                {"model": self.task.module.state_dict(), "epoch": progress.epoch}, self.folder / BEST
            )
        self._save(progress)

    def _metrics(self, progress: Progress, validation: Mapping[str, float]) -> EpochMetrics:
        task = self.task
        steps = (progress.epoch + 1) * task.steps
        metrics: EpochMetrics = {"epoch": progress.epoch + 1, "steps": steps}
        metrics["learning_rate"] = task.schedule(steps - 1)["lr"]
        for name, value in zip(task.loss_names, progress.sums, strict=True):
            metrics[f"train_{name}" if name == "loss" else f"train_loss_{name}"] = value / progress.batch
        return metrics | {f"validation_{name}": value for name, value in validation.items()}

    def _save(self, progress: Progress) -> None:
        if self.fabric.global_rank == 0:
            save_last(self.folder, self.task.module, self.optimizer, progress)


@contextmanager
def _peers_alive() -> Iterator[None]:
    """Raise a short error where another process of the run has ended; its own error has the cause."""
    try:
        yield
    except RuntimeError as error:
        # gloo's error for a closed connection has no type of its own.
        if "by peer" in str(error):
            raise DeepGPSError("Another process of the run has ended, and this one with it.") from None
        raise


# ---- checkpoints ----


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values; an earlier file is replaced only once the new one is complete.

    Raises
    ------
    OSError
        If it cannot be written; an earlier file is kept.
    RuntimeError
        If torch cannot serialize the content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, draft.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch wraps the system's error of a full disk.
            if isinstance(cause := error.__context__, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from None
            raise
        file.flush()
        os.fsync(file.fileno())


def save_last(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Save all that a run needs to continue."""
    content = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    save_checkpoint(content, folder / LAST)


def load_last(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Load the last checkpoint into a network and its optimiser; without one, return a new `Progress`.

    Returns
    -------
    Progress
        Where the run stopped.

    Raises
    ------
    InputError
        If the checkpoint is damaged or does not fit the network.
    """
    if not (folder / LAST).exists():
        return Progress()
    content = read_checkpoint(folder / LAST)
    try:
        module.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return Progress(**content["progress"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Checkpoint '{folder / LAST}' is of another model ({error}); use another folder."
        ) from None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; no code in it is executed.

    Returns
    -------
    dict
        What `save_checkpoint` wrote.

    Raises
    ------
    InputError
        If it is damaged or missing.
    """
    try:
        _check_unpacked_size(path)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise InputError(
            f"Checkpoint '{path}' cannot be read ({error}); train into another folder."
        ) from None
    return content


def _check_unpacked_size(path: Path) -> None:
    """Refuse a file that would fill the memory: torch writes tensors without compression."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > 2 * path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes")


# ---- schedules ----


def learning_rate(settings: TrainingSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over all epochs.

    It rises over the share ``warm_up`` of all steps and then follows the schedule: a cosine to 0 at the end,
    a factor ``gamma`` after each epoch, or constant.

    Returns
    -------
    float
        The learning rate.
    """
    total = settings.max_epochs * steps_per_epoch
    rising = round(settings.warm_up * total)
    rise = min(1.0, (step + 1) / (rising + 1))
    if settings.schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * max(0, step - rising) / max(1, total - rising)))
    elif settings.schedule == "exponential":
        fall = settings.gamma ** (step // steps_per_epoch)
    else:
        fall = 1.0
    return settings.learning_rate * rise * fall


def one_cycle(peak: float, step: int, steps: int, warm_up: float) -> dict[str, Any]:
    """Return learning rate and betas of AdamW in a step of a one-cycle schedule (Smith 2018).

    The same numbers as `torch.optim.lr_scheduler.OneCycleLR` gives, as a function of the step alone.

    Parameters
    ----------
    peak
        Highest learning rate.
    step, steps
        The step, from 0, and the number of all steps.
    warm_up
        Share of the steps in which the learning rate rises.

    Returns
    -------
    dict
        ``lr`` and ``betas``, for a parameter group of the optimiser.
    """
    first, last = warm_up * steps - 1, steps - 1
    lowest = peak / 25
    if step <= first:
        share, rates, momenta = step / first if first else 1.0, (lowest, peak), (0.95, 0.85)
    else:
        share, rates, momenta = (step - first) / (last - first), (peak, lowest / 1e4), (0.85, 0.95)
    (rate, momentum) = (
        end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1) for start, end in (rates, momenta)
    )
    return {"lr": rate, "betas": (momentum, 0.999)}


# ---- devices ----


def start(precision: str, devices: int = 1, nodes: int = 1) -> L.Fabric:
    """Start the processes of a run, on GPUs if there are any.

    Parameters
    ----------
    precision
        ``float32``, or ``bfloat16`` for a forward pass in mixed precision.
    devices, nodes
        Processes on each machine, and machines.

    Returns
    -------
    Fabric
        Launched.

    Raises
    ------
    InputError
        If there are fewer GPUs than devices.
    """
    gpus = torch.cuda.device_count()
    if 0 < gpus < devices:
        raise InputError(
            f"training.devices is {devices}, and this machine has {gpus} GPUs; set training.devices={gpus}."
        )
    if gpus:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    fabric = L.Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=devices,
        num_nodes=nodes,
        # Buffers are the same everywhere already: batch norms sum their statistics in every step.
        strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        if devices * nodes > 1
        else "auto",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


@contextmanager
def quiet() -> Iterator[None]:
    """Silence messages of Lightning and torch that are for developers."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(lightning|torch)\b")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def is_main_process() -> bool:
    """Whether this process writes the files of the run; known before `start`, too."""
    return getattr(rank_zero_only, "rank", 0) == 0


def precision_of(settings: LoopSettings) -> str:
    """Return the precision of a run on this machine: ``float32`` or ``bfloat16``."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Missing in older versions of torch; float32 is then slower and not wrong.
    units: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if units.get("amx_bf16") or units.get("avx512_bf16") else "float32"
