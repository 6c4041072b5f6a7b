"""A small crop store with its proteins, drawn: what the paper's models are trained on in tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deepgps.datasets.crops.store import PROTEINS, write_crops
from deepgps.training.recipe import JointRecipe
from image_sources import discs, ring

SIZE, UM = 32, 0.8
PLACES = ("cytoplasmic", "nucleoplasm", "vesicles", "er")
LETTERS = {"cytoplasmic": "DEGSALQT", "nucleoplasm": "KRGSALEP", "vesicles": "LVGSAIDN", "er": "LFIVGSKW"}


def protein(number: int, place: str, **cells: Any) -> dict[str, Any]:
    """A row of the table of proteins, as annotate writes it."""
    rng = np.random.default_rng(number)
    single = "|" not in place
    sequence = "M" + "".join(rng.choice(list(LETTERS.get(place, "ACDEFGHIKL")), 40 + number))
    usual = {
        "protein_id": f"ENSG{number:03d}",
        "gene_symbol": f"GENE{number}",
        "accession": f"P{number:05d}",
        "sequence": sequence,
        "length": len(sequence),
        "localizations": place,
        "single_localized": single,
        "single_2": place if place in PLACES[:2] else None,
        "single_4": place if place in PLACES else None,
        "cluster": number,
        "source": "opencell",
        "cell_line": "HEK293T",
    }
    return usual | cells


def proteins(per_class: int = 6, places: Sequence[str] = PLACES) -> list[dict[str, Any]]:
    """As many proteins of each place."""
    return [protein(number, places[number % len(places)]) for number in range(per_class * len(places))]


def write_store(
    folder: Path,
    rows: Sequence[dict[str, Any]] | None = None,
    crops: int = 3,
    size: int = SIZE,
    um: float = UM,
) -> Path:
    """Write a store of some crops of each protein: nuclear ones in the nucleus, the others around it."""
    rows = proteins() if rows is None else rows
    index, pairs = [], []
    for row in rows:
        for cell in range(crops):
            centre = (size / 2 + cell - 1, size / 2)
            nucleus, around = discs(size, [centre], size / 5), ring(size, [centre], size / 5)
            shown = nucleus if "nucleoplasm" in row["localizations"] else around
            pairs.append(np.clip(np.stack([nucleus, shown]), 0, 255).astype(np.uint8))
            index.append(
                {
                    "source": "opencell",
                    "field": f"{row['protein_id']}-f",
                    "protein_id": row["protein_id"],
                    "group": row["protein_id"],
                    "cell": f"{row['protein_id']}-f/{cell}",
                    "gene_symbol": row["gene_symbol"],
                    "accession": row["accession"] or "",
                    "localizations": row["localizations"],
                    "cell_line": row["cell_line"],
                    "split": None,
                }
            )
    write_crops(folder, pairs, index, {"size_px": size, "pixel_size_um": um})
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / PROTEINS)
    return folder


def recipe(**fields: Any) -> JointRecipe:
    """A tiny recipe without a language model."""
    usual: dict[str, Any] = {
        "kind": "joint",
        "name": "toy",
        "version": "1",
        "class_set": "single-2",
        "crop": {"size_px": SIZE, "pixel_size_um": UM},
        "protein": {"encoder": "segments-1"},
        "model": {"widths": [4, 8], "latent_dim": 8, "latent_tokens": 2, "heads": 2},
        "training": {"batch_size": 4, "max_epochs": 1},
    }
    return JointRecipe.model_validate(usual | fields)
