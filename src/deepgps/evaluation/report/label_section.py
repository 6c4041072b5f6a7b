"""The report's part on labels."""

import numpy as np

from deepgps.evaluation.label_figures import Labels, as_metric
from deepgps.evaluation.labels import LabelReport
from deepgps.evaluation.report.plots import lines, matrix, unit_axis
from deepgps.evaluation.report.tables import cell, table, text

LEVELS = {"protein": "by protein", "crop": "by crop"}


def label_section(labels: Labels) -> str:
    """Set everything found of labels; nothing for a model that only draws."""
    report = labels.report
    if report is None:
        return ""
    crops = f", {report.crops:,} crops" if report.crops else ""
    drawn = f"{report.clusters:,} homology clusters" if report.clusters else "proteins"
    parts = [
        '<h2 id="labels">Labels</h2>\n',
        f"<p>{report.proteins:,} proteins{crops}; intervals: 95 %, bootstrap over {drawn}. The label depends "
        "on the sequence alone, so that figures by crop are those by protein, weighted by its crops. Both "
        "baselines know the frequencies of the very proteins measured on, which no model does.</p>\n",
        _overall(report, "protein"),
        f"<details><summary>By crop</summary>\n{_overall(report, 'crop')}</details>\n" if crops else "",
    ]
    if labels.new is not None:
        parts.append(f"<h3>Only the {labels.new.proteins:,} proteins new to the model</h3>\n")
        parts.append(_overall(labels.new, "protein"))
    parts += ["<h3>Class by class, by protein</h3>\n", _by_class(report), _plots(report), _confusions(report)]
    return "".join(parts)


def _overall(report: LabelReport, level: str) -> str:
    names = [n for n in report.metrics if n.count("/") == 1 and n.startswith(f"{level}/")]
    rows = [
        [
            text(name.partition("/")[2]),
            cell(as_metric(report.metrics[name]), 3),
            *(cell(as_metric(each[name]), 3) for each in report.baselines.values()),
        ]
        for name in names
    ]
    head = [f"{LEVELS[level]}", "model", *report.baselines]
    return table(head, rows, marked=None)


def _by_class(report: LabelReport) -> str:
    measures = list(
        dict.fromkeys(
            name.split("/")[1]
            for name in report.metrics
            if name.startswith("protein/") and name.count("/") == 2
        )
    )
    positives = dict(zip(report.classes, _positives(report), strict=True))
    rows = []
    for slug in report.classes:
        found = (report.metrics.get(f"protein/{measure}/{slug}") for measure in measures)
        cells = [cell(as_metric(each)) if each is not None else "–" for each in found]
        rows.append([text(slug), f"{positives[slug]:,}", *cells])
    return table(["class", "proteins", *measures], rows, marked=None)


def _positives(report: LabelReport) -> list[int]:
    counts = report.confusion_by_protein
    if report.multi_label:
        return [int(each[1].sum()) for each in counts]
    return [int(row.sum()) for row in counts]


def _plots(report: LabelReport) -> str:
    roc = {slug: (c.false_positive_rate, c.true_positive_rate) for slug, c in report.curves.items()}
    pr = {slug: (c.recall, c.precision) for slug, c in report.curves.items()}
    reliable = report.reliability
    seen = reliable.count > 0
    calibration = {"": (reliable.probability[seen], reliable.frequency[seen])}
    said = "all classes pooled" if report.multi_label else "the class named"
    counts = ", ".join(f"{int(count):,}" for count in reliable.count[seen])
    return (
        '<div class="columns">\n<div><h4>ROC, one class against the rest</h4>'
        f"{lines(roc, unit_axis('1 - specificity'), unit_axis('sensitivity'), diagonal=True)}</div>\n"
        f"<div><h4>Precision and recall</h4>{lines(pr, unit_axis('recall'), unit_axis('precision'))}</div>\n"
        f"<div><h4>Calibration, {said}: ECE {reliable.ece:.3f}</h4>"
        f"{lines(calibration, unit_axis('probability'), unit_axis('share that is true'), diagonal=True)}"
        f'<p class="facts"><small>Probabilities in each bin: {counts}</small></p></div>\n</div>\n'
    )


def _confusions(report: LabelReport) -> str:
    found = {"by protein": report.confusion_by_protein, "by crop": report.confusion_by_crop}
    parts = []
    for level, counts in found.items():
        if counts is None:
            continue
        parts.append(f"<h3>Confusion, {level}</h3>\n")
        if not report.multi_label:
            parts.append(matrix(counts, report.classes, report.classes))
            continue
        rows = [
            [slug, *np.asarray(each)[[1, 1, 0, 0], [1, 0, 1, 0]]]
            for slug, each in zip(report.classes, counts, strict=True)
        ]
        parts.append(
            table(
                ["class", "there, named", "there, not named", "not there, named", "not there, not named"],
                ([text(row[0]), *(f"{int(n):,}" for n in row[1:])] for row in rows),
                marked=None,
            )
        )
    return "".join(parts)
