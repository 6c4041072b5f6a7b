"""A bundle's encoder: proteins to latents and logits, however they are looked at."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Self

import numpy as np

from deepgps.arrays import Floats
from deepgps.bundle import Bundle, ClassSetSpec
from deepgps.errors import InputError
from deepgps.prediction.encoder_inputs import Inputs
from deepgps.prediction.prediction import Encoding
from deepgps.prediction.sequence_inputs import sequence_reader
from deepgps.prediction.structure_inputs import open_structures
from deepgps.proteins.protein import Protein
from deepgps.runtime import open_graph


class Encoder:
    """The encoder of a bundle, loaded and ready.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads to compute with; all cores if None.
    structures
        Folder of structures, for a model that looks at them.

    Raises
    ------
    BundleError
        If the bundle takes features that this deepGPS does not have.
    InputError
        If the language model that it takes was not prepared, or structures are missing or not asked for.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, structures: Path | None = None) -> None:
        self._structures = open_structures(bundle.metadata, structures)
        self._read = sequence_reader(bundle, threads)
        self._graph = open_graph(bundle.read("encoder.onnx"), threads)
        self._labels = bool(bundle.metadata.classes)
        self._class_set = bundle.class_set

    def reading(self, class_set: ClassSetSpec | None) -> Self:
        """Share what is loaded with an encoder whose logits are those of another class set."""
        other = copy(self)
        other._class_set = class_set
        return other

    def refusal(self, protein: Protein) -> str | None:
        """Say why a protein cannot be encoded; None if it can.

        Only its structure can be the reason: sequences are checked when they are read.
        """
        try:
            if self._structures is not None:
                self._structures.cloud(protein)
        except InputError as error:
            return str(error)
        return None

    def __call__(self, proteins: Sequence[Protein]) -> list[Encoding]:
        """Encode proteins; one longer than the encoder's window is the weighted mean of its windows.

        Raises
        ------
        InputError
            If the structure of one is looked at and not there.
        """
        encodings: list[Encoding] = []
        for _, alike in groupby(self._inputs(proteins), key=lambda each: each.shapes):
            encodings += self._encoded(list(alike))
        return encodings

    def _inputs(self, proteins: Sequence[Protein]) -> list[Inputs]:
        inputs = self._read([protein.sequence for protein in proteins])
        if self._structures is None:
            return inputs
        clouds = [self._structures.cloud(protein) for protein in proteins]
        return [_with_points(each, cloud) for each, cloud in zip(inputs, clouds, strict=True)]

    def _encoded(self, inputs: Sequence[Inputs]) -> list[Encoding]:
        """Encode proteins of the same shapes at once."""
        names = inputs[0].arrays
        given = {name: np.concatenate([each.arrays[name] for each in inputs]) for name in names}
        latent, logits = self._run(given)
        ends = np.cumsum([len(each.weights) for each in inputs])[:-1]
        parts = zip(inputs, np.split(latent, ends), np.split(logits, ends), strict=True)
        return [
            Encoding(
                self._read_out(_mean(labels, each.weights), each), _mean(tokens, each.weights), each.evidence
            )
            for each, tokens, labels in parts
        ]

    def _read_out(self, logits: Floats, inputs: Inputs) -> Floats:
        """Turn the logits (K,) of the model's own classes into those of the class set that was chosen."""
        chosen = self._class_set
        if chosen is None:
            return logits
        votes = _mean(inputs.arrays["votes"], inputs.weights) if chosen.votes else np.zeros_like(logits)
        return read_out(chosen, logits, votes[: len(logits)])

    def _run(self, given: dict[str, Floats]) -> tuple[Floats, Floats]:
        if self._labels:
            latent, logits = self._graph.run(["latent", "logits"], given)
            return latent, logits
        (latent,) = self._graph.run(["latent"], given)
        return latent, np.zeros((len(latent), 0), np.float32)


def read_out(class_set: ClassSetSpec, logits: Floats, votes: Floats) -> Floats:
    """Logits (…, C) of a class set from those of the model's own K classes and the votes for them, (…, K)."""
    said = logits @ np.array(class_set.weights).T + np.array(class_set.bias)
    if class_set.votes:
        said += votes @ np.array(class_set.votes).T
    return np.asarray(said, np.float32)


def _with_points(inputs: Inputs, cloud: Floats) -> Inputs:
    points = np.repeat(cloud[None], len(inputs.weights), axis=0)
    return replace(inputs, arrays={**inputs.arrays, "points": points})


def _mean(rows: Floats, weights: Floats) -> Floats:
    return np.asarray(np.average(rows, axis=0, weights=weights), np.float32)
