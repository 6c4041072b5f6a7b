"""``report.html`` of a run: what was learned, from what, and how good it is, on one page."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from deepgps.arrays import Ints
from deepgps.bundle import Metric
from deepgps.datasets.splits.split import PARTS
from deepgps.evaluation.labels import LabelReport
from deepgps.files.atomic import replacing
from deepgps.results.style import STYLE
from deepgps.training.joint.inputs.data import TrainingData
from deepgps.training.joint.learning.checkpoint import Progress
from deepgps.training.joint.learning.loop import Fit
from deepgps.training.joint.learning.validate import IMAGE_LOSS
from deepgps.training.joint.telling.charts import CHART_STYLE, line_chart
from deepgps.training.joint.telling.figures import LABEL_FIGURES, Measured
from deepgps.training.joint.telling.samples import draw_samples, sample_names, sample_rows, sheet

REPORT = "report.html"
MAX_LEFT_OUT = 500

_STYLE = """
main h3{margin:1.2rem 0 .3rem}
th{overflow-wrap:normal}
td:first-child{overflow-wrap:normal}
td.n,th.n{text-align:right}
td.right{background:color-mix(in srgb,var(--bar) 45%,transparent)}
.sheet{max-width:100%;height:auto;border-radius:.4rem}
pre{background:var(--panel);border:1px solid var(--line);border-radius:.6rem;padding:1rem;overflow-x:auto}
"""


def write_report(task: Fit, progress: Progress, measured: Measured, manifest: Mapping[str, Any]) -> Path:
    """Write the report of a finished run into its folder."""
    recipe = task.recipe
    title = f"{recipe.name} {recipe.version}: training"
    kept = kept_epoch(progress, recipe.training.keep)
    sections = [
        f'<h1>{escape(title)}</h1>\n<p class="facts">{escape(_facts(task, progress, kept, manifest))}</p>\n',
        _note(progress, recipe.training.max_epochs, recipe.training.patience),
        _labels(measured.labels) if measured.labels else "",
        _images(measured.images),
        _samples(task),
        _charts(progress, kept),
        _data(task.data),
        f"<h2>Settings</h2>\n<details>\n<summary>The recipe</summary>\n<pre>"
        f"{escape(yaml.safe_dump(recipe.model_dump(mode='json'), sort_keys=False))}</pre>\n</details>\n",
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{CHART_STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{''.join(sections)}</main>\n</body>\n</html>\n"
    )
    target = task.run / REPORT
    with replacing(target) as draft:
        draft.write_text(page, encoding="utf-8")
    return target


def kept_epoch(progress: Progress, keep: str) -> int:
    """Find the epoch, from 1, whose weights the run ends with."""
    losses = [row[f"validation_{IMAGE_LOSS}"] for row in progress.history]
    return int(np.argmin(losses)) + 1 if keep == "best" else len(losses)


def _facts(task: Fit, progress: Progress, kept: int, manifest: Mapping[str, Any]) -> str:
    settings = task.recipe.training
    chosen = "best validation images" if settings.keep == "best" else "the last"
    processes = f"{manifest['processes']} processes on " if manifest["processes"] > 1 else ""
    return " · ".join(
        [
            f"class set {task.recipe.class_set}",
            f"{progress.epoch} epochs of {task.steps} batches of {settings.batch_size} crops",
            f"weights of epoch {kept} ({chosen})",
            f"{processes}{manifest['device']}, {manifest['precision']}",
            f"deepGPS {manifest['deepgps']}",
        ]
    )


def _note(progress: Progress, epochs: int, patience: int | None) -> str:
    if progress.epoch == epochs or patience is None:
        return ""
    return (
        f'<p class="note">Stopped after {progress.epoch} of {epochs} epochs: the loss of the '
        f"validation images had not fallen for {patience}.</p>\n"
    )


def _labels(report: LabelReport) -> str:
    """Figures of labels beside the baselines, and who was taken for whom."""
    levels = [level for level in ("protein", "crop") if f"{level}/ece" in report.metrics]
    of = {"model": report.metrics, **report.baselines}
    rows = [
        [
            f"{figure.replace('_', ' ')}, by {level}",
            *(_cell(metrics[f"{level}/{figure}"]) for metrics in of.values()),
        ]
        for figure in LABEL_FIGURES[report.multi_label]
        for level in levels
    ]
    crops = f" and {report.crops:,} crops" if report.crops else ""
    return (
        f"<h2>Labels</h2>\n<p>On {report.proteins:,} proteins{crops} of the validation part, which also "
        "chose the epoch and the calibration: the test part will be harsher. In brackets 95 % intervals over "
        "proteins.</p>\n"
        f"{_table(['', *of], rows)}{_confusions(report)}"
    )


def _confusions(report: LabelReport) -> str:
    if report.multi_label:
        names = ("sensitivity", "specificity", "precision", "f1", "auroc")
        support = report.confusion_by_protein[:, 1].sum(1)
        rows = [
            [slug, f"{n:,}", *(_cell(report.metrics[f"protein/{name}/{slug}"], 2) for name in names)]
            for slug, n in zip(report.classes, support, strict=True)
        ]
        return f"<h3>Class by class, by protein</h3>\n{_table(['', 'proteins', *names], rows)}"
    levels = {"protein": report.confusion_by_protein, "crop": report.confusion_by_crop}
    tables = (
        f"<div><h3>Confusion by {level}</h3>\n{_confusion(counts, report.classes)}</div>\n"
        for level, counts in levels.items()
        if counts is not None
    )
    return f'<div class="columns">\n{"".join(tables)}</div>\n'


def _confusion(counts: Ints, classes: Sequence[str]) -> str:
    head = "".join(f'<th class="n">{escape(slug)}</th>' for slug in classes)
    body = "".join(
        f"<tr><th>{escape(slug)}</th>"
        + "".join(f'<td class="n{" right" if i == j else ""}">{n:,}</td>' for j, n in enumerate(row))
        + "</tr>\n"
        for i, (slug, row) in enumerate(zip(classes, counts, strict=True))
    )
    return (
        f'<div class="wide"><table>\n<thead><tr><th>real \\ named</th>{head}</tr></thead>\n<tbody>\n{body}'
        "</tbody>\n</table></div>\n"
    )


def _images(images: Mapping[str, Mapping[str, Metric]]) -> str:
    """Figures of images beside what anybody can draw."""
    names = {"psnr": "PSNR (dB)", "ssim": "SSIM", "pearson": "Pearson r"}
    rows = [
        [drawn, *(_cell(figures[name], 2) if name in figures else "–" for name in names)]
        for drawn, figures in images.items()
    ]
    return (
        "<h2>Images</h2>\n<p>Validation crops, every protein counted once. A model that draws no better "
        "than one grey has learned nothing of the image; one that draws no better with its own protein "
        f"than with another has learned nothing of the protein.</p>\n{_table(['', *names.values()], rows)}"
    )


def _samples(task: Fit) -> str:
    rows = sample_rows(task.data, task.data.rows["validation"])
    image = sheet(draw_samples(task, rows), sample_names(task, rows))
    return (
        "<h2>Samples</h2>\n<p>Validation crops, drawn with the weights that were kept; grey is intensity, "
        f"nothing is stretched. <code>samples/</code> has them after every epoch.</p>\n{_embedded(image)}"
    )


def _embedded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="sheet" alt="Nucleus, real and drawn protein" src="data:image/png;base64,{data}">\n'


def _charts(progress: Progress, kept: int) -> str:
    names = [
        name.removeprefix("validation_") for name in progress.history[0] if name.startswith("validation_")
    ]
    titles = {"loss": "Loss", "psnr": "PSNR (dB)", "ssim": "SSIM", "pearson": "Pearson r"}
    drawn = []
    for name in names:
        series = {
            kind: [row[f"{prefix}_{name}"] for row in progress.history]
            for kind, prefix in (("validation", "validation"), ("training", "train"))
            if f"{prefix}_{name}" in progress.history[0]
        }
        title = titles.get(name, f"Loss: {name.removeprefix('loss_')}")
        drawn.append(line_chart(title, series, kept))
    return f'<h2>Epoch by epoch</h2>\n<div class="charts">\n{"".join(drawn)}</div>\n'


def _data(data: TrainingData) -> str:
    """Count proteins and crops by part and class, and list who was left out."""
    parts = np.array([data.split[id] for id in data.protein_ids])
    crops = {part: Counter(data.protein_of_row[rows].tolist()) for part, rows in data.rows.items()}
    rows = []
    for k, slug in enumerate(data.classes):
        has = data.targets[:, k] > 0
        rows.append([slug, *(_counted(np.flatnonzero(has & (parts == part)), crops[part]) for part in PARTS)])
    rows.append(["all", *(_counted(np.flatnonzero(parts == part), crops[part]) for part in PARTS)])
    reasons = [[id, reason] for id, reason in data.left_out[:MAX_LEFT_OUT]]
    more = (
        f" (the first {MAX_LEFT_OUT} here, all in left_out.csv)" if len(data.left_out) > MAX_LEFT_OUT else ""
    )
    left_out = (
        f"<details>\n<summary>{len(data.left_out):,} proteins of the store were left out{more}</summary>\n"
        f"{_table(['Protein', 'Reason'], reasons)}</details>\n"
        if reasons
        else "<p>No protein of the store was left out.</p>\n"
    )
    said = "<h2>Data</h2>\n<p>Proteins, and their crops in brackets.</p>\n"
    return said + _table(["", *PARTS], rows) + left_out


def _counted(numbers: Ints, crops: Mapping[int, int]) -> str:
    return f"{len(numbers):,} ({sum(crops.get(int(number), 0) for number in numbers):,})"


def _cell(metric: Any, digits: int = 3) -> str:
    low, high = metric.low, metric.high
    if not np.isfinite(metric.value):
        return "–"
    known = low is not None and np.isfinite(low)
    return f"{metric.value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if known else "")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'
    )
