"""The training loop: every step a function of the recipe, the data and how far the run has come.

Lightning's Fabric and not its Trainer: devices, processes and precision are Lightning's, the order of things
is written here, so that a run that was killed within an epoch goes on at the very batch.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lightning as L  # noqa: N812
import numpy as np
import torch
from lightning.fabric.wrappers import _FabricModule
from torch import Tensor
from torch.utils.data import DataLoader

from deepgps.errors import DeepGPSError
from deepgps.localization import class_set
from deepgps.models.deepgps import DeepGPS, Drawn
from deepgps.training.joint.inputs.batches import Batch, Inputs, Parts, epoch_order
from deepgps.training.joint.inputs.data import TrainingData
from deepgps.training.joint.learning.checkpoint import BEST, Progress, Row, load_last, save_last, save_whole
from deepgps.training.joint.learning.devices import together
from deepgps.training.joint.learning.losses import crop_losses, weighted
from deepgps.training.joint.learning.schedule import learning_rate
from deepgps.training.joint.learning.synchronised import synchronise
from deepgps.training.joint.learning.validate import IMAGE_LOSS, Evaluation, evaluate, images, loss_names
from deepgps.training.joint.settings import JointRecipe


class Log(Protocol):
    """Who is told how it goes."""

    def begin(self, progress: Progress, parts: int) -> None: ...  # noqa: D102
    def step(self, progress: Progress) -> None: ...  # noqa: D102
    def epoch(self, progress: Progress) -> None: ...  # noqa: D102


@dataclass(slots=True)
class Fit:
    """All that training needs.

    Attributes
    ----------
    fabric
        Devices, processes and precision.
    recipe, data, inputs
        What is trained, on what.
    module, model
        The network, and the same as the processes hold it.
    optimiser
        AdamW.
    run
        Folder of the run.
    """

    fabric: L.Fabric
    recipe: JointRecipe
    data: TrainingData
    inputs: Inputs
    module: DeepGPS
    model: _FabricModule
    optimiser: torch.optim.Optimizer
    run: Path

    @property
    def steps(self) -> int:
        """Steps of the optimiser in an epoch."""
        return max(len(self.data.rows["train"]) // self.recipe.training.batch_size, 1)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """What is summed over an epoch, in this order."""
        penalty = ("orthogonality",) if "structure" in self.recipe.protein.inputs else ()
        return ("loss", *loss_names(self.recipe), *penalty)


def set_up(
    fabric: L.Fabric, recipe: JointRecipe, data: TrainingData, inputs: Inputs, module: DeepGPS, run: Path
) -> Fit:
    """Lay the network out for its devices, with its optimiser."""
    settings = recipe.training
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1:
        synchronise(module)
    optimiser = torch.optim.AdamW(
        module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    model, wrapped = fabric.setup(module, optimiser)
    return Fit(fabric, recipe, data, inputs, module, model, wrapped, run)


@together()
def fit(task: Fit, log: Log) -> Progress:
    """Train to the end, from where the run's folder says it was.

    Raises
    ------
    DeepGPSError
        If the loss is no longer a number, or another process of the run has ended.
    OSError
        If a checkpoint cannot be written.
    """
    progress = load_last(task.run, task.module, task.optimiser)
    settings = task.recipe.training
    log.begin(progress, task.steps * settings.accumulate)
    while progress.epoch < settings.max_epochs and progress.stale < (settings.patience or np.inf):
        _run_epoch(task, progress, log)
        rows = task.data.rows["validation"]
        found = evaluate(task.fabric, task.model, task.recipe, task.data, task.inputs, rows)
        _close_epoch(task, progress, found)
        log.epoch(progress)
    return progress


def _run_epoch(task: Fit, progress: Progress, log: Log) -> None:
    """Train on the parts of the epoch that are still to come."""
    settings, fabric = task.recipe.training, task.fabric
    order = epoch_order(
        task.data,
        task.data.rows["train"],
        epoch=progress.epoch,
        batch_size=settings.batch_size,
        balanced=settings.balanced,
        augment=settings.augment,
        seed=settings.seed,
    )
    parts = Parts(task.data, task.inputs, order, settings.accumulate, fabric.global_rank, fabric.world_size)
    to_come = range(progress.part, len(parts))
    loader = DataLoader(
        parts,
        batch_size=None,
        sampler=to_come,
        num_workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",
    )
    sums = torch.zeros(len(task.loss_names), dtype=torch.float64, device=fabric.device)
    sums += torch.tensor(progress.sums or [0.0], dtype=torch.float64, device=fabric.device)
    kept = time.monotonic()
    task.model.train()
    for number, batch in zip(to_come, loader, strict=True):
        sums += _run_part(task, fabric.to_device(batch), progress.epoch, number)
        progress.part = number + 1
        log.step(progress)
        due = time.monotonic() - kept > 60 * settings.checkpoint_minutes
        if due and progress.part % settings.accumulate == 0:
            progress.sums = _finite(sums.tolist(), progress, task)
            _save(task, progress)
            kept = time.monotonic()
    progress.sums = _finite(sums.tolist(), progress, task)


def _run_part(task: Fit, batch: Batch, epoch: int, number: int) -> Tensor:
    """Learn from a part of a batch; the last part of one takes the step.

    Returns
    -------
    Tensor
        The losses, in the order of `Fit.loss_names`; means over all processes.
    """
    settings, fabric = task.recipe.training, task.fabric
    seeds = np.random.SeedSequence([settings.seed, epoch, number, fabric.global_rank])
    torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
    last = (number + 1) % settings.accumulate == 0
    with fabric.no_backward_sync(task.model, enabled=not last):
        losses = _losses(task, batch)
        fabric.backward(losses[0] / settings.accumulate)
    if last:
        step = epoch * task.steps + number // settings.accumulate
        for group in task.optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, task.steps)
        task.optimiser.step()
        task.optimiser.zero_grad()
    seen = losses.detach().double()
    return fabric.all_reduce(seen, reduce_op="mean") if fabric.world_size > 1 else seen  # type: ignore[return-value]


def _losses(task: Fit, batch: Batch) -> Tensor:
    """The loss and its parts, means over the crops, in the order of `Fit.loss_names`."""
    nucleus, real = images(batch)
    weights, multi_label = task.recipe.losses, class_set(task.recipe.class_set).multi_label
    drawn: Drawn = task.model(nucleus, batch.protein)
    parts = crop_losses(
        drawn.image.float(), drawn.logits.float(), real, batch.targets, weights, multi_label=multi_label
    )
    means = {name: value.mean() for name, value in parts.items()}
    if "orthogonality" in task.loss_names:
        means["orthogonality"] = drawn.penalty.float()
    return torch.stack([weighted(means, weights), *means.values()])


def _finite(losses: list[float], progress: Progress, task: Fit) -> list[float]:
    """Give the losses back if they are numbers: weights that are not any more are never kept."""
    if not np.isfinite(losses).all():
        raise DeepGPSError(
            f"The loss is no longer a number in epoch {progress.epoch + 1}; lower training.learning_rate "
            f"(now {task.recipe.training.learning_rate:g}) and train into another folder."
        )
    return losses


def _close_epoch(task: Fit, progress: Progress, found: Evaluation) -> None:
    """Note the epoch's figures, keep the weights if they are the best yet, and be ready for the next."""
    progress.history.append(_row(task, progress, found))
    # A label learned by heart is sure of what it gets wrong long before the images are good.
    _, loss = _finite([found.mean("loss"), found.mean(IMAGE_LOSS)], progress, task)
    better = loss < progress.best
    progress.best, progress.stale = (loss, 0) if better else (progress.best, progress.stale + 1)
    progress.epoch, progress.part, progress.sums = progress.epoch + 1, 0, []
    if better and task.fabric.global_rank == 0:
        save_whole({"model": task.module.state_dict(), "epoch": progress.epoch}, task.run / BEST)
    _save(task, progress)


def _row(task: Fit, progress: Progress, found: Evaluation) -> Row:
    settings = task.recipe.training
    steps = (progress.epoch + 1) * task.steps
    row: Row = {"epoch": progress.epoch + 1, "steps": steps}
    row["learning_rate"] = learning_rate(settings, steps - 1, task.steps)
    for name, value in zip(task.loss_names, progress.sums, strict=True):
        row[f"train_{name}" if name == "loss" else f"train_loss_{name}"] = value / progress.part
    return row | {f"validation_{name}": found.mean(name) for name in found.figures}


def _save(task: Fit, progress: Progress) -> None:
    if task.fabric.global_rank == 0:
        save_last(task.run, task.module, task.optimiser, progress)
