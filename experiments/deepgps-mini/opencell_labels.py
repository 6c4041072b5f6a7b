"""Labels on OpenCell's single-localized proteins, in fifths, under protocols A and B.

The label model is trained five times under each protocol. The test proteins are divided into as many folds,
under A by homology cluster and under B one by one, and each fold is tested by the training that held it out.
So OpenCell's other proteins train, as in the paper and in the shipped model. Protein level, 95 % bootstrap
intervals over homology clusters. Cytoplasmic is the positive class of the two.

The shuffled proteins have the residues of each test protein in random order. The paper's independent proteins
are held out of every training; the mean probability of the trainings is recorded.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.bundle import Metric
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, opencell_localizations
from deepgps.evaluation.label_metrics import ece_by_chance, reliability
from deepgps.evaluation.labels import LabelReport, label_report
from deepgps.evaluation.protocols import PROTOCOLS, Protocol, describe_hold_out, folds, may_train
from deepgps.localization import CLASS_SETS
from deepgps.prediction.encoder import class_set_logits
from deepgps.proteins.check import sequence_warnings
from deepgps.training.mini.class_sets import classes_alone, opencell_alone
from deepgps.training.recipe import LabelSettings
from figures import rounded, table
from label_training import HeldOut, Specs, fit_read_outs, hold_out, predict, with_baselines

MINI = CLASS_SETS["mini"]
SINGLE_4 = CLASS_SETS["single-4"].slugs
COLUMNS = [MINI.slugs.index(slug) for slug in SINGLE_4]
TASKS = {"single-2": "cytoplasmic or nucleoplasm", "single-4": "four classes"}
FOLDS = 5
MAX_LENGTH = 2700
"""The paper drops longer proteins."""
COVERAGES = (0.8, 0.6, 0.4)
"""Shares of the proteins, most confident first, whose accuracy is recorded."""
INDEPENDENT = {"CPSF6": ("Q16630", 1), "CSTF2": ("P33240", 1), "EEF2": ("P13639", 0)}
"""The paper's independent proteins: accession and class in single-2."""
CARD_METRICS = (
    ("single-2", "auroc", "AUROC", ("model", "k-mer index alone", "length alone")),
    ("single-2", "accuracy", "accuracy", ("model", "majority class")),
    ("single-2", "ece", "calibration error (ECE)", ("model",)),
    ("single-4", "accuracy", "accuracy", ("model", "majority class")),
    ("single-4", "f1_macro", "macro-F1", ("model", "majority class")),
    ("single-4", "ece", "calibration error (ECE)", ("model",)),
)
BINARY_TABLE = (
    *("auroc", "auprc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1"),
    *("f1_macro", "f1_weighted", "mcc", "ece", "brier"),
)
FOUR_TABLE = (
    *("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "mcc", "one_vs_rest_accuracy"),
    *("precision_macro", "sensitivity_macro", "specificity_macro", "auroc_macro", "auprc_macro", "ece"),
)

Outputs = Mapping[str, NDArray[np.floating]]
"""Outputs of the label model for n test proteins, (n, …) each, by name."""


def measure(data: Path, work: Path, settings: LabelSettings) -> dict[str, Metric]:
    """Train, predict and measure under both protocols."""
    proteins = load_labelled_proteins(data, MINI)
    classes = single_classes(data, proteins)
    tested, truth = proteins.subset(classes >= 0), classes[classes >= 0]
    figures: dict[str, Metric] = {}
    for protocol in PROTOCOLS:
        outputs, independent = _cross_validated(
            data, work / protocol, settings, protocol, proteins, classes >= 0
        )
        figures |= _figures(protocol, outputs, tested, truth)
        if protocol == "B":
            figures |= {
                f"Independent protein {name}, B: probability": Metric(value=round(value, 4), n=FOLDS)
                for name, value in independent.items()
            }
    return figures


def single_classes(data: Path, proteins: LabelledProteins) -> Ints:
    """Class of each protein in single-4 by the paper's grade rule, (N,); -1 for those that are not tested."""
    classes = opencell_alone(proteins.sequences, opencell_localizations(data), SINGLE_4)
    return np.where([len(sequence) <= MAX_LENGTH for sequence in proteins.sequences], classes, -1)


def _cross_validated(
    data: Path,
    folder: Path,
    settings: LabelSettings,
    protocol: Protocol,
    proteins: LabelledProteins,
    tests: Mask,
) -> tuple[Outputs, dict[str, float]]:
    """Outputs for all test proteins, and the mean probability of the independent ones' true class."""
    tested = proteins.subset(tests)
    fold = folds(tested.cluster if protocol == "A" else np.arange(len(tested)), FOLDS)
    outputs, independent = [], []
    for number in range(FOLDS):
        here = tested.subset(fold == number)
        held_out_ids = [*here.ids.tolist(), *(accession for accession, _ in INDEPENDENT.values())]
        train = proteins.subset(may_train(proteins, held_out_ids, protocol))
        held_out = hold_out(train, here, protocol, settings, folder / str(number))
        specs = fit_read_outs(train, data, held_out.folder)
        outputs.append(model_outputs(held_out, here, specs))
        independent.append(_independent(proteins, held_out.folder, specs))
        print(f"- {describe_hold_out(train, here, protocol)}")
    order = np.argsort(np.concatenate([np.flatnonzero(fold == number) for number in range(FOLDS)]))
    together = {name: np.concatenate([each[name] for each in outputs])[order] for name in outputs[0]}
    names = [f"{gene}, {SINGLE_4[place]}" for gene, (_, place) in INDEPENDENT.items()]
    return together, dict(zip(names, np.mean(independent, axis=0).tolist(), strict=True))


def model_outputs(held_out: HeldOut, tested: LabelledProteins, specs: Specs) -> Outputs:
    """Outputs of one training for the n proteins that it held out, and for these shuffled."""
    about = json.loads((held_out.folder / "encoder.json").read_text("utf-8"))
    pairs = classes_alone(held_out.train, SINGLE_4[:2])
    lengths, train_lengths = (
        np.array([len(sequence) for sequence in each.sequences]) for each in (tested, held_out.train)
    )
    length_threshold = best_threshold(1 - pairs[pairs >= 0], -train_lengths[pairs >= 0])
    shuffled_logits, shuffled_votes, nearest = predict(held_out.folder, shuffled(tested.sequences))
    bounds = {"unclear": about["unclear_below"], "unlike": about["unlike_below"]}
    bounds |= {f"unclear in {name}": spec.unclear_below for name, spec in specs.items()}
    outputs: dict[str, NDArray[np.floating]] = {
        "logits": held_out.logits,
        "votes": held_out.votes,
        # In thousands of residues: a probability of exactly 1 would be a tie.
        "length": (-lengths - length_threshold) / 1000,
        "shuffled": shuffled_logits,
        "nearest of shuffled": nearest,
    }
    for name, spec in specs.items():
        outputs[name] = class_set_logits(spec, held_out.logits, held_out.votes)
        outputs[f"shuffled in {name}"] = class_set_logits(spec, shuffled_logits, shuffled_votes)
    return outputs | {name: np.full(len(tested), bound) for name, bound in bounds.items()}


def _independent(proteins: LabelledProteins, folder: Path, specs: Specs) -> Doubles:
    """Probability (3,) that a training gives the true class of each independent protein."""
    row_of = {accession: row for row, accession in enumerate(proteins.ids.tolist())}
    sequences = [proteins.sequences[row_of[accession]] for accession, _ in INDEPENDENT.values()]
    logits, votes, _ = predict(folder, sequences)
    chances = softmax(class_set_logits(specs["single-2"], logits, votes), axis=1)
    return np.array([row[place] for row, (_, place) in zip(chances, INDEPENDENT.values(), strict=True)])


def best_threshold(truth: Ints, score: NDArray[np.floating]) -> float:
    """Return the score that separates the classes with the best balanced accuracy."""
    order = np.argsort(score)
    positive = truth[order] == 1
    missed = np.cumsum(positive) / positive.sum()
    rejected = np.cumsum(~positive) / (~positive).sum()
    best = int(np.argmax(rejected - missed))
    return float(score[order][min(best + 1, len(score) - 1)])


def shuffled(sequences: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same residues in random order."""
    rng = np.random.default_rng(0)
    return tuple("".join(rng.permutation(list(sequence))) for sequence in sequences)


def two_classes(outputs: Outputs, tested: LabelledProteins, classes: Ints) -> dict[str, LabelReport]:
    """Measure model, neighbours alone and length alone on cytoplasmic (0) against nucleoplasm (1)."""
    here = classes < 2
    scores = {
        "model": outputs["single-2"][:, 0] - outputs["single-2"][:, 1],
        "k-mer index alone": outputs["votes"][:, COLUMNS[0]] - outputs["votes"][:, COLUMNS[1]],
        "length alone": outputs["length"],
    }
    chances = {name: expit(score[here].astype(np.float64)) for name, score in scores.items()}
    return {
        name: single_label_report(np.stack([each, 1 - each], axis=1), classes[here], tested.subset(here))
        for name, each in chances.items()
    }


def _four_classes(outputs: Outputs, tested: LabelledProteins, classes: Ints) -> dict[str, LabelReport]:
    """Measure model, its highest probability and neighbours alone on the four classes."""
    logits = {
        "model": outputs["single-4"],
        "highest probability": outputs["logits"][:, COLUMNS],
        "k-mer index alone": outputs["votes"][:, COLUMNS],
    }
    return {
        name: single_label_report(softmax(each.astype(np.float64), axis=1), classes, tested)
        for name, each in logits.items()
    }


def single_label_report(
    chances: NDArray[np.floating], classes: Ints, proteins: LabelledProteins
) -> LabelReport:
    """Measure probabilities (n, C) of the first C classes of single-4."""
    count = chances.shape[1]
    return label_report(
        chances,
        np.eye(count)[classes],
        SINGLE_4[:count],
        multi_label=False,
        proteins=proteins.ids,
        clusters=proteins.cluster,
    )


def _figures(
    protocol: Protocol, outputs: Outputs, tested: LabelledProteins, truth: Ints
) -> dict[str, Metric]:
    reports = {
        "single-2": two_classes(outputs, tested, truth),
        "single-4": _four_classes(outputs, tested, truth),
    }
    rows = {task: with_baselines(each) for task, each in reports.items()}
    for task, names in (("single-2", BINARY_TABLE), ("single-4", FOUR_TABLE)):
        print(f"\nProtocol {protocol}, {task}\n\n{table(rows[task], {name: name for name in names})}\n")
    figures = {}
    for task, metric, name, models in CARD_METRICS:
        for model in models:
            baseline = "" if model == "model" else f" of the baseline '{model}'"
            figures[f"OpenCell, {TASKS[task]}, {protocol}: {name}{baseline}"] = rounded(
                rows[task][model][metric]
            )
    for task, here in {"single-2": truth < 2, "single-4": truth >= 0}.items():
        head = f"OpenCell, {TASKS[task]}, {protocol}"
        chances, bound = softmax(outputs[task], axis=1)[here], outputs[f"unclear in {task}"][here]
        by_chance = Metric(value=round(ece_by_chance(chances.max(1)), 4), n=len(chances))
        figures[f"{head}: calibration error (ECE) of the baseline 'exact probabilities'"] = by_chance
        confident = accuracy_by_confidence(chances, truth[here], tested.subset(here), bound)
        figures |= {f"{head}: {name}": rounded(each) for name, each in confident.items()}
    chances = expit(outputs["logits"].astype(np.float64))
    pooled = reliability(chances[tested.mask], tested.labels[tested.mask]).ece
    name = f"OpenCell, all classes pooled, {protocol}: calibration error (ECE)"
    figures[name] = Metric(value=round(pooled, 4), n=len(tested))
    doubt = doubted_shares(outputs, shuffled(tested.sequences))
    return figures | {
        f"OpenCell, shuffled, {protocol}: {name}": Metric(value=round(share, 4), n=len(tested))
        for name, share in doubt.items()
    }


def accuracy_by_confidence(
    chances: NDArray[np.floating], classes: Ints, tested: LabelledProteins, bound: NDArray[np.floating]
) -> dict[str, Metric]:
    """Accuracy of the most confident predictions, and of those that are not unclear.

    Parameters
    ----------
    chances
        (n, C) probabilities.
    classes
        (n,) the true class of each.
    tested
        The proteins.
    bound
        (n,) the probability below which a prediction is unclear.
    """
    highest = chances.max(1)
    order = np.argsort(-highest, kind="stable")
    chosen = {
        f"accuracy of the most confident {share:.0%}": order[: round(share * len(order))]
        for share in COVERAGES
    }
    chosen["accuracy where not unclear"] = np.flatnonzero(highest >= bound)
    figures = {}
    for name, rows in chosen.items():
        # In this order, which the bootstrap's draws depend on.
        report = label_report(
            chances[rows],
            np.eye(chances.shape[1])[classes[rows]],
            SINGLE_4[: chances.shape[1]],
            multi_label=False,
            proteins=tested.ids[rows],
            clusters=tested.cluster[rows],
        )
        figures[name] = report.metrics["protein/accuracy"]
    return figures | {"share not unclear": Metric(value=float((highest >= bound).mean()), n=len(highest))}


def doubted_shares(outputs: Outputs, sequences: tuple[str, ...]) -> dict[str, float]:
    """Shares of the shuffled proteins that get a warning, and beside that are unclear, by class set."""
    warned = np.array([bool(sequence_warnings(sequence, None)) for sequence in sequences])
    warned |= outputs["nearest of shuffled"] < outputs["unlike"]
    shares = {"with a warning (unlike known proteins, short or of low complexity)": float(warned.mean())}
    sets = {name: (softmax(outputs[f"shuffled in {name}"], axis=1), f"unclear in {name}") for name in TASKS}
    sets["the model's own classes"] = (expit(outputs["shuffled"]), "unclear")
    for name, (chances, bound) in sets.items():
        unclear = chances.max(1) < outputs[bound]
        shares[f"unclear in {name}"] = float(unclear.mean())
        shares[f"with a warning or unclear in {name}"] = float((warned | unclear).mean())
    return shares
