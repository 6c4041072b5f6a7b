"""Predicted structures as point clouds: find, read and sample them."""

import gzip
import io
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError, MissingExtraError

ELEMENTS = ("C", "N", "O")
# Atoms of these elements per residue: the backbone has 4, an average residue nearly 8.
BACKBONE_ATOMS = 4
FEW_ATOMS = 4.5

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
        (n, 6) float32: centred x, y, z in Å, then 1 or 0 for each of C, N and O.
    notes
        What was left out, in sentences.
    """

    points: Floats
    notes: tuple[str, ...] = ()


def read_structure(path: str | Path) -> PointCloud:
    """Read the C, N and O atoms of a protein, in the order of the file.

    Parameters
    ----------
    path
        PDB or mmCIF, plain or gzip, detected by content. Only the first model and the first alternative
        location are read; water, ligands, nucleic acids and other elements are left out.

    Returns
    -------
    PointCloud
        The atoms, with notes on what was left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, neither PDB nor mmCIF, without a protein, with several chains or
        without a complete backbone; if it is named like those of AlphaFold DB (``AF-…``), also if it is a
        fragment of a longer protein, or has fewer residues than its sequence.
    MissingExtraError
        If biotite is not installed.
    """
    path = Path(path)
    if (fragment := _FRAGMENT.match(path.name)) and int(fragment[1]) != 1:
        raise InputError(
            f"Structure '{path.name}' is fragment {fragment[1]} of a longer protein; "
            "only complete proteins are read."
        )
    atoms, models, declared = _parse(_text(path), path.name)
    protein = _one_protein(atoms, path.name)
    residues = _count_residues(protein, declared if fragment else 0, path.name)
    kept = protein[np.isin(protein.element, ELEMENTS)]
    bare = _atoms_per_residue(kept, residues, path.name) < FEW_ATOMS
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
    # Both formats are ASCII, and biotite 2 ends the program at other characters in a PDB file.
    return content.decode("utf-8-sig", errors="replace").encode("ascii", errors="replace").decode("ascii")


def _parse(text: str, name: str) -> tuple[Any, int, int]:
    """Return the first model's atoms, the number of models, and of residues that the file declares, or 0."""
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
            parsed = _parse_mmcif(text) if mmcif else _parse_pdb(text)
        if not np.isfinite(parsed[0].coord).all():
            raise ValueError("a coordinate is not a number")
    except Exception as error:
        # biotite's parsers raise exceptions of any type.
        why = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"Structure '{name}' is damaged or incomplete ({why}); make or fetch it again."
        ) from error
    return parsed


def _parse_pdb(text: str) -> tuple[Any, int, int]:
    from biotite.structure.io.pdb import PDBFile

    file = PDBFile.read(io.StringIO(text))
    declared = _SEQRES.search(text)
    atoms = _first_locations(file.get_structure(model=1, altloc="all"))
    return atoms, file.get_model_count(), int(declared[1]) if declared else 0


def _parse_mmcif(text: str) -> tuple[Any, int, int]:
    from biotite.structure.io.pdbx import CIFFile, get_model_count, get_structure

    file = CIFFile.read(io.StringIO(text))
    if (atom_site := file.block.get("atom_site")) is not None:
        _complete(atom_site)
    declared = file.block.get("entity_poly_seq")
    atoms = _first_locations(get_structure(file, model=1, altloc="all"))
    return atoms, get_model_count(file), declared.row_count if declared else 0


def _complete(atom_site: Any) -> None:
    """Add items of mmCIF that are not mandatory and that biotite wants."""
    count = atom_site.row_count
    defaults = {"pdbx_PDB_model_num": "1", "pdbx_PDB_ins_code": "?", "group_PDB": "ATOM", "label_alt_id": "."}
    for item, value in defaults.items():
        if item not in atom_site:
            atom_site[item] = [value] * count
    if "type_symbol" not in atom_site:
        # Of the elements of amino acids, only selenium has two letters, and it is left out.
        names = atom_site["label_atom_id"].as_array(str)
        atom_site["type_symbol"] = ["Se" if name == "SE" else name.lstrip("0123456789")[:1] for name in names]


# biotite's altloc="first" drops atoms whose alternative locations are numbers.
def _first_locations(atoms: Any) -> Any:
    """Keep the first alternative location of each residue."""
    from biotite.structure import get_residue_starts

    if "altloc_id" not in atoms.get_annotation_categories():
        return atoms
    ids = atoms.altloc_id
    keep = np.isin(ids, [".", "?", " ", ""])
    starts = get_residue_starts(atoms, add_exclusive_stop=True)
    for start, stop in pairwise(starts.tolist()):
        others = np.flatnonzero(~keep[start:stop])
        if others.size:
            keep[start:stop] |= ids[start:stop] == ids[start + others[0]]
    return atoms[keep]


def _one_protein(atoms: Any, name: str) -> Any:
    from biotite.structure import filter_amino_acids

    protein = atoms[filter_amino_acids(atoms)]
    if not len(protein):
        raise InputError(f"Structure '{name}' has no amino acids; give that of a protein.")
    if len(chains := np.unique(protein.chain_id)) > 1:
        raise InputError(
            f"Structure '{name}' has {len(chains)} protein chains ({', '.join(chains)}); "
            "give a single protein."
        )
    return protein


def _count_residues(protein: Any, declared: int, name: str) -> int:
    from biotite.structure import get_residue_count

    residues: int = get_residue_count(protein)
    if residues < declared:
        raise InputError(
            f"Structure '{name}' has {residues} of the {declared} residues of its sequence; fetch it again."
        )
    return residues


def _atoms_per_residue(kept: Any, residues: int, name: str) -> float:
    size: float = len(kept) / residues
    if size < BACKBONE_ATOMS:
        raise InputError(
            f"Structure '{name}' has {size:.1f} C, N and O per residue; give one with all its atoms."
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
    notes = [f"Structure '{name}' has {models} models; the first was read."] if models > 1 else []
    if bare:
        notes.append(f"Structure '{name}' has little more than its backbone; side chains seem to be missing.")
    if counted:
        notes.append(f"Only C, N and O of structure '{name}' were read; left out: {', '.join(counted)}.")
    return notes


_NAME = re.compile(
    r"(AF-)?(?P<accession>.+?)(-F(?P<fragment>\d+))?(-model_v(?P<version>\d+))?\.(pdb|cif)(\.gz)?", re.I
)


def sample_points(points: Floats, count: int, seed: int = 0) -> Floats:
    """Sample a fixed number of points.

    Parameters
    ----------
    points
        (n, 6).
    count
        Number of points.
    seed
        Seed of the sample.

    Returns
    -------
    ndarray
        (count, 6), in random order, sampled without replacement. If there are too few points, all are taken
        and the rest are sampled from them with replacement: PointNet ignores repeated points.

    Raises
    ------
    ValueError
        If there are no points, or `count` is not positive.
    """
    if count < 1 or not len(points):
        raise ValueError(f"{count} of {len(points)} points cannot be sampled; both numbers must be positive.")
    generator = np.random.default_rng(seed)
    distinct = generator.permutation(len(points))[:count]
    repeated = generator.integers(len(points), size=count - len(distinct))
    sample: Floats = points[generator.permutation(np.concatenate([distinct, repeated]))]
    return sample


def read_structures(
    folder: str | Path, accessions: Iterable[str]
) -> tuple[dict[str, PointCloud], dict[str, str]]:
    """Read the structures of proteins, and list the missing ones.

    Parameters
    ----------
    folder
        Written by ``deepgps data fetch structures``, or with files named as in AlphaFold DB
        (``AF-P04637-F1-model_v6.pdb``) or by accession (``P04637.cif.gz``). The newest version is read.
    accessions
        UniProt accessions, in either case.

    Returns
    -------
    tuple of dict
        The structures found, by accession, and why others are missing, by accession.

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
    """List a folder once, and return a function that finds the file of an accession in it.

    Parameters
    ----------
    folder
        As in `read_structures`.

    Returns
    -------
    Callable
        From an accession to its newest file; it raises an InputError if there is none, or only fragments.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    files = _files(Path(folder))
    return lambda accession: _newest(files.get(accession.upper(), []), accession, folder)


def structure_files(folder: str | Path) -> list[Path]:
    """Return the structure files in a folder, sorted by name.

    Parameters
    ----------
    folder
        As in `read_structures`.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    return sorted(path for paths in _files(Path(folder)).values() for path in paths)


def _files(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder of structures; check its name.")
    files: dict[str, list[Path]] = {}
    for path in (*folder.glob("*"), *folder.glob("structures/*")):
        if named := _NAME.fullmatch(path.name):
            files.setdefault(named["accession"].upper(), []).append(path)
    return files


def _newest(paths: list[Path], accession: str, folder: str | Path) -> Path:
    if not paths:
        raise InputError(
            f"There is no structure of '{accession}' in '{folder}'; "
            "fetch it with deepgps data fetch structures."
        )
    if (last := max(_number(path, "fragment") for path in paths)) > 1:
        raise InputError(
            f"'{accession}' is in '{folder}' as fragments (up to F{last}), like other long proteins; "
            "only complete proteins are read."
        )
    return max(paths, key=lambda path: (_number(path, "version"), path.name))


def _number(path: Path, part: str) -> int:
    named = _NAME.fullmatch(path.name)
    return int(named[part] or 0) if named else 0
