"""From sequences to vectors: each sequence is encoded once, in batches of similar length."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import DeepGPSError, InputError
from deepgps.proteins.embedding.batches import batches, groups
from deepgps.proteins.embedding.cache import EmbeddingCache
from deepgps.proteins.embedding.encoder import Identity, Level, ResidueEncoder
from deepgps.proteins.embedding.tokens import tokenize
from deepgps.proteins.windows import window_starts

TOKEN_BUDGET = 4096
"""Tokens in a batch where nobody says otherwise."""

Group = Sequence[str]
Encoded = list[Floats]


def embed(
    sequences: Sequence[str],
    encoder: ResidueEncoder,
    *,
    level: Level = "protein",
    cache: EmbeddingCache | None = None,
    token_budget: int = TOKEN_BUDGET,
    on_done: Callable[[int], None] | None = None,
) -> list[Floats]:
    """Embed sequences; what is in the cache, or given twice, is not computed again.

    Parameters
    ----------
    sequences
        Upper-case residues, as `deepgps.proteins.check.clean_sequence` gives them.
    encoder
        Gives each token a vector of size E.
    level
        ``protein``: the mean over the residues; ``residue``: a vector for each. Special tokens and padding
        are in neither. A sequence longer than the encoder's ``max_length`` is encoded in overlapping
        windows, and a residue that several of them hold gets the mean of its vectors.
    cache
        Where vectors are kept; nowhere if it is not given.
    token_budget
        Tokens computed with at a time, padding counted; a single window may have more.
    on_done
        Called with the place of each sequence when its vectors are there.

    Returns
    -------
    list of ndarray
        In the order of the sequences: (E,) float32 each, or (L, E) for L residues.

    Raises
    ------
    InputError
        If a sequence is empty or the token budget is not positive.
    """
    found: dict[int, Floats] = {}

    def encode(groups: Iterable[Group]) -> Iterator[Encoded]:
        return map(partial(encode_group, encoder, level=level, token_budget=token_budget), groups)

    for place, vectors in each_embedded(sequences, encoder, encode, level, cache, token_budget):
        found[place] = vectors
        if on_done:
            on_done(place)
    return [found[place] for place in range(len(sequences))]


def each_embedded(
    sequences: Sequence[str],
    identity: Identity,
    encode: Callable[[Iterable[Group]], Iterable[Encoded | DeepGPSError]],
    level: Level,
    cache: EmbeddingCache | None,
    token_budget: int,
) -> Iterator[tuple[int, Floats]]:
    """Embed sequences one by one, in the order in which they are there: cached ones first, then the longest.

    Parameters
    ----------
    sequences, level, cache, token_budget
        As in `embed`.
    identity
        Whose vectors they are.
    encode
        Encodes groups of sequences, here or elsewhere, in their order; a group may fail, and the others go
        on.

    Yields
    ------
    tuple of int and ndarray
        Place of a sequence, its vectors.

    Raises
    ------
    InputError
        As `embed`.
    DeepGPSError
        At the end, if a group failed; what the others gave is in the cache.
    """
    _check(sequences, token_budget)
    places: dict[str, list[int]] = {}
    for place, sequence in enumerate(sequences):
        places.setdefault(sequence, []).append(place)
    missing = []
    for sequence, given in places.items():
        if cache and (vectors := cache.get(identity, level, sequence)) is not None:
            yield from ((place, vectors) for place in given)
        else:
            missing.append(sequence)
    for sequence, vectors in _computed(missing, identity, encode, token_budget):
        if cache:
            cache.put(identity, level, sequence, vectors)
        yield from ((place, vectors) for place in places[sequence])


def _check(sequences: Sequence[str], token_budget: int) -> None:
    if token_budget < 1:
        raise InputError(f"A token budget of {token_budget} is too small; give 1 or more.")
    if "" in sequences:
        place = sequences.index("") + 1
        raise InputError(f"Sequence {place} of those to embed is empty; leave it out.")


def _computed(
    sequences: Sequence[str],
    identity: Identity,
    encode: Callable[[Iterable[Group]], Iterable[Encoded | DeepGPSError]],
    token_budget: int,
) -> Iterator[tuple[str, Floats]]:
    lengths = [len(sequence) for sequence in sequences]
    planned = [
        [sequences[place] for place in group] for group in groups(lengths, identity.max_length, token_budget)
    ]
    failed, reason = 0, None
    for group, result in zip(planned, encode(planned), strict=True):
        if isinstance(result, DeepGPSError):
            failed, reason = failed + len(group), result
        else:
            yield from zip(group, result, strict=True)
    if reason:
        raise DeepGPSError(f"{reason} So {failed:,} sequences were not embedded.")


def encode_group(
    encoder: ResidueEncoder, sequences: Group, *, level: Level = "protein", token_budget: int = TOKEN_BUDGET
) -> Encoded:
    """Encode some sequences, windows and all: (E,) each, or (L, E)."""
    width = encoder.max_length
    windows = [
        (place, start, sequence[start : start + width])
        for place, sequence in enumerate(sequences)
        for start in window_starts(len(sequence), width)
    ]
    sums = [np.zeros((len(sequence), encoder.dimension), np.float32) for sequence in sequences]
    counts = [np.zeros((len(sequence), 1), np.float32) for sequence in sequences]
    for batch in batches([len(residues) for _, _, residues in windows], token_budget):
        chosen = [windows[number] for number in batch]
        encoded = encoder(*tokenize([residues for _, _, residues in chosen]))
        for (place, start, residues), vectors in zip(chosen, encoded, strict=True):
            covered = slice(start, start + len(residues))
            sums[place][covered] += vectors[1 : len(residues) + 1]
            counts[place][covered] += 1
    residues_of = [total / count for total, count in zip(sums, counts, strict=True)]
    return residues_of if level == "residue" else [pooled(vectors) for vectors in residues_of]


def pooled(vectors: Floats) -> Floats:
    """Mean over the residues: (L, E) to (E,)."""
    mean: Floats = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
