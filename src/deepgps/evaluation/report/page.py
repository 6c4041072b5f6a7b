"""The page itself: what was evaluated, what to beware of, then the figures."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.bundle import Metric
from deepgps.evaluation.evaluation import Evaluation
from deepgps.evaluation.images.baselines import CLASS_MEAN, CONSTANT, COPY, MASK
from deepgps.evaluation.images.measuring import DRAWN, REAL, Artist
from deepgps.evaluation.label_figures import as_metric
from deepgps.evaluation.report.gallery import GALLERY_STYLE, gallery_section
from deepgps.evaluation.report.image_section import image_section
from deepgps.evaluation.report.label_section import label_section
from deepgps.evaluation.report.plots import PLOT_STYLE
from deepgps.evaluation.report.tables import cell, table, text
from deepgps.files.atomic import replacing
from deepgps.results.style import STYLE

_STYLE = """
h3{margin:1.5rem 0 .4rem}
h4{margin-top:1rem}
small{color:var(--faint);white-space:nowrap}
td:first-child{min-width:10rem}
.wide{margin:.5rem 0 1rem}
.marked td{font-weight:600}
table.matrix td{text-align:right}
.note{margin:.5rem 0}
.note:first-of-type{font-weight:600}
"""
_SHOWN_LEFT_OUT = 100

GLANCE = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "pearson": "Pearson r",
    "intranuclear_r": "intranuclear fraction, r",
    "read_back_balanced": "class read back, balanced",
    "place_balanced": "place read back, balanced",
}
"""Measures of images that head the report."""
FREE = (CONSTANT, CLASS_MEAN, MASK, COPY)
"""Images that cost nothing and know nothing of the image that they are compared with, but its class."""


def write_page(done: Evaluation, path: Path) -> None:
    """Write the report; nothing on it is loaded from elsewhere."""
    about = done.about
    title = f"Evaluation of {about['model']} {about['model_version']}"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{PLOT_STYLE}{GALLERY_STYLE}{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{text(title)}</h1>\n{_facts(done)}{_notes(done)}{_at_a_glance(done)}",
        label_section(done.labels),
    ]
    if done.images is not None and done.measured is not None and done.trained is not None:
        seed, artist = about["seed"], Artist(done.predictor, done.subjects)
        parts.append(image_section(done.images, done.measured, done.trained, done.subjects, seed))
        parts.append(gallery_section(done.subjects, done.measured, artist, seed))
    parts += [_left_out(done), _provenance(done), "</main>\n</body>\n</html>\n"]
    with replacing(path) as draft:
        draft.write_text("".join(parts), encoding="utf-8")


def _facts(done: Evaluation) -> str:
    about = done.about
    said = [
        f"data {about['data']}, split {about['split']}",
        f"{about['proteins']:,} proteins",
        f"{about['crops']:,} crops" if about["crops"] else "labels only",
        *(["mean images"] if about["mean"] else []),
        f"deepGPS {about['deepgps']}",
    ]
    return f'<p class="facts">{" · ".join(text(each) for each in said)}</p>\n'


def _notes(done: Evaluation) -> str:
    if not done.notes:
        return ""
    items = "".join(f'<p class="note">{text(note)}</p>\n' for note in done.notes)
    return f"<h2>Before you believe a figure</h2>\n{items}"


def _at_a_glance(done: Evaluation) -> str:
    rows = [*_label_rows(done), *_image_rows(done)]
    return "<h2>At a glance</h2>\n" + table(
        ["", "model", "the best of what costs nothing"], rows, marked=None
    )


def _label_rows(done: Evaluation) -> list[list[str]]:
    report = done.labels.report
    if report is None:
        return []
    rows = []
    for name in ("accuracy", "balanced_accuracy", "mcc", "exact_match", "f1_macro", "auroc_macro"):
        key = f"protein/{name}"
        said = f"labels: {name}, by protein{'' if done.labels.is_test else ' (no test: see above)'}"
        if key in report.metrics:
            best = max((each[key] for each in report.baselines.values()), key=lambda metric: metric.value)
            rows.append([said, cell(as_metric(report.metrics[key])), cell(as_metric(best))])
    return rows


def _image_rows(done: Evaluation) -> list[list[str]]:
    if done.images is None:
        return []
    kinds = done.images.kinds
    rows = [
        [f"images: {said}", cell(kinds[DRAWN].get(name)), _best(kinds, name)] for name, said in GLANCE.items()
    ]
    for row, name in zip(rows, GLANCE, strict=True):
        if name in kinds[REAL]:
            row[2] += f"; ceiling: {_of(kinds, REAL, name)}"
    effect = [
        "images: sequence_effect",
        cell(done.images.effects["sequence_effect"], 3),
        "0 by definition",
    ]
    return [*rows, effect]


def _best(kinds: dict[str, dict[str, Metric]], name: str) -> str:
    """The best of the images that cost nothing, oracles aside."""
    known = [kind for kind in FREE if name in kinds[kind] and np.isfinite(kinds[kind][name].value)]
    return _of(kinds, max(known, key=lambda kind: kinds[kind][name].value), name) if known else "–"


def _of(kinds: dict[str, dict[str, Metric]], kind: str, name: str) -> str:
    return f"{cell(kinds[kind].get(name))} <small>{text(kind)}</small>"


def _left_out(done: Evaluation) -> str:
    left = done.subjects.left_out
    if not left:
        return "<h2>Left out</h2>\n<p>Nothing.</p>\n"
    crops = sum(each.crops for each in left)
    rows = ([text(each.what), f"{each.crops:,}", text(each.reason)] for each in left[:_SHOWN_LEFT_OUT])
    more = f"; the first {_SHOWN_LEFT_OUT}" if len(left) > _SHOWN_LEFT_OUT else ""
    return (
        f"<h2>Left out</h2>\n<details><summary>{len(left):,} entries, {crops:,} crops{more}: all of them in "
        f"left_out.csv</summary>\n{table(['what', 'crops', 'why'], rows, marked=None)}</details>\n"
    )


def _provenance(done: Evaluation) -> str:
    metadata, about = done.predictor.bundle.metadata, done.about
    trained = [[text(name), text(said)] for name, said in metadata.training_data.items()]
    shown = Counter(done.subjects.shown.tolist()) or Counter(
        each.class_name for each in done.subjects.subjects
    )
    counts = ", ".join(f"{text(name)} {count:,}" for name, count in shown.most_common())
    facts: dict[str, Any] = {
        "model": f"{about['model']} {about['model_version']}, sha256 {about['model_sha256'][:16]}",
        "cells it drew": metadata.cell_line,
        "pixel size": f"{about['pixel_size_um']:g} µm",
        "training crops of the store": f"{about['training_crops']:,}, for baselines and classifier",
        "seed": about["seed"],
        **{f"sha256 of {name}": value[:16] for name, value in about["inputs"].items()},
    }
    return (
        "<h2>What was trained and tested on what</h2>\n<p>The model's own words on its training:</p>\n"
        f"{table(['source', 'what'], trained, marked=None)}"
        f"<p>Tested on: {counts}.</p>\n"
        f"{table(['', ''], ([text(k), text(v)] for k, v in facts.items()), marked=None)}"
    )
