import io
from dataclasses import fields

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.proteins.neighbours import NeighbourIndex, cached_index

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 80)) for _ in range(6)]


@pytest.fixture
def content(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path / "cache"))
    labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (3, 1))
    names = [f"P{number}" for number in range(6)]
    return NeighbourIndex.build(names, SEQUENCES, labels, labels >= 0, ("nucleoplasm", "er")).to_bytes()


def never():
    pytest.fail("read again")


def cached_files(tmp_path):
    return sorted((tmp_path / "cache" / "neighbours").glob("*/*.npy"))


def test_an_index_from_the_cache_is_the_index_itself(content):
    direct = NeighbourIndex.from_bytes(content)
    for index in (cached_index("a" * 64, lambda: content), cached_index("a" * 64, never)):
        for field in fields(NeighbourIndex):
            mine, other = getattr(index, field.name), getattr(direct, field.name)
            assert np.array_equal(mine, other) and type(mine) is type(other)
        assert index.to_bytes() == content
        for sequence in SEQUENCES:
            assert np.array_equal(index.votes(sequence), direct.votes(sequence))
            assert index.query(sequence) == direct.query(sequence)


def test_another_index_is_not_mistaken_for_it(content):
    cached_index("a" * 64, lambda: content)
    with pytest.raises(BundleError, match="cannot be read"):
        cached_index("b" * 64, lambda: b"no index")


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_damaged_copy_is_made_again(content, tmp_path, damage):
    cached_index("a" * 64, lambda: content)
    path = next(each for each in cached_files(tmp_path) if each.stem == "postings")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        path.unlink()
    reads = []
    cached_index("a" * 64, lambda: reads.append(1) or content)
    assert reads == [1]
    assert cached_index("a" * 64, never).query(SEQUENCES[2])[0].accession == "P2"


def test_a_cache_that_cannot_be_written_keeps_nobody_from_an_answer(content, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder should be")
    assert cached_index("a" * 64, lambda: content).query(SEQUENCES[1])[0].accession == "P1"


def test_a_copy_that_breaks_off_is_none(content, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        assert cached_index("a" * 64, lambda: content).query(SEQUENCES[1])[0].accession == "P1"
    assert not list((tmp_path / "cache" / "neighbours").iterdir())


def test_the_copy_is_shared_and_not_in_memory(content):
    index = cached_index("a" * 64, lambda: content)
    assert isinstance(index.postings.base, np.memmap)
    assert not index.postings.flags.writeable


NAMES = [field.name for field in fields(NeighbourIndex)]


@pytest.mark.parametrize("name", [*NAMES, "sha256"])
@pytest.mark.parametrize("how", ["a byte", "zeros", "of another index"])
def test_a_copy_that_was_changed_is_made_again(content, tmp_path, name, how):
    direct = NeighbourIndex.from_bytes(content)
    cached_index("a" * 64, lambda: content)
    (path,) = (tmp_path / "cache" / "neighbours").glob(f"*/{name}.*")
    kept = path.read_bytes()
    if how == "a byte":
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    elif how == "zeros":
        path.write_bytes(kept[: len(kept) // 2] + bytes(len(kept) - len(kept) // 2))
    else:
        labels = np.tile([[0.0, 1.0], [1.0, 0.0]], (3, 1))
        names = [f"Q{number}" for number in range(6)]
        other = NeighbourIndex.build(names, SEQUENCES[::-1], labels, labels >= 0, ("er", "golgi"))
        cached_index("b" * 64, other.to_bytes)
        (theirs,) = (tmp_path / "cache" / "neighbours").glob(f"{'b' * 32}*/{name}.*")
        path.write_bytes(theirs.read_bytes())
    reads = []
    index = cached_index("a" * 64, lambda: reads.append(1) or content)
    if path.read_bytes() != kept or reads:
        assert reads == [1]
    for sequence in SEQUENCES:
        assert index.query(sequence) == direct.query(sequence)


def test_an_index_that_unpacks_to_far_more_is_refused():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, residues=np.zeros(50_000_000, np.uint8))
    with pytest.raises(BundleError, match="unpacks to"):
        NeighbourIndex.from_bytes(buffer.getvalue())
