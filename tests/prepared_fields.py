"""A few drawn fields in OpenCell's format, with their list and their table of proteins."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
from numpy.typing import NDArray

from image_sources import discs, ring

EDGE, SIZE, UM = 200, 96, 0.4
PLACES = [(70, 70), (130, 120)]
RADIUS = 14
RULES = ["--size-px", str(SIZE), "--pixel-size-um", str(UM)]

PROTEINS = [
    {"protein_id": "ENSG1", "gene_symbol": "ATL3", "accession": "Q6DD88", "localizations": "er"},
    {"protein_id": "ENSG2", "gene_symbol": "CLTA", "accession": "P09496", "localizations": "vesicles|golgi"},
    {"protein_id": "ENSG3", "gene_symbol": "NONE", "accession": "P00000", "localizations": ""},
]


def pair(places: Sequence[tuple[float, float]] = PLACES, edge: int = EDGE) -> NDArray[np.uint16]:
    """(2, H, W): nuclei and the cytoplasm around them."""
    return np.stack([discs(edge, places, RADIUS), ring(edge, places, RADIUS)]).astype(np.uint16) * 20


def row(name: str, **cells: object) -> dict[str, object]:
    """A row of the list, for an image of the field's own name."""
    usual: dict[str, object] = {
        "field": name,
        "source": "opencell",
        "ensembl_gene_id": "ENSG1",
        "cell_line": "HEK293T",
        "nucleus": f"{name}.tif",
        "nucleus_channel": 0,
        "protein": f"{name}.tif",
        "protein_channel": 1,
        "pixel_size_um": UM,
        "note": "",
    }
    return usual | cells


def write_list(folder: Path, rows: Sequence[dict[str, object]]) -> Path:
    path = folder / "fields.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_proteins(folder: Path) -> Path:
    path = folder / "proteins.parquet"
    pl.DataFrame(PROTEINS).write_parquet(path)
    return path


def write_fields(folder: Path, count: int = 6) -> tuple[Path, Path]:
    """Fields of two proteins, each field a little different from the others; the list and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        places = [(70 + number, 70), (130, 120 + number)]
        tifffile.imwrite(folder / f"f{number}.tif", pair(places))
    rows = [row(f"f{number}", ensembl_gene_id=f"ENSG{1 + number % 2}") for number in range(count)]
    return write_list(folder, rows), write_proteins(folder)
