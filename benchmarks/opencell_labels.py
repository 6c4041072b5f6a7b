"""Measure how well the sequence half knows where OpenCell's single-localized proteins are.

Trains the shipped recipe `FOLDS` times under each protocol. The test proteins are dealt into as many parts,
under protocol A by homology cluster and under B one by one, and each part is tested by the training that
held it out: under A with every homolog of it, under B with what is at least 95 % identical to it. So
OpenCell teaches its own words, as in the paper and in the model that ships, and no protein is tested by
what it taught. Protein level, 95 % bootstrap intervals over homology clusters, beside trivial baselines.
Cytoplasmic is the positive class of the two. The model answers in its class sets `single-2` and `single-4`,
as it ships: layers learned on held-out training proteins, never on the test; so are the probabilities below
which it answers `unclear`. Shuffled are the residues of each test protein. The paper's independent
proteins, and what is at least 95 % identical to one, are kept out of every training; of them the mean of
the trainings' probabilities is told.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.bundle import ClassSetSpec
from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, opencell_localizations
from deepgps.evaluation.label_metrics import ece_by_chance, reliability
from deepgps.evaluation.labels import LabelReport, Metric, label_report
from deepgps.localization import CLASS_SETS
from deepgps.prediction.encoder import class_set_logits
from deepgps.training.mini.class_sets import FILE, classes_alone, fit_class_sets, opencell_alone
from label_protocols import (
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
Said = Mapping[str, NDArray[np.floating]]

TASKS = {"single-2": "cytoplasmic or nucleoplasm", "single-4": "four classes"}
"""What is asked, by class set."""
FOLDS = 5
"""Trainings under each protocol."""

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


def test_classes(data: Path, proteins: LabelledProteins) -> Ints:
    """Class of each protein in single-4 by the paper's grade rule, (N,); -1 for those that do not test."""
    classes = opencell_alone(proteins.sequences, opencell_localizations(data), SINGLE_4)
    return np.where([len(text) <= LONGEST for text in proteins.sequences], classes, -1)


def parts(groups: Ints) -> Ints:
    """Deal whole groups into `FOLDS` parts by chance: (n,) part of each protein."""
    distinct, inverse = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(0).permutation(len(distinct)) % FOLDS
    return np.asarray(dealt[inverse], np.int64)


def best_threshold(truth: Ints, score: NDArray[np.floating]) -> float:
    """The score that parts the classes with the best balanced accuracy."""
    order = np.argsort(score)
    positive = truth[order] == 1
    missed = np.cumsum(positive) / positive.sum()
    rejected = np.cumsum(~positive) / (~positive).sum()
    best = int(np.argmax(rejected - missed))
    return float(score[order][min(best + 1, len(score) - 1)])


def class_sets(
    train: LabelledProteins,
    data: Path,
    folder: Path,
    names: Iterable[str] = TASKS,
    fine: LabelledProteins | None = None,
) -> Specs:
    """The layers that the model answers in other class sets by, learned from a folder of held-out answers.

    ``fine`` are the same proteins in the classes of a multi-label set, where ``names`` has one.
    """
    sets = [CLASS_SETS[name] for name in names]
    fit_class_sets(train, train if fine is None else fine, opencell_localizations(data), sets, folder)
    specs = json.loads((folder / FILE).read_text("utf-8"))
    return {name: ClassSetSpec.model_validate(each) for name, each in specs.items()}


def said_of(held: HeldOut, tested: LabelledProteins, specs: Specs, folder: Path) -> Said:
    """What a training says of the n proteins it held out, each figure (n, …), by name."""
    about = json.loads((folder / "encoder.json").read_text("utf-8"))
    pairs = classes_alone(held.train, SINGLE_4[:2])
    lengths, trained = (np.array([len(text) for text in each.sequences]) for each in (tested, held.train))
    length_at = best_threshold(1 - pairs[pairs >= 0], -trained[pairs >= 0])
    shuffled_logits, shuffled_votes, nearest = predict(folder, shuffled(tested.sequences))
    bounds = {"unclear": about["unclear_below"], "unlike": about["unlike_below"]}
    bounds |= {f"unclear in {name}": spec.unclear_below for name, spec in specs.items()}
    return {
        "logits": held.logits,
        "votes": held.votes,
        # In thousands of residues: a probability of exactly 1 would be a tie.
        "length": (-lengths - length_at) / 1000,
        "shuffled": shuffled_logits,
        "nearest of shuffled": nearest,
        **{name: class_set_logits(spec, held.logits, held.votes) for name, spec in specs.items()},
        **{
            f"shuffled in {name}": class_set_logits(spec, shuffled_logits, shuffled_votes)
            for name, spec in specs.items()
        },
        **{name: np.full(len(tested), bound) for name, bound in bounds.items()},
    }


def gathered(said: Sequence[Said], part: Ints) -> Said:
    """Put what the trainings say together, in the order of the tested proteins (n,) of each ``part``."""
    order = np.argsort(np.concatenate([np.flatnonzero(part == number) for number in range(len(said))]))
    return {name: np.concatenate([each[name] for each in said])[order] for name in said[0]}


def two_classes(said: Said, tested: LabelledProteins, classes: Ints) -> dict[str, LabelReport]:
    """Model, neighbours alone and length alone on cytoplasm (class 0) against nucleoplasm (class 1)."""
    here = classes < 2
    scores = {
        "model": said["single-2"][:, 0] - said["single-2"][:, 1],
        "k-mer index alone": said["votes"][:, COLUMNS[0]] - said["votes"][:, COLUMNS[1]],
        "length alone": said["length"],
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


def four_classes(said: Said, tested: LabelledProteins, classes: Ints) -> dict[str, LabelReport]:
    """Model, its highest probability and neighbours alone on the four classes."""
    logits = {
        "model": said["single-4"],
        "highest probability": said["logits"][:, COLUMNS],
        "k-mer index alone": said["votes"][:, COLUMNS],
    }
    return {
        name: label_report(
            softmax(each.astype(np.float64), axis=1),
            np.eye(4)[classes],
            SINGLE_4,
            multi_label=False,
            proteins=tested.ids,
            clusters=tested.cluster,
        )
        for name, each in logits.items()
    }


def calibration_error(said: Said, tested: LabelledProteins) -> float:
    """Calibration error over all classes that the tables know of a protein."""
    chances = expit(said["logits"].astype(np.float64))
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
EXACT = "calibration error (ECE) of the baseline 'exact probabilities'"
"""What it would come out as on so few proteins if nothing were wrong."""


def quotable(
    protocol: str,
    rows: Mapping[str, Mapping[str, Mapping[str, Metric]]],
    named: Mapping[str, NDArray[np.floating]],
    surest: Mapping[str, Mapping[str, Metric]],
    error: float,
) -> dict[str, Any]:
    """Pick the figures that a bundle and its card quote: what ships, beside its baselines.

    ``named`` holds the highest probability of each protein, by class set.
    """
    quoted: dict[str, Any] = {}
    for task, metric, name, of in QUOTED:
        for row in of:
            baseline = "" if row == "model" else f" of the baseline '{row}'"
            key = f"OpenCell, {TASKS[task]}, {protocol}: {name}{baseline}"
            quoted[key] = rounded(rows[task][row][f"protein/{metric}"])
    for task, highest in named.items():
        chance = round(ece_by_chance(highest), 4)
        quoted[f"OpenCell, {TASKS[task]}, {protocol}: {EXACT}"] = {"value": chance, "n": len(highest)}
    for task, found in surest.items():
        for name, metric in found.items():
            if name != ALL_OF_THEM:
                quoted[f"OpenCell, {TASKS[task]}, {protocol}: {name}"] = rounded(metric)
    count = rows["single-4"]["model"]["protein/accuracy"].n
    key = f"OpenCell, all classes pooled, {protocol}: calibration error (ECE)"
    return quoted | {key: {"value": round(error, 4), "n": count}}


def of_shuffled(said: Said, sequences: tuple[str, ...]) -> dict[str, float]:
    """Shares of the shuffled test proteins that the model doubts."""
    sets = {name: (probabilities(said[f"shuffled in {name}"]), said[f"unclear in {name}"]) for name in TASKS}
    sets |= {"its own classes": (expit(said["shuffled"]), said["unclear"])}
    return dict(doubted(shuffled(sequences), said["nearest of shuffled"], said["unlike"], sets))


def of_independent(proteins: LabelledProteins, folder: Path, specs: Specs) -> Doubles:
    """Probability (3,) that a training gives the true class of each of the paper's independent proteins."""
    row_of = {accession: row for row, accession in enumerate(proteins.ids.tolist())}
    sequences = [proteins.sequences[row_of[accession]] for accession, _ in INDEPENDENT.values()]
    logits, votes, _ = predict(folder, sequences)
    chances = probabilities(class_set_logits(specs["single-2"], logits, votes))
    return np.array([row[place] for row, (_, place) in zip(chances, INDEPENDENT.values(), strict=True)])


def trained_in_parts(
    options: argparse.Namespace,
    protocol: str,
    folder: Path,
    proteins: LabelledProteins,
    tests: Mask,
) -> tuple[Said, dict[str, float], list[str]]:
    """What is said of all tested proteins and of the independent ones, and a line on each training."""
    tested = proteins.subset(tests)
    part = parts(tested.cluster if protocol == "A" else np.arange(len(tested)))
    said, independent, lines = [], [], []
    for number in range(FOLDS):
        here = tested.subset(part == number)
        kept_out = [*here.ids.tolist(), *(accession for accession, _ in INDEPENDENT.values())]
        train = proteins.subset(training_set(proteins, kept_out, protocol))  # type: ignore[arg-type]
        work = folder / str(number)
        held = hold_out(train, here, protocol, options.settings, work)
        specs = class_sets(train, options.data, work)
        said.append(said_of(held, here, specs, work))
        independent.append(of_independent(proteins, work, specs))
        lines += [f"- {about(held, here, protocol)}"]
    names = [f"{gene}, {SINGLE_4[place]}" for gene, (_, place) in INDEPENDENT.items()]
    return gathered(said, part), dict(zip(names, np.mean(independent, axis=0).tolist(), strict=True)), lines


def main() -> None:
    options = arguments(__doc__, "opencell_labels")
    proteins = load_labelled_proteins(options.data, MINI)
    classes = test_classes(options.data, proteins)
    tested, truth = proteins.subset(classes >= 0), classes[classes >= 0]
    sections: list[list[str]] = []
    quoted: dict[str, Any] = {}
    for protocol, folder in protocols(options):
        said, independent, lines = trained_in_parts(options, protocol, folder, proteins, classes >= 0)
        found = {"single-2": two_classes(said, tested, truth), "single-4": four_classes(said, tested, truth)}
        rows = {task: with_baselines(reports) for task, reports in found.items()}
        bounds = {task: said[f"unclear in {task}"] for task in TASKS}
        here = {"single-2": truth < 2, "single-4": truth >= 0}
        chances = {task: probabilities(said[task])[some] for task, some in here.items()}
        surest = {
            task: of_surest(
                chances[task],
                truth[some],
                CLASS_SETS[task].slugs,
                tested.subset(some),
                bounds[task][some],
            )
            for task, some in here.items()
        }
        error, doubt = calibration_error(said, tested), of_shuffled(said, tested.sequences)
        named = {task: each.max(1) for task, each in chances.items()}
        quoted |= quotable(protocol, rows, named, surest, error)
        quoted |= {
            f"OpenCell, shuffled, {protocol}: {name}": {"value": round(share, 4), "n": len(tested)}
            for name, share in doubt.items()
        }
        sections.append([f"## Protocol {protocol}", *lines])
        exact = {task: quoted[f"OpenCell, {TASKS[task]}, {protocol}: {EXACT}"]["value"] for task in TASKS}
        by_chance = " and ".join(f"{each:.3f} in {task}" for task, each in exact.items())
        sections[-1] += [
            "",
            f"Calibration error over all twelve classes of the model: {error:.4f}. "
            f"Of exact probabilities so few proteins would show one of {by_chance}.",
        ]
        sections += [table(task, rows[task], names) for task in rows for names in SHOWN[task]]
        sections += [confusion(found["single-4"]["model"]), coverage_table(surest, bounds)]
        sections.append(["Of the shuffled test proteins:", ""])
        sections[-1] += [f"- {share:.1%} {name}" for name, share in doubt.items()]
        if protocol == "B":
            quoted |= {
                f"Independent protein {name}, B: probability": {"value": round(chance, 4), "n": FOLDS}
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


if __name__ == "__main__":
    main()
