"""The measured figures of the shipped model: read and update ``figures.json``.

``metrics`` holds the figures of the model card and of ``bundle.json``, ``more`` those that stand nowhere
else; each by name, with value, ends of the 95 % interval, number of proteins or images, the command that
measured it, and when. Names follow ``SUBJECT, PROTOCOL: FIGURE of the baseline 'NAME'``, where protocol and
baseline are optional.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.bundle import Metric

FIGURES = Path(__file__).with_name("figures.json")


def read_figures(path: Path = FIGURES, *, on_card: bool = True) -> dict[str, Metric]:
    """Read the figures of the card, or the others, by name; none if the file is missing."""
    entries = _entries(path)["metrics" if on_card else "more"]
    fields = Metric.model_fields.keys()
    return {
        name: Metric.model_validate({key: value for key, value in entry.items() if key in fields})
        for name, entry in entries.items()
    }


def record(
    metrics: Mapping[str, Metric], command: str, *, on_card: bool = True, path: Path = FIGURES
) -> None:
    """Write measured figures into the file; those that it already has keep their place."""
    entries, date = _entries(path), f"{datetime.now(UTC):%Y-%m-%d}"
    for name, metric in metrics.items():
        section = entries["metrics" if on_card or name in entries["metrics"] else "more"]
        measured = {key: value for key, value in metric.model_dump().items() if value is not None}
        section[name] = {**measured, "command": f"measure.py {command}", "date": date}
        print(f"{name}: {metric_text(metric)}")
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def metric_text(metric: Metric | None) -> str:
    """Format a figure with its interval."""
    if metric is None or not np.isfinite(metric.value):
        return "–"
    interval = "" if metric.low is None else f" [{metric.low:.3f}, {metric.high:.3f}]"
    return f"{metric.value:.3f}{interval}"


def rounded(metric: Metric) -> Metric:
    """Round a figure of labels to four places, as the card has them."""
    low, high = (None if end is None else round(end, 4) for end in (metric.low, metric.high))
    return Metric(value=round(metric.value, 4), low=low, high=high, n=metric.n)


def table(rows: Mapping[str, Mapping[str, Metric]], columns: Mapping[str, str]) -> str:
    """Format figures as a Markdown table; rows without any are left out."""
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(metric_text(row.get(key)) for key in columns) + " |"
        for name, row in rows.items()
        if any(key in row for key in columns)
    ]
    return "\n".join(lines)


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {"metrics": {}, "more": {}}
    return entries | (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
