"""A snapshot for the Hugging Face Hub: the files of a bundle, and a model card with metadata."""

import json
from pathlib import Path
from typing import Any

from deepgps.bundle import Bundle, BundleMetadata
from deepgps.bundle.metrics_table import group_metrics
from deepgps.errors import InputError

CARD_FILE = "README.md"
_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
"""Licences by the Hub's names."""
_LARGE_FILES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in ("onnx", "npz"))
_PROTOCOLS = {"A": "without homologs", "B": "with homologs"}


def write_snapshot(bundle: Bundle, folder: Path) -> Path:
    """Write a folder that can be uploaded to the Hugging Face Hub as it is.

    It holds the files of the bundle unchanged, so that `Predictor.load` loads it and its copy in the Hub's
    cache; ``README.md``, the card with the Hub's metadata; and ``.gitattributes``.

    Parameters
    ----------
    bundle
        The verified bundle.
    folder
        The folder; it may not hold files yet.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder holds files.
    """
    check_empty(folder)
    (folder / ".gitattributes").write_text(_LARGE_FILES, encoding="utf-8")
    card = bundle.read("CARD.md").decode()
    (folder / CARD_FILE).write_text(model_card(bundle.metadata, card), encoding="utf-8")
    bundle.copy_to(folder)
    return folder


def check_empty(folder: Path) -> None:
    """Make a folder, or check that it is empty.

    Raises
    ------
    InputError
        If it holds files, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"'{folder}' is not an empty folder; give --to another, or empty it.")
    folder.mkdir(parents=True, exist_ok=True)


def model_card(metadata: BundleMetadata, text: str) -> str:
    """Return a model card for the Hub: metadata in front, how to load the model, and the bundle's card.

    Parameters
    ----------
    metadata
        The bundle's description.
    text
        Its ``CARD.md``.

    Returns
    -------
    str
        The content of ``README.md``.
    """
    # Every line is JSON, of which YAML is a superset.
    front = "".join(f"{key}: {json.dumps(value)}\n" for key, value in card_metadata(metadata).items())
    return f"---\n{front}---\n\n{text.rstrip()}\n\n{_USE.format(name=metadata.name)}"


_USE = """## Use it

```python
from deepgps import Predictor
from huggingface_hub import snapshot_download

predictor = Predictor.load(snapshot_download("OWNER/{name}"))
prediction = predictor.predict_one("MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
```

A folder that was downloaded before needs no network: `Predictor.load("path/to/{name}")`.
"""


def card_metadata(metadata: BundleMetadata) -> dict[str, Any]:
    """Return the metadata of a model card, as the Hub names it.

    Parameters
    ----------
    metadata
        The bundle's description.

    Returns
    -------
    dict
        Licence, library, tags, and each measured figure of the model (not of baselines) as a result.
    """
    licence = metadata.licence.lower().replace(" ", "-")
    tags = ["biology", "protein", "subcellular-localization", "fluorescence-microscopy", "onnx"]
    card: dict[str, Any] = {
        "license": licence if licence in _LICENCES else "other",
        **({} if licence in _LICENCES else {"license_name": metadata.licence}),
        "library_name": "deepgps",
        "tags": tags,
    }
    if results := _results(metadata):
        card["model-index"] = [{"name": f"{metadata.name} {metadata.version}", "results": results}]
    return card


def _results(metadata: BundleMetadata) -> list[dict[str, Any]]:
    results = []
    for name, group in group_metrics(metadata.metrics).items():
        for protocol in group.protocols:
            figures = [
                {"type": _slug(metric), "name": metric, "value": cell.metric.value}
                for metric, cells in group.metrics.items()
                if (cell := cells.get(protocol)) and cell.metric
            ]
            data = f"{name}, {_PROTOCOLS[protocol]}" if protocol else name
            if figures:
                results.append(
                    {
                        "task": {"type": "other", "name": "subcellular localization of proteins"},
                        "dataset": {"type": _slug(data), "name": data or "not named"},
                        "metrics": figures,
                    }
                )
    return results


def _slug(text: str) -> str:
    words = "".join(each if each.isalnum() else " " for each in text.lower()).split()
    return "-".join(words) or "figure"
