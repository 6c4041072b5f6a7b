"""Structures for the encoder graph: a folder of them, and the point cloud of a protein in it."""

from functools import lru_cache
from pathlib import Path

from deepgps.arrays import Floats
from deepgps.bundle import BundleMetadata
from deepgps.errors import InputError
from deepgps.proteins.protein import Protein
from deepgps.proteins.structure_file import read_structure
from deepgps.proteins.structures import sample_points, structure_finder

# Enough that a protein that was looked at is not read again when its turn has come.
_KEPT = 128


class Structures:
    """The structures in a folder, sampled to a number of points.

    Parameters
    ----------
    folder
        As `deepgps.proteins.structures.read_structures` takes it.
    points
        Atoms to sample, the same ones each time.

    Raises
    ------
    InputError
        If there is no such folder.
    """

    def __init__(self, folder: Path, points: int) -> None:
        self.folder, self.points = folder, points
        self._find = structure_finder(folder)
        self._cloud = lru_cache(_KEPT)(self._sampled)

    def cloud(self, protein: Protein) -> Floats:
        """Point cloud (n, 6) of a protein, which is found by its accession, or else by its id.

        Raises
        ------
        InputError
            If its structure is not there or cannot be used.
        """
        return self._cloud(protein.accession or protein.id)

    def _sampled(self, accession: str) -> Floats:
        return sample_points(read_structure(self._find(accession)).points, self.points)


def open_structures(metadata: BundleMetadata, folder: Path | None) -> Structures | None:
    """Open the folder of structures that a model looks at; None where it looks at none.

    Raises
    ------
    InputError
        If it looks at structures and no folder is given, or the other way round.
    """
    points = metadata.encoder.structure_points
    if points is None and folder is not None:
        raise InputError(f"Model '{metadata.name}' looks at no structures; leave --structures out.")
    if points is None:
        return None
    if folder is None:
        raise InputError(f"Model '{metadata.name}' looks at structures; give their folder with --structures.")
    return Structures(folder, points)
