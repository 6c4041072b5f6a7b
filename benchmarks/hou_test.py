"""Measure the sequence half on a public benchmark of human proteins, beside four published peers.

Level 3 of the benchmark: seven localizations, several at once. Trains the shipped recipe under protocol A and
B with all of the benchmark's proteins held out, and reads the seven off its logits by a logistic layer each.
The benchmark keeps localizations that two sources support; so do these layers, which learn from held-out
training proteins what a microscope (HPA or OpenCell) sees and Swiss-Prot says as well, or the Atlas itself
calls enhanced or supported: Swiss-Prot has no words for nucleoli and the cytoskeleton. Named from the
probability of best expected F1, a protein gets more localizations than from one half; then exact matches
are more and F1 is less. Protein level; 95 % bootstrap intervals over homology clusters. The peers' rows are
as published, without intervals: what they were trained on is theirs, and it was no protocol of ours.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepgps.arrays import Doubles, Mask
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from deepgps.evaluation.labels import LabelReport, Metric, label_report
from deepgps.localization import CLASS_SETS, HPA_TO_LOCALIZATIONS
from label_protocols import (
    HeldOut,
    about,
    arguments,
    hold_out,
    protocols,
    read_out,
    rounded,
    table,
    trained_beside,
    unlabelled,
    with_baselines,
    write,
)

MINI = CLASS_SETS["mini"]
LEVEL_3: Mapping[str, tuple[str, ...]] = {
    "nucleus": ("nucleoplasm", "nuclear_membrane"),
    "nucleoli": ("nucleolus",),
    "cytosol": ("cytoplasmic",),
    "cytoskeleton": ("cytoskeleton", "centrosome"),
    "plasma-membrane": ("membrane",),
    "endomembrane-system": ("er", "golgi", "vesicles"),
    "mitochondria": ("mitochondria",),
}
"""The benchmark's seven and the classes of `deepgps-mini` that make them up."""
PUBLISHED = {
    "exact_accuracy": "exact_match",
    "macro_f1": "f1_macro",
    "micro_f1": "f1_micro",
    "macro_average_precision": "auprc_macro",
    "micro_average_precision": "auprc_micro",
    "macro_auroc": "auroc_macro",
}
"""The published columns and our names of them."""


def tested_proteins(data: Path) -> tuple[LabelledProteins, Mask]:
    """The benchmark's n proteins, and where they are, (n, 7)."""
    rows = read_table(data, "hou_test")
    places = [set(text.split(";")) for text in rows["level3"].to_list()]
    truth = np.array([[slug in each for slug in LEVEL_3] for each in places])
    columns = (rows[name].to_list() for name in ("uniprot_id", "sequence", "cluster"))
    return unlabelled(*columns, MINI.slugs), truth


def doubly_seen(data: Path) -> dict[str, frozenset[str]]:
    """Which of `MINI` the Atlas sees proteins in that something else supports, by sequence.

    Its reliability *enhanced* stands for a second antibody, a tag or a knock-down, and *supported* for what
    UniProt knows from elsewhere.
    """
    found = {}
    for row in read_table(data, "hpa_localizations").to_dicts():
        names = ";".join(row[grade] or "" for grade in ("enhanced", "supported")).split(";")
        places = [place for name in filter(None, names) for place in HPA_TO_LOCALIZATIONS.get(name, ())]
        found[row["sequence"]] = MINI.of(places)
    return found


def seven_of(train: LabelledProteins, doubly: Mapping[str, frozenset[str]]) -> tuple[Mask, Mask]:
    """Which of the seven two sources support of training proteins, and which can be told, (T, 7) each."""
    columns = [[MINI.slugs.index(slug) for slug in members] for members in LEVEL_3.values()]
    (seen, told), (written, _) = (_seven_of_view(train, view, columns) for view in (0, 1))
    sure = [
        [not doubly.get(text, frozenset()).isdisjoint(members) for members in LEVEL_3.values()]
        for text in train.sequences
    ]
    supported = seen & (written | np.array(sure))
    return supported, told & supported.any(1)[:, None]


def _seven_of_view(train: LabelledProteins, view: int, columns: Sequence[list[int]]) -> tuple[Mask, Mask]:
    """Which of the seven one source sees training proteins in, and which it can tell."""
    yes, told = train.view_labels[:, view] > 0.5, train.view_mask[:, view]
    return (
        np.stack([yes[:, each].any(1) for each in columns], axis=1),
        np.stack([yes[:, each].any(1) | told[:, each].all(1) for each in columns], axis=1),
    )


def seven_votes(held: HeldOut) -> Doubles:
    """What the neighbours say of the seven, (n, 7)."""
    columns = [[MINI.slugs.index(slug) for slug in members] for members in LEVEL_3.values()]
    return np.stack([held.votes[:, each].max(1) for each in columns], axis=1).clip(0, 1).astype(np.float64)


def reports(
    held: HeldOut,
    tested: LabelledProteins,
    truth: Mask,
    doubly: Mapping[str, frozenset[str]],
) -> dict[str, LabelReport]:
    """Measure the model, named for the best F1 and from one half, and its neighbour index alone."""
    chances, thresholds = read_out(held.known, *seven_of(held.train, doubly), held.logits)
    given = {"multi_label": True, "proteins": tested.ids, "clusters": tested.cluster}
    return {
        "deepGPS": label_report(chances, truth, tuple(LEVEL_3), thresholds=thresholds, **given),
        "deepGPS, named from 0.5": label_report(chances, truth, tuple(LEVEL_3), **given),
        "k-mer index alone": label_report(seven_votes(held), truth, tuple(LEVEL_3), **given),
    }


def published(data: Path, count: int) -> dict[str, dict[str, Metric]]:
    """The peers' figures."""
    with (data / "peers" / "hou_level3_published.csv").open(encoding="utf-8") as lines:
        return {
            f"{row['model']} (published)": {
                f"protein/{ours}": Metric(float(row[theirs]), math.nan, math.nan, count)
                for theirs, ours in PUBLISHED.items()
            }
            for row in csv.DictReader(lines)
        }


def main() -> None:
    options = arguments(__doc__, "hou_test")
    proteins = load_labelled_proteins(options.data, MINI)
    tested, truth = tested_proteins(options.data)
    peers, sections, quoted = published(options.data, len(tested)), [], {}
    doubly = doubly_seen(options.data)
    for protocol, folder in protocols(options):
        train = trained_beside(proteins, tested, protocol)
        held = hold_out(train, tested, protocol, options.settings, folder)
        found = reports(held, tested, truth, doubly)
        for row, name in (("deepGPS", ""), ("class prior", " of the baseline 'class prior'")):
            figure = with_baselines(found)[row]["protein/f1_macro"]
            quoted[f"Public benchmark, seven classes, {protocol}: macro-F1{name}"] = rounded(figure)
        by_class = [f"f1/{slug}" for slug in LEVEL_3]
        sections += [
            [f"## Protocol {protocol}", about(held, tested, protocol)],
            table("level 3", with_baselines(found) | peers, list(PUBLISHED.values())),
            table("each class", {name: report.metrics for name, report in found.items()}, by_class),
            table("calibration", with_baselines(found), ["ece", "brier"]),
        ]
    options.out.with_suffix(".json").write_text(json.dumps(quoted, indent=2) + "\n", "utf-8")
    write(options.out, "A public benchmark of human proteins, level 3", __doc__, sections)


if __name__ == "__main__":
    main()
