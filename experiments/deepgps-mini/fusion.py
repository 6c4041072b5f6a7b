"""Compare the ways of fusing protein and nucleus, with the same small network, cells and proteins.

The images are single U-2 OS cells of the Human Protein Atlas whose localization is known and whose protein is
not, so each training cell gets a protein of its localization from the tables. Cells of held-out mosaics are
then drawn with a protein that the network was trained on, which shows what the fusion can carry, and with one
of a homology cluster that it never saw, which shows what its features say; and each time with a protein of
another localization as a control.

    python experiments/deepgps-mini/fusion.py [--data ../shared/data] [--work runs/fusion]

The table of the run that was made is in README.md.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.progress import track

from deepgps.arrays import Floats, Indices
from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import CROPS_MANIFEST, open_crops, write_crops
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import pearson, psnr
from deepgps.localization import class_set
from deepgps.prediction import Predictor
from deepgps.training.export import export_run
from deepgps.training.joint.train import train_joint
from deepgps.training.recipe import JointRecipe

SOURCE, CLASSES, PIXEL_UM = "hpa_u2os_cells", class_set("mini"), 0.206349
KINDS = ("matched", "mismatched")
MODES = ("paper", "film", "residual", "per_residue")
PROTEINS_A_CLASS, CELLS_A_CLASS, TEST_CELLS = 60, 330, 240
Pools = dict[str, dict[str, Indices]]
"""Rows of proteins by part of the split and class."""


@dataclass(frozen=True, slots=True)
class TrainingCell:
    """A crop of the reference images, its class, and the part of the split that its mosaic is in."""

    row: int
    slug: str
    part: str


def recipe(mode: str, seed: int, epochs: int) -> JointRecipe:
    """Return the recipe of the small network with one fusion."""
    network = {"widths": [32, 64, 128], "fold": 4, "margin": 8, "latent_dim": 64, "fusion": mode}
    training: dict[str, Any] = {"max_epochs": epochs, "batch_size": 16, "learning_rate": 1e-3, "seed": seed}
    # The labels overfit long before the images are good.
    training |= {"patience": None, "keep": "last"}
    fields = {
        "kind": "joint",
        "name": f"fusion-{mode}",
        "version": "0",
        "class_set": CLASSES.name,
        "protein": {"encoder": "residues-1" if mode == "per_residue" else "segments-1"},
        "model": {**network, "latent_tokens": 1 if mode == "paper" else 4},
        "training": training,
    }
    return JointRecipe.model_validate(fields)


def pools(proteins: LabelledProteins) -> Pools:
    """Return proteins that microscopes see in one class only, by part and class; a cluster is in one part."""
    seen = np.array(["opencell" in source or "hpa" in source for source in proteins.source])
    alone = ((proteins.labels >= 0.5).sum(1) == 1) & seen
    rng = np.random.default_rng(0)
    share = rng.random(int(proteins.cluster.max()) + 1)[proteins.cluster]
    part_of = np.where(share < 0.6, "train", np.where(share < 0.7, "validation", "test"))
    found: Pools = {part: {} for part in ("train", "validation", "test")}
    for k, slug in enumerate(proteins.slugs):
        rows = rng.permutation(np.flatnonzero(alone & (proteins.labels[:, k] >= 0.5)))
        for part, by_class in found.items():
            by_class[slug] = rows[part_of[rows] == part][:PROTEINS_A_CLASS]
    return found


def choose_cells(index: pl.DataFrame) -> list[TrainingCell]:
    """Choose cells of one class each, no class with far more than the others; a mosaic is in one part."""
    rng, counts, chosen = np.random.default_rng(2), Counter[tuple[str, str]](), []
    groups = index["group"].to_list()
    validation = {group for group in sorted(set(groups)) if rng.random() < 0.12}
    of_source = np.flatnonzero((index["source"] == SOURCE).to_numpy())
    for row in map(int, rng.permutation(of_source)):
        named = CLASSES.of(index["localizations"][row].split("|"))
        kept = "validation" if groups[row] in validation else "train"
        part = "test" if index["split"][row] == "test" else kept
        if len(named) == 1 and counts[part, min(named)] < CELLS_A_CLASS:
            chosen.append(TrainingCell(row, min(named), part))
            counts[part, min(named)] += 1
    return chosen


def build_store(work: Path, cells: list[TrainingCell], proteins: LabelledProteins, pool: Pools) -> Path:
    """Give each cell a protein of its class and part, and write a store that ``deepgps train`` takes."""
    reference, store, rng = open_crops(work / "reference"), work / "store", np.random.default_rng(3)
    protein_of = [int(rng.choice(pool[cell.part][cell.slug])) for cell in cells]
    ids = proteins.ids.astype(str)
    places = {slug: min(members) for slug, members in CLASSES.classes.items()}
    rows = [
        {
            **{name: reference.index[name][cell.row] for name in ("source", "field", "cell", "cell_line")},
            **dict.fromkeys(("protein_id", "group", "accession"), ids[protein]),
            "gene_symbol": "",
            "localizations": places[cell.slug],
            "split": "",
        }
        for cell, protein in zip(cells, protein_of, strict=True)
    ]
    manifest = {"size_px": 208, "pixel_size_um": PIXEL_UM}
    write_crops(store, (np.asarray(reference.crops[cell.row]) for cell in cells), rows, manifest)
    cell_of = {protein: cell for cell, protein in zip(cells, protein_of, strict=True)}
    names = [ids[protein] for protein in cell_of]
    table = {
        "protein_id": names,
        "accession": names,
        "gene_symbol": [""] * len(names),
        "localizations": [places[cell.slug] for cell in cell_of.values()],
        "sequence": [proteins.sequences[protein] for protein in cell_of],
    }
    pl.DataFrame(table).write_parquet(store / "proteins.parquet")
    parts = {"protein_id": names, "split": [cell.part for cell in cell_of.values()]}
    pl.DataFrame(parts).write_csv(store / "split.csv")
    return store


def draw(predictor: Predictor, nuclei: Floats, sequences: list[str]) -> Floats:
    """Draw each protein into its nucleus: (N, H, W)."""
    drawn = []
    for pixels, sequence in zip(nuclei, sequences, strict=True):
        (encoding,) = predictor.encode([sequence])
        drawn.append(predictor.draw([Cell("cell", pixels, PIXEL_UM, SOURCE)], [encoding.latent])[0])
    return np.stack(drawn)


class HeldOutCells:
    """Held-out cells, and the measures of a bundle on them."""

    def __init__(
        self, reference: Path, cells: list[TrainingCell], proteins: LabelledProteins, pool: Pools
    ) -> None:
        held_out = [cell for cell in cells if cell.part == "test"]
        rng = np.random.default_rng(4)
        self.cells = [held_out[i] for i in rng.permutation(len(held_out))[:TEST_CELLS]]
        pairs = open_crops(reference).images([cell.row for cell in self.cells])
        self.nuclei, self.real = pairs[:, 0], pairs[:, 1]
        self.slugs = sorted({cell.slug for cell in self.cells})
        self.proteins, self.pool = proteins, pool
        self.picks = {
            (part, kind): [self._pick(cell.slug, part, kind, rng) for cell in self.cells]
            for part in ("train", "test")
            for kind in ("matched", "mismatched")
        }

    def _pick(self, slug: str, part: str, kind: str, rng: np.random.Generator) -> str:
        others = [each for each in self.slugs if each != slug]
        chosen = slug if kind == "matched" else str(rng.choice(others))
        return self.proteins.sequences[int(rng.choice(self.pool[part][chosen]))]

    def baselines(self) -> dict[str, float]:
        """Measure what needs no model."""
        masks = np.stack([OtsuWatershed()(nucleus, PIXEL_UM) > 0 for nucleus in self.nuclei])
        two_level = np.stack(
            [np.where(m, r[m].mean(), r[~m].mean()) for m, r in zip(masks, self.real, strict=True)]
        )
        mean = np.broadcast_to(self.real.mean((1, 2), keepdims=True), self.real.shape)
        return {
            "cells": len(self.cells),
            "r, own two-level mask": float(np.nanmean(pearson(self.real, two_level.astype(np.float32)))),
            "PSNR, own two-level mask": float(psnr(self.real, two_level.astype(np.float32)).mean()),
            "PSNR, own mean": float(psnr(self.real, mean).mean()),
            "balanced accuracy, chance": 1 / len(self.slugs),
        }

    def measure(self, bundle: Path) -> dict[str, float]:
        """Measure correlation, sequence effect, PSNR and labels."""
        predictor, found = Predictor.load(bundle, threads=1), {}
        for name, part in (("known", "train"), ("new", "test")):
            drawn = {kind: draw(predictor, self.nuclei, self.picks[part, kind]) for kind in KINDS}
            matched, mismatched = (pearson(self.real, drawn[kind]) for kind in KINDS)
            found[f"r, {name}"] = float(np.nanmean(matched))
            found[f"sequence effect, {name}"] = float(np.nanmean(matched) - np.nanmean(mismatched))
            found[f"PSNR, {name}"] = float(psnr(self.real, drawn["matched"]).mean())
            found[f"balanced accuracy, {name}"] = self._balanced_accuracy(predictor, part)
        return found

    def _balanced_accuracy(self, predictor: Predictor, part: str) -> float:
        columns = [predictor.classes.index(slug) for slug in self.slugs]
        recalls = []
        for number, slug in enumerate(self.slugs):
            texts = [self.proteins.sequences[int(protein)] for protein in self.pool[part][slug]]
            logits = np.stack([predictor.encode([text])[0].logits for text in texts])
            recalls.append(float((logits[:, columns].argmax(1) == number).mean()))
        return float(np.mean(recalls))


def main() -> None:
    """Read the command line, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/fusion"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--modes", nargs="+", default=MODES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    proteins = load_labelled_proteins(args.data, CLASSES)
    if not (args.work / "reference" / CROPS_MANIFEST).exists():
        prepare_reference_crops(
            args.data / "images", args.work / "reference", size_px=208, pixel_size_um=PIXEL_UM
        )
    pool, cells = pools(proteins), choose_cells(open_crops(args.work / "reference").index)
    store = build_store(args.work, cells, proteins, pool)
    held_out, found = HeldOutCells(args.work / "reference", cells, proteins, pool), {}
    jobs = [(mode, seed) for seed in range(args.seeds) for mode in args.modes]
    for mode, seed in track(jobs, "runs"):
        run, bundle = args.work / f"{mode}-{seed}", args.work / f"{mode}-{seed}-bundle"
        measured = args.work / f"{mode}-{seed}.json"
        if not measured.exists():
            train_joint(recipe(mode, seed, args.epochs), store, run, resume=run.exists())
            export_run(run, bundle)
            measured.write_text(json.dumps(held_out.measure(bundle)))
        found[f"{mode}, {seed}"] = json.loads(measured.read_text())
    print_table(Counter((cell.part, cell.slug) for cell in cells), held_out.baselines(), found)


def print_table(
    cells: Counter[tuple[str, str]], baselines: dict[str, float], found: dict[str, dict[str, float]]
) -> None:
    """Print what trained, the baselines, and a row of each run."""
    counts = ", ".join(f"{slug} {n}" for (part, slug), n in sorted(cells.items()) if part == "train")
    print(f"Training cells: {counts}.")
    print("Without a model: " + ", ".join(f"{name} {value:.4g}" for name, value in baselines.items()))
    names = list(next(iter(found.values())))
    print("| fusion, seed | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|", sep="\n")
    for mode, values in found.items():
        print(f"| {mode} | " + " | ".join(f"{values[name]:.3f}" for name in names) + " |")


if __name__ == "__main__":
    main()
