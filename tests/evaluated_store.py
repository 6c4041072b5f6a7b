"""A small crop store to evaluate on: nuclear and cytoplasmic proteins around round nuclei."""

from pathlib import Path

import numpy as np
import polars as pl

from deepgps.datasets.crops.store import PROTEINS, write_crops

SIZE, UM = 208, 0.206
RESIDUES = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
PLACES = {"N": "nucleoplasm", "C": "cytoplasmic"}


def sequence(name: str) -> str:
    """A made-up sequence, the same for the same name."""
    return "M" + "".join(np.random.default_rng(sum(name.encode())).choice(RESIDUES, 60))


def pair(place: str, rng: np.random.Generator) -> np.ndarray:
    """One crop: a round nucleus, and a protein in it or around it."""
    y, x = np.indices((SIZE, SIZE)) - SIZE / 2 - rng.uniform(-12, 12, 2)[:, None, None]
    distance = np.hypot(y, x)
    nucleus = np.where(distance < rng.uniform(36, 48), 0.8, 0.05)
    inside = distance < 40
    protein = np.where(inside if place == "nucleoplasm" else ~inside & (distance < 75), 0.7, 0.1)
    noisy = np.stack([nucleus, protein]) + rng.normal(0, 0.03, (2, SIZE, SIZE))
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def proteins_table(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "protein_id": names,
            "sequence": [sequence(name) for name in names],
            "localizations": [PLACES[name[0]] for name in names],
            "accession": names,
            "cluster": [str(number) for number in range(len(names))],
        }
    )


def write_store(
    folder: Path,
    *,
    test: str = "N1 N1 N2 C1 C1 C2",
    train: int = 20,
    changes: dict[str, pl.Expr] | None = None,
) -> Path:
    """Write a store; test crops by protein, and so many training crops of each place.

    ``changes`` replaces columns of its proteins, by name.
    """
    rng = np.random.default_rng(0)
    names = test.split()
    shown = [(name, "test") for name in names]
    shown += [(f"{kind}train{k % 5}", "train") for kind in PLACES for k in range(train)]
    pairs = [pair(PLACES[name[0]], rng) for name, _ in shown]
    rows = [
        {
            "source": "made up",
            "field": f"field{number}",
            "protein_id": name,
            "group": name,
            "cell": f"made up/field{number}/0",
            "localizations": PLACES[name[0]],
            "accession": name,
            "cell_line": "none",
            "split": split,
        }
        for number, (name, split) in enumerate(shown)
    ]
    write_crops(folder, pairs, rows, {"size_px": SIZE, "pixel_size_um": UM})
    table = proteins_table(sorted({name for name, _ in shown}))
    table.with_columns(**(changes or {})).write_parquet(folder / PROTEINS)
    return folder
