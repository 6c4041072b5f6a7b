"""Measure the sequence half on cytosol and nucleoplasm as the Human Protein Atlas sees them.

The paper tests 2,087 proteins that are in one of the two alone in U-2 OS cells. The table at hand does not
tell cell lines apart: tested are proteins whose only main location over **all** lines is Cytosol or
Nucleoplasm, without additional ones and not uncertain, as far as ``hou_test.py`` holds them out; its two
trainings, under protocol A and B, are used again. That benchmark keeps localizations that two sources
support, so these are surer labels than the Atlas's at large. Cytosol is the positive class; the score and its
threshold are those of ``opencell_labels.py``. Protein level; 95 % bootstrap intervals over homology clusters.
"""

from pathlib import Path

import numpy as np

from deepgps.arrays import Ints
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins, read_table
from hou_test import tested_proteins
from label_protocols import (
    about,
    arguments,
    hold_out,
    protocols,
    table,
    trained_beside,
    with_baselines,
    write,
)
from opencell_labels import MINI, SHOWN, class_sets, said_of, two_classes

LOCATIONS = ("Cytosol", "Nucleoplasm")


def test_classes(data: Path, held_out: LabelledProteins) -> Ints:
    """Class of each protein held out, (n,); -1 for those that the Atlas does not see in one of the two."""
    row_of = {sequence: row for row, sequence in enumerate(held_out.sequences)}
    classes = np.full(len(held_out), -1)
    for row in read_table(data, "hpa_localizations").to_dicts():
        alone = not row["additional_location"] and row["main_location"] in LOCATIONS
        if alone and row["reliability"] != "Uncertain" and row["sequence"] in row_of:
            classes[row_of[row["sequence"]]] = LOCATIONS.index(row["main_location"])
    return classes


def main() -> None:
    options = arguments(__doc__, "hpa_u2os_labels", work="hou_test")
    proteins = load_labelled_proteins(options.data, MINI)
    held_out, _ = tested_proteins(options.data)
    classes = test_classes(options.data, held_out)
    tested = held_out.subset(classes >= 0)
    sections: list[list[str]] = []
    for protocol, folder in protocols(options):
        train = trained_beside(proteins, held_out, protocol)
        held = hold_out(train, tested, protocol, options.settings, folder)
        said = said_of(held, tested, class_sets(train, options.data, folder), folder)
        rows = with_baselines(two_classes(said, tested, classes[classes >= 0]))
        sections.append([f"## Protocol {protocol}", about(held, tested, protocol)])
        sections += [table("two classes", rows, names) for names in SHOWN["single-2"]]
    write(options.out, "Human Protein Atlas, cytosol or nucleoplasm", __doc__, sections)


if __name__ == "__main__":
    main()
