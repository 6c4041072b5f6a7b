"""Fingerprints of what a run was given."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def fingerprints(inputs: Sequence[str], sequence: str | None = None) -> tuple[tuple[str, str | None], ...]:
    """Fingerprint inputs for the run record.

    Parameters
    ----------
    inputs
        Files, ``-``, accessions or gene symbols.
    sequence
        A bare sequence.

    Returns
    -------
    tuple of (source, sha256)
        The hash of a file's bytes, or of the bare sequence; None for what cannot be read twice.
    """
    found = [("stdin" if each == "-" else each, _sha256(Path(each))) for each in inputs]
    if sequence is not None:
        found.append(("--sequence", hashlib.sha256(sequence.encode()).hexdigest()))
    return tuple(found)


def _sha256(path: Path) -> str | None:
    # A pipe such as /dev/fd/63 is not a regular file: hashing it would leave nothing to read.
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
