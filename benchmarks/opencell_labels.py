"""Measure how well the sequence half knows where OpenCell's single-localized proteins are.

Trains the shipped recipe under protocol A (no homolog of a test protein) and B (only the test proteins, and
what is at least 95 % identical to one, kept out), all test proteins held out at once. Protein level, 95 %
bootstrap intervals over homology clusters, beside trivial baselines. Cytoplasmic is the positive class of the
two. The model answers in its class sets `single-2` and `single-4`, as it ships: layers learned on held-out
training proteins that the HPA or OpenCell sees in only one of the classes, never on the test; so are the
probabilities below which it answers `unclear`. Shuffled are the residues of each test protein. The paper's
independent proteins, and what is at least 95 % identical to one, are kept out as the test proteins are.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from deepgps.bundle import ClassSetSpec
from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from deepgps.evaluation.labels import LabelReport, Metric, label_report
from deepgps.evaluation.measures.calibration import reliability
from deepgps.localization import CLASS_SETS, major_localizations
from deepgps.training.mini.class_sets import FILE, fit_class_sets, only_in
from label_protocols import (
    Floats,
    HeldOut,
    about,
    arguments,
    hold_out,
    predict,
    protocols,
    rounded,
    table,
    with_baselines,
    write,
)
from label_uncertainty import ALL_OF_THEM, coverage_table, doubted, of_surest, probabilities, shuffled

MINI = CLASS_SETS["mini"]
SINGLE_4 = CLASS_SETS["single-4"].slugs
COLUMNS = [MINI.slugs.index(slug) for slug in SINGLE_4]
Specs = Mapping[str, ClassSetSpec]

LONGEST = 2700
"""The paper drops longer proteins."""
SHOWN = {
    "single-2": (
        ("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity"),
        ("precision", "f1", "f1_macro", "f1_weighted", "mcc", "ece", "brier"),
    ),
    "single-4": (
        ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "mcc", "one_vs_rest_accuracy"),
        ("precision_macro", "sensitivity_macro", "specificity_macro", "auroc_macro", "auprc_macro", "ece"),
    ),
}
"""Figures in the tables of each task."""


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


def best_threshold(truth: NDArray[np.int64], score: Floats) -> float:
    """The score that parts the classes with the best balanced accuracy."""
    order = np.argsort(score)
    positive = truth[order] == 1
    missed = np.cumsum(positive) / positive.sum()
    rejected = np.cumsum(~positive) / (~positive).sum()
    best = int(np.argmax(rejected - missed))
    return float(score[order][min(best + 1, len(score) - 1)])


def class_sets(train: LabelledProteins, folder: Path) -> Specs:
    """The layers that the model answers in other class sets by, learned in a folder of held-out logits."""
    fit_class_sets(train, train, [CLASS_SETS["single-2"], CLASS_SETS["single-4"]], folder)
    specs = json.loads((folder / FILE).read_text("utf-8"))
    return {name: ClassSetSpec.model_validate(each) for name, each in specs.items()}


def answers(spec: ClassSetSpec, logits: Floats) -> NDArray[np.float64]:
    """Logits of a class set, from those of the model's own classes."""
    return np.asarray(logits @ np.array(spec.weights).T + np.array(spec.bias), np.float64)


def two_classes(
    held: HeldOut, tested: LabelledProteins, classes: NDArray[np.int64], specs: Specs
) -> dict[str, LabelReport]:
    """Model, neighbours alone and length alone on cytoplasm (class 0) against nucleoplasm (class 1)."""
    pairs, here = only_in(held.train, SINGLE_4[:2]), classes < 2
    lengths, trained = (np.array([len(text) for text in each.sequences]) for each in (tested, held.train))
    length_at = best_threshold(1 - pairs[pairs >= 0], -trained[pairs >= 0])
    own = answers(specs["single-2"], held.logits)
    scores = {
        "model": own[:, 0] - own[:, 1],
        "k-mer index alone": held.votes[:, COLUMNS[0]] - held.votes[:, COLUMNS[1]],
        # In thousands of residues: a probability of exactly 1 would be a tie.
        "length alone": (-lengths - length_at) / 1000,
    }
    chances = {name: expit(score[here].astype(np.float64)) for name, score in scores.items()}
    return {
        name: label_report(
            np.stack([each, 1 - each], axis=1),
            np.eye(2)[classes[here]],
            SINGLE_4[:2],
            multi_label=False,
            proteins=tested.ids[here],
            clusters=tested.cluster[here],
        )
        for name, each in chances.items()
    }


def four_classes(
    held: HeldOut, tested: LabelledProteins, classes: NDArray[np.int64], specs: Specs
) -> dict[str, LabelReport]:
    """Model, its highest probability and neighbours alone on the four classes."""
    logits = held.logits[:, COLUMNS]
    chances = {
        "model": softmax(answers(specs["single-4"], held.logits), axis=1),
        "highest probability": softmax(logits.astype(np.float64), axis=1),
        "k-mer index alone": softmax(held.votes[:, COLUMNS].astype(np.float64), axis=1),
    }
    return {
        name: label_report(
            each,
            np.eye(4)[classes],
            SINGLE_4,
            multi_label=False,
            proteins=tested.ids,
            clusters=tested.cluster,
        )
        for name, each in chances.items()
    }


def calibration_error(held: HeldOut, tested: LabelledProteins) -> float:
    """Calibration error over all classes that the tables know of a protein."""
    chances = expit(held.logits.astype(np.float64))
    return reliability(chances[tested.mask], tested.labels[tested.mask]).ece


INDEPENDENT = {"CPSF6": ("Q16630", 1), "CSTF2": ("P33240", 1), "EEF2": ("P13639", 0)}
"""The paper's independent proteins: accession and class in single-2."""
QUOTED = (
    ("single-2", "auroc", "AUROC", ("model", "k-mer index alone", "length alone")),
    ("single-2", "accuracy", "accuracy", ("model", "majority class")),
    ("single-2", "ece", "calibration error (ECE)", ("model",)),
    ("single-4", "accuracy", "accuracy", ("model", "majority class")),
    ("single-4", "f1_macro", "macro-F1", ("model", "majority class")),
    ("single-4", "ece", "calibration error (ECE)", ("model",)),
)
TASKS = {"single-2": "cytoplasmic or nucleoplasm", "single-4": "four classes"}


def quotable(
    protocol: str,
    rows: Mapping[str, Mapping[str, Mapping[str, Metric]]],
    surest: Mapping[str, Mapping[str, Metric]],
    error: float,
) -> dict[str, Any]:
    """Pick the figures that a bundle and its card quote: what ships, beside its baselines."""
    quoted: dict[str, Any] = {}
    for task, metric, name, of in QUOTED:
        for row in of:
            baseline = "" if row == "model" else f" of the baseline '{row}'"
            key = f"OpenCell, {TASKS[task]}, {protocol}: {name}{baseline}"
            quoted[key] = rounded(rows[task][row][f"protein/{metric}"])
    for task, found in surest.items():
        for name, metric in found.items():
            if name != ALL_OF_THEM:
                quoted[f"OpenCell, {TASKS[task]}, {protocol}: {name}"] = rounded(metric)
    count = rows["single-4"]["model"]["protein/accuracy"].n
    key = f"OpenCell, all classes pooled, {protocol}: calibration error (ECE)"
    return quoted | {key: {"value": round(error, 4), "n": count}}


def of_shuffled(folder: Path, tested: LabelledProteins, specs: Specs) -> dict[str, float]:
    """Shares of the shuffled test proteins that the model doubts."""
    sequences = shuffled(tested.sequences)
    logits, _, nearest = predict(folder, sequences)
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    sets = {name: (probabilities(answers(spec, logits)), spec.unclear_below) for name, spec in specs.items()}
    sets |= {"its own classes": (expit(logits), about["unclear_below"])}
    return dict(doubted(sequences, nearest, about["unlike_below"], sets))


def of_independent(proteins: LabelledProteins, folder: Path, specs: Specs) -> dict[str, float]:
    """Probability that the model gives the true class of each of the paper's independent proteins."""
    row_of = {accession: row for row, accession in enumerate(proteins.ids.tolist())}
    sequences = [proteins.sequences[row_of[accession]] for accession, _ in INDEPENDENT.values()]
    logits, _, _ = predict(folder, sequences)
    chances = probabilities(answers(specs["single-2"], logits))
    true = zip(INDEPENDENT.items(), chances, strict=True)
    return {f"{gene}, {SINGLE_4[place]}": float(row[place]) for (gene, (_, place)), row in true}


def main() -> None:
    options = arguments(__doc__, "opencell_labels")
    proteins = load_labelled_proteins(options.data, MINI)
    classes = test_classes(options.data, proteins)
    tested, classes_tested = proteins.subset(classes >= 0), classes[classes >= 0]
    kept_out = [*tested.ids.tolist(), *(accession for accession, _ in INDEPENDENT.values())]
    sections: list[list[str]] = []
    quoted: dict[str, Any] = {}
    for protocol, folder in protocols(options):
        train = proteins.subset(training_set(proteins, kept_out, protocol))  # type: ignore[arg-type]
        held = hold_out(train, tested, protocol, options.settings, folder)
        specs = class_sets(train, folder)
        found = {task: of(held, tested, classes_tested, specs) for task, of in MEASURED.items()}
        rows = {task: with_baselines(reports) for task, reports in found.items()}
        surest = {
            task: of_surest(
                probabilities(answers(specs[task], held.logits))[here],
                classes_tested[here],
                tuple(specs[task].classes),
                tested.subset(here),
                specs[task].unclear_below,
            )
            for task, here in (("single-2", classes_tested < 2), ("single-4", classes_tested >= 0))
        }
        error = calibration_error(held, tested)
        quoted |= quotable(protocol, rows, surest, error)
        sections.append([f"## Protocol {protocol}", about(held, tested, protocol)])
        sections[-1] += ["", f"Calibration error over all twelve classes of the model: {error:.4f}."]
        sections += [table(task, rows[task], names) for task in rows for names in SHOWN[task]]
        sections += [confusion(found["single-4"]["model"]), coverage_table(surest, specs)]
        doubt = of_shuffled(folder, tested, specs)
        quoted |= {
            f"OpenCell, shuffled, {protocol}: {name}": {"value": round(share, 4), "n": len(tested)}
            for name, share in doubt.items()
        }
        sections.append(["Of the shuffled test proteins:", ""])
        sections[-1] += [f"- {share:.1%} {name}" for name, share in doubt.items()]
        if protocol == "B":
            independent = of_independent(proteins, folder, specs)
            quoted |= {
                f"Independent protein {name}, B: probability": {"value": round(chance, 4), "n": 1}
                for name, chance in independent.items()
            }
            sections.append(
                ["The paper's independent proteins, probability of the true class in `single-2`:", ""]
            )
            sections[-1] += [f"- {name}: {chance:.3f}" for name, chance in independent.items()]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(quoted, indent=2) + "\n", "utf-8")
    write(options.out, "OpenCell, single-localized proteins: labels from the sequence", __doc__, sections)


def confusion(report: LabelReport) -> list[str]:
    """Lines of a Markdown table of a confusion matrix."""
    lines = [f"| true, down; named by the model, across | {' | '.join(report.classes)} |"]
    lines.append("|---" * (len(report.classes) + 1) + "|")
    for slug, row in zip(report.classes, report.confusion_by_protein, strict=True):
        lines.append(f"| {slug} | {' | '.join(map(str, row))} |")
    return lines


MEASURED = {"single-2": two_classes, "single-4": four_classes}


if __name__ == "__main__":
    main()
