"""The network's inputs of proteins: embeddings, residue vectors or structures, ready to be batched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.proteins.embedding import EmbeddingCache, embed_sequences
from deepgps.proteins.features import (
    FEATURES_NAME,
    RESIDUE_FEATURES_NAME,
    residue_features,
    sequence_features,
)
from deepgps.training.joint.data import TrainingData
from deepgps.training.recipe import JointRecipe

HAND_MADE_MAX_LENGTH = 5000
"""Longest sequence for hand-made features when a bundle predicts; training takes any length."""
# A smaller standard deviation is rounding error of a constant.
SMALLEST_DEVIATION = 1e-6

STRUCTURE: Mapping[str, Any] = {
    "name": "points",
    "kind": "structure",
    "fingerprint": None,
    "dimension": 6,
    "max_length": None,
}
"""In place of an encoder where the recipe uses structures alone."""


@dataclass(frozen=True, slots=True, eq=False)
class ProteinInputs:
    """The network's inputs of P proteins.

    Attributes
    ----------
    spec
        The encoder: its ``name``, ``kind``, ``fingerprint``, ``dimension`` and ``max_length`` in residues.
    embedding_dim
        Size E of its vectors; None without sequences.
    embeddings
        (P, E) float32, or None.
    residues
        P of (L, E) float32, or None.
    points
        (P, n, 6) float32, or None.
    """

    spec: Mapping[str, Any]
    embedding_dim: int | None
    embeddings: Floats | None = None
    residues: tuple[Floats, ...] | None = None
    points: Floats | None = None

    def batch(self, proteins: Sequence[int] | NDArray[np.integer] | Tensor) -> dict[str, Tensor]:
        """Look up proteins by number, (B,) from 0 to P.

        Returns
        -------
        dict of Tensor
            Of ``embedding`` (B, E), ``residues`` (B, L, E) padded with zeros and ``mask`` (B, L), true where
            a residue is, and ``points`` (B, n, 6): those that the recipe uses.
        """
        numbers = np.asarray(proteins, np.int64)
        found = {}
        if self.embeddings is not None:
            found["embedding"] = torch.from_numpy(self.embeddings[numbers])
        if self.residues is not None:
            vectors = [torch.from_numpy(self.residues[number]) for number in numbers]
            found["residues"] = pad_sequence(vectors, batch_first=True)
            found["mask"] = pad_sequence([torch.ones(len(each)) for each in vectors], batch_first=True) > 0
        if self.points is not None:
            found["points"] = torch.from_numpy(self.points[numbers])
        return found

    def moments(self, proteins: Sequence[int] | NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation (E,) of the vectors of some proteins; 1 instead of 0.

        Every protein counts the same, however many residues it has.

        Returns
        -------
        tuple of Tensor
            Mean and standard deviation.

        Raises
        ------
        ValueError
            If there are no sequences.
        """
        numbers = np.asarray(proteins, np.int64)
        if self.embeddings is not None:
            each = [self.embeddings[number][None].astype(np.float64) for number in numbers]
        elif self.residues is not None:
            each = [self.residues[number].astype(np.float64) for number in numbers]
        else:
            raise ValueError("the inputs hold no sequences; there is nothing to standardise")
        mean = np.mean([vectors.mean(0) for vectors in each], 0)
        deviation = np.sqrt(np.mean([((vectors - mean) ** 2).mean(0) for vectors in each], 0))
        deviation[deviation < SMALLEST_DEVIATION] = 1
        return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


def protein_inputs(
    recipe: JointRecipe, data: TrainingData, *, cache: Path | None = None, offline: bool = False
) -> ProteinInputs:
    """Encode the proteins of a recipe.

    Parameters
    ----------
    recipe
        The recipe: inputs, encoder, and whether per residue.
    data
        The proteins.
    cache
        Folder of the embedding cache; the user's by default. Hand-made features need none.
    offline
        Whether to use local encoders only.

    Returns
    -------
    ProteinInputs
        The inputs of every protein.

    Raises
    ------
    InputError
        If the encoder cannot be loaded.
    """
    if "sequence" not in recipe.protein.inputs:
        return ProteinInputs(STRUCTURE, None, points=data.points)
    sequences = [sequence or "" for sequence in data.sequences]
    by_residue = recipe.model.fusion == "per_residue"
    if recipe.protein.encoder in (FEATURES_NAME, RESIDUE_FEATURES_NAME):
        spec, vectors = _hand_made_features(recipe.protein.encoder, sequences, by_residue=by_residue)
    else:
        spec, vectors = _embeddings(
            recipe.protein.encoder, sequences, cache, by_residue=by_residue, offline=offline
        )
    if by_residue:
        return ProteinInputs(spec, spec["dimension"], residues=tuple(vectors))
    return ProteinInputs(spec, spec["dimension"], embeddings=np.stack(vectors), points=data.points)


def _hand_made_features(
    name: str, sequences: Sequence[str], *, by_residue: bool
) -> tuple[Mapping[str, Any], list[Floats]]:
    fitting = RESIDUE_FEATURES_NAME if by_residue else FEATURES_NAME
    if name != fitting:
        raise InputError(
            f"Encoder '{name}' does not fit the recipe's fusion; set protein.encoder to '{fitting}', "
            "or to an ESM2."
        )
    describe = residue_features if by_residue else sequence_features
    vectors = [describe(sequence) for sequence in sequences]
    kind = "residues" if by_residue else "features"
    spec = {"name": name, "kind": kind, "fingerprint": None, "max_length": HAND_MADE_MAX_LENGTH}
    return {**spec, "dimension": vectors[0].shape[-1]}, vectors


def _embeddings(
    name: str, sequences: Sequence[str], cache: Path | None, *, by_residue: bool, offline: bool
) -> tuple[Mapping[str, Any], list[Floats]]:
    # Slow to import, not needed for hand-made features.
    from deepgps.models.esm2 import load_esm2

    encoder = load_esm2(name, offline=offline)
    with _progress("embedding", len(sequences)) as advance:
        vectors = embed_sequences(
            sequences,
            encoder,
            level="residue" if by_residue else "protein",
            cache=EmbeddingCache(cache),
            on_done=lambda _: advance(),
        )
    spec = {"name": encoder.name, "kind": "esm2", "fingerprint": encoder.fingerprint}
    return {**spec, "dimension": encoder.dimension, "max_length": encoder.max_length}, vectors


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar if stderr is a terminal; yield a function that advances it by one."""
    terminal = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
