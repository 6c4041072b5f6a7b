"""How good the drawn pictures of a model are, on whole mosaics of U-2 OS cells kept out of training.

Each held-out cell is drawn with a protein of its localization, chosen by seed: once from the training
proteins (what the generator makes of a sure label), once from proteins without a relative in training (label
and picture together). Cells whose protein is known (TUBA1A, CALR) are drawn with it in the first case.

    python benchmarks/pictures.py [--model deepgps-mini] [--crops RUN/crops] [--out benchmarks/results]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from rich.progress import track

from deepgps.bundle import Metric
from deepgps.datasets.crops import CropStore, open_crops
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.datasets.prepare import prepare_pictures
from deepgps.evaluation import pictures as quality
from deepgps.images.nucleus import Nucleus
from deepgps.images.segment import OtsuWatershed
from deepgps.localization import HPA_TO_LOCALIZATIONS, class_set
from deepgps.predict import Predictor

SOURCE = "hpa_u2os_cells"
KINDS = {"nucleoplasm": "nucleoplasm", "cytoplasmic": "cytosol"}
HOU_NAMES = {name.lower().replace(" ", "-"): slugs for name, slugs in HPA_TO_LOCALIZATIONS.items()}


def masks_of(nuclei: np.ndarray, um: float) -> np.ndarray:
    """(N, H, W) masks of the nuclei."""
    return np.stack([OtsuWatershed()(nucleus, um) > 0 for nucleus in nuclei])


def known_proteins(proteins: LabelledProteins) -> dict[str, list[str]]:
    """Sequences of training proteins of one localization, by class."""
    single = (proteins.labels >= 0.5).sum(1) == 1
    found: dict[str, list[str]] = {}
    for row in np.flatnonzero(single):
        found.setdefault(proteins.slugs[int(proteins.labels[row].argmax())], []).append(
            proteins.sequences[row]
        )
    return found


def new_proteins(data: Path, proteins: LabelledProteins, classes) -> dict[str, list[str]]:
    """Sequences of test proteins of one localization without any relative in training, by class."""
    table = pl.read_csv(data / "sequences" / "hou_test.csv.gz", infer_schema_length=None)
    table = table.filter(~pl.col("cluster").is_in(np.unique(proteins.cluster).tolist()))
    found: dict[str, list[str]] = {}
    for places, sequence in table.select("level1", "sequence").iter_rows():
        slugs = classes.of(s for place in places.split(";") for s in HOU_NAMES.get(place, ()))
        if len(slugs) == 1:
            found.setdefault(next(iter(slugs)), []).append(sequence)
    return found


def draw(predictor: Predictor, nuclei: np.ndarray, sequences: list[str], um: float, what: str) -> np.ndarray:
    """Draw each sequence into its nucleus: (N, H, W)."""
    drawn = []
    for start in track(range(0, len(nuclei), 16), what):
        chosen = slice(start, start + 16)
        latents = [encoding.latent for encoding in predictor.encode(sequences[chosen])]
        nucleus = [Nucleus("cell", pixels, um, SOURCE) for pixels in nuclei[chosen]]
        drawn.append(predictor.draw(nucleus, latents))
    return np.concatenate(drawn)


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

    def sequences(
        self, by_class: dict[str, list[str]], own: dict[str, str], seed: int, *, wrong: bool = False
    ) -> list[str]:
        """One sequence for each cell, of its localization or, for the control, of another."""
        rng = np.random.default_rng(seed)
        names = np.unique(self.classes)
        chosen = []
        for name, accession in zip(self.classes, self.accessions, strict=True):
            place = str(rng.choice(names[names != name])) if wrong else str(name)
            pool = by_class.get(place) or by_class["cytoplasmic"]
            chosen.append(own.get(accession) if accession in own and not wrong else str(rng.choice(pool)))
        return chosen

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
    parser.add_argument("--crops", type=Path, default=Path("runs/mini/crops"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--gallery", type=Path, help="write a PNG of random held-out cells here")
    options = parser.parse_args()
    predictor = Predictor.load(options.model)
    crop = predictor.bundle.metadata.crop
    if not options.crops.exists():
        prepare_pictures(
            options.data / "images", options.crops, size_px=crop.size_px, pixel_size_um=crop.pixel_size_um
        )
    classes = class_set("mini")
    proteins = load_labelled_proteins(options.data, classes)
    held_out = HeldOut(open_crops(options.crops), classes, crop.pixel_size_um)
    known, new = known_proteins(proteins), new_proteins(options.data, proteins, classes)
    own = {
        str(i): s for i, s in zip(proteins.ids, proteins.sequences, strict=True) if i in ("Q71U36", "P27797")
    }

    def drawn_with(
        pool: dict[str, list[str]], own: dict[str, str], what: str, *, wrong: bool = False
    ) -> np.ndarray:
        sequences = held_out.sequences(pool, own, seed=0, wrong=wrong)
        return draw(predictor, held_out.nuclei, sequences, crop.pixel_size_um, what)

    pictures = {
        "drawn, protein of the training tables": drawn_with(known, own, "known proteins"),
        "drawn, protein without a relative in training": drawn_with(new, {}, "new proteins"),
        "drawn, wrong localization (control)": drawn_with(known, {}, "control", wrong=True),
        **held_out.baselines,
    }
    rows = {name: held_out.measure(images) for name, images in pictures.items()}
    first, control = (quality.pearson(held_out.real, pictures[k]) for k in list(pictures)[0:3:2])
    effect = Metric(value=float(np.nanmean(first - control)), n=len(first))
    bundle = predictor.bundle
    text = f"""# Pictures on held-out U-2 OS cells

Model {bundle.metadata.name} {bundle.metadata.version}, {bundle.sha256[:12]}; {len(held_out.real)} pictures
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
    drawn = rows["drawn, protein of the training tables"]
    new_drawn = rows["drawn, protein without a relative in training"]
    quoted = {f"Held-out U-2 OS cells: {name}": metric for name, metric in drawn.items()}
    for base in ("own mean", "own nuclear mask"):
        quoted[f"Held-out U-2 OS cells: PSNR (dB) of the trivial picture '{base}'"] = rows[base]["PSNR (dB)"]
    quoted["Held-out U-2 OS cells: right side, proteins without a relative in training"] = new_drawn[
        "right side"
    ]
    quoted["Held-out U-2 OS cells: sequence_effect"] = effect
    entries = {name: metric.model_dump() for name, metric in quoted.items()}
    (options.out / "pictures.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    if options.gallery:
        gallery(held_out, pictures["drawn, protein of the training tables"], options.gallery)


if __name__ == "__main__":
    main()
