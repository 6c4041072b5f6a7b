"""Measure the sequence half on cytosol and nucleoplasm as the Human Protein Atlas sees them.

The paper tests 2,087 proteins that are in one of the two alone in U-2 OS cells. The table at hand does not
tell cell lines apart: tested are proteins whose only main location over **all** lines is Cytosol or
Nucleoplasm, without additional ones and not uncertain. A fifth of their homology clusters, drawn with seed 0,
is held out at once; the recipe that ships is trained under protocol A and B. Cytosol is the positive class;
the score and its threshold are those of ``opencell_labels.py``. Protein level; 95 % bootstrap intervals over
homology clusters.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepgps.datasets.identity import training_set
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from label_protocols import about, arguments, hold_out, protocols, table, with_baselines, write
from opencell_labels import MINI, SHOWN, two_classes

LOCATIONS = ("Cytosol", "Nucleoplasm")


def test_classes(data: Path, proteins: LabelledProteins) -> NDArray[np.int64]:
    """Class of each protein held out, (N,); -1 for all others."""
    row_of = {sequence: row for row, sequence in enumerate(proteins.sequences)}
    classes = np.full(len(proteins), -1)
    for row in read_table(data, "hpa_localizations").to_dicts():
        alone = not row["additional_location"] and row["main_location"] in LOCATIONS
        if alone and row["reliability"] != "Uncertain" and row["sequence"] in row_of:
            classes[row_of[row["sequence"]]] = LOCATIONS.index(row["main_location"])
    clusters = np.unique(proteins.cluster[classes >= 0])
    held_out = np.random.default_rng(0).permutation(clusters)[: len(clusters) // 5]
    return np.where(np.isin(proteins.cluster, held_out), classes, -1)


def main() -> None:
    options = arguments(__doc__, "hpa_u2os_labels")
    proteins = load_labelled_proteins(options.data, MINI)
    classes = test_classes(options.data, proteins)
    tested = proteins.subset(classes >= 0)
    sections: list[list[str]] = []
    for protocol, folder in protocols(options):
        train = proteins.subset(training_set(proteins, tested.ids.tolist(), protocol))  # type: ignore[arg-type]
        held = hold_out(train, tested, protocol, options.settings, folder)
        rows = with_baselines(two_classes(held, tested, classes[classes >= 0]))
        sections.append([f"## Protocol {protocol}", about(held, tested, protocol)])
        sections += [table("two classes", rows, names) for names in SHOWN["single-2"]]
    write(options.out, "Human Protein Atlas, cytosol or nucleoplasm", __doc__, sections)


if __name__ == "__main__":
    main()
