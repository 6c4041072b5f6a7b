"""Vectors on disk, found by what they were made of: the sequence, the encoder and its precision."""

import os
import re
import tempfile
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from deepgps.arrays import Floats
from deepgps.files.cached import cache_folder
from deepgps.proteins.embedding.encoder import Identity, Level

# How windows are laid and averaged is part of a vector too; another rule, another number.
_RULE = "1"
_DRAFTS = "drafts"
_FORGOTTEN_S = 86_400


class EmbeddingCache:
    """A folder of vectors, one file a sequence; any number of processes may write to it at once.

    A file appears whole or not at all, whenever its writer is killed; one that was damaged later is computed
    again. Nothing expires: delete the folder to start anew.

    Parameters
    ----------
    folder
        Made if missing; `cache_folder` if not given. The vectors lie in its ``embeddings``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "embeddings"
        self._swept = False

    def get(self, encoder: Identity, level: Level, sequence: str) -> Floats | None:
        """Vectors of a sequence, (E,) or (L, E) float32; None if they are not there.

        The mean of residues that are there is not computed by an encoder again.
        """
        residues = (len(sequence), encoder.dimension)
        vectors = _read(self.path(encoder, level, sequence), residues if level == "residue" else residues[1:])
        if vectors is None and level == "protein":
            whole = _read(self.path(encoder, "residue", sequence), residues)
            return None if whole is None else whole.mean(axis=0, dtype=np.float64).astype(np.float32)
        return vectors

    def put(self, encoder: Identity, level: Level, sequence: str, vectors: Floats) -> None:
        """Keep the vectors of a sequence.

        Raises
        ------
        OSError
            If they cannot be written, as when the disk is full.
        """
        path = self.path(encoder, level, sequence)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._drafts(), suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, np.asarray(vectors, np.float32))
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def path(self, encoder: Identity, level: Level, sequence: str) -> Path:
        """File of a sequence's vectors, there or not."""
        name = re.sub(r"[^\w.-]", "_", encoder.name)
        whose = f"{name}-{encoder.fingerprint[:16]}-{encoder.precision}-{level}-{_RULE}"
        digest = sha256(sequence.encode()).hexdigest()
        return self.folder / whose / digest[:2] / f"{digest}.npy"

    def _drafts(self) -> Path:
        # In one folder, so that those of killed writers are found without a walk through all.
        folder = self.folder / _DRAFTS
        if not self._swept:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._swept = True
        return folder


def _sweep(folder: Path) -> None:
    """Remove drafts that nobody can still be writing."""
    for draft in folder.iterdir():
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _FORGOTTEN_S:
                draft.unlink()


def _read(path: Path, shape: tuple[int, ...]) -> Floats | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(vectors, np.ndarray) and vectors.shape == shape and vectors.dtype == np.float32
    return vectors if fits else None
