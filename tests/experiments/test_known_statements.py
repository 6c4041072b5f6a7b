"""What the sources of known proteins say, in their words and in ours."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("polars")
pytest.importorskip("sklearn")
sys.path.append(str(Path(__file__).parents[2] / "experiments" / "deepgps-mini"))

from deepgps.localization import CLASS_SETS, uniprot_localizations
from deepgps.proteins.known import Statement
from known_combination import (
    combined_logits,
    fit_combination,
    hidden_rows,
    levels_of,
    reliability_table,
    target_labels,
)
from known_statements import uniprot_statements

MINI = CLASS_SETS["mini"]
TEXT = (
    "SUBCELLULAR LOCATION: Cytoplasm {ECO:0000269|PubMed:1}. Nucleus, PML body {ECO:0000250|UniProtKB:P1, "
    "ECO:0000305|PubMed:2}; Peripheral membrane protein {ECO:0000269|PubMed:3}. Membrane {ECO:0000255}; "
    "Multi-pass membrane protein. Note=Moves to the nucleus. {ECO:0000269|PubMed:4}.; "
    "SUBCELLULAR LOCATION: [Isoform 2]: Secreted."
)


def test_statements_of_uniprot_keep_their_words_and_evidence():
    assert list(uniprot_statements(TEXT)) == [
        Statement("UniProt", "experimental", "Cytoplasm", ("cytoplasmic",)),
        Statement("UniProt", "by similarity", "Nucleus, PML body", ("nuclear_punctae",)),
        Statement("UniProt", "predicted", "Membrane", ()),
        Statement("UniProt", "curated", "Secreted", ("extracellular",), "Isoform 2"),
    ]


@pytest.mark.parametrize(
    ("location", "slug"),
    [
        ("Nucleus", "nucleoplasm"),
        ("Nucleus lamina", "nuclear_membrane"),
        ("Cytoplasm, cytoskeleton, microtubule organizing center, centrosome", "centrosome"),
        ("Golgi apparatus, trans-Golgi network membrane", "golgi"),
        ("Cytoplasmic vesicle, secretory vesicle, synaptic vesicle membrane", "vesicles"),
        ("Secreted, extracellular space, extracellular matrix", "extracellular"),
    ],
)
def test_locations_of_uniprot_have_the_localization_of_their_most_specific_part(location, slug):
    assert uniprot_localizations(location) == (slug,)


def test_a_target_decides_only_what_it_says_or_excludes():
    nucleus = Statement("UniProt", "experimental", "Nucleus", ("nucleoplasm",))
    labels, decided = target_labels([nucleus], "UniProt", MINI)
    assert [MINI.slugs[place] for place in np.flatnonzero(labels)] == ["nucleoplasm"]
    undecided = {MINI.slugs[place] for place in np.flatnonzero(~decided)}
    assert undecided == {"nucleolus", "nuclear_membrane"}
    assert not target_labels([nucleus], "HPA", MINI)[1].any()


def proteins(count: int) -> list[list[Statement]]:
    """Proteins of which OpenCell says what the HPA says if enhanced, and something else if uncertain."""
    rng, places = np.random.default_rng(0), ("er", "golgi", "mitochondria")
    found = []
    for _ in range(count):
        place = rng.choice(places)
        sure = rng.random() < 0.5
        other = place if sure else rng.choice([each for each in places if each != place])
        found.append(
            [
                Statement("OpenCell", "grade 3", place, (place,)),
                Statement("HPA", "enhanced" if sure else "uncertain", other, (other,)),
            ]
        )
    return found


def test_the_weights_follow_the_measured_reliability():
    told = proteins(300)
    levels = levels_of([each for own in told for each in own])
    assert levels == ("HPA enhanced", "HPA uncertain", "OpenCell grade 3")
    predicted = np.random.default_rng(1).normal(-2, 0.1, (len(told), len(MINI.slugs))).astype(np.float32)
    rows = hidden_rows(told, predicted, MINI, levels)
    combination = fit_combination(rows, levels)
    er = MINI.slugs.index("er")
    assert combination.says[0, er] > 2 > 0 > combination.says[1, er] - combination.says[0, er]
    opencell = rows.subset(rows.targets == "OpenCell")
    logits = combined_logits(combination, opencell)
    sure = opencell.said[:, 0].any(1)
    assert (logits[sure].argmax(1) == opencell.labels[sure].argmax(1)).all()


def test_the_table_counts_what_holds_elsewhere():
    table = {(row.source, row.slug, row.other): row for row in reliability_table(proteins(300), MINI)}
    assert table["HPA enhanced", None, "OpenCell"].holds == 1
    assert table["HPA uncertain", None, "OpenCell"].holds == 0
    assert table["OpenCell grade 3", "er", "HPA"].count >= 10
