import io

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.proteins.neighbours import NeighbourIndex, sketch, words

SLUGS = ("nucleoplasm", "cytoplasmic")
RNG = np.random.default_rng(0)

PINNED = [177285, 345706, 1861495, 2029916, 2871601, 3040443]


def random_protein(length: int = 400) -> str:
    return "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


PROTEINS = [random_protein() for _ in range(8)]
HOMOLOG = PROTEINS[0][:300] + random_protein(100)


@pytest.fixture
def index() -> NeighbourIndex:
    names = [f"P{number}" for number in range(8)]
    labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (4, 1))
    mask = np.ones((8, 2), bool)
    mask[2] = False
    return NeighbourIndex.build(names, PROTEINS, labels, mask, SLUGS)


def test_the_same_protein_is_1_similar(index):
    first = index.query(PROTEINS[3])[0]
    assert (first.accession, first.localizations) == ("P3", ("cytoplasmic",))
    assert first.similarity == pytest.approx(1, abs=1e-5)


def test_a_homolog_comes_first_and_less_similar(index):
    first = index.query(HOMOLOG)[0]
    assert first.accession == "P0"
    assert 0.4 < first.similarity < 0.95


def test_a_silenced_protein_neither_shows_nor_votes(index):
    similar = index.similarities(HOMOLOG)
    assert index.vote(similar)[-1] > 0.4
    similar[index.accessions.tolist().index("P0")] = 0
    assert index.vote(similar)[-1] < 0.2
    assert "P0" not in [each.accession for each in index.nearest(similar)]


def test_votes_are_shares_then_nearest_then_top(index):
    votes = index.votes(HOMOLOG)
    assert votes.shape == (index.vote_size,) == (5,)
    assert votes[0] > 0.5 > votes[1]
    assert votes[2] == votes[4] > votes[3]


def test_unknown_labels_do_not_vote(index):
    votes = index.votes(PROTEINS[2])
    assert votes[4] == pytest.approx(1, abs=1e-5)
    assert votes[2] < 0.5
    assert index.query(PROTEINS[2])[0].localizations == ()


@pytest.mark.parametrize("sequence", ["", "MKT", "XXXXXXXXXX", "W" * 50])
def test_nothing_in_common_is_no_neighbour(index, sequence):
    assert index.query(sequence) == []
    assert not index.votes(sequence).any()


def test_an_empty_index_answers_too():
    empty = NeighbourIndex.build([], [], np.zeros((0, 2)), np.zeros((0, 2), bool), SLUGS)
    empty = NeighbourIndex.from_bytes(empty.to_bytes())
    assert empty.query(PROTEINS[0]) == []
    assert not empty.votes(PROTEINS[0]).any()


def test_bytes_are_stable_and_come_back(index, tmp_path):
    data = index.to_bytes()
    assert data == index.to_bytes()
    (tmp_path / "neighbours.npz").write_bytes(data)
    again = NeighbourIndex.load(tmp_path / "neighbours.npz")
    assert again.query(HOMOLOG) == index.query(HOMOLOG)
    np.testing.assert_array_equal(again.votes(HOMOLOG), index.votes(HOMOLOG))


def test_damage_is_named(index, tmp_path):
    with pytest.raises(BundleError, match="neighbour index"):
        NeighbourIndex.from_bytes(index.to_bytes()[:-100])
    with pytest.raises(BundleError, match="absent"):
        NeighbourIndex.load(tmp_path / "absent.npz")
    other = io.BytesIO()
    np.savez(other, format=np.array(99))
    with pytest.raises(BundleError, match="99"):
        NeighbourIndex.from_bytes(other.getvalue())


def test_an_index_with_a_pickle_inside_is_refused():
    evil = io.BytesIO()
    np.savez(evil, format=np.array([{}], dtype=object))
    with pytest.raises(BundleError):
        NeighbourIndex.from_bytes(evil.getvalue())


def test_the_hash_is_pinned():
    # A shipped index is useless if another version or machine keeps other words.
    assert words("ACDEFG").tolist() == [8864, 177285]
    assert sketch("ACDEFGHIKLMNPQRSTVWYACDEFGHIKL").tolist() == PINNED


def test_the_sketch_keeps_about_one_word_in_four():
    kept, everything = len(sketch("".join(PROTEINS))), len(words("".join(PROTEINS)))
    assert kept / everything == pytest.approx(0.25, abs=0.03)
