"""The index of known proteins: found by sequence and by name, and read back."""

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.proteins.check import AMINO_ACIDS
from deepgps.proteins.features import RESIDUES
from deepgps.proteins.known import (
    KnownFacts,
    KnownProteins,
    Statement,
    agreement,
    known_warnings,
    main_statements,
)
from deepgps.proteins.neighbours import Neighbour, NeighbourIndex

RNG = np.random.default_rng(3)
LAMINA = Statement("UniProt", "experimental", "Nucleus lamina", ("nuclear_membrane",))
MEMBRANE = Statement("HPA", "supported", "Nuclear membrane", ("nuclear_membrane",))
PLASMA = Statement("Itzhak 2016", "map", "Plasma membrane", ("membrane",))
ISOFORM = Statement("UniProt", "experimental", "Cytoplasm", ("cytoplasmic",), "Isoform 2")


def random_sequence(length: int) -> str:
    return "".join(RNG.choice(list(AMINO_ACIDS), length))


VOTING = [random_sequence(length) for length in (400, 300, 250)]
ALONE = [random_sequence(350)[:100] + "U" + random_sequence(249)]
NAMES = ["P20700\tLMNB1 LMNB\tLMN2", "Q00001\tAAA\tSHARED", "Q00002\tBBB\tSHARED", "P36969\tGPX4\tPHGPX"]


def indexed(sequences: list[str]) -> NeighbourIndex:
    nothing = np.zeros((len(sequences), 1), np.float32)
    names = [str(row) for row in range(len(sequences))]
    return NeighbourIndex.build(names, sequences, nothing, nothing > 0, ("er",))


@pytest.fixture(scope="module")
def facts() -> KnownFacts:
    return KnownFacts(
        NAMES,
        np.array([True, True, False, True]),
        np.array([False, True, False, False]),
        np.array([0, 1, 1, -1], np.int32),
        np.array([3, 1, 0, 1], np.uint8),
        (LAMINA, MEMBRANE, PLASMA, ISOFORM),
        np.array([0, 1, 2, 3, 0], np.uint16),
        (np.array([3]), np.array([100]), np.array([ord("U")], np.uint8)),
        np.array([[0.5, -1], *[[np.nan, np.nan]] * 3], np.float16),
    )


@pytest.fixture(scope="module")
def known(facts) -> KnownProteins:
    return KnownProteins(KnownFacts.from_bytes(facts.to_bytes()), indexed(VOTING), indexed(ALONE))


def find(known: KnownProteins, sequence: str):
    return known.find(sequence, indexed(VOTING).similarities(sequence))


def mutated(sequence: str, share: float) -> str:
    letters = list(sequence)
    for place in RNG.choice(len(letters), round(share * len(letters)), replace=False):
        letters[place] = RESIDUES[(RESIDUES.index(letters[place]) + 7) % 20]
    return "".join(letters)


def test_an_identical_sequence_is_found_with_its_statements_and_held_out_logits(known):
    found = find(known, VOTING[0])
    assert found.protein.name == "LMNB1 (P20700)"
    assert found.protein.identical and found.protein.match == ""
    assert found.protein.statements == (LAMINA, MEMBRANE, PLASMA)
    assert found.rows.tolist() == [0]
    assert found.held_out.tolist() == [0.5, -1]


def test_proteins_of_one_sequence_are_all_named(known):
    found = find(known, VOTING[1])
    assert (found.protein.accession, found.protein.others) == ("Q00001", ("Q00002",))
    assert found.held_out is None


def test_a_sequence_that_does_not_vote_is_found(known):
    found = find(known, ALONE[0])
    assert (found.protein.accession, found.rows.tolist()) == ("P36969", [])


@pytest.mark.parametrize(
    "change",
    [lambda text: mutated(text, 0.04), lambda text: text[:200] + text[210:], lambda text: "GS" * 5 + text],
    ids=["substitutions", "deletion", "tag"],
)
def test_a_variant_is_the_same_protein_and_says_so(known, change):
    found = find(known, change(VOTING[0]))
    assert found.protein.accession == "P20700" and found.protein.whole and not found.protein.identical
    assert "% identical to LMNB1 (P20700)" in found.protein.match
    assert found.rows.tolist() == [0]
    assert found.held_out is None


def test_half_of_a_protein_is_an_isoform_or_fragment(known):
    half = find(known, VOTING[0][:220]).protein
    assert half.accession == "P20700" and not half.whole and half.applies
    assert half.coverage == pytest.approx(220 / 400)
    assert half.match.startswith("an isoform, fragment or fusion of LMNB1 (P20700)")
    assert not find(known, VOTING[0][:140]).protein.applies
    assert find(known, VOTING[0][:60]) is None


def test_relatives_and_strangers_are_not_known(known):
    assert find(known, mutated(VOTING[0], 0.15)) is None
    assert find(known, random_sequence(300)) is None
    assert find(known, "".join(RNG.permutation(list(VOTING[0])))) is None


def test_names_lead_to_entries_and_synonyms_say_so(known):
    assert known.named("LMNB1").note == known.named("p20700").note == ""
    assert known.named("LMNB").gene_symbol == "LMNB1"
    assert known.named("LMNB").note == "LMNB is a synonym: LMNB1 (P20700) was taken"
    assert known.named("lmn2") is None and known.candidates("lmn2") == ("P20700 (LMNB1)",)
    assert known.named("P20700-1").note == "P20700-1 is isoform 1 of LMNB1 (P20700), the canonical sequence"
    assert known.named("P20700-2") is known.named("NOBODY") is known.named("SHARED") is None
    assert known.candidates("SHARED") == ("Q00001 (AAA)", "Q00002 (BBB)")
    assert "earlier sequence" in known.named("AAA").note


def test_sequences_come_back_whole(known):
    assert known.sequence("P20700") == VOTING[0]
    assert known.sequence("p36969") == ALONE[0]
    assert known.sequence("P99999") is None
    assert [each.accession for each in known] == ["P20700", "Q00001", "Q00002", "P36969"]


def test_a_damaged_index_is_refused(facts):
    with pytest.raises(BundleError, match="known proteins cannot be read"):
        KnownFacts.from_bytes(facts.to_bytes()[:-40])


def test_agreement_names_each_place_with_its_sources_most_first():
    assert agreement([PLASMA, LAMINA, MEMBRANE]) == (
        "nuclear membrane: UniProt, HPA supported; plasma membrane: Itzhak 2016"
    )
    assert agreement([]) == ""


def test_statements_on_other_isoforms_count_only_where_there_are_no_others():
    assert main_statements([LAMINA, ISOFORM]) == [LAMINA]
    assert main_statements([ISOFORM]) == [ISOFORM]


def test_only_a_prediction_without_relatives_and_records_is_from_the_sequence_alone():
    far, near = (Neighbour("P1", (), similarity) for similarity in (0.01, 0.5))
    alone = "no annotated relative (similarity 0.010): predicted from the sequence alone"
    assert known_warnings(None, (), [far], 0.02) == (alone,)
    distant = "only distant annotated relatives (similarity 0.010): predicted mostly from the sequence"
    assert known_warnings(None, (), [far], 0.005) == (distant,)
    assert known_warnings(None, (), [far], 0) == ()
    assert known_warnings(None, (), [near], 0.02) == known_warnings(None, ("er",), [far], 0.02) == ()
