"""The files of a run's folder that are written once, at its beginning and at its end."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

import deepgps
from deepgps.datasets.crops.store import INDEX, MANIFEST, PROTEINS, CropStore
from deepgps.datasets.fingerprints import fingerprints
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.training.claim import INPUTS, write_json
from deepgps.training.joint.inputs.data import SPLIT, TrainingData
from deepgps.training.joint.inputs.protein_inputs import ProteinInputs
from deepgps.training.joint.learning.checkpoint import Progress
from deepgps.training.joint.learning.loop import Fit
from deepgps.training.joint.names import CALIBRATION, ENCODER, LEFT_OUT, METRICS, WEIGHTS
from deepgps.training.joint.telling.figures import Measured, as_json
from deepgps.training.joint.telling.report import write_report

_SAMPLED_CROPS = 64


def inputs_of(folder: Path, store: CropStore, split: Path | None, structures: Path | None) -> dict[str, str]:
    """Hash what a run is made of: the store's tables and some of its crops, the split, the structures."""
    tables = [folder / name for name in (MANIFEST, INDEX, PROTEINS)]
    found = fingerprints([path for path in tables if path.exists()])
    if (chosen := split or folder / SPLIT).exists():
        found["split"] = hashlib.sha256(chosen.read_bytes()).hexdigest()
    # Of a store of many gigabytes, what tells it from any other.
    rows = np.linspace(0, len(store.crops) - 1, _SAMPLED_CROPS).astype(np.int64)
    found[f"{_SAMPLED_CROPS} crops"] = hashlib.sha256(store.crops[rows].tobytes()).hexdigest()
    if structures is not None:
        each = sorted(fingerprints([structures]).items())
        found["structures"] = hashlib.sha256(json.dumps(each).encode()).hexdigest()
    return found


def write_beginnings(run: Path, data: TrainingData, inputs: ProteinInputs) -> None:
    """Write the encoder, the split and the proteins left out.

    Raises
    ------
    InputError
        If the run was begun with another encoder.
    """
    spec = dict(inputs.spec)
    path = run / ENCODER
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != spec:
        raise InputError(
            f"'{run}' was begun with other weights of the encoder '{spec['name']}'; name another folder."
        )
    write_json(path, spec)
    _write_csv(run / SPLIT, ("protein_id", "split"), sorted(data.split.items()))
    _write_csv(run / LEFT_OUT, ("protein_id", "reason"), data.left_out)


def write_endings(
    task: Fit, progress: Progress, measured: Measured, weights: Mapping[str, Tensor], precision: str
) -> None:
    """Write what a finished run leaves, the manifest last."""
    run = task.run
    with atomic_path(run / WEIGHTS) as draft:
        save_file({name: value.contiguous() for name, value in weights.items()}, draft)
    if (calibration := measured.calibration) is not None:
        fields = ("classes", "scale", "bias", "thresholds")
        write_json(run / CALIBRATION, {name: list(getattr(calibration, name)) for name in fields})
    write_json(run / METRICS, as_json(measured.metrics()))
    gpu = task.fabric.device.type == "cuda"
    manifest = {
        "deepgps": deepgps.__version__,
        "packages": {name: version(name) for name in ("torch", "lightning", "numpy")},
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "processes": task.fabric.world_size,
        "precision": precision,
        "seed": task.recipe.training.seed,
        "epochs": progress.epoch,
        "inputs": json.loads((run / INPUTS).read_text(encoding="utf-8")),
    }
    write_report(task, progress, measured, manifest)
    write_json(run / MANIFEST, manifest)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    with atomic_path(path) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8")
