"""Evaluate a model on a dataset: metrics beside baselines, written to a folder with a report."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deepgps
from deepgps.bundle import Metric
from deepgps.errors import InputError
from deepgps.evaluation.dataset import DatasetFiles, EvaluationDataset, LeftOut, load_dataset
from deepgps.evaluation.images.measure import (
    RECORD,
    CropMeasurements,
    ImageGenerator,
    measure_crops,
    open_measurements,
)
from deepgps.evaluation.images.metrics import ImageMetrics, image_metrics
from deepgps.evaluation.images.reference import TrainingReference, fit_training_reference
from deepgps.evaluation.labelled_predictions import write_labelled_predictions
from deepgps.evaluation.labels import LabelEvaluation, evaluate_labels
from deepgps.evaluation.report import write_evaluation_report
from deepgps.files import TEMPORARY_PREFIX, atomic_path, hash_files, lock_folder, write_csv
from deepgps.prediction import Predictor

METRICS, METRICS_TABLE, REPORT, LEFT_OUT = "metrics.json", "metrics.csv", "report.html", "left_out.csv"
LABELLED = "labelled_predictions.csv"
"""The table that ``deepgps compare`` reads."""
_RECORDS, _STARTED = f"{TEMPORARY_PREFIX}crops.f32", f"{TEMPORARY_PREFIX}evaluation.json"

OnProgress = Callable[[str, int, int], None]
"""Called with a stage, and how many of how many are done in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an evaluation measured.

    Attributes
    ----------
    predictor
        The model.
    dataset
        What it was evaluated on.
    labels
        Label metrics; without any for a model that only draws.
    images
        Image metrics; None without a crop store.
    measurements
        What was measured of each crop; None without a crop store.
    reference
        What was learned from real training images; None without a crop store.
    notes
        Warnings to read before the metrics; the gravest first.
    about
        Model, data, options and versions, as ``metrics.json`` holds them.
    """

    predictor: Predictor
    dataset: EvaluationDataset
    labels: LabelEvaluation
    images: ImageMetrics | None
    measurements: CropMeasurements | None
    reference: TrainingReference | None
    notes: tuple[str, ...]
    about: dict[str, Any] = field(repr=False)

    def metrics(self) -> dict[str, Metric]:
        """Return every metric by name, such as ``labels/protein/accuracy`` and ``images/drawn/pearson``.

        Returns
        -------
        dict[str, Metric]
            Value, ends of the 95 % interval and number of proteins or crops; undefined metrics are left out.
        """
        return self.labels.metrics() | (self.images.metrics() if self.images else {})


def evaluate(
    predictor: Predictor,
    data: str | Path,
    out: str | Path,
    *,
    split: str = "test",
    split_file: Path | None = None,
    proteins: Path | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> Evaluation:
    """Evaluate a model and write metrics, ``labelled_predictions.csv``, ``left_out.csv`` and ``report.html``.

    A run that was killed continues after the last crop measured, if nothing has changed.

    Parameters
    ----------
    predictor
        The model.
    data
        A crop store, for labels and images, or a table of proteins (Parquet, CSV, TSV), for labels.
    out
        Folder for the results; made if missing.
    split
        The part of the data to evaluate on.
    split_file
        Split by protein; by default ``split.csv`` of the store, or the column ``split`` of its index.
    proteins
        Table of the proteins that the crops show; by default the store's own.
    seed
        Seed of the bootstrap, of the wrong proteins and of the galleries.
    on_progress
        Called with a stage, and how many of how many are done in it.

    Returns
    -------
    Evaluation
        The metrics and everything that they were computed from.

    Raises
    ------
    InputError
        If the data cannot be used, ``out`` is a file, or another process writes to the folder.

    Examples
    --------
    >>> from deepgps import Predictor, evaluate
    >>> done = evaluate(Predictor.load("deepgps-mini"), "crops/opencell", "report")  # doctest: +SKIP
    >>> done.metrics()["images/drawn/pearson"].value  # doctest: +SKIP
    0.31
    """
    files, out = DatasetFiles(Path(data), split, split_file, proteins), Path(out)
    dataset = load_dataset(files, predictor)
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file; give --out a folder.")
    out.mkdir(parents=True, exist_ok=True)
    handle = lock_folder(out)
    try:
        about = _about(predictor, files, dataset, seed)
        labels = evaluate_labels(predictor, dataset, seed=seed, on_progress=on_progress)
        images, measurements, reference, notes = None, None, None, list(labels.notes)
        if dataset.store is not None and len(dataset.rows):
            reference = fit_training_reference(dataset, about["pixel_size_um"], seed, on_progress)
            notes += [reference.note] if reference.note else []
            measurements = _measure(predictor, dataset, reference, out, about, on_progress)
            images = image_metrics(measurements, dataset, reference, seed=seed)
        all_notes = (*notes, *dataset.notes)
        done = Evaluation(predictor, dataset, labels, images, measurements, reference, all_notes, about)
        _write_tables(done, out)
        write_evaluation_report(done, out / REPORT)
        for name in (_RECORDS, _STARTED):
            (out / name).unlink(missing_ok=True)
        return done
    finally:
        os.close(handle)


def _measure(
    predictor: Predictor,
    dataset: EvaluationDataset,
    reference: TrainingReference,
    out: Path,
    about: dict[str, Any],
    on_progress: OnProgress,
) -> CropMeasurements:
    """Measure the crops that no earlier run of the same evaluation has measured."""
    path, started = out / _RECORDS, out / _STARTED
    identity = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
    keep = 0
    if started.exists() and started.read_text(encoding="utf-8") == identity and path.exists():
        keep = path.stat().st_size // (RECORD * 4)
    else:
        path.unlink(missing_ok=True)
        with atomic_path(started) as draft:
            draft.write_text(identity, encoding="utf-8")
    total = len(dataset.rows)
    measure_crops(
        dataset,
        ImageGenerator(predictor, dataset),
        reference,
        path,
        keep=keep,
        seed=about["seed"],
        on_crops=lambda done: on_progress("crops", done, total),
    )
    return open_measurements(path)


def _about(
    predictor: Predictor, files: DatasetFiles, dataset: EvaluationDataset, seed: int
) -> dict[str, Any]:
    """What was evaluated on what; if all of it is the same, a killed run may continue."""
    bundle = predictor.bundle
    return {
        "deepgps": deepgps.__version__,
        "model": bundle.metadata.name,
        "model_version": bundle.metadata.version,
        "model_sha256": bundle.sha256,
        "mean": predictor.mean,
        "data": files.data.name,
        "split": files.split,
        "inputs": hash_files(files.inputs()),
        "pixel_size_um": bundle.metadata.crop.pixel_size_um,
        "proteins": len(dataset.proteins),
        "crops": len(dataset.rows),
        "training_crops": len(dataset.training_rows),
        "left_out": len(dataset.left_out),
        "seed": seed,
    }


def _write_tables(done: Evaluation, out: Path) -> None:
    metrics = done.metrics()
    about = {**done.about, "date": f"{datetime.now(UTC):%Y-%m-%d}", "notes": list(done.notes)}
    entries = {name: metric.model_dump() for name, metric in metrics.items()}
    with atomic_path(out / METRICS) as draft:
        draft.write_text(json.dumps({"about": about, "metrics": entries}, indent=2) + "\n", encoding="utf-8")
    rows = (
        (name, *(_rounded(each) for each in (metric.value, metric.low, metric.high)), metric.n)
        for name, metric in metrics.items()
    )
    write_csv(out / METRICS_TABLE, ("metric", "value", "low", "high", "n"), rows)
    write_csv(out / LEFT_OUT, LeftOut._fields, done.dataset.left_out)
    if done.labels.predictions is None:
        (out / LABELLED).unlink(missing_ok=True)
    else:
        write_labelled_predictions(done.labels.predictions, out / LABELLED)


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
