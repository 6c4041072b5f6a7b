"""The run record ``run.json``: what results were made from, and whether a later call may continue them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from deepgps import __version__
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.images.cell import Cell
from deepgps.proteins.structures import structure_files
from deepgps.results.records import ImageFormat, TableFormat

RUN_FILE = "run.json"
_PACKAGES = ("imagecodecs", "numpy", "onnxruntime", "openvino", "pillow", "scikit-image", "scipy", "tifffile")
# What two calls must share for the second to continue the first, and what to call it in an error.
_IDENTITY = {
    "deepgps": "version of deepGPS",
    "model": "model",
    "options": "choice of options",
    "seed": "seed",
    "nuclei": "nuclei",
    "inputs": "input",
}

Fingerprints = Sequence[tuple[str, str | None]]
"""Name or source of each thing, and its SHA-256; None for what cannot be read twice."""


@dataclass(frozen=True, slots=True)
class PredictionRun:
    """What makes two runs the same.

    Attributes
    ----------
    model, version, sha256
        The bundle's name, version and fingerprint.
    classes
        Its class slugs, in order.
    table
        Format of the table.
    images
        Whether images are drawn.
    image_format
        How images are stored.
    mean
        Whether images are mean images.
    seed
        Seed of the images.
    samples
        Images drawn for the interval of each pixel; 0 for none.
    image_checks
        Whether all nucleus images were checked for a nuclear stain at a plausible scale.
    nuclei
        Name and fingerprint of the cells drawn into.
    landmarks
        Name of each cell that has landmarks, with their names.
    inputs
        Source and fingerprint of each input.
    """

    model: str
    version: str
    sha256: str
    classes: tuple[str, ...]
    table: TableFormat = "csv"
    images: bool = True
    image_format: ImageFormat = "files"
    mean: bool = False
    seed: int = 0
    samples: int = 0
    image_checks: bool = True
    nuclei: tuple[tuple[str, str], ...] = ()
    landmarks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    inputs: tuple[tuple[str, str | None], ...] = ()

    @property
    def rows_per_protein(self) -> int:
        """Rows of each protein: one per cell, or a single one without images."""
        return len(self.nuclei) if self.images else 1

    def document(self) -> dict[str, Any]:
        """Return the part of ``run.json`` that stays the same from call to call."""
        model = {"name": self.model, "version": self.version, "sha256": self.sha256}
        options: dict[str, Any] = {"format": self.table, "images": self.images}
        for name in ("image_format", "mean", "image_checks"):
            options[name] = getattr(self, name) if self.images else None
        if self.samples:
            options["samples"] = self.samples
        if self.landmarks:
            options["landmarks"] = {cell: list(names) for cell, names in self.landmarks}
        return run_document(model, options, self.nuclei, self.inputs, self.seed)


def run_document(
    model: Any,
    options: Mapping[str, Any],
    nuclei: Fingerprints,
    inputs: Fingerprints,
    seed: int | None,
) -> dict[str, Any]:
    """Return the part of ``run.json`` that stays the same from call to call, for one model or several."""
    return {
        "deepgps": __version__,
        "model": model,
        "options": dict(options),
        "nuclei": [{"name": name, "sha256": sha256} for name, sha256 in nuclei],
        "inputs": [{"source": source, "sha256": sha256} for source, sha256 in inputs],
        "seed": seed,
    }


def now() -> str:
    """Return the time: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def package_versions() -> Mapping[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = package_version(name)
        except PackageNotFoundError:
            continue
    return versions


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read a folder's run record; None if there is none, or another program wrote it."""
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and "deepgps" in document else None


def write_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a folder's run record, whole or not at all."""
    with atomic_path(folder / RUN_FILE) as draft:
        draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same_run(folder: Path, earlier: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Check that a call continues a run with the same model, options and input.

    Raises
    ------
    InputError
        If not; it names what differs and the remedy.
    """
    different = [
        name for key, name in _IDENTITY.items() if _content(earlier.get(key)) != _content(document[key])
    ]
    if different:
        *others, last = different
        names = f"{', '.join(others)} and {last}" if others else last
        raise InputError(
            f"'{folder}' holds results made with another {names}; "
            "use --overwrite to start again, or another --out."
        )


def cell_fingerprint(cell: Cell) -> tuple[str, str]:
    """Return a cell's name and the SHA-256 of its images and pixel size."""
    digest = hashlib.sha256(f"{cell.nucleus.shape} {cell.pixel_size_um} ".encode() + cell.nucleus.tobytes())
    for name, image in cell.landmarks.items():
        digest.update(f"{name} ".encode() + image.tobytes())
    return cell.name, digest.hexdigest()


def input_fingerprints(
    inputs: Sequence[str], sequence: str | None = None, structures: Path | None = None
) -> tuple[tuple[str, str | None], ...]:
    """Return source and SHA-256 of each input.

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
        The hash of a file's bytes, of the bare sequence, or of the names and sizes of the structure files, of
        which there may be very many; None for what cannot be read twice.

    Raises
    ------
    InputError
        If the folder of structures does not exist.
    """
    found = [("stdin" if each == "-" else each, _file_sha256(Path(each))) for each in inputs]
    if sequence is not None:
        found.append(("--sequence", hashlib.sha256(sequence.encode()).hexdigest()))
    if structures is not None:
        listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in structure_files(structures))
        found.append((f"--structures {structures}", hashlib.sha256(listing.encode()).hexdigest()))
    return tuple(found)


def _content(value: Any) -> Any:
    """Leave out where a file lies: moving it does not make it another input."""
    if isinstance(value, list):
        return [
            item.get("sha256") or item["source"] if isinstance(item, dict) and "source" in item else item
            for item in value
        ]
    return value


def _file_sha256(path: Path) -> str | None:
    # A pipe such as /dev/fd/63 is not a regular file: hashing it would leave nothing to read.
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
