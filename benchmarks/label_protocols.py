"""What the benchmarks of labels share: train under a protocol, predict what was held out, and write it down.

Under protocol A no protein trains that shares a homology cluster (30 % identity) with a tested one; under B
only the tested proteins themselves, and what is at least 95 % identical to one, are kept out.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from deepgps.arrays import Doubles, Mask
from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins
from deepgps.evaluation.labels import LabelReport, Metric
from deepgps.proteins.features import sequence_features
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.mini.labels import REGIMES, fit_labels, load_encoder, read_held_out
from deepgps.training.recipe import LabelSettings

REGIME = {"A": REGIMES[0], "B": REGIMES[1]}
PROTOCOLS = {
    "A": "no protein of a tested homology cluster trained",
    "B": "only the tested proteins, and those at least 95 % identical to one, kept out",
}


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A model trained under a protocol, and what it says of the proteins held out.

    Attributes
    ----------
    train
        The T proteins it was trained on.
    known
        (T, K) their logits from models that never saw their cluster, homologs voting as in the protocol.
    logits
        (n, K) calibrated logits of the tested proteins.
    votes
        (n, K) what their nearest annotated neighbours say.
    nearest
        (n,) similarity of the nearest annotated neighbour.
    seconds
        What it took.
    """

    train: LabelledProteins
    known: NDArray[np.floating]
    logits: NDArray[np.floating]
    votes: NDArray[np.floating]
    nearest: NDArray[np.floating]
    seconds: float


def hold_out(
    train: LabelledProteins,
    tested: LabelledProteins,
    protocol: str,
    settings: LabelSettings,
    folder: Path,
) -> HeldOut:
    """Train on what a protocol leaves, or take up what the folder holds, and predict the tested proteins."""
    started = time.perf_counter()
    fit_labels(train, settings, folder)
    known = read_held_out(folder)[REGIME[protocol]].logits
    return HeldOut(train, known, *predict(folder, tested.sequences), time.perf_counter() - started)


def trained_beside(proteins: LabelledProteins, tested: LabelledProteins, protocol: str) -> LabelledProteins:
    """Those of the annotated proteins that may train when others, of whichever table, are tested."""
    names = [f"tested:{each}" for each in tested.ids.tolist()]
    both = joined(proteins, replace(tested, ids=np.array(names)))
    may_train = training_set(both, names, protocol)  # type: ignore[arg-type]
    return proteins.subset(may_train[: len(proteins)])


def joined(first: LabelledProteins, second: LabelledProteins) -> LabelledProteins:
    """One set of proteins after another, of the same classes."""
    arrays = {
        field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in fields(first)
        if field.name not in ("sequences", "slugs")
    }
    return replace(first, sequences=(*first.sequences, *second.sequences), **arrays)


def unlabelled(
    ids: Sequence[str], sequences: Sequence[str], clusters: Sequence[int], slugs: tuple[str, ...]
) -> LabelledProteins:
    """Proteins of which nothing is known but their homology clusters."""
    count, classes = len(ids), len(slugs)
    return LabelledProteins(
        ids=np.array(ids, np.str_),
        sequences=tuple(sequences),
        slugs=slugs,
        labels=np.zeros((count, classes), np.float32),
        mask=np.zeros((count, classes), np.bool_),
        view_labels=np.zeros((count, 2, classes), np.float32),
        view_mask=np.zeros((count, 2, classes), np.bool_),
        weight=np.ones(count, np.float32),
        cluster=np.array(clusters, np.int64),
        source=np.full(count, "tested"),
    )


def predict(
    folder: Path, sequences: Sequence[str]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Calibrated logits (n, K), the classes' votes (n, K), and the similarity of the nearest (n,)."""
    index = NeighbourIndex.load(folder / "neighbours.npz")
    votes = np.stack([index.vote(index.similarities(text)) for text in sequences])
    features = np.stack([sequence_features(text) for text in sequences])
    with torch.no_grad():
        logits = load_encoder(folder)(torch.from_numpy(features), torch.from_numpy(votes)).numpy()
    return logits, votes[:, : logits.shape[1]], votes[:, -1]


def read_out(
    known: NDArray[np.floating], labels: NDArray[np.floating], told: Mask, logits: NDArray[np.floating]
) -> tuple[Doubles, Doubles]:
    """Probabilities of other classes from a model's logits: a logistic layer for each.

    Parameters
    ----------
    known
        (T, K) held-out logits of training proteins.
    labels, told
        (T, C) whether each is in each of the other classes, and whether that is known.
    logits
        (n, K) of the tested proteins.

    Returns
    -------
    probabilities, thresholds
        (n, C), and (C,) from which naming a class lets expect the best F1 of the training proteins. A class
        that no training protein has is never named.
    """
    chances, thresholds = np.zeros((len(logits), labels.shape[1])), np.ones(labels.shape[1])
    for k in range(labels.shape[1]):
        yes, rows = labels[told[:, k], k] > 0.5, known[told[:, k]]
        if yes.any() and not yes.all():
            layer = LogisticRegression(max_iter=1000).fit(rows, yes)
            chances[:, k] = layer.predict_proba(logits)[:, 1]
            thresholds[k] = best_f1(layer.predict_proba(rows)[:, 1])
    return chances, thresholds


def best_f1(chances: NDArray[np.floating]) -> float:
    """Probability from which naming a class gives the best F1 that calibrated probabilities let expect.

    On a grid of 0.01. What is expected of many proteins varies less than what happens to be so of a few.
    """
    grid = np.arange(1, 100) / 100
    named = chances[:, None] >= grid
    return float(grid[np.argmax(2 * (chances @ named) / (named.sum(0) + chances.sum()))])


def about(held: HeldOut, tested: LabelledProteins, protocol: str) -> str:
    """Say what was trained on what, by cluster."""
    shared = np.isin(tested.cluster, held.train.cluster).sum()
    return (
        f"Trained on {len(held.train):,} proteins of {len(np.unique(held.train.cluster)):,} clusters "
        f"({PROTOCOLS[protocol]}); tested on {len(tested):,} proteins of "
        f"{len(np.unique(tested.cluster)):,} clusters, {shared:,} of them in a cluster that trained."
    )


def machine() -> str:
    """Say when and where this was measured."""
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}."
    )


def table(title: str, rows: Mapping[str, Mapping[str, Metric]], names: Sequence[str]) -> list[str]:
    """Lines of a Markdown table: value and 95 % interval of protein-level figures, a row a model."""
    count = next(iter(rows.values()))[f"protein/{names[0]}"].n
    lines = [f"| {title}, n = {count} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, figures in rows.items():
        cells = [cell(figures[f"protein/{name}"]) for name in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return lines


def cell(metric: Metric) -> str:
    """Value and interval of a figure."""
    if np.isnan(metric.value):
        return "–"
    interval = "" if metric.low is None else f" ({metric.low:.3f}–{metric.high:.3f})"
    return f"{metric.value:.3f}{interval}"


def rounded(metric: Metric) -> dict[str, Any]:
    """A figure as a bundle holds it: four places, its interval where it has one."""
    ends = {key: getattr(metric, key) for key in ("value", "low", "high")}
    return {key: round(end, 4) for key, end in ends.items() if end is not None} | {"n": metric.n}


def with_baselines(models: Mapping[str, LabelReport]) -> dict[str, Mapping[str, Metric]]:
    """Rows of a table: the models, then the baselines of the first."""
    first = next(iter(models.values()))
    return {name: report.metrics for name, report in models.items()} | dict(first.baselines)


def arguments(description: str | None, name: str, work: str | None = None) -> argparse.Namespace:
    """Read the command line of a benchmark; ``work`` names the one whose training it uses, if not its own."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=("A", "B", "both"), default="both")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    folder = Path("runs") / (work or name)
    parser.add_argument("--work", type=Path, default=folder, help="where training may resume")
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of LabelSettings, as JSON")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results") / f"{name}.md")
    options = parser.parse_args()
    options.settings = LabelSettings(**options.settings)
    return options


def protocols(options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Protocols to run, each with its folder."""
    for protocol in ("A", "B") if options.protocol == "both" else (options.protocol,):
        yield protocol, options.work / protocol


def write(path: Path, title: str, description: str | None, sections: Sequence[Sequence[str]]) -> None:
    """Write a result as Markdown: title, what was done, when and where, sections."""
    text = [f"# {title}", "", (description or "").split("\n\n", 1)[1].strip(), "", machine(), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*text, *(line for section in sections for line in (*section, ""))]), "utf-8")
    print(path.read_text("utf-8"))
