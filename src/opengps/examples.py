"""The example proteins, and what the model in the package draws of them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import deepgps.examples

GALLERY: Mapping[str, str] = {
    "PCNA": "nucleoplasm",
    "NPM1": "nucleolus",
    "GAPDH": "cytoplasm",
    "CALR": "ER",
    "TUBA1A": "cytoskeleton",
    "COX4I1": "mitochondria",
}
"""The examples on the home page and the localization each stands for; `opengps.gallery` draws them."""


def example_path() -> Path:
    """Find the example proteins' FASTA."""
    return Path(deepgps.examples.__path__[0]) / "proteins.fasta"


@cache
def example_fasta() -> str:
    """Read the example proteins."""
    return example_path().read_text(encoding="utf-8")
