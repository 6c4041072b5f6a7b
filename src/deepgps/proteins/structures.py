"""Structures of proteins as point clouds: (n, 6), of x, y, z in Å about the centroid, and a one-hot C, N, O.

One point for every carbon, nitrogen and oxygen, as in the paper's methods. A network takes proteins by the
batch, so a fixed number of points is sampled from each.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.proteins.structure_file import PointCloud, read_structure

_NAME = re.compile(
    r"(AF-)?(?P<accession>.+?)(-F(?P<fragment>\d+))?(-model_v(?P<version>\d+))?\.(pdb|cif)(\.gz)?", re.I
)


def sample_points(points: Floats, count: int, seed: int = 0) -> Floats:
    """Take a fixed number of points.

    Parameters
    ----------
    points
        (n, 6).
    count
        How many.
    seed
        The same seed takes the same points, whatever was sampled before.

    Returns
    -------
    ndarray
        (count, 6), in random order. Of more points, each is taken once at most. Fewer are all taken, and the
        rest is drawn among them with replacement: to PointNet, a point that is there twice is there once.

    Raises
    ------
    ValueError
        If there are no points, or none are wanted.
    """
    if count < 1 or not len(points):
        raise ValueError(f"{count} of {len(points)} points were asked for; both must be positive.")
    generator = np.random.default_rng(seed)
    once = generator.permutation(len(points))[:count]
    again = generator.integers(len(points), size=count - len(once))
    taken: Floats = points[generator.permutation(np.concatenate([once, again]))]
    return taken


def read_structures(
    folder: str | Path, accessions: Iterable[str]
) -> tuple[dict[str, PointCloud], dict[str, str]]:
    """Read the structures of proteins, and list those that cannot be had.

    Parameters
    ----------
    folder
        What ``deepgps data fetch structures`` wrote, or files named as AlphaFold DB's
        (``AF-P04637-F1-model_v6.pdb``) or by accession (``P04637.cif.gz``). Of several the newest version is
        read.
    accessions
        UniProt accessions, in either case.

    Returns
    -------
    tuple of dict
        Found, by accession: all its points. Missing, by accession: a sentence that says why.

    Raises
    ------
    InputError
        If there is no such folder.
    MissingExtraError
        If biotite is not installed.
    """
    find = structure_finder(folder)
    found: dict[str, PointCloud] = {}
    missing: dict[str, str] = {}
    for accession in accessions:
        try:
            found[accession] = read_structure(find(accession))
        except InputError as error:
            missing[accession] = str(error)
    return found, missing


def structure_finder(folder: str | Path) -> Callable[[str], Path]:
    """List a folder once, and find the file of one accession after the other in it.

    Parameters
    ----------
    folder
        As in `read_structures`.

    Returns
    -------
    Callable
        From an accession to its newest file; raises InputError where there is none, or only fragments.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    files = _files(Path(folder))
    return lambda accession: _newest(files.get(accession.upper(), []), accession, folder)


def structure_files(folder: str | Path) -> list[Path]:
    """List the files in a folder that are named as structures are, by name.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    return sorted(path for paths in _files(Path(folder)).values() for path in paths)


def _files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder of structures; check its name.")
    files: dict[str, list[Path]] = {}
    for path in (*folder.glob("*"), *folder.glob("structures/*")):
        if named := _NAME.fullmatch(path.name):
            files.setdefault(named["accession"].upper(), []).append(path)
    return files


def _newest(paths: list[Path], accession: str, folder: str | Path) -> Path:
    if not paths:
        raise InputError(
            f"No structure of '{accession}' lies in '{folder}'; fetch it with deepgps data fetch structures."
        )
    if (last := max(_number(path, "fragment") for path in paths)) > 1:
        raise InputError(
            f"'{accession}' lies in '{folder}' in fragments (up to F{last}), as longer proteins do; "
            "only whole ones are read."
        )
    return max(paths, key=lambda path: (_number(path, "version"), path.name))


def _number(path: Path, part: str) -> int:
    named = _NAME.fullmatch(path.name)
    return int(named[part] or 0) if named else 0
