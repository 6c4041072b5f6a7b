"""Embeddings with an encoder that says which token stood where."""

import multiprocessing
import os
import signal

import numpy as np
import pytest

from deepgps.errors import DeepGPSError, InputError
from deepgps.proteins.embedding import (
    END,
    PADDING,
    START,
    UNKNOWN_TOKEN,
    EmbeddingCache,
    EncoderDescription,
    batch_by_length,
    embed_sequences,
    group_by_length,
    iter_embeddings,
    tokenize,
)
from deepgps.proteins.windows import window_starts

ESM2_LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"  # tokens 4 to 28, as the published vocabulary has them


class Counting:
    """Gives a token the vector (token, place in its window, 1), and counts what it was asked for."""

    name, fingerprint, precision, dimension, max_length = "counting", "f" * 64, "float32", 3, 8

    def __init__(self):
        self.calls = []

    def __call__(self, tokens, mask):
        assert tokens.shape == mask.shape
        assert ((tokens == PADDING) == ~mask).all()
        self.calls.append(tokens.shape)
        places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        return np.stack([tokens, places, np.ones_like(tokens)], axis=2).astype(np.float32)


@pytest.fixture
def encoder():
    return Counting()


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path)


def test_the_tokens_are_those_of_esm2():
    tokens, mask = tokenize([ESM2_LETTERS, "MKé"])
    assert tokens[0].tolist() == [START, *range(4, 29), END]
    assert tokens[1, :6].tolist() == [START, 20, 15, UNKNOWN_TOKEN, END, PADDING]
    assert mask.sum(1).tolist() == [27, 5]


def test_residues_are_neither_special_tokens_nor_padding(encoder):
    long, short = embed_sequences(["LAGVSE", "AA"], encoder, level="residue")
    assert long[:, 0].tolist() == [4, 5, 6, 7, 8, 9]
    assert short.tolist() == [[5, 1, 1], [5, 2, 1]]
    assert short.dtype == np.float32


def test_a_protein_is_the_mean_of_its_residues(encoder):
    assert embed_sequences(["LAG"], encoder)[0].tolist() == [5, 2, 1]


def test_residues_of_several_windows_are_averaged(encoder):
    sequence = ESM2_LETTERS[:20]
    (vectors,) = embed_sequences([sequence], encoder, level="residue")
    assert vectors[:, 0].tolist() == list(range(4, 24))
    starts = window_starts(20, 8)
    expected = [
        np.mean([place - start + 1 for start in starts if start <= place < start + 8]) for place in range(20)
    ]
    assert vectors[:, 1] == pytest.approx(expected)
    assert max(shape[1] for shape in encoder.calls) == 8 + 2


def test_results_come_in_the_order_of_the_sequences(encoder):
    sequences = ["A" * n + "L" for n in (5, 1, 30, 3, 5, 2)]
    lengths = [len(vectors) for vectors in embed_sequences(sequences, encoder, level="residue")]
    assert lengths == [len(sequence) for sequence in sequences]


def test_nothing_gives_nothing(encoder):
    assert embed_sequences([], encoder) == []


def test_similar_lengths_go_together_and_the_budget_holds():
    lengths = [3, 98, 5, 97, 4, 50]
    assert batch_by_length(lengths, 200) == [[1, 3], [5, 2, 4], [0]]


def test_a_batch_ends_where_padding_would_cost_more_than_it_gains():
    assert batch_by_length([1000, 990, 600, 590], 4096) == [[0, 1], [2, 3]]
    assert batch_by_length([100, 30, 30, 30], 4096) == [[0, 1, 2, 3]]


def test_what_is_longer_than_the_budget_is_a_batch_alone():
    assert batch_by_length([300, 10, 400], 100) == [[2], [0], [1]]


def test_windows_count_towards_the_budget_of_a_group():
    assert group_by_length([20, 8, 8], max_length=8, token_budget=39) == [[0], [1, 2]]


@pytest.mark.parametrize("budget", [1, 12, 4096])
def test_a_batch_never_exceeds_the_budget_but_by_one_window(encoder, budget):
    embed_sequences(["A" * n for n in (40, 8, 7, 1, 1, 1)], encoder, token_budget=budget)
    assert all(rows * width <= max(budget, width) for rows, width in encoder.calls)


def test_the_same_sequence_is_encoded_once(encoder):
    done = []
    found = embed_sequences(["LAG", "LAG", "LAG"], encoder, on_done=done.append)
    assert encoder.calls == [(1, 5)]
    assert sorted(done) == [0, 1, 2]
    assert all((vectors == found[0]).all() for vectors in found)


@pytest.mark.parametrize("level", ["protein", "residue"])
def test_what_is_in_the_cache_is_not_computed(encoder, cache, level):
    first = embed_sequences(["LAG", "MKV" * 10], encoder, level=level, cache=cache)
    asked = len(encoder.calls)
    again = embed_sequences(
        ["MKV" * 10, "LAG"], encoder, level=level, cache=EmbeddingCache(cache.folder.parent)
    )
    assert len(encoder.calls) == asked
    assert (again[0] == first[1]).all()
    assert (again[1] == first[0]).all()


def test_the_mean_of_residues_in_the_cache_is_not_computed(encoder, cache):
    embed_sequences(["LAGMK"], encoder, level="residue", cache=cache)
    asked = len(encoder.calls)
    (mean,) = embed_sequences(["LAGMK"], encoder, cache=cache)
    assert len(encoder.calls) == asked
    assert (mean == embed_sequences(["LAGMK"], encoder)[0]).all()


@pytest.mark.parametrize("what", ["name", "fingerprint", "precision"])
def test_another_encoder_is_another_entry(encoder, cache, what):
    embed_sequences(["LAG"], encoder, cache=cache)
    other = Counting()
    setattr(other, what, "another")
    embed_sequences(["LAG"], other, cache=cache)
    assert len(other.calls) == 1


def test_a_name_with_a_slash_stays_in_the_cache(encoder, cache):
    encoder.name = "../../else/where"
    embed_sequences(["LAG"], encoder, cache=cache)
    assert cache.path(encoder, "protein", "LAG").resolve().is_relative_to(cache.folder)
    embed_sequences(["LAG"], encoder, cache=cache)
    assert len(encoder.calls) == 1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_a_damaged_entry_is_computed_again(encoder, cache, damage):
    embed_sequences(["LAG"], encoder, cache=cache)
    path = cache.path(encoder, "protein", "LAG")
    path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
    (vectors,) = embed_sequences(["LAG"], encoder, cache=cache)
    assert vectors.tolist() == [5, 2, 1]
    assert np.load(path).tolist() == [5, 2, 1]


def test_an_entry_of_another_shape_is_computed_again(encoder, cache):
    cache.put(encoder, "protein", "LAG", np.zeros(7, np.float32))
    assert embed_sequences(["LAG"], encoder, cache=cache)[0].tolist() == [5, 2, 1]


def killed_while_writing(folder):
    """Dies with half of an entry on the disk."""
    real = np.save

    def half(file, array):
        real(file, array)
        file.flush()
        os.ftruncate(file.fileno(), 40)
        os.kill(os.getpid(), signal.SIGKILL)

    np.save = half
    embed_sequences(["LAG"], Counting(), cache=EmbeddingCache(folder))


def test_a_writer_that_is_killed_leaves_no_half_entry(encoder, cache, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((cache.folder / "temporary").iterdir())) == 1
    assert not cache.path(encoder, "protein", "LAG").exists()
    embed_sequences(["LAG"], encoder, cache=cache)
    assert len(encoder.calls) == 1
    assert np.load(cache.path(encoder, "protein", "LAG")).tolist() == [5, 2, 1]


def test_drafts_of_writers_long_dead_are_removed(encoder, cache):
    drafts = cache.folder / "temporary"
    drafts.mkdir(parents=True)
    for name, age in (("old.npy", 100_000), ("new.npy", 10)):
        (drafts / name).touch()
        then = (drafts / name).stat().st_mtime - age
        os.utime(drafts / name, (then, then))
    embed_sequences(["LAG"], encoder, cache=cache)
    assert [path.name for path in drafts.iterdir()] == ["new.npy"]


MANY = ["LAGVSERTID"[: 1 + n % 10] * (1 + n // 10) for n in range(60)]


def write_all(folder, seed):
    order = np.random.default_rng(seed).permutation(60)
    embed_sequences(
        ["LAGVSERTID"[: 1 + n % 10] * (1 + n // 10) for n in order], Counting(), cache=EmbeddingCache(folder)
    )


def test_two_writers_at_once_leave_whole_entries(encoder, cache, tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_all, args=(tmp_path, seed)) for seed in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = embed_sequences(MANY, encoder, cache=cache)
    assert encoder.calls == []
    plain = embed_sequences(MANY, Counting())
    assert all((a == b).all() for a, b in zip(found, plain, strict=True))
    assert list((cache.folder / "temporary").iterdir()) == []


def test_a_cache_that_cannot_be_written_says_so(encoder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        embed_sequences(["LAG"], encoder, cache=EmbeddingCache(tmp_path / "file"))


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPGPS_CACHE", str(tmp_path / "here"))
    assert EmbeddingCache().folder == tmp_path / "here" / "embeddings"


def test_an_empty_sequence_is_refused(encoder):
    with pytest.raises(InputError, match=r"Sequence 2 .* is empty"):
        embed_sequences(["LAG", ""], encoder)


def test_a_token_budget_of_nothing_is_refused(encoder):
    with pytest.raises(InputError, match="token budget of 0"):
        embed_sequences(["LAG"], encoder, token_budget=0)


def test_a_group_that_fails_leaves_the_others(cache):
    spec = EncoderDescription("counting", "f" * 64, "float32", 3, 8)
    fails = DeepGPSError("It died.")

    def encode(planned):
        for group in planned:
            yield fails if "AAAAAAAA" in group else [np.ones(3, np.float32) for _ in group]

    found = []
    with pytest.raises(DeepGPSError, match=r"^It died. 1 sequences were not embedded.$"):
        found.extend(iter_embeddings(["AAAAAAAA", "LA"], spec, encode, "protein", cache, 10))
    assert cache.get(spec, "protein", "LA") is not None
    assert cache.get(spec, "protein", "AAAAAAAA") is None
