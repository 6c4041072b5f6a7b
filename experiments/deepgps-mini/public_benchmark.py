"""Labels on a public benchmark of human proteins, level 3: seven localizations, several at once.

The label model is trained under protocols A and B with all of the benchmark's proteins held out. The seven
localizations are read off its logits by a logistic layer each. The benchmark keeps localizations that two
sources support, and so do these layers: they learn from held-out training proteins what a microscope (HPA or
OpenCell) sees and Swiss-Prot says as well, or what the Atlas itself calls enhanced or supported. A class is
predicted from the probability with the best expected F1. Protein level, 95 % bootstrap intervals over
homology clusters. The published rows of four other tools are printed beside: what these were trained on is
not known to be held out.

The same two trainings are measured on two further sets of the held-out proteins: cytosol or nucleoplasm as
the Human Protein Atlas sees them (only main location over all cell lines, none additional, not uncertain; the
paper's test proteins are of U-2 OS alone), and all 17 categories of OpenCell, several at once.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.bundle import Metric
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_sequence_table
from deepgps.evaluation.labels import LabelReport, label_report
from deepgps.evaluation.protocols import (
    PROTOCOLS,
    Protocol,
    describe_hold_out,
    training_proteins,
    unlabelled_proteins,
)
from deepgps.localization import CLASS_SETS, HPA_TO_LOCALIZATIONS, major_localizations
from deepgps.prediction.encoder import class_set_logits
from deepgps.training.recipe import LabelSettings
from figures import rounded, table
from label_training import HeldOut, fit_read_outs, hold_out, with_baselines
from opencell_labels import BINARY_TABLE, MAX_LENGTH, model_outputs, two_classes

MINI, ALL = CLASS_SETS["mini"], CLASS_SETS["all"]
LEVEL_3: Mapping[str, tuple[str, ...]] = {
    "nucleus": ("nucleoplasm", "nuclear_membrane"),
    "nucleoli": ("nucleolus",),
    "cytosol": ("cytoplasmic",),
    "cytoskeleton": ("cytoskeleton", "centrosome"),
    "plasma-membrane": ("membrane",),
    "endomembrane-system": ("er", "golgi", "vesicles"),
    "mitochondria": ("mitochondria",),
}
"""The benchmark's seven localizations, and the classes of `deepgps-mini` that make them up."""
_COLUMNS = [[MINI.slugs.index(slug) for slug in members] for members in LEVEL_3.values()]
PUBLISHED = {
    "exact_accuracy": "exact_match",
    "macro_f1": "f1_macro",
    "micro_f1": "f1_micro",
    "macro_average_precision": "auprc_macro",
    "micro_average_precision": "auprc_micro",
    "macro_auroc": "auroc_macro",
}
"""The published columns, and our names of these metrics."""
ATLAS_LOCATIONS = ("Cytosol", "Nucleoplasm")


def measure(data: Path, work: Path, settings: LabelSettings) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Return the figures of the card, and the further ones."""
    proteins, fine = (load_labelled_proteins(data, classes) for classes in (MINI, ALL))
    tested, truth = benchmark_proteins(data)
    figures: dict[str, Metric] = {}
    more: dict[str, Metric] = {}
    for protocol in PROTOCOLS:
        train = training_proteins(proteins, tested, protocol)
        held_out = hold_out(train, tested, protocol, settings, work / protocol)
        print(describe_hold_out(train, tested, protocol))
        rows = with_baselines(_level_3_reports(held_out, tested, truth, doubly_supported(data)))
        columns = {name: name for name in (*PUBLISHED.values(), "ece", "brier")}
        print(f"\nProtocol {protocol}\n\n{table(rows | published(data, len(tested)), columns)}\n")
        for row, baseline in (("deepGPS", ""), ("class prior", " of the baseline 'class prior'")):
            name = f"Public benchmark, seven classes, {protocol}: macro-F1{baseline}"
            figures[name] = rounded(rows[row]["f1_macro"])
        more |= _atlas_figures(held_out, tested, data, protocol)
        more |= _opencell_figures(held_out, tested, data, protocol, fine)
    return figures, more


def benchmark_proteins(data: Path) -> tuple[LabelledProteins, Mask]:
    """Return the benchmark's n proteins and their localizations, (n, 7)."""
    rows = read_sequence_table(data, "hou_test")
    places = [set(text.split(";")) for text in rows["level3"].to_list()]
    truth = np.array([[slug in each for slug in LEVEL_3] for each in places])
    ids, sequences, clusters = (rows[name].to_list() for name in ("uniprot_id", "sequence", "cluster"))
    return unlabelled_proteins(ids, sequences, clusters, MINI.slugs), truth


def doubly_supported(data: Path) -> dict[str, frozenset[str]]:
    """Classes that the Atlas sees proteins in with support from elsewhere, by sequence.

    Its reliability *enhanced* stands for a second antibody, a tag or a knock-down, and *supported* for what
    UniProt knows from elsewhere.
    """
    found = {}
    for row in read_sequence_table(data, "hpa_localizations").to_dicts():
        names = ";".join(row[grade] or "" for grade in ("enhanced", "supported")).split(";")
        places = [place for name in filter(None, names) for place in HPA_TO_LOCALIZATIONS.get(name, ())]
        found[row["sequence"]] = MINI.of(places)
    return found


def level_3_labels(train: LabelledProteins, doubly: Mapping[str, frozenset[str]]) -> tuple[Mask, Mask]:
    """Which of the seven two sources support for training proteins, and which are known, (T, 7) each."""
    (seen, known), (written, _) = (_level_3_of_view(train, view) for view in (0, 1))
    sure = [
        [not doubly.get(sequence, frozenset()).isdisjoint(members) for members in LEVEL_3.values()]
        for sequence in train.sequences
    ]
    supported = seen & (written | np.array(sure))
    return supported, known & supported.any(1)[:, None]


def _level_3_of_view(train: LabelledProteins, view: int) -> tuple[Mask, Mask]:
    """Which of the seven one source sees training proteins in, and which it can tell."""
    yes, known = train.view_labels[:, view] > 0.5, train.view_mask[:, view]
    return (
        np.stack([yes[:, each].any(1) for each in _COLUMNS], axis=1),
        np.stack([yes[:, each].any(1) | known[:, each].all(1) for each in _COLUMNS], axis=1),
    )


def read_out(
    train_logits: NDArray[np.floating], labels: Mask, known: Mask, logits: NDArray[np.floating]
) -> tuple[Doubles, Doubles]:
    """Fit a logistic layer for each of C other classes.

    Parameters
    ----------
    train_logits
        (T, K) held-out logits of training proteins.
    labels, known
        (T, C) whether each is in each of the other classes, and whether that is known.
    logits
        (n, K) of the test proteins.

    Returns
    -------
    probabilities, thresholds
        (n, C), and (C,) thresholds with the best expected F1 on the training proteins. A class that no
        training protein has is never predicted.
    """
    count = labels.shape[1]
    chances, thresholds = np.zeros((len(logits), count)), np.ones(count)
    for k in range(count):
        yes, rows = labels[known[:, k], k] > 0.5, train_logits[known[:, k]]
        if yes.any() and not yes.all():
            layer = LogisticRegression(max_iter=1000).fit(rows, yes)
            chances[:, k] = layer.predict_proba(logits)[:, 1]
            thresholds[k] = best_expected_threshold(layer.predict_proba(rows)[:, 1])
    return chances, thresholds


def best_expected_threshold(chances: Doubles) -> float:
    """Return the threshold, on a grid of 0.01, with the best F1 that calibrated probabilities let expect.

    What is expected of many proteins varies less than what happens to be so of a few.
    """
    grid = np.arange(1, 100) / 100
    predicted = chances[:, None] >= grid
    return float(grid[np.argmax(2 * (chances @ predicted) / (predicted.sum(0) + chances.sum()))])


def _level_3_reports(
    held_out: HeldOut, tested: LabelledProteins, truth: Mask, doubly: Mapping[str, frozenset[str]]
) -> dict[str, LabelReport]:
    """Measure the model with its thresholds and from one half, and its neighbour index alone."""
    labels, known = level_3_labels(held_out.train, doubly)
    chances, thresholds = read_out(held_out.train_logits, labels, known, held_out.logits)
    votes = np.stack([held_out.votes[:, each].max(1) for each in _COLUMNS], axis=1)

    def report(chances: NDArray[np.floating], thresholds: Sequence[float] | None = None) -> LabelReport:
        return label_report(
            chances,
            truth,
            tuple(LEVEL_3),
            multi_label=True,
            proteins=tested.ids,
            clusters=tested.cluster,
            thresholds=thresholds,
        )

    return {
        "deepGPS": report(chances, thresholds.tolist()),
        "deepGPS, thresholds of 0.5": report(chances),
        "k-mer index alone": report(votes.clip(0, 1).astype(np.float64)),
    }


def published(data: Path, count: int) -> dict[str, dict[str, Metric]]:
    """Return the published metrics of other tools."""
    with (data / "peers" / "hou_level3_published.csv").open(encoding="utf-8") as lines:
        return {
            f"{row['model']} (published)": {
                ours: Metric(value=float(row[theirs]), n=count) for theirs, ours in PUBLISHED.items()
            }
            for row in csv.DictReader(lines)
        }


def atlas_classes(data: Path, held_out: LabelledProteins) -> Ints:
    """Class of each protein held out, (n,): 0 cytosol, 1 nucleoplasm; -1 for others."""
    row_of = {sequence: row for row, sequence in enumerate(held_out.sequences)}
    classes = np.full(len(held_out), -1)
    for row in read_sequence_table(data, "hpa_localizations").to_dicts():
        alone = not row["additional_location"] and row["main_location"] in ATLAS_LOCATIONS
        if alone and row["reliability"] != "Uncertain" and row["sequence"] in row_of:
            classes[row_of[row["sequence"]]] = ATLAS_LOCATIONS.index(row["main_location"])
    return classes


def _atlas_figures(
    held_out: HeldOut, tested: LabelledProteins, data: Path, protocol: Protocol
) -> dict[str, Metric]:
    classes = atlas_classes(data, tested)
    here, some = _subset(held_out, tested, classes >= 0)
    outputs = model_outputs(here, some, fit_read_outs(held_out.train, data, held_out.folder))
    rows = with_baselines(two_classes(outputs, some, classes[classes >= 0]))
    print(f"\nProtocol {protocol}, Atlas\n\n{table(rows, {name: name for name in BINARY_TABLE})}\n")
    head = f"Human Protein Atlas, cytosol or nucleoplasm, {protocol}"
    return {
        f"{head}: {name}": rounded(rows["model"][metric])
        for metric, name in {"auroc": "AUROC", "accuracy": "accuracy", "f1_macro": "macro-F1"}.items()
    }


def opencell_categories(data: Path, held_out: LabelledProteins) -> dict[int, Mask]:
    """Major localizations (17,) of each protein held out that OpenCell sees, by its row."""
    row_of = {sequence: row for row, sequence in enumerate(held_out.sequences)}
    found = {}
    for row in read_sequence_table(data, "opencell_targets").to_dicts():
        grades = [(row[f"annotations_grade_{grade}"] or "").split(";") for grade in (3, 2)]
        major = major_localizations(*(filter(None, grade) for grade in grades))
        if major and len(row["sequence"]) <= MAX_LENGTH and row["sequence"] in row_of:
            found[row_of[row["sequence"]]] = np.array([slug in major for slug in ALL.slugs])
    return found


def _opencell_figures(
    held_out: HeldOut, tested: LabelledProteins, data: Path, protocol: Protocol, fine: LabelledProteins
) -> dict[str, Metric]:
    truth_of = opencell_categories(data, tested)
    rows = np.isin(np.arange(len(tested)), list(truth_of))
    here, some = _subset(held_out, tested, rows)
    trained = set(held_out.train.sequences)
    seen = fine.subset(np.array([sequence in trained for sequence in fine.sequences]))
    spec = fit_read_outs(held_out.train, data, held_out.folder, ["all"], seen)["all"]
    report = label_report(
        expit(class_set_logits(spec, here.logits, here.votes).astype(np.float64)),
        np.array([truth_of[row] for row in sorted(truth_of)]),
        ALL.slugs,
        multi_label=True,
        proteins=some.ids,
        clusters=some.cluster,
        thresholds=spec.thresholds,
    )
    names = {
        "exact_match": "exact match",
        "f1_macro": "macro-F1",
        "f1_micro": "micro-F1",
        "auroc_macro": "macro-AUROC",
    }
    every = with_baselines({"model": report})
    print(f"\nProtocol {protocol}, 17 categories\n\n{table(every, names)}\n")
    head = f"OpenCell, 17 categories, {protocol}"
    return {f"{head}: {name}": rounded(every["model"][metric]) for metric, name in names.items()}


def _subset(held_out: HeldOut, tested: LabelledProteins, rows: Mask) -> tuple[HeldOut, LabelledProteins]:
    """Keep some of the test proteins."""
    kept = HeldOut(
        held_out.train,
        held_out.train_logits,
        held_out.logits[rows],
        held_out.votes[rows],
        held_out.nearest[rows],
        held_out.folder,
    )
    return kept, tested.subset(rows)
