"""``report.html`` of a run: what was learned, from what data, and how good it is, on one page."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from PIL import Image

from deepgps.datasets.splits import PARTS
from deepgps.evaluation.labels import LabelReport
from deepgps.reporting.charts import epoch_axis, line_chart, round_axis
from deepgps.reporting.images import image_uri
from deepgps.reporting.pages import write_page
from deepgps.training.joint.data import TrainingData
from deepgps.training.joint.measure import LABEL_METRICS, STACKED_PSNR, RunMetrics
from deepgps.training.joint.task import IMAGE_LOSS, JointTask
from deepgps.training.loop import Progress

RUN_REPORT = "report.html"
_MAX_LEFT_OUT = 500

_CLASS_METRICS = ("sensitivity", "specificity", "precision", "f1", "auroc")
_IMAGE_COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    (STACKED_PSNR, "PSNR, stacked (dB)", 2),
    ("ssim", "SSIM", 2),
    ("pearson", "Pearson r", 2),
)
_CHART_TITLES = {"loss": "Loss", "psnr": "PSNR (dB)", "ssim": "SSIM", "pearson": "Pearson r"}


def write_training_report(
    run: Path,
    task: JointTask,
    progress: Progress,
    measured: RunMetrics,
    manifest: Mapping[str, Any],
    samples: Image.Image,
) -> Path:
    """Write the report of a finished run into its folder."""
    settings, data = task.recipe.training, task.data
    stopped_early = settings.patience is not None and progress.epoch < settings.max_epochs
    kept = kept_epoch(progress, settings.keep)
    return write_page(
        run / RUN_REPORT,
        "training.html",
        title=f"{task.recipe.name} {task.recipe.version}: training",
        facts=_facts(task, progress, kept, manifest),
        early_stop={
            "epochs": progress.epoch,
            "max_epochs": settings.max_epochs,
            "patience": settings.patience,
        }
        if stopped_early
        else None,
        **label_context(measured.labels),
        image_columns=_IMAGE_COLUMNS,
        image_rows=measured.images.items(),
        samples=image_uri(samples, "PNG"),
        charts=_charts(progress, kept),
        splits=list(PARTS),
        data_rows=_data_rows(data),
        left_out=data.left_out,
        max_left_out=_MAX_LEFT_OUT,
        recipe=yaml.safe_dump(task.recipe.model_dump(mode="json"), sort_keys=False),
    )


def kept_epoch(progress: Progress, keep: str) -> int:
    """Return the epoch, counted from 1, whose weights the run ends with."""
    losses = [row[f"validation_{IMAGE_LOSS}"] for row in progress.history]
    return int(np.argmin(losses)) + 1 if keep == "best" else len(losses)


def label_context(report: LabelReport | None) -> dict[str, Any]:
    """Return what the template shows of labels: metrics beside the baselines, and class by class."""
    if report is None:
        return {"labels": None}
    models = {"model": report.metrics, **report.baselines}
    levels = [level for level in ("protein", "crop") if f"{level}/ece" in report.metrics]
    context = {
        "labels": report,
        "label_columns": [(name, name, 3) for name in models],
        "label_rows": [
            (
                f"{metric.replace('_', ' ')}, by {level}",
                {name: metrics[f"{level}/{metric}"] for name, metrics in models.items()},
            )
            for metric in LABEL_METRICS[report.multi_label]
            for level in levels
        ],
    }
    if report.multi_label:
        counts = report.confusion_by_protein[:, 1].sum(1)
        context["class_metrics"] = list(_CLASS_METRICS)
        context["class_rows"] = [
            (slug, int(count), [report.metrics[f"protein/{name}/{slug}"] for name in _CLASS_METRICS])
            for slug, count in zip(report.classes, counts, strict=True)
        ]
    return context


def _facts(task: JointTask, progress: Progress, kept: int, manifest: Mapping[str, Any]) -> list[str]:
    settings = task.recipe.training
    chosen = "best validation images" if settings.keep == "best" else "the last"
    processes = f"{manifest['processes']} processes on " if manifest["processes"] > 1 else ""
    return [
        f"class set {task.recipe.class_set}",
        f"{progress.epoch} epochs of {task.steps} batches of {settings.batch_size} crops",
        f"weights of epoch {kept} ({chosen})",
        f"{processes}{manifest['device']}, {manifest['precision']}",
        f"deepGPS {manifest['deepgps']}",
    ]


def _charts(progress: Progress, kept: int) -> Iterator[Markup]:
    history = progress.history
    epochs = np.arange(1, len(history) + 1)
    for column in (name for name in history[0] if name.startswith("validation_")):
        name = column.removeprefix("validation_")
        curves = {
            split: (epochs, [row[f"{prefix}_{name}"] for row in history])
            for split, prefix in (("validation", "validation"), ("training", "train"))
            if f"{prefix}_{name}" in history[0]
        }
        title = _CHART_TITLES.get(name, f"Loss: {name.removeprefix('loss_')}")
        values = [value for _, curve in curves.values() for value in curve]
        yield line_chart(title, curves, epoch_axis(len(history)), round_axis("", values), mark_x=kept)


def _data_rows(data: TrainingData) -> list[list[str]]:
    """Count proteins, and crops in brackets, by class and split."""
    splits = np.array([data.split[id] for id in data.protein_ids])
    crops = {split: Counter(data.protein_of_row[rows].tolist()) for split, rows in data.rows.items()}
    members = {slug: data.targets[:, k] > 0 for k, slug in enumerate(data.classes)}
    members["all"] = np.ones(len(splits), bool)
    rows = []
    for name, member in members.items():
        numbers = {split: np.flatnonzero(member & (splits == split)) for split in PARTS}
        rows.append(
            [
                name,
                *(
                    f"{len(each):,} ({sum(crops[split][int(number)] for number in each):,})"
                    for split, each in numbers.items()
                ),
            ]
        )
    return rows
