"""One evaluation: a model, the data, and a folder of figures with a report."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deepgps
from deepgps.datasets.fingerprints import fingerprints
from deepgps.errors import InputError
from deepgps.evaluation.evaluation import Evaluation
from deepgps.evaluation.images.figures import Figures, image_figures
from deepgps.evaluation.images.measuring import (
    RECORD,
    Artist,
    Measured,
    Trained,
    measure_crops,
    open_measured,
)
from deepgps.evaluation.images.training import MOST, learn
from deepgps.evaluation.label_figures import label_figures
from deepgps.evaluation.loading import DataFiles, load_subjects
from deepgps.evaluation.report import write_report
from deepgps.evaluation.subjects import LeftOut, Subjects
from deepgps.files import TEMPORARY_PREFIX, atomic_path, lock_folder
from deepgps.prediction import Predictor

METRICS, TABLE, REPORT, LEFT_OUT = "metrics.json", "metrics.csv", "report.html", "left_out.csv"
_RECORDS, _BEGUN = f"{TEMPORARY_PREFIX}crops.f32", f"{TEMPORARY_PREFIX}evaluation.json"

OnProgress = Callable[[str, int, int], None]
"""Called with a stage, and how many of how many are done in it."""


def evaluate(
    predictor: Predictor,
    files: DataFiles,
    out: Path,
    *,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> Evaluation:
    """Evaluate a model and write ``metrics.json``, ``metrics.csv``, ``left_out.csv`` and ``report.html``.

    A run that was killed goes on at the crop after the last one measured, if nothing has changed.

    Parameters
    ----------
    predictor
        The model.
    files
        What to evaluate it on.
    out
        Folder for the results; made if missing.
    seed
        Seed of the bootstrap, of the wrong proteins and of the galleries.
    on_progress
        Called as the work goes on.

    Raises
    ------
    InputError
        If the data cannot be used, or another process writes to the folder.
    """
    subjects = load_subjects(files, predictor)
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file; give --out a folder.")
    out.mkdir(parents=True, exist_ok=True)
    handle = lock_folder(out)
    try:
        about = _about(predictor, files, subjects, seed)
        labels = label_figures(predictor, subjects, seed=seed, on_progress=on_progress)
        images, measured, trained, notes = None, None, None, list(labels.notes)
        if subjects.store is not None and len(subjects.rows):
            counted = _stage(on_progress, "training crops", min(len(subjects.training), MOST))
            trained, note = learn(subjects, about["pixel_size_um"], seed, counted)
            notes += [note] if note else []
            measured = _measured(predictor, subjects, trained, out, about, on_progress)
            images = image_figures(measured, subjects, trained, seed=seed)
        every_note = (*notes, *subjects.notes)
        done = Evaluation(predictor, subjects, labels, images, measured, trained, every_note, about)
        write_tables(done, out)
        write_report(done, out / REPORT)
        for name in (_RECORDS, _BEGUN):
            (out / name).unlink(missing_ok=True)
        return done
    finally:
        os.close(handle)


def _stage(on_progress: OnProgress, stage: str, total: int, done: int = 0) -> Callable[[int], None]:
    """Count what is done in a stage."""

    def advance(number: int) -> None:
        nonlocal done
        done += number
        on_progress(stage, done, total)

    return advance


def _measured(
    predictor: Predictor,
    subjects: Subjects,
    trained: Trained,
    out: Path,
    about: dict[str, Any],
    on_progress: OnProgress,
) -> Measured:
    """Measure the crops that no earlier run of the same evaluation has measured."""
    path, begun = out / _RECORDS, out / _BEGUN
    identity = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
    keep = 0
    if begun.exists() and begun.read_text(encoding="utf-8") == identity and path.exists():
        keep = path.stat().st_size // (RECORD * 4)
    else:
        path.unlink(missing_ok=True)
        with atomic_path(begun) as draft:
            draft.write_text(identity, encoding="utf-8")
    advance = _stage(on_progress, "crops", len(subjects.rows), keep)
    artist = Artist(predictor, subjects)
    measure_crops(subjects, artist, trained, path, keep=keep, seed=about["seed"], on_crops=advance)
    return open_measured(path)


def _about(predictor: Predictor, files: DataFiles, subjects: Subjects, seed: int) -> dict[str, Any]:
    """What was evaluated on what; the same again means that a killed run may go on."""
    bundle = predictor.bundle
    return {
        "deepgps": deepgps.__version__,
        "model": bundle.metadata.name,
        "model_version": bundle.metadata.version,
        "model_sha256": bundle.sha256,
        "mean": predictor.mean,
        "data": files.data.name,
        "split": files.split,
        "inputs": fingerprints(files.inputs()),
        "pixel_size_um": bundle.metadata.crop.pixel_size_um,
        "proteins": len(subjects.subjects),
        "crops": len(subjects.rows),
        "training_crops": len(subjects.training),
        "left_out": len(subjects.left_out),
        "seed": seed,
    }


def write_tables(done: Evaluation, out: Path) -> None:
    """Write the figures as JSON and CSV, and what was left out."""
    metrics = done.metrics()
    about = {**done.about, "date": f"{datetime.now(UTC):%Y-%m-%d}", "notes": list(done.notes)}
    plain = {name: metric.model_dump() for name, metric in metrics.items()}
    with atomic_path(out / METRICS) as draft:
        draft.write_text(json.dumps({"about": about, "metrics": plain}, indent=2) + "\n", encoding="utf-8")
    _write_csv(out / TABLE, ("metric", "value", "low", "high", "n"), _metric_rows(metrics))
    _write_csv(out / LEFT_OUT, LeftOut._fields, iter(done.subjects.left_out))


def _metric_rows(metrics: Figures) -> Iterator[tuple[object, ...]]:
    for name, metric in metrics.items():
        yield name, *(_rounded(each) for each in (metric.value, metric.low, metric.high)), metric.n


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> None:
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
