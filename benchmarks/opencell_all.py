"""Measure the sequence half on all 17 categories of OpenCell, several at once.

Tests on every OpenCell protein with a major localization and at most 2,700 residues, all held out at once,
under protocol A and B; what counts as true are its major localizations, by the paper's grade rule. The model
knows twelve classes: a logistic layer for each of the 17 reads it off their logits, learned with its
threshold on held-out training proteins that the HPA or OpenCell sees. Categories that none of them has are
never named. Protein level; 95 % bootstrap intervals over homology clusters. The paper has no such figures.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from deepgps.evaluation.labels import label_report
from deepgps.localization import CLASS_SETS, major_localizations
from label_protocols import about, arguments, hold_out, protocols, read_out, table, with_baselines, write
from opencell_labels import LONGEST

ALL = CLASS_SETS["all"]
SHOWN = (
    ("exact_match", "f1_macro", "f1_micro", "f1_weighted", "mcc_macro", "label_accuracy"),
    ("auroc_macro", "auroc_micro", "auprc_macro", "auprc_micro", "ece", "brier"),
)


def test_categories(data: Path, proteins: LabelledProteins) -> dict[int, NDArray[np.bool_]]:
    """Major localizations (17,) of each protein that tests, by its row."""
    row_of = {sequence: row for row, sequence in enumerate(proteins.sequences)}
    found = {}
    for row in read_table(data, "opencell_targets").to_dicts():
        grades = [(row[f"annotations_grade_{grade}"] or "").split(";") for grade in (3, 2)]
        major = major_localizations(*(filter(None, grade) for grade in grades))
        if major and len(row["sequence"]) <= LONGEST:
            found[row_of[row["sequence"]]] = np.array([slug in major for slug in ALL.slugs])
    return found


def main() -> None:
    options = arguments(__doc__, "opencell_all")
    proteins = load_labelled_proteins(options.data, CLASS_SETS["mini"])
    fine = load_labelled_proteins(options.data, ALL)
    truth_of = test_categories(options.data, proteins)
    rows = np.array(sorted(truth_of))
    here = np.isin(np.arange(len(proteins)), rows)
    tested, truth = proteins.subset(here), np.array([truth_of[row] for row in rows])
    sections: list[list[str]] = []
    for protocol, folder in protocols(options):
        may_train = training_set(proteins, tested.ids.tolist(), protocol)  # type: ignore[arg-type]
        held = hold_out(proteins.subset(may_train), tested, protocol, options.settings, folder)
        seen = fine.subset(may_train)
        chances, thresholds = read_out(held.known, seen.view_labels[:, 0], seen.view_mask[:, 0], held.logits)
        report = label_report(
            chances,
            truth,
            ALL.slugs,
            multi_label=True,
            proteins=tested.ids,
            clusters=tested.cluster,
            thresholds=thresholds.tolist(),
        )
        found = {"model": report}
        sections.append([f"## Protocol {protocol}", about(held, tested, protocol)])
        sections += [table("all", with_baselines(found), names) for names in SHOWN]
        sections.append(["| category | proteins | F1 | AUROC | average precision |", "|---|---|---|---|---|"])
        for slug, count in zip(ALL.slugs, truth.sum(0), strict=True):
            cells = (report.metrics[f"protein/{name}/{slug}"] for name in ("f1", "auroc", "auprc"))
            sections[-1].append(
                f"| {slug} | {count} | "
                + " | ".join(f"{each.value:.3f} ({each.low:.3f}–{each.high:.3f})" for each in cells)
                + " |"
            )
    write(options.out, "OpenCell, all 17 categories: labels from the sequence", __doc__, sections)


if __name__ == "__main__":
    main()
