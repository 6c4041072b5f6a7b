"""Fingerprints of what a run was given."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from deepgps.proteins.structures import structure_files


def fingerprints(
    inputs: Sequence[str], sequence: str | None = None, structures: Path | None = None
) -> tuple[tuple[str, str | None], ...]:
    """Fingerprint inputs for the run record.

    Parameters
    ----------
    inputs
        Files, ``-``, accessions or gene symbols.
    sequence
        A bare sequence.
    structures
        A folder of structures.

    Returns
    -------
    tuple of (source, sha256)
        The hash of a file's bytes, of the bare sequence, or of the names and sizes of the structures' files,
        of which there may be very many; None for what cannot be read twice.

    Raises
    ------
    InputError
        If there is no such folder of structures.
    """
    found = [("stdin" if each == "-" else each, _sha256(Path(each))) for each in inputs]
    if sequence is not None:
        found.append(("--sequence", hashlib.sha256(sequence.encode()).hexdigest()))
    if structures is not None:
        found.append((f"--structures {structures}", _listing_sha256(structures)))
    return tuple(found)


def _listing_sha256(structures: Path) -> str:
    files = structure_files(structures)
    listed = "\n".join(f"{path.name} {path.stat().st_size}" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _sha256(path: Path) -> str | None:
    # A pipe such as /dev/fd/63 is not a regular file: hashing it would leave nothing to read.
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
