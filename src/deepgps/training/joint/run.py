"""A run of a joint recipe: one folder, one writer, and ``--resume`` from wherever it was.

What the folder holds: ``docs/reference/runs.md``.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from deepgps.datasets.crops.store import MANIFEST
from deepgps.files import lock_folder, remove_temporary_files
from deepgps.models.deepgps import DeepGPS
from deepgps.training.claim import claim
from deepgps.training.joint.build import build_model
from deepgps.training.joint.folder import inputs_of, write_beginnings, write_endings
from deepgps.training.joint.inputs.data import TrainingData, load_training_data
from deepgps.training.joint.inputs.protein_inputs import ProteinInputs, protein_inputs
from deepgps.training.joint.learning.checkpoint import LAST, best_weights
from deepgps.training.joint.learning.devices import main_process, precision, start
from deepgps.training.joint.learning.loop import Fit, fit, set_up
from deepgps.training.joint.learning.validate import evaluate
from deepgps.training.joint.settings import JointRecipe
from deepgps.training.joint.telling.figures import measure
from deepgps.training.joint.telling.logs import Silent, TrainingLog
from deepgps.training.origin import BASE, write_origin


class Start(Protocol):
    """Weights that training starts from in place of fresh ones."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    def load(self, model: DeepGPS, data: TrainingData, inputs: ProteinInputs) -> None: ...  # noqa: D102


def train(
    recipe: JointRecipe,
    store: Path,
    run: Path,
    *,
    resume: bool = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
    start_from: Start | None = None,
) -> None:
    """Train what the recipe asks for, on a crop store, into the folder ``run``.

    With several processes each calls it; one of them writes.

    Parameters
    ----------
    recipe
        What to train.
    store
        The crop store.
    run
        The run's folder; made if missing.
    resume
        Go on with the run that the folder holds; nothing is done to a finished one.
    split
        The split; else the store's, else one is made.
    structures
        Folder of structures, for recipes that look at them.
    cache
        Folder of embeddings.
    offline
        Whether to take the encoder from this machine only.
    start_from
        What to start from; fresh weights where it is not given.

    Raises
    ------
    InputError
        If the data cannot be used, the folder holds a run that is not to be resumed or one of another
        recipe, other data or another encoder, another process writes to it, or devices are asked for that
        are not there.
    DeepGPSError
        If the loss is no longer a number.
    """
    data = load_training_data(recipe, store, split=split, structures=structures)
    made_of = inputs_of(store, data.store, split, structures)
    if start_from is not None:
        made_of["fine-tuned from"] = start_from.fingerprint
    with _quiet(), _claimed(run, recipe, made_of, resume=resume):
        if (run / MANIFEST).exists():
            return
        fabric = start(recipe.training)
        with fabric.rank_zero_first():
            inputs = protein_inputs(recipe, data, cache=cache, offline=offline)
        if fabric.global_rank == 0:
            write_beginnings(run, data, inputs)
        model = _network(recipe, data, inputs, start_from)
        _train(set_up(fabric, recipe, data, inputs, model, run), start_from)


def _network(recipe: JointRecipe, data: TrainingData, inputs: ProteinInputs, start: Start | None) -> DeepGPS:
    """Build the network, with fresh weights or those that it starts from."""
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe, inputs.embedding_dim)
    if start is not None:
        start.load(model, data, inputs)
    elif recipe.protein.standardise and "sequence" in recipe.protein.inputs:
        model.standardise(*inputs.moments(np.unique(data.protein_of_row[data.rows["train"]])))
    return model


def _note(start: Start, task: Fit) -> None:
    """Measure what training starts from, before it is another."""
    rows = task.data.rows["validation"]
    found = evaluate(task.fabric, task.model, task.recipe, task.data, task.inputs, rows)
    if task.fabric.global_rank == 0:
        figures = {f"validation_{name}": found.mean(name) for name in found.figures}
        write_origin(task.run, start.name, start.fingerprint, figures)


def _train(task: Fit, start: Start | None) -> None:
    if start is not None and not (task.run / BASE).exists():
        _note(start, task)
    if task.fabric.global_rank:
        progress = fit(task, Silent())
    else:
        with TrainingLog(task) as log:
            progress = fit(task, log)
    task.fabric.barrier()
    weights = best_weights(task.run, task.recipe.training.keep)
    task.module.load_state_dict(weights)
    measured = measure(task)
    if task.fabric.global_rank == 0:
        write_endings(task, progress, measured, weights, precision(task.recipe.training))


@contextmanager
def _claimed(run: Path, recipe: JointRecipe, made_of: Mapping[str, str], *, resume: bool) -> Iterator[None]:
    """Hold the run's folder against other writers; the process that writes does it for all."""
    if not main_process():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    handle = lock_folder(run)
    try:
        for folder in (run, (run / LAST).parent):
            remove_temporary_files(folder)
        claim(run, recipe, made_of, resume=resume)
        yield
    finally:
        os.close(handle)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what Lightning and torch tell developers."""
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
