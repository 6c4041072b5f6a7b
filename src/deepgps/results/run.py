"""The run record: what a folder's results were made of, and whether a later call may continue them."""

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
from deepgps.results.table import ImageFormat, TableFormat

RUN_FILE = "run.json"
_PACKAGES = ("numpy", "onnxruntime", "openvino", "pillow", "scikit-image", "scipy", "tifffile")
# What two calls must share for the second to continue the first, and how a person calls it.
_SAME = {
    "deepgps": "version of deepGPS",
    "model": "model",
    "options": "choice of options",
    "nuclei": "nuclei",
    "inputs": "input",
}


@dataclass(frozen=True, slots=True)
class Run:
    """What makes two runs the same.

    Attributes
    ----------
    model, version, sha256
        The bundle's name, version and fingerprint.
    classes
        Its class slugs, in order.
    table
        Format of the table: ``csv``, ``tsv``, ``json`` (``results.jsonl`` alone) or ``parquet``.
    images
        Whether images are drawn.
    images
        What they are kept in: ``files``, or one ``zarr`` store.
    mean
        Whether each is the mean of all images that could be, and not one of them.
    nuclei
        Name and sha256 of the pixels of each nucleus drawn into.
    inputs
        Source and sha256 of each input; the hash is None for what is not a file.
    """

    model: str
    version: str
    sha256: str
    classes: tuple[str, ...]
    table: TableFormat = "csv"
    images: bool = True
    image_format: ImageFormat = "files"
    mean: bool = False
    nuclei: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str | None], ...] = ()

    @property
    def rows_per_protein(self) -> int:
        """Rows that each protein gets: one per nucleus, and one without images."""
        return len(self.nuclei) if self.images else 1

    def document(self) -> dict[str, Any]:
        """Render the part of ``run.json`` that stays the same from call to call."""
        model = {"name": self.model, "version": self.version, "sha256": self.sha256}
        image_format, mean = (self.image_format, self.mean) if self.images else (None, None)
        options = {"format": self.table, "images": self.images, "image_format": image_format, "mean": mean}
        return run_document(model, options, self.nuclei, self.inputs)


def run_document(
    model: Any,
    options: Mapping[str, Any],
    nuclei: Sequence[tuple[str, str]],
    inputs: Sequence[tuple[str, str | None]],
) -> dict[str, Any]:
    """Render the part of ``run.json`` that stays the same from call to call, of one model or several."""
    return {
        "deepgps": __version__,
        "model": model,
        "options": dict(options),
        "nuclei": [{"name": name, "sha256": sha256} for name, sha256 in nuclei],
        "inputs": [{"source": source, "sha256": sha256} for source, sha256 in inputs],
        # Prediction draws no random numbers.
        "seed": None,
    }


def now() -> str:
    """Tell the time: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def packages() -> Mapping[str, str]:
    """Versions of the packages that the numbers depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = package_version(name)
        except PackageNotFoundError:
            continue
    return found


def read_run(folder: Path) -> dict[str, Any] | None:
    """Read a folder's run record; None if there is none, or it is not one of ours."""
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) and "deepgps" in document else None


def write_run(folder: Path, document: Mapping[str, Any]) -> None:
    """Write a folder's run record, whole."""
    with atomic_path(folder / RUN_FILE) as draft:
        draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same(folder: Path, earlier: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue a run with another model, other options or other input.

    Raises
    ------
    InputError
        Naming what differs and the remedy.
    """
    different = [said for key, said in _SAME.items() if _essence(earlier.get(key)) != _essence(wanted[key])]
    if different:
        raise InputError(
            f"'{folder}' holds results made with another {_and(different)}; "
            "use --overwrite to start anew, or another --out."
        )


def _essence(value: Any) -> Any:
    """Leave out where a file lay: moving it does not make it another input."""
    if isinstance(value, list):
        return [item["sha256"] or item["source"] if "source" in item else item for item in value]
    return value


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
