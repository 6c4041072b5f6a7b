import io

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.proteins.neighbours import NeighbourIndex

SLUGS = ("nucleoplasm", "cytoplasmic")
RNG = np.random.default_rng(0)


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


@pytest.mark.parametrize("sequence", ["", "MKT", "XXXXXXXXXX", "WC" * 50])
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


def test_an_index_whose_residues_do_not_fit_its_proteins_is_refused(index):
    with np.load(io.BytesIO(index.to_bytes())) as arrays:
        fewer = {**arrays, "residues": arrays["residues"][:-5]}
    torn = io.BytesIO()
    np.savez(torn, **fewer)
    with pytest.raises(BundleError, match="do not fit 8 proteins"):
        NeighbourIndex.from_bytes(torn.getvalue())


def test_a_diverged_relative_is_found_before_strangers(index):
    exchanged = dict(zip("DEFYILMVKRST", "EDYFLIVMRKTS", strict=True))
    relative = "".join(
        exchanged.get(residue, residue) if place % 2 else residue for place, residue in enumerate(PROTEINS[5])
    )
    assert index.query(relative)[0].accession == "P5"
    assert index.query(relative)[0].similarity > 0.9


def test_twenty_vote_where_six_are_shown():
    near = random_protein(100)
    labels = np.zeros((30, 2))
    labels[10:, 0] = 1
    family = [near + random_protein(20 + 10 * number) for number in range(30)]
    crowd = NeighbourIndex.build([str(n) for n in range(30)], family, labels, np.ones((30, 2), bool), SLUGS)
    assert len(crowd.query(near)) == 6
    assert 0.2 < crowd.votes(near)[0] < 0.6
