"""Measure how well the sequence half knows where OpenCell's single-localized proteins are.

Trains the shipped recipe under protocol A (no homolog of a test protein) and B (only the test proteins, and
what is at least 95 % identical to one, kept out), all test proteins held out at once, and prints
protein-level figures with 95 % bootstrap intervals over proteins beside trivial baselines. Cytoplasmic is
the positive class; the two-class score is logit(cytoplasmic) - logit(nucleoplasm); its threshold is the one
of best balanced accuracy on held-out training proteins that the HPA or OpenCell sees in only one of the two,
never on the test.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from deepgps.localization import CLASS_SETS, major_localizations
from deepgps.proteins.features import sequence_features
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.mini.label_quality import expected_calibration_error
from deepgps.training.mini.labels import REGIMES, LabelSettings, fit_labels, load_encoder

MINI = CLASS_SETS["mini"]
SINGLE_4 = CLASS_SETS["single-4"].slugs
LONGEST = 2700
"""The paper drops longer proteins."""
REGIME = {"A": REGIMES[0], "B": REGIMES[1]}

Floats = NDArray[np.floating]
Metric = Callable[[NDArray[np.int64], Floats], float]


def test_classes(data: Path, proteins: LabelledProteins) -> NDArray[np.int64]:
    """Class of each protein in single-4 by the paper's grade rule, (N,); -1 for those that do not test."""
    row_of = {sequence: row for row, sequence in enumerate(proteins.sequences)}
    classes = np.full(len(proteins), -1)
    for row in read_table(data, "opencell_targets").to_dicts():
        grades = [(row[f"annotations_grade_{grade}"] or "").split(";") for grade in (3, 2)]
        major = major_localizations(*(filter(None, grade) for grade in grades))
        if len(major) == 1 and major[0] in SINGLE_4 and len(row["sequence"]) <= LONGEST:
            classes[row_of[row["sequence"]]] = SINGLE_4.index(major[0])
    return classes


def interval(metric: Metric, truth: NDArray[np.int64], score: Floats, draws: int = 1000) -> dict[str, float]:
    """A metric with its 95 % bootstrap interval over proteins."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(truth), (draws, len(truth)))
    rows = rows[truth[rows].min(1) < truth[rows].max(1)]
    low, high = np.percentile([metric(truth[each], score[each]) for each in rows], (2.5, 97.5))
    value = metric(truth, score)
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "n": len(truth)}


def two_classes(truth: NDArray[np.int64], score: Floats, threshold: float) -> dict[str, Any]:
    """Figures of a cytoplasmic score (n,) at a threshold; ``truth`` is 1 for cytoplasmic."""
    metrics = {
        "accuracy": accuracy_score,
        "balanced_accuracy": balanced_accuracy_score,
        "f1": f1_score,
        "mcc": matthews_corrcoef,
    }
    named = (score >= threshold).astype(np.int64)
    figures = {"auroc": interval(lambda t, s: float(roc_auc_score(t, s)), truth, score)}
    figures |= {name: interval(lambda t, s, m=m: float(m(t, s)), truth, named) for name, m in metrics.items()}
    return figures | {"threshold": round(float(threshold), 4)}


def four_classes(truth: NDArray[np.int64], named: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy and macro-F1 over single-4."""
    return {
        "accuracy": interval(lambda t, s: float(accuracy_score(t, s)), truth, named),
        "macro_f1": interval(lambda t, s: float(f1_score(t, s, average="macro")), truth, named),
    }


def best_threshold(truth: NDArray[np.int64], score: Floats) -> float:
    """The score that parts the classes with the best balanced accuracy."""
    order = np.argsort(score)
    positive = truth[order] == 1
    missed = np.cumsum(positive) / positive.sum()
    rejected = np.cumsum(~positive) / (~positive).sum()
    best = int(np.argmax(rejected - missed))
    return float(score[order][min(best + 1, len(score) - 1)])


def only_in(proteins: LabelledProteins, slugs: Sequence[str]) -> NDArray[np.int64]:
    """Which of ``slugs`` a human protein is in and nowhere else, (N,); -1 for all others."""
    columns = [proteins.slugs.index(slug) for slug in slugs]
    yes = proteins.labels > 0.5
    imaged = np.array(["hpa" in source or "opencell" in source for source in proteins.source.tolist()])
    single = imaged & (yes.sum(1) == 1) & yes[:, columns].any(1)
    return np.where(single, np.argmax(yes[:, columns], axis=1), -1)


def predict(folder: Path, sequences: Sequence[str]) -> tuple[torch.Tensor, Floats]:
    """Calibrated logits (n, K) and neighbour votes (n, V)."""
    index = NeighbourIndex.load(folder / "neighbours.npz")
    votes = np.stack([index.vote(index.similarities(text)) for text in sequences])
    features = np.stack([sequence_features(text) for text in sequences])
    with torch.no_grad():
        return load_encoder(folder)(torch.from_numpy(features), torch.from_numpy(votes)), votes


def evaluate(
    proteins: LabelledProteins, truth: NDArray[np.int64], protocol: str, settings: LabelSettings, folder: Path
) -> dict[str, Any]:
    """Train under a protocol and measure on the proteins whose ``truth`` is not -1."""
    started = time.perf_counter()
    tested = truth >= 0
    may_train = training_set(proteins, proteins.ids[tested].tolist(), protocol)  # type: ignore[arg-type]
    train, test = proteins.subset(may_train), proteins.subset(tested)
    fit_labels(train, settings, folder)
    logits, votes = predict(folder, test.sequences)
    columns = [MINI.slugs.index(slug) for slug in SINGLE_4]
    known = load_file(folder / "held_out.safetensors")[REGIME[protocol]][:, columns]
    classes = truth[tested]
    return {
        "proteins_trained": len(train),
        "single-2": _two(train, test, classes, known, logits.numpy()[:, columns], votes[:, columns]),
        "single-4": _four(train, classes, known, logits.numpy()[:, columns], votes[:, columns]),
        "ece": round(_ece(logits, test), 4),
        "seconds": round(time.perf_counter() - started),
    }


def _two(
    train: LabelledProteins,
    test: LabelledProteins,
    classes: NDArray[np.int64],
    known: Floats,
    *scores: Floats,
) -> dict[str, Any]:
    """Model and baselines on cytoplasm (class 0) against nucleoplasm (class 1)."""
    pairs, here = only_in(train, SINGLE_4[:2]), classes < 2
    chosen = pairs >= 0
    threshold = best_threshold(1 - pairs[chosen], known[chosen, 0] - known[chosen, 1])
    truth = 1 - classes[here]
    model, votes = (score[here, 0] - score[here, 1] for score in scores)
    lengths = [np.array([len(text) for text in each.sequences]) for each in (train, test)]
    length_at = best_threshold(1 - pairs[chosen], -lengths[0][chosen])
    return {
        "model": two_classes(truth, model, threshold),
        "k-mer index alone": two_classes(truth, votes, 0),
        "length alone": two_classes(truth, -lengths[1][here], length_at),
        "majority class": two_classes(truth, np.zeros(len(truth)), 0),
    }


def _four(
    train: LabelledProteins, classes: NDArray[np.int64], known: Floats, logits: Floats, votes: Floats
) -> dict[str, Any]:
    """Model and baselines on the four classes; a logistic layer over held-out training logits names one."""
    labels = only_in(train, SINGLE_4)
    chosen = labels >= 0
    naming = LogisticRegression(class_weight="balanced", C=1.0, max_iter=1000).fit(
        known[chosen], labels[chosen]
    )
    return {
        "model": four_classes(classes, naming.predict(logits)),
        "highest probability": four_classes(classes, logits.argmax(1)),
        "k-mer index alone": four_classes(classes, votes.argmax(1)),
        "majority class": four_classes(classes, np.zeros_like(classes)),
    }


def _ece(logits: torch.Tensor, test: LabelledProteins) -> float:
    labels, weight = (torch.from_numpy(array.astype(np.float32)) for array in (test.labels, test.mask))
    return expected_calibration_error(torch.sigmoid(logits), labels, weight)


QUOTED = (
    ("single-2", "auroc", "AUROC", ("model", "k-mer index alone", "length alone")),
    ("single-2", "accuracy", "accuracy", ("model", "majority class")),
    ("single-4", "accuracy", "accuracy", ("highest probability", "majority class")),
)
TASKS = {"single-2": "cytoplasmic or nucleoplasm", "single-4": "four classes"}


def quotable(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pick the figures that a bundle and its card quote: what ships, beside its baselines."""
    quoted: dict[str, dict[str, Any]] = {}
    for protocol, result in results.items():
        for task, metric, name, rows in QUOTED:
            for row in rows:
                of = "" if row in ("model", "highest probability") else f" of the baseline '{row}'"
                key = f"OpenCell, {TASKS[task]}, {protocol}: {name}{of}"
                quoted[key] = result[task][row][metric]
        key = f"OpenCell, all classes pooled, {protocol}: calibration error (ECE)"
        quoted[key] = {"value": result["ece"], "n": result["single-4"]["model"]["accuracy"]["n"]}
    return quoted


def report(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the results as Markdown."""
    lines = [
        "# OpenCell, single-localized proteins: labels from the sequence",
        "",
        (__doc__ or "").split("\n\n")[1],
        "",
    ]
    for protocol, result in results.items():
        lines += [
            f"## Protocol {protocol}",
            f"{result['proteins_trained']} proteins trained on; calibration error (ECE, all classes) "
            f"{result['ece']}; {result['seconds']} s.",
            "",
        ]
        for task in ("single-2", "single-4"):
            lines += [*_table(task, result[task]), ""]
    return "\n".join(lines)


def _table(task: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = [name for name, value in next(iter(rows.values())).items() if isinstance(value, dict)]
    count = next(iter(rows.values()))[names[0]]["n"]
    lines = [f"| {task}, n = {count} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, figures in rows.items():
        cells = [
            f"{figures[n]['value']:.3f} ({figures[n]['low']:.3f}–{figures[n]['high']:.3f})" for n in names
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=("A", "B", "both"), default="both")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/opencell_labels"), help="where training may resume"
    )
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of LabelSettings, as JSON")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/opencell_labels.md"))
    options = parser.parse_args()
    proteins = load_labelled_proteins(options.data, MINI)
    truth, settings = test_classes(options.data, proteins), LabelSettings(**options.settings)
    protocols = ("A", "B") if options.protocol == "both" else (options.protocol,)
    results = {
        protocol: evaluate(proteins, truth, protocol, settings, options.work / protocol)
        for protocol in protocols
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report(results) + "\n", "utf-8")
    quoted = json.dumps(quotable(results), indent=2)
    options.out.with_suffix(".json").write_text(quoted + "\n", "utf-8")
    sys.stdout.write(report(results) + "\n")


if __name__ == "__main__":
    main()
