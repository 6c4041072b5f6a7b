"""Predicted structures as point clouds: find, read and sample them."""

import gzip
import io
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError, MissingExtraError

ELEMENTS = ("C", "N", "O")
# Of them a residue's backbone has 4, an average residue nearly 8.
BACKBONE = 4
FEW = 4.5

_FRAGMENT = re.compile(r"AF-.+-F(\d+)\b", re.I)
_MMCIF = re.compile(r"(?:\s*#.*\n)*\s*data_", re.I)
_PDB = re.compile(r"^(?:ATOM  |HETATM)", re.M)
_SEQRES = re.compile(r"^SEQRES.{7}(.{4})", re.M)


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """The atoms of a protein.

    Attributes
    ----------
    points
        (n, 6) float32: x, y, z in Å, their mean 0; then, for C, N and O, 1 if the atom is one, else 0.
    notes
        Sentences on what was left out.
    """

    points: Floats
    notes: tuple[str, ...] = ()


def read_structure(path: str | Path) -> PointCloud:
    """Read every C, N and O of a protein, in the order of the file.

    Parameters
    ----------
    path
        PDB or mmCIF, plain or gzip, told by content. Of several models the first is read, of alternative
        places the first; water, ligands, nucleic acids and other elements are left out.

    Returns
    -------
    PointCloud
        All its C, N and O, with notes on the rest.

    Raises
    ------
    InputError
        If the file is missing, damaged, neither PDB nor mmCIF, without a protein, with several chains or
        without a whole backbone; if it is named as AlphaFold DB's (``AF-…``), also if it is a fragment of a
        longer protein, or has fewer residues than its sequence.
    MissingExtraError
        If biotite is not installed.
    """
    path = Path(path)
    if (fragment := _FRAGMENT.match(path.name)) and int(fragment[1]) != 1:
        raise InputError(
            f"Structure '{path.name}' is fragment {fragment[1]} of a longer protein; "
            "only whole ones are read."
        )
    atoms, models, declared = _parsed(_text(path), path.name)
    protein = _one_protein(atoms, path.name)
    residues = _residues(protein, declared if fragment else 0, path.name)
    kept = protein[np.isin(protein.element, ELEMENTS)]
    bare = _residue_size(kept, residues, path.name) < FEW
    return PointCloud(_points(kept), tuple(_notes(atoms, protein, models, bare, path.name)))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise InputError(f"Structure '{path}' was not found; check its name and folder.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"Structure '{path.name}' is a damaged or incomplete gzip ({error}); make or fetch it again."
        ) from error
    except OSError as error:
        raise InputError(f"Structure '{path}' cannot be read: {error.strerror or error}.") from error
    if not content.strip():
        raise InputError(f"Structure '{path.name}' is empty; make or fetch it again.")
    return content.decode("utf-8", errors="replace")


def _parsed(text: str, name: str) -> tuple[Any, int, int]:
    """Read the atoms of the first model, the number of models, and that of residues named (0 if none are)."""
    try:
        import biotite.structure.io.pdb  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Structures are read with '{error.name}', which is not installed: pip install 'deepgps[train]'."
        ) from error
    if not (mmcif := _MMCIF.match(text)) and not _PDB.search(text):
        raise InputError(f"Structure '{name}' is neither PDB nor mmCIF; give one of them, plain or gzip.")
    try:
        with warnings.catch_warnings(action="ignore"):
            parsed = _parsed_mmcif(text) if mmcif else _parsed_pdb(text)
        if not np.isfinite(parsed[0].coord).all():
            raise ValueError("a coordinate is not a number")
    except Exception as error:
        # A parser of biotite's raises whatever it stumbles on.
        why = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"Structure '{name}' is damaged or incomplete ({why}); make or fetch it again."
        ) from error
    return parsed


def _parsed_pdb(text: str) -> tuple[Any, int, int]:
    from biotite.structure.io.pdb import PDBFile

    file = PDBFile.read(io.StringIO(text))
    declared = _SEQRES.search(text)
    return file.get_structure(model=1), file.get_model_count(), int(declared[1]) if declared else 0


def _parsed_mmcif(text: str) -> tuple[Any, int, int]:
    from biotite.structure.io.pdbx import CIFFile, get_model_count, get_structure

    file = CIFFile.read(io.StringIO(text))
    declared = file.block.get("entity_poly_seq")
    return get_structure(file, model=1), get_model_count(file), declared.row_count if declared else 0


def _one_protein(atoms: Any, name: str) -> Any:
    from biotite.structure import filter_amino_acids

    protein = atoms[filter_amino_acids(atoms)]
    if not len(protein):
        raise InputError(f"Structure '{name}' holds no amino acids; give that of a protein.")
    if len(chains := np.unique(protein.chain_id)) > 1:
        raise InputError(
            f"Structure '{name}' holds {len(chains)} protein chains ({', '.join(chains)}); "
            "give one protein alone."
        )
    return protein


def _residues(protein: Any, declared: int, name: str) -> int:
    """Count the residues; refused where there are fewer than declared."""
    from biotite.structure import get_residue_count

    residues: int = get_residue_count(protein)
    if residues < declared:
        raise InputError(
            f"Structure '{name}' has {residues} of the {declared} residues of its sequence; fetch it again."
        )
    return residues


def _residue_size(kept: Any, residues: int, name: str) -> float:
    """C, N and O a residue; refused where even the backbone is not whole."""
    size: float = len(kept) / residues
    if size < BACKBONE:
        raise InputError(
            f"Structure '{name}' has {size:.1f} C, N and O a residue; give one with all its atoms."
        )
    return size


def _points(atoms: Any) -> Floats:
    xyz = atoms.coord.astype(np.float64)
    one_hot = atoms.element[:, None] == np.array(ELEMENTS)
    return np.hstack([xyz - xyz.mean(0), one_hot]).astype(np.float32)


def _notes(atoms: Any, protein: Any, models: int, bare: bool, name: str) -> list[str]:
    others = Counter(each for each in protein.element.tolist() if each not in ELEMENTS)
    counted = [f"{count} {element}" for element, count in sorted(others.items())]
    if outside := len(atoms) - len(protein):
        counted.append(f"{outside} outside the protein")
    notes = [f"Structure '{name}' holds {models} models; the first was read."] if models > 1 else []
    if bare:
        notes.append(f"Structure '{name}' has hardly more than its backbone; side chains seem to be missing.")
    if counted:
        notes.append(f"Of structure '{name}' only C, N and O were read; left out: {', '.join(counted)}.")
    return notes


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
