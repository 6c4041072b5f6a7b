"""``deepgps train`` for a model of the paper: from a crop store to weights, calibration, metrics and report.

The files of a run: ``docs/reference/runs.md``.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import deepgps
from deepgps.datasets.crops.store import CROPS_INDEX, CROPS_MANIFEST, PROTEINS, CropStore
from deepgps.datasets.splits import SPLIT_FILE
from deepgps.errors import InputError
from deepgps.files import atomic_path, hash_files, write_csv
from deepgps.models.deepgps import DeepGPS
from deepgps.training.joint.data import TrainingData, load_training_data
from deepgps.training.joint.measure import RunMetrics, measure
from deepgps.training.joint.protein_inputs import ProteinInputs, protein_inputs
from deepgps.training.joint.report import write_training_report
from deepgps.training.joint.task import JointTask, build_model
from deepgps.training.log import TrainingLog
from deepgps.training.loop import (
    BEST,
    LAST,
    Progress,
    Trainer,
    is_main_process,
    precision_of,
    quiet,
    read_checkpoint,
    start,
)
from deepgps.training.recipe import JointRecipe
from deepgps.training.run_folder import BASE, INPUTS, RUN_MANIFEST, claimed, read_json, write_base, write_json

WEIGHTS, ENCODER, CALIBRATION = "weights.safetensors", "encoder.json", "calibration.json"
RUN_METRICS, RUN_LEFT_OUT = "metrics.json", "left_out.csv"

_SAMPLED_CROPS = 64


class StartingWeights(Protocol):
    """Weights that training starts from instead of fresh ones; `deepgps.training.finetune` has them."""

    @property
    def name(self) -> str:
        """Name and version of their model."""

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weights, or of the bundle."""

    def load(self, model: DeepGPS, encoder: Mapping[str, Any]) -> None:
        """Load the weights into a network whose inputs come from this encoder."""


def train_joint(
    recipe: JointRecipe,
    store: Path,
    run: Path,
    *,
    resume: bool = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
    start_from: StartingWeights | None = None,
) -> None:
    """Train a model of the paper on a crop store.

    With several processes, each calls this; the main process writes the files.

    Parameters
    ----------
    recipe
        The recipe.
    store
        The crop store.
    run
        Folder of the run; created if missing.
    resume
        Continue the run in the folder; a finished one is left as it is.
    split
        The split; by default the store's, or else one is made.
    structures
        Folder of structures, for recipes that use them.
    cache
        Folder of the embedding cache.
    offline
        Whether to use local encoders only.
    start_from
        Weights to start from; fresh ones by default.

    Raises
    ------
    InputError
        If the data cannot be used, the folder holds another run or one that is not resumed, another process
        writes to it, or there are too few devices.
    DeepGPSError
        If the loss is not finite.
    """
    every_class = start_from is None
    data = load_training_data(recipe, store, split=split, structures=structures, every_class=every_class)
    made_of = fingerprint_inputs(store, data.store, split, structures)
    if start_from is not None:
        made_of["fine-tuned from"] = start_from.fingerprint
    # One process locks and writes the folder for all.
    folder = claimed(run, recipe, made_of, resume=resume) if is_main_process() else nullcontext()
    with quiet(), folder:
        if (run / RUN_MANIFEST).exists():
            return
        training = recipe.training
        fabric = start(precision_of(training), training.devices, training.nodes)
        with fabric.rank_zero_first():
            inputs = protein_inputs(recipe, data, cache=cache, offline=offline)
        if fabric.global_rank == 0:
            _write_inputs(run, data, inputs)
        model = _initial_model(recipe, data, inputs, start_from)
        task = JointTask(recipe, data, inputs, model, fabric)
        trainer = Trainer.of(task, fabric, run)
        if start_from is not None and not (run / BASE).exists():
            before = {f"validation_{name}": value for name, value in task.validate(trainer.model).items()}
            if fabric.global_rank == 0:
                write_base(run, start_from.name, start_from.fingerprint, before)
        with TrainingLog(task, run) if fabric.global_rank == 0 else nullcontext() as log:
            progress = trainer.fit(log)
        fabric.barrier()
        kept = BEST if recipe.training.keep == "best" else LAST
        weights: dict[str, Tensor] = read_checkpoint(run / kept)["model"]
        task.module.load_state_dict(weights)
        measured = measure(task, trainer.model)
        if fabric.global_rank == 0:
            _write_results(run, task, trainer, progress, measured, weights)


def _initial_model(
    recipe: JointRecipe, data: TrainingData, inputs: ProteinInputs, start_from: StartingWeights | None
) -> DeepGPS:
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe, inputs.embedding_dim)
    if start_from is not None:
        start_from.load(model, inputs.spec)
    elif recipe.protein.standardise and "sequence" in recipe.protein.inputs:
        model.standardise(*inputs.moments(np.unique(data.protein_of_row[data.rows["train"]])))
    return model


# ---- files ----


def fingerprint_inputs(
    folder: Path, store: CropStore, split: Path | None, structures: Path | None
) -> dict[str, str]:
    """Hash the tables of a store and some of its crops, the split and the structures."""
    tables = [folder / name for name in (CROPS_MANIFEST, CROPS_INDEX, PROTEINS)]
    found = hash_files([path for path in tables if path.exists()])
    if (chosen := split or folder / SPLIT_FILE).exists():
        found["split"] = hashlib.sha256(chosen.read_bytes()).hexdigest()
    # Enough to tell a store of many gigabytes from any other.
    rows = np.linspace(0, len(store.crops) - 1, _SAMPLED_CROPS).astype(np.int64)
    found[f"{_SAMPLED_CROPS} crops"] = hashlib.sha256(store.crops[rows].tobytes()).hexdigest()
    if structures is not None:
        each = sorted(hash_files([structures]).items())
        found["structures"] = hashlib.sha256(json.dumps(each).encode()).hexdigest()
    return found


def _write_inputs(run: Path, data: TrainingData, inputs: ProteinInputs) -> None:
    """Write the encoder, the split and the proteins left out; check the encoder of a resumed run."""
    spec = dict(inputs.spec)
    path = run / ENCODER
    if path.exists() and read_json(path) != spec:
        raise InputError(
            f"'{run}' was started with other weights of the encoder '{spec['name']}'; use another folder."
        )
    write_json(path, spec)
    write_csv(run / SPLIT_FILE, ("protein_id", "split"), sorted(data.split.items()))
    write_csv(run / RUN_LEFT_OUT, ("protein_id", "reason"), data.left_out)


def _write_results(
    run: Path,
    task: JointTask,
    trainer: Trainer,
    progress: Progress,
    measured: RunMetrics,
    weights: Mapping[str, Tensor],
) -> None:
    """Write weights, calibration, metrics and report; the manifest last."""
    with atomic_path(run / WEIGHTS) as draft:
        save_file({name: value.contiguous() for name, value in weights.items()}, draft)
    if (calibration := measured.calibration) is not None:
        fields = ("classes", "scale", "bias", "thresholds")
        write_json(run / CALIBRATION, {name: list(getattr(calibration, name)) for name in fields})
    write_json(run / RUN_METRICS, {name: metric.model_dump() for name, metric in measured.by_name().items()})
    gpu = trainer.fabric.device.type == "cuda"
    manifest = {
        "deepgps": deepgps.__version__,
        "packages": {name: version(name) for name in ("torch", "lightning", "numpy")},
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processes": trainer.fabric.world_size,
        "precision": precision_of(task.settings),
        "seed": task.settings.seed,
        "epochs": progress.epoch,
        "inputs": read_json(run / INPUTS),
    }
    write_training_report(run, task, progress, measured, manifest, task.samples(trainer.model))
    write_json(run / RUN_MANIFEST, manifest)
