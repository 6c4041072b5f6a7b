"""A bundle's encoder: from proteins to latents and logits.

The inputs of the encoder graph depend on the bundle: features of the sequence and votes of the nearest
annotated proteins, embeddings by a language model, or a point cloud of the structure.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from deepgps.arrays import Floats
from deepgps.bundle import NEIGHBOURS_FILE, Bundle, BundleMetadata, ClassSetSpec
from deepgps.errors import BundleError, InputError
from deepgps.prediction.overall import open_known
from deepgps.prediction.prediction import Encoding
from deepgps.proteins.features import (
    FEATURES_NAME,
    RESIDUE_FEATURES_NAME,
    residue_features,
    sequence_features,
)
from deepgps.proteins.known import KnownProtein, KnownProteins
from deepgps.proteins.neighbours import Neighbour, NeighbourIndex, cached_index
from deepgps.proteins.protein import Protein
from deepgps.proteins.structures import read_structure, sample_points, structure_finder
from deepgps.proteins.windows import windows
from deepgps.runtime import open_graph

# Enough that a structure that was checked is not read again when its protein is encoded.
_CACHED_STRUCTURES = 128


@dataclass(frozen=True, slots=True, eq=False)
class EncoderInputs:
    """Inputs of the encoder graph for one protein.

    Attributes
    ----------
    weights
        (W,) residues of each of its windows; most proteins have one window.
    arrays
        By input of the graph, (W, …): a row for each window.
    evidence
        The nearest annotated proteins, most similar first.
    known, held_out, own_records
        As in `Encoding`.
    """

    weights: Floats
    arrays: Mapping[str, Floats]
    evidence: tuple[Neighbour, ...] = ()
    known: KnownProtein | None = None
    held_out: Floats | None = None
    own_records: tuple[int, ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of a window; proteins of the same shapes are encoded in one batch."""
        return tuple(array.shape[1:] for array in self.arrays.values())


class ReadSequences(Protocol):
    """Makes the graph's inputs from sequences."""

    def __call__(
        self, sequences: Sequence[str], hidden: tuple[int, ...] | None = None
    ) -> list[EncoderInputs]:
        """Return the inputs of each; hidden records neither vote nor count, see `Encoder`."""
        ...


class Encoder:
    """The encoder of a bundle, loaded and ready.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads to compute with; all cores if None.
    structures
        Folder of structures, for a model that uses them.

    Raises
    ------
    BundleError
        If the bundle needs features that this version of deepGPS does not have.
    InputError
        If the language model that it needs was not prepared, or `structures` is missing or not used.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, structures: Path | None = None) -> None:
        self._structures = _open_structures(bundle.metadata, structures)
        index = neighbour_index(bundle)
        self.known = open_known(bundle, index)
        self._read = sequence_reader(bundle, threads, index, self.known)
        self._graph = open_graph(bundle.read("encoder.onnx"), threads)
        self._has_classes = bool(bundle.metadata.classes)
        self._class_set = bundle.class_set

    def with_class_set(self, class_set: ClassSetSpec | None) -> Self:
        """Return an encoder with the logits of another class set, which shares the loaded graph."""
        other = copy(self)
        other._class_set = class_set
        return other

    def why_refused(self, protein: Protein) -> str | None:
        """Return why a protein cannot be encoded, or None if it can.

        Only its structure can be the reason: sequences are checked when they are read.

        Parameters
        ----------
        protein
            A protein.

        Returns
        -------
        str or None
            What is wrong with its structure, and the remedy.
        """
        try:
            if self._structures is not None:
                self._structures.cloud(protein)
        except InputError as error:
            return str(error)
        return None

    def __call__(
        self, proteins: Sequence[Protein], *, hidden: tuple[int, ...] | None = None
    ) -> list[Encoding]:
        """Encode proteins; one longer than the encoder's window is the weighted mean of its windows.

        Parameters
        ----------
        proteins
            Checked proteins.
        hidden
            Records of the index that neither vote nor count as relatives; each protein's own if None.

        Returns
        -------
        list of Encoding
            In the order of the proteins.

        Raises
        ------
        InputError
            If a structure is needed and missing.
        """
        encodings: list[Encoding] = []
        for _, same_shapes in groupby(self._inputs(proteins, hidden), key=lambda each: each.shapes):
            encodings += self._encode_batch(list(same_shapes))
        return encodings

    def _inputs(self, proteins: Sequence[Protein], hidden: tuple[int, ...] | None) -> list[EncoderInputs]:
        inputs = self._read([protein.sequence for protein in proteins], hidden)
        if self._structures is None:
            return inputs
        clouds = [self._structures.cloud(protein) for protein in proteins]
        return [_with_points(each, cloud) for each, cloud in zip(inputs, clouds, strict=True)]

    def _encode_batch(self, inputs: Sequence[EncoderInputs]) -> list[Encoding]:
        names = inputs[0].arrays
        batch = {name: np.concatenate([each.arrays[name] for each in inputs]) for name in names}
        latents, logits = self._run(batch)
        ends = np.cumsum([len(each.weights) for each in inputs])[:-1]
        return [
            self._encoding(each, _mean(latent, each.weights), _mean(own_logits, each.weights))
            for each, latent, own_logits in zip(
                inputs, np.split(latents, ends), np.split(logits, ends), strict=True
            )
        ]

    def _encoding(self, inputs: EncoderInputs, latent: Floats, logits: Floats) -> Encoding:
        votes = _mean(inputs.arrays["votes"], inputs.weights) if "votes" in inputs.arrays else logits
        votes = votes[: len(logits)]
        return Encoding(
            self.class_set_logits(logits, votes),
            latent,
            inputs.evidence,
            logits,
            votes,
            inputs.known,
            inputs.held_out,
            inputs.own_records,
        )

    def class_set_logits(self, logits: Floats, votes: Floats) -> Floats:
        """Return logits of the class set in use, made of logits and votes (K,) for the own classes."""
        return logits if self._class_set is None else class_set_logits(self._class_set, logits, votes)

    def _run(self, batch: dict[str, Floats]) -> tuple[Floats, Floats]:
        if self._has_classes:
            latent, logits = self._graph.run(["latent", "logits"], batch)
            return latent, logits
        (latent,) = self._graph.run(["latent"], batch)
        return latent, np.zeros((len(latent), 0), np.float32)


def class_set_logits(class_set: ClassSetSpec, logits: Floats, votes: Floats) -> Floats:
    """Compute the logits (…, C) of a class set from the model's own logits and votes.

    Parameters
    ----------
    class_set
        The weights and bias of its C classes.
    logits, votes
        (…, K), for the model's own K classes.

    Returns
    -------
    Floats
        (…, C).
    """
    result = logits @ np.array(class_set.weights).T + np.array(class_set.bias)
    if class_set.votes:
        result += votes @ np.array(class_set.votes).T
    return np.asarray(result, np.float32)


def _with_points(inputs: EncoderInputs, cloud: Floats) -> EncoderInputs:
    points = np.repeat(cloud[None], len(inputs.weights), axis=0)
    return replace(inputs, arrays={**inputs.arrays, "points": points})


def _mean(rows: Floats, weights: Floats) -> Floats:
    return np.asarray(np.average(rows, axis=0, weights=weights), np.float32)


def sequence_reader(
    bundle: Bundle,
    threads: int | None,
    index: NeighbourIndex | None = None,
    known: KnownProteins | None = None,
) -> ReadSequences:
    """Return the function that makes the graph's inputs from sequences."""
    spec = bundle.metadata.encoder
    if spec.kind == "structure":
        return lambda sequences, _=None: [_one_window(len(sequence)) for sequence in sequences]
    if spec.kind == "esm2":
        return _embedding_reader(bundle, threads)
    if (spec.level, spec.name) == ("residue", RESIDUE_FEATURES_NAME):
        return lambda sequences, _=None: [
            _one_window(len(each), residues=residue_features(each)) for each in sequences
        ]
    if (spec.level, spec.name) == ("protein", FEATURES_NAME):
        one = partial(_features, max_length=spec.max_length, index=index, known=known)
        return lambda sequences, hidden=None: [one(sequence, hidden=hidden) for sequence in sequences]
    raise BundleError(
        f"Bundle '{bundle.path}' needs the features '{spec.name}' of each {spec.level}; this deepGPS has "
        f"'{FEATURES_NAME}' of a protein and '{RESIDUE_FEATURES_NAME}' of a residue. Use a bundle made with "
        "one of them."
    )


def _one_window(length: int, **arrays: Floats) -> EncoderInputs:
    """Make the inputs of a protein with one window from arrays without the axis of windows."""
    return EncoderInputs(
        np.array([length], np.float32), {name: array[None] for name, array in arrays.items()}
    )


def neighbour_index(bundle: Bundle) -> NeighbourIndex | None:
    """Open the index of annotated proteins of a bundle; None if it has none."""
    if not bundle.has(NEIGHBOURS_FILE):
        return None
    return cached_index(bundle.metadata.files[NEIGHBOURS_FILE], lambda: bundle.read(NEIGHBOURS_FILE))


def _features(
    sequence: str,
    max_length: int | None,
    index: NeighbourIndex | None,
    known: KnownProteins | None,
    hidden: tuple[int, ...] | None,
) -> EncoderInputs:
    """Compute features and votes of each window of a sequence."""
    parts = windows(sequence, max_length or len(sequence))
    weights = np.array([len(part) for part in parts], np.float32)
    arrays = {"features": np.stack([sequence_features(part) for part in parts])}
    if index is None:
        return EncoderInputs(weights, arrays)
    similarities = [index.similarities(part) for part in parts]
    nearest = np.max(similarities, axis=0)
    found = known.find(sequence, nearest) if known is not None and hidden is None else None
    if found is not None:
        # A protein's own record neither votes nor counts as a relative.
        hidden = tuple(found.rows.tolist())
    for each in (*similarities, nearest):
        each[list(hidden or ())] = 0
    arrays["votes"] = np.stack([index.vote(each) for each in similarities])
    # The evidence is the proteins most similar to any window.
    evidence = tuple(index.nearest(nearest))
    if found is None:
        return EncoderInputs(weights, arrays, evidence)
    return EncoderInputs(weights, arrays, evidence, found.protein, found.held_out, hidden or ())


def _embedding_reader(bundle: Bundle, threads: int | None) -> ReadSequences:
    from deepgps.proteins.embedding import embed_sequences, prepared_encoder

    spec = bundle.metadata.encoder
    encoder = prepared_encoder(spec.name, spec.fingerprint, threads=threads)
    name = "residues" if spec.level == "residue" else "embedding"

    def read(sequences: Sequence[str], hidden: tuple[int, ...] | None = None) -> list[EncoderInputs]:
        vectors = embed_sequences(sequences, encoder, level=spec.level)
        return [
            _one_window(len(sequence), **{name: each})
            for sequence, each in zip(sequences, vectors, strict=True)
        ]

    return read


class _Structures:
    """The structures in a folder, each sampled to the same number of points."""

    def __init__(self, folder: Path, points: int) -> None:
        self._points = points
        self._find = structure_finder(folder)
        self._cached_cloud = lru_cache(_CACHED_STRUCTURES)(self._sampled)

    def cloud(self, protein: Protein) -> Floats:
        """Return the point cloud (n, 6) of a protein, found by its accession or else by its id."""
        return self._cached_cloud(protein.accession or protein.id)

    def _sampled(self, accession: str) -> Floats:
        return sample_points(read_structure(self._find(accession)).points, self._points)


def _open_structures(metadata: BundleMetadata, folder: Path | None) -> _Structures | None:
    points = metadata.encoder.structure_points
    if points is None and folder is not None:
        raise InputError(f"Model '{metadata.name}' uses no structures; leave --structures out.")
    if points is None:
        return None
    if folder is None:
        raise InputError(f"Model '{metadata.name}' uses structures; give their folder with --structures.")
    return _Structures(folder, points)
