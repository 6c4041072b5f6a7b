"""Sequences for the encoder graph: hand-made features with the neighbours' votes, or ESM2's embeddings."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from deepgps.bundle import NEIGHBOURS_FILE, Bundle
from deepgps.errors import BundleError
from deepgps.prediction.encoder_inputs import Inputs, whole
from deepgps.proteins.features import FEATURES_NAME, sequence_features
from deepgps.proteins.index_cache import cached_index
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.proteins.residue_features import RESIDUE_FEATURES_NAME, residue_features
from deepgps.proteins.windows import windows

ReadSequences = Callable[[Sequence[str]], list[Inputs]]


def sequence_reader(bundle: Bundle, threads: int | None) -> ReadSequences:
    """Choose what a bundle's graph is told of sequences.

    Raises
    ------
    BundleError
        If it takes features that this deepGPS does not have.
    InputError
        If the language model that it takes was not prepared on this machine, or is another.
    """
    spec = bundle.metadata.encoder
    if spec.kind == "structure":
        return lambda sequences: [whole(len(sequence)) for sequence in sequences]
    if spec.kind == "esm2":
        return _embeddings(bundle, threads)
    if (spec.level, spec.name) == ("residue", RESIDUE_FEATURES_NAME):
        return lambda sequences: [whole(len(each), residues=residue_features(each)) for each in sequences]
    if (spec.level, spec.name) == ("protein", FEATURES_NAME):
        index = _index(bundle)
        one = partial(_features, max_length=spec.max_length, index=index)
        return lambda sequences: [one(sequence) for sequence in sequences]
    raise BundleError(
        f"Bundle '{bundle.path}' needs the features '{spec.name}' of each {spec.level}; this deepGPS has "
        f"'{FEATURES_NAME}' of a protein and '{RESIDUE_FEATURES_NAME}' of a residue. Use a bundle made with "
        "one of them."
    )


def _index(bundle: Bundle) -> NeighbourIndex | None:
    if not bundle.has(NEIGHBOURS_FILE):
        return None
    return cached_index(bundle.metadata.files[NEIGHBOURS_FILE], lambda: bundle.read(NEIGHBOURS_FILE))


def _features(sequence: str, max_length: int | None, index: NeighbourIndex | None) -> Inputs:
    """Features and votes of each window of a sequence."""
    parts = windows(sequence, max_length or len(sequence))
    weights = np.array([len(part) for part in parts], np.float32)
    arrays = {"features": np.stack([sequence_features(part) for part in parts])}
    if index is None:
        return Inputs(weights, arrays)
    similar = [index.similarities(part) for part in parts]
    arrays["votes"] = np.stack([index.vote(each) for each in similar])
    # Those most like any window are the evidence.
    return Inputs(weights, arrays, tuple(index.nearest(np.max(similar, axis=0))))


def _embeddings(bundle: Bundle, threads: int | None) -> ReadSequences:
    from deepgps.proteins.embedding import embed, prepared_encoder

    spec = bundle.metadata.encoder
    encoder = prepared_encoder(spec.name, spec.fingerprint, threads=threads)
    name = "residues" if spec.level == "residue" else "embedding"

    def read(sequences: Sequence[str]) -> list[Inputs]:
        vectors = embed(sequences, encoder, level=spec.level)
        return [
            whole(len(sequence), **{name: each}) for sequence, each in zip(sequences, vectors, strict=True)
        ]

    return read
