"""How good the drawn pictures of a model are, on whole mosaics of U-2 OS cells kept out of training.

Each held-out cell is drawn with a protein of its localization, chosen by seed from the tables, three times:
as the shipped label half knows it; as a label half knows it that never saw its homology cluster, but has its
relatives as neighbours (B); and one that has no relative of it (A). The first asks what the generator makes
of a sure label, the others ask label and picture together. Cells whose protein is known (TUBA1A, CALR) are
drawn with it.

    python benchmarks/pictures.py [--model deepgps-mini] [--run runs/mini] [--out benchmarks/results]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file

from deepgps.bundle import Metric
from deepgps.datasets.crops.reading import CropStore, open_crops
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.evaluation import pictures as quality
from deepgps.images.nucleus import Nucleus
from deepgps.images.segment import OtsuWatershed
from deepgps.localization import class_set
from deepgps.models.deepgps import LocalizationTokens
from deepgps.predict import Predictor
from deepgps.training.mini.labels import REGIMES

SOURCE = "hpa_u2os_cells"


def masks_of(nuclei: np.ndarray, um: float) -> np.ndarray:
    """(N, H, W) masks of the nuclei."""
    return np.stack([OtsuWatershed()(nucleus, um) > 0 for nucleus in nuclei])


def single_rows(proteins: LabelledProteins) -> dict[str, np.ndarray]:
    """Rows of the proteins of one localization, by class."""
    single = (proteins.labels >= 0.5).sum(1) == 1
    first = proteins.labels.argmax(1)
    return {slug: np.flatnonzero(single & (first == k)) for k, slug in enumerate(proteins.slugs)}


def draw(predictor: Predictor, nuclei: np.ndarray, latents: np.ndarray, um: float, what: str) -> np.ndarray:
    """Draw each latent into its nucleus: (N, H, W)."""
    drawn = []
    for start in track(range(0, len(nuclei), 16), what):
        chosen = slice(start, start + 16)
        cells = [Nucleus("cell", pixels, um, SOURCE) for pixels in nuclei[chosen]]
        drawn.append(predictor.draw(cells, latents[chosen]))
    return np.concatenate(drawn)


def held_out_latents(run: Path, rows: np.ndarray, regime: str) -> np.ndarray:
    """Latent tokens (N, T, D) of proteins whose cluster the label half had not seen."""
    logits = load_file(run / "labels" / "held_out.safetensors")[regime][rows]
    tokens = load_file(run / "pictures" / "generator.safetensors")["tokens.tokens"]
    module = LocalizationTokens(*tokens.shape)
    with torch.no_grad():
        module.tokens.copy_(tokens)
        return module(torch.sigmoid(logits)).numpy()


class HeldOut:
    """The held-out cells and everything measured on them."""

    def __init__(self, store: CropStore, classes, um: float) -> None:
        train, test = (store.rows(source=SOURCE, split=split) for split in ("train", "test"))
        self.classes = self._class_names(store, test, classes)
        self.groups = store.index["group"].to_numpy()[test].astype(str)
        self.accessions = store.index["accession"].to_numpy()[test].astype(str)
        self.nuclei, self.real = (store.crops[test][:, k].astype(np.float32) / 255 for k in (0, 1))
        self.masks = masks_of(self.nuclei, um)
        pairs = store.crops[train].astype(np.float32) / 255
        levels = quality.training_levels(
            pairs[:, 1], masks_of(pairs[:, 0], um), self._class_names(store, train, classes)
        )
        self.baselines = quality.baselines(self.real, self.nuclei, self.masks, self.classes, levels)

    @staticmethod
    def _class_names(store: CropStore, rows: np.ndarray, classes) -> np.ndarray:
        localizations = store.index["localizations"].to_numpy()[rows]
        return np.array([next(iter(classes.of(str(places).split("|")))) for places in localizations])

    def proteins(
        self, by_class: dict[str, np.ndarray], own: dict[str, int], seed: int, *, wrong: bool = False
    ) -> np.ndarray:
        """Choose a protein's row for each cell, of its localization or, for the control, of another."""
        rng = np.random.default_rng(seed)
        names = np.unique(self.classes)
        chosen = []
        for name, accession in zip(self.classes, self.accessions, strict=True):
            place = str(rng.choice(names[names != name])) if wrong else str(name)
            row = int(rng.choice(by_class[place]))
            chosen.append(own[accession] if accession in own and not wrong else row)
        return np.array(chosen)

    def measure(self, drawn: np.ndarray) -> dict[str, Metric]:
        """All measures of one set of pictures, with intervals over mosaics."""
        values = {
            "PSNR (dB)": quality.psnr(self.real, drawn),
            "Pearson r": quality.pearson(self.real, drawn),
            "intranuclear MAE": np.abs(
                quality.intranuclear(self.real, self.masks) - quality.intranuclear(drawn, self.masks)
            ),
        }
        metrics = {}
        for name, each in values.items():
            if np.isfinite(each).any():
                value, low, high = quality.bootstrap(each, self.groups)
                metrics[name] = Metric(value=value, low=low, high=high, n=int(np.isfinite(each).sum()))
        pair = [quality.intranuclear(pictures, self.masks) for pictures in (self.real, drawn)]
        if np.std(pair[1]) > 1e-6:
            metrics["intranuclear r"] = Metric(value=float(np.corrcoef(pair)[0, 1]), n=len(drawn))
        nuclear, cytoplasmic = self.classes == "nucleoplasm", self.classes == "cytoplasmic"
        share, _ = quality.right_side(pair[1], nuclear, cytoplasmic)
        metrics["right side"] = Metric(value=share, n=int(nuclear.sum() + cytoplasmic.sum()))
        return metrics


def table(rows: dict[str, dict[str, Metric]]) -> str:
    """Set the figures as Markdown."""
    names = ["PSNR (dB)", "Pearson r", "intranuclear r", "intranuclear MAE", "right side"]

    def cell(metric: Metric | None) -> str:
        if metric is None:
            return "–"
        interval = f" [{metric.low:.2f}, {metric.high:.2f}]" if metric.low is not None else ""
        return f"{metric.value:.2f}{interval}"

    lines = ["| picture | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {row} | " + " | ".join(cell(m.get(name)) for name in names) + " |" for row, m in rows.items()
    ]
    return "\n".join(lines)


def gallery(held_out: HeldOut, drawn: np.ndarray, path: Path, seed: int = 0) -> None:
    """Nucleus, real and drawn picture of three random cells of each localization, side by side."""
    rng = np.random.default_rng(seed)
    strips = []
    for name in np.unique(held_out.classes):
        rows = rng.choice(np.flatnonzero(held_out.classes == name), 3, replace=False)
        strips.append(np.hstack([np.hstack([held_out.nuclei[r], held_out.real[r], drawn[r]]) for r in rows]))
    Image.fromarray((np.vstack(strips) * 255).astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepgps-mini")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--run", type=Path, default=Path("runs/mini"), help="the run the model came from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--gallery", type=Path, help="write a PNG of random held-out cells here")
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    crop = predictor.bundle.metadata.crop
    classes = class_set("mini")
    proteins = load_labelled_proteins(options.data, classes)
    held_out = HeldOut(open_crops(options.run / "crops"), classes, crop.pixel_size_um)
    by_class = single_rows(proteins)
    own = {str(name): row for row, name in enumerate(proteins.ids) if name in ("Q71U36", "P27797")}
    right = held_out.proteins(by_class, own, seed=0)
    wrong = held_out.proteins(by_class, own, seed=0, wrong=True)

    def known(rows: np.ndarray) -> np.ndarray:
        return np.stack([e.latent for e in predictor.encode([proteins.sequences[row] for row in rows])])

    latents = {
        "drawn, protein known to the label half": known(right),
        "drawn, protein new to it, relatives known (B)": held_out_latents(options.run, right, REGIMES[1]),
        "drawn, protein new to it, no relatives (A)": held_out_latents(options.run, right, REGIMES[0]),
        "drawn, wrong localization (control)": known(wrong),
    }
    pictures = {
        name: draw(predictor, held_out.nuclei, each, crop.pixel_size_um, name)
        for name, each in latents.items()
    } | held_out.baselines
    rows = {name: held_out.measure(images) for name, images in pictures.items()}
    names = list(latents)
    first, control = (quality.pearson(held_out.real, pictures[names[k]]) for k in (0, 3))
    effect = Metric(value=float(np.nanmean(first - control)), n=len(first))
    bundle = predictor.bundle
    generator = bundle.metadata.files["generator.onnx"]
    text = f"""# Pictures on held-out U-2 OS cells

Model {bundle.metadata.name} {bundle.metadata.version}, generator {generator[:12]};
{len(held_out.real)} pictures
of whole mosaics kept out of training. Means over pictures, 95 % bootstrap intervals over mosaics; data
range 1.
"Right side": share of cytosol and nucleoplasm cells whose intranuclear fraction is on the right side of the
middle of the two means.

{table(rows)}

`sequence_effect` (Pearson r with the right protein minus with a wrong one): {effect.value:.3f}
"""
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pictures.md").write_text(text, encoding="utf-8")
    drawn = rows[names[0]]
    quoted = {f"Held-out U-2 OS cells: {name}": metric for name, metric in drawn.items()}
    for base in ("constant mean", "own mean", "own nuclear mask"):
        quoted[f"Held-out U-2 OS cells: PSNR (dB) of the baseline '{base}'"] = rows[base]["PSNR (dB)"]
    share = "right side"
    quoted[f"Held-out U-2 OS cells: {share} of the baseline 'constant mean'"] = rows["constant mean"][share]
    for name, protocol in zip(names[1:3], "BA", strict=True):
        key = f"Held-out U-2 OS cells, proteins new to the label half ({protocol}): {share}"
        quoted[key] = rows[name][share]
    quoted["Held-out U-2 OS cells: sequence_effect"] = effect
    entries = {name: metric.model_dump() for name, metric in quoted.items()}
    (options.out / "pictures.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    if options.gallery:
        gallery(held_out, pictures[names[0]], options.gallery)


if __name__ == "__main__":
    main()
