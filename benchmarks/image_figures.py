"""What the benchmarks of images share: their options, tables of figures, and the files they leave."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepgps.bundle import Metric
from deepgps.evaluation.dataset import DatasetFiles
from deepgps.evaluation.evaluate import Evaluation, evaluate
from deepgps.prediction import Predictor


def arguments(about: str, *, model: bool = True) -> argparse.Namespace:
    """Read the options of a benchmark whose docstring is ``about``; ``model`` if it takes a bundle."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    if model:
        parser.add_argument("--model", default="deepgps-mini")
        parser.add_argument("--report", type=Path, default=Path("report"), help="folder for the reports")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path, default=Path("runs/mini"), help="the run the model came from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def drawn_and_mean(model: str, store: Path, report: Path) -> tuple[Evaluation, Evaluation]:
    """Evaluate a model on a crop store: the images that it draws, and mean images."""
    drawn, mean = (
        evaluate(Predictor.load(model, mean=mean), DatasetFiles(store), report / folder, on_progress=progress)
        for mean, folder in ((False, ""), (True, "mean"))
    )
    return drawn, mean


def keep(out: Path, name: str, text: str, quoted: Mapping[str, Metric]) -> None:
    """Print a page, and write it beside the figures that `benchmarks/quality.py` reads."""
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    entries = {figure: metric.model_dump() for figure, metric in quoted.items()}
    (out / f"{name}.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def table(rows: Mapping[str, Mapping[str, Metric]], columns: Mapping[str, str]) -> str:
    """Set the figures as Markdown; rows without any are left out."""
    lines = ["| image | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(cell(row.get(key)) for key in columns) + " |"
        for name, row in rows.items()
        if any(key in row for key in columns)
    ]
    return "\n".join(lines)


def cell(metric: Metric | None) -> str:
    """A figure with its interval."""
    if metric is None or not np.isfinite(metric.value):
        return "–"
    interval = f" [{metric.low:.2f}, {metric.high:.2f}]" if metric.low is not None else ""
    return f"{metric.value:.2f}{interval}"


def progress(stage: str, done: int, total: int) -> None:
    if done == total or sys.stderr.isatty():
        print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr)
