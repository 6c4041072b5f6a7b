r"""Measure what a cell biologist looks at, on real and on drawn images, class by class.

Real images are the held-out ones and, for comparison, those trained on; drawn images are of each class alone,
in held-out nuclei. Images are at 0.41 um per pixel.

    python experiments/deepgps-mini/images/structure.py --data runs/images/coarse.npz \
        --checkpoint runs/images/coarse/last.pt
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples import PROTEIN, Pack, one_hot, plain_batch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed
from train_generator import Settings, Trainer

from deepgps.arrays import LabelImage
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.models.flow_matching import condition, draw, noise

Floats = NDArray[np.float32]

UM = 0.413
"""Edge of a pixel in micrometres."""
NEAR_UM = 12.0
"""How far from a nucleus its cell reaches at most, for `lines`."""


def rim_ratio(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Mean at the nuclear border over the mean of the nuclear interior.

    The border is where the nuclei end, one pixel to both sides; the interior begins 1.6 um further in.
    """
    mask = labels > 0
    border = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask, iterations=2)
    return _ratio(protein, border, ndimage.binary_erosion(mask, iterations=5))


def dna_correlation(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Pearson correlation with the nucleus image inside the nuclei, 0.8 um off their border."""
    inside = ndimage.binary_erosion(labels > 0, iterations=2)
    if inside.sum() < 50 or protein[inside].std() < 1e-6 or nucleus[inside].std() < 1e-6:
        return float("nan")
    return float(np.corrcoef(protein[inside], nucleus[inside])[0, 1])


def cytosol_roughness(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Deviation of what is finer than 1.2 um over the mean, in the cytosol.

    The cytosol is where the smoothed image is above half of its 80th percentile outside of the nuclei, 1.2 um
    off its own border and theirs.
    """
    smooth = ndimage.gaussian_filter(protein, 1.2 / UM)
    outside = ~ndimage.binary_dilation(labels > 0, iterations=3)
    if not outside.any():
        return float("nan")
    cytosol = outside & (smooth > 0.5 * np.percentile(smooth[outside], 80))
    cytosol = ndimage.binary_erosion(cytosol, iterations=3, border_value=1)
    if cytosol.sum() < 100:
        return float("nan")
    return float((protein - smooth)[cytosol].std() / max(protein[cytosol].mean(), 1e-6))


def spots_per_nucleus(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Number of bright spots of about 0.5 um, over the number of nuclei."""
    detail = ndimage.gaussian_filter(protein, 0.4 / UM) - ndimage.gaussian_filter(protein, 1.2 / UM)
    peaks = (detail == ndimage.maximum_filter(detail, 3)) & (detail > 0.1)
    return float(peaks.sum() / max(labels.max(), 1))


def brightest_share(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Share of the intensity in the brightest 1 % of the pixels, of what is above the 5th percentile."""
    above = np.sort(np.clip(protein - np.percentile(protein, 5), 0, None).ravel())
    return float(above[-(above.size // 100) :].sum() / max(above.sum(), 1e-6))


def one_sidedness(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """How much the protein lies on one side of a nucleus: 0 all around, 1 in one direction.

    Length of the mean direction, from the centre of the middle nucleus, of what lies outside of it and within
    6 um, weighted by intensity.
    """
    middle = _middle(labels)
    if not middle:
        return float("nan")
    mask = labels == middle
    near = ndimage.binary_dilation(mask, iterations=round(6 / UM)) & (labels == 0)
    row, column = ndimage.center_of_mass(mask)
    rows, columns = np.nonzero(near)
    directions = np.exp(1j * np.arctan2(rows - row, columns - column))
    weights = protein[near] - np.percentile(protein, 5)
    weights = np.clip(weights, 0, None)
    return float(abs((weights * directions).sum()) / max(weights.sum(), 1e-6))


def lines_between_cells(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Mean on the lines half way between neighbouring nuclei over the mean of the cells' bodies."""
    if labels.max() < 2:
        return float("nan")
    distance = ndimage.distance_transform_edt(labels == 0)
    cells = watershed(distance, labels, watershed_line=True)  # type: ignore[no-untyped-call]
    near = (distance < NEAR_UM / UM) & (distance > 2)
    line = ndimage.binary_dilation((cells == 0) & near) & near
    return _ratio(protein, line, near & ~line)


def coherence(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """How much the detail runs in one direction within 2 um, 0 to 1, weighted by its contrast."""
    rows, columns = (ndimage.gaussian_filter(protein, 1, order=order) for order in ((1, 0), (0, 1)))
    a, b, c = (
        ndimage.gaussian_filter(product, 2 / UM)
        for product in (rows * rows, rows * columns, columns * columns)
    )
    energy = a + c
    return float(np.sqrt((a - c) ** 2 + 4 * b**2).sum() / max(energy.sum(), 1e-9))


def intranuclear(protein: Floats, nucleus: Floats, labels: LabelImage) -> float:
    """Share of the intensity inside the nuclei."""
    return float(protein[labels > 0].sum() / max(protein.sum(), 1e-6))


def _ratio(protein: Floats, of: NDArray[np.bool_], to: NDArray[np.bool_]) -> float:
    if of.sum() < 20 or to.sum() < 20:
        return float("nan")
    return float(protein[of].mean() / max(protein[to].mean(), 1e-3))


def _middle(labels: LabelImage) -> int:
    """Number of the nucleus at the middle of the image; 0 for none."""
    height, width = labels.shape
    around = labels[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8]
    numbers, counts = np.unique(around[around > 0], return_counts=True)
    return int(numbers[counts.argmax()]) if len(numbers) else 0


MEASURES: Mapping[str, Callable[[Floats, Floats, LabelImage], float]] = {
    "rim ratio": rim_ratio,
    "DNA r": dna_correlation,
    "roughness": cytosol_roughness,
    "spots": spots_per_nucleus,
    "top 1 %": brightest_share,
    "one-sided": one_sidedness,
    "lines": lines_between_cells,
    "coherence": coherence,
    "intranuclear": intranuclear,
}


def measure(protein: Floats, nucleus: Floats) -> dict[str, float]:
    """Measure an image (H, W) in [0, 1] of a protein beside the nucleus image of the same cells."""
    labels = OtsuWatershed()(percentile_normalise(nucleus), UM)
    return {name: function(protein, nucleus, labels) for name, function in MEASURES.items()}


def real_measures(
    pack: Pack, split: str, size: int, per_class: int
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Measure real images of one class each, by domain and class; OpenCell's own channels where it may be."""
    names = pack.arrays["class_names"]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    rows = np.random.default_rng(0).permutation(pack.rows(split))
    for row in rows:
        classes, _, trust = pack.classes(int(row))
        if classes.sum() != 1 or not trust or pack.examples[row, 1] != PROTEIN:
            continue
        domain = int(pack.arrays["domain"][pack.field(np.array([row]))[0]])
        some = found.setdefault((_domain(domain), str(names[classes.argmax()])), [])
        if len(some) < per_class:
            stack = pack.window(int(pack.examples[row, 0]), size)
            some.append(measure(stack[PROTEIN], stack[0]))
    return found


@torch.no_grad()
def drawn_measures(
    trainer: Trainer, nuclei: int, steps: int, guidance: float
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Draw every class into held-out nuclei and measure, by domain and class."""
    pack, size, device = trainer.pack, trainer.settings.size, trainer.device
    names = pack.arrays["class_names"]
    count, words = len(names), len(pack.arrays["word_names"])
    rows = pack.rows("test")
    rows = rows[pack.examples[rows, 1] == PROTEIN]
    domains = pack.arrays["domain"][pack.field(rows)]
    sources = pack.arrays["source"][pack.field(rows)]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for domain, source in ((0, "opencell_crops"), (1, "hpa_u2os_cells")):
        members = rows[(domains == domain) & (sources == source)]
        for row in np.random.default_rng(1).permutation(members)[:nuclei]:
            shown = plain_batch(pack, np.array([row]), size)
            told = [
                condition(
                    0.97 * torch.eye(count) + 0.02,
                    torch.full((count,), known),
                    torch.zeros(count, words),
                    torch.zeros(count),
                    torch.from_numpy(one_hot(pack, domain)).expand(count, -1),
                ).to(device)
                for known in (1.0, 0.0)
            ]
            start = noise(range(int(row) * 100, int(row) * 100 + count), size, size).to(device)
            images = shown.images.expand(count, -1, -1, -1).to(device)
            given = shown.given.expand(count, -1).to(device)
            with torch.autocast(device, torch.bfloat16):
                drawn = draw(trainer.averaged, start, images, given, *told, steps=steps, guidance=guidance)
            for name, image in zip(names, drawn[:, 0].cpu().numpy(), strict=True):
                some = found.setdefault((_domain(domain), str(name)), [])
                some.append(measure(image, shown.images[0, 0].numpy()))
    return found


def _domain(number: int) -> str:
    return ("HEK293T", "U-2 OS", "other")[number]


def table(columns: Mapping[str, Mapping[tuple[str, str], list[dict[str, float]]]]) -> str:
    """Set medians as Markdown: a line for each domain, class and kind of image."""
    lines = [
        "| cells | class | image | n | " + " | ".join(MEASURES) + " |",
        "|---" * (len(MEASURES) + 4) + "|",
    ]
    keys = sorted({key for column in columns.values() for key in column})
    for domain, name in keys:
        for kind, column in columns.items():
            some = column.get((domain, name), [])
            if some:
                cells = [f"{_median([each[m] for each in some]):.2f}" for m in MEASURES]
                lines.append(f"| {domain} | {name} | {kind} | {len(some)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/images/coarse.npz"))
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/images/coarse/last.pt"))
    parser.add_argument("--nuclei", type=int, default=12, help="held-out nuclei of each domain to draw into")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pack = Pack.load(options.data)
    columns: dict[str, Any] = {
        f"real, {name}": real_measures(pack, split, 96, 24)
        for name, split in (("held out", "test"), ("trained on", "train"))
    }
    if options.checkpoint.is_file():
        trainer = Trainer(pack, Settings(), "cuda" if torch.cuda.is_available() else "cpu")
        trainer.load(options.checkpoint)
        kind = f"drawn, after {trainer.seen:,} images"
        columns[kind] = drawn_measures(trainer, options.nuclei, options.steps, options.guidance)
    print(table(columns))


if __name__ == "__main__":
    main()
