import numpy as np
import pytest

from deepgps.proteins.features import UNKNOWN_RESIDUE, residue_codes
from deepgps.proteins.neighbours import GROUPS_13, inverted_index, kmers, spaced_kmers

RNG = np.random.default_rng(1)


def random_protein(length: int) -> str:
    return "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


def test_words_are_pinned():
    # A shipped index is useless if another version or machine reads other words.
    assert kmers("ACDEFG").tolist() == [8864, 177285]
    number = 0
    for group in (0, 1, 2, 3, 4, 6):  # A, C, DE, FY, G, ILMV; two gaps
        number = number * len(GROUPS_13) + group
    assert spaced_kmers("ACDWFGWI").tolist() == [number]


def test_the_groups_share_out_the_twenty_residues():
    assert sorted("".join(GROUPS_13)) == sorted("ACDEFGHIKLMNPQRSTVWY")


def test_a_spaced_word_does_not_see_its_gaps_nor_exchanges_within_a_group():
    assert spaced_kmers("ACDEFGHI").tolist() == spaced_kmers("ACDWFGWI").tolist()
    assert spaced_kmers("ACDEFGHI").tolist() == spaced_kmers("ACEEYGHL").tolist()
    assert spaced_kmers("ACDEFGHI").tolist() != spaced_kmers("ACDEPGHI").tolist()


@pytest.mark.parametrize("sequence", ["", "MKT", "MKTAYIX", "ACDXFGHI", "XXXXXXXXXXXX"])
def test_no_word_spans_an_unknown_residue(sequence):
    assert not len(spaced_kmers(sequence))


def test_each_protein_stands_once_behind_each_of_its_words():
    proteins = [random_protein(50), "", random_protein(7), "ACDEFGHI" * 5, random_protein(200)]
    proteins.append(proteins[0])
    codes = [np.append(residue_codes(each), UNKNOWN_RESIDUE).astype(np.uint8) for each in proteins]
    starts, rows = inverted_index(
        np.concatenate(codes), np.array([len(each) for each in proteins], np.uint32)
    )
    found = {row: [] for row in range(len(proteins))}
    for word in np.flatnonzero(np.diff(starts)):
        for row in rows[starts[word] : starts[word + 1]]:
            found[int(row)].append(int(word))
    assert list(found.values()) == [spaced_kmers(each).tolist() for each in proteins]
