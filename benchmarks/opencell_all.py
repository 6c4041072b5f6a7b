"""Measure the sequence half on all 17 categories of OpenCell, several at once.

Tests on the OpenCell proteins with a major localization and at most 2,700 residues, as far as ``hou_test.py``
holds them out; its two trainings, under protocol A and B, are used again. That benchmark keeps localizations
that two sources support, so these are the surer of OpenCell's proteins. True are the major localizations, by
the paper's grade rule. The model knows twelve classes: a layer for each of the 17 reads it off
their logits and the neighbours' votes, learned with its threshold as that of the class set that ships.
Categories that no training protein has are never named. Named for the best F1, a protein gets more categories
than it has, so exact matches are fewer than for always naming the most frequent one. Protein level; 95 %
bootstrap intervals over homology clusters. The paper has no such figures.
"""

from pathlib import Path

import numpy as np
from scipy.special import expit

from deepgps.arrays import Mask
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from deepgps.evaluation.labels import label_report
from deepgps.localization import CLASS_SETS, major_localizations
from deepgps.prediction.encoder import class_set_logits
from hou_test import tested_proteins
from label_protocols import (
    about,
    arguments,
    cell,
    hold_out,
    protocols,
    table,
    trained_beside,
    with_baselines,
    write,
)
from opencell_labels import LONGEST, class_sets

ALL = CLASS_SETS["all"]
SHOWN = (
    ("exact_match", "f1_macro", "f1_micro", "f1_weighted", "mcc_macro", "label_accuracy"),
    ("auroc_macro", "auroc_micro", "auprc_macro", "auprc_micro", "ece", "brier"),
)


def test_categories(data: Path, held_out: LabelledProteins) -> dict[int, Mask]:
    """Major localizations (17,) of each protein held out that OpenCell sees, by its row."""
    row_of = {sequence: row for row, sequence in enumerate(held_out.sequences)}
    found = {}
    for row in read_table(data, "opencell_targets").to_dicts():
        grades = [(row[f"annotations_grade_{grade}"] or "").split(";") for grade in (3, 2)]
        major = major_localizations(*(filter(None, grade) for grade in grades))
        if major and len(row["sequence"]) <= LONGEST and row["sequence"] in row_of:
            found[row_of[row["sequence"]]] = np.array([slug in major for slug in ALL.slugs])
    return found


def main() -> None:
    options = arguments(__doc__, "opencell_all", work="hou_test")
    proteins = load_labelled_proteins(options.data, CLASS_SETS["mini"])
    fine = load_labelled_proteins(options.data, ALL)
    held_out, _ = tested_proteins(options.data)
    truth_of = test_categories(options.data, held_out)
    rows = sorted(truth_of)
    tested = held_out.subset(np.isin(np.arange(len(held_out)), rows))
    truth = np.array([truth_of[row] for row in rows])
    sections: list[list[str]] = []
    for protocol, folder in protocols(options):
        train = trained_beside(proteins, held_out, protocol)
        held = hold_out(train, tested, protocol, options.settings, folder)
        trained = set(train.sequences)
        seen = fine.subset(np.array([each in trained for each in fine.sequences]))
        spec = class_sets(train, options.data, folder, ["all"], seen)["all"]
        chances = expit(class_set_logits(spec, held.logits, held.votes).astype(np.float64))
        report = label_report(
            chances,
            truth,
            ALL.slugs,
            multi_label=True,
            proteins=tested.ids,
            clusters=tested.cluster,
            thresholds=spec.thresholds,
        )
        found = {"model": report}
        sections.append([f"## Protocol {protocol}", about(held, tested, protocol)])
        sections += [table("all", with_baselines(found), names) for names in SHOWN]
        sections.append(["| category | proteins | F1 | AUROC | average precision |", "|---|---|---|---|---|"])
        for slug, count in zip(ALL.slugs, truth.sum(0), strict=True):
            cells = [cell(report.metrics[f"protein/{name}/{slug}"]) for name in ("f1", "auroc", "auprc")]
            sections[-1].append(f"| {slug} | {count} | {' | '.join(cells)} |")
    write(options.out, "OpenCell, all 17 categories: labels from the sequence", __doc__, sections)


if __name__ == "__main__":
    main()
