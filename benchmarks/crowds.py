"""Whether every cell of a crowded field is drawn: real nuclei of HEK293T, several in a crop.

From each of the 22 raw Hoechst fields of OpenCell the crop around the nucleus nearest to the middle, as
`deepgps predict --nucleus` takes it; those with a single nucleus are left out. A nuclear protein of the
examples (PCNA) is looked for in each nucleus, a cytoplasmic one (GAPDH) in a ring around each: a cell counts
as drawn where the mean is at least a quarter of that of the brightest cell in the crop. Beside it stands the
same of the nucleus images, as cells differ in brightness there as well. Nothing was trained on these fields.

    python benchmarks/crowds.py [--model deepgps-mini] [--data ../shared/data] [--out benchmarks/results]
"""

import argparse
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from scipy import ndimage

from deepgps.bundle import Metric
from deepgps.errors import DeepGPSError
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.prediction import Predictor
from deepgps.proteins.reading import fasta_records

FIELD_UM = 0.2063
NUCLEAR, CYTOPLASMIC = "PCNA", "GAPDH"
DRAWN = 0.25
"""Share of the brightest cell's mean from which a cell counts as drawn."""
RING_PX, SMALLEST_PX = 10, 400
"""How wide the ring around a nucleus is, and below how many pixels a nucleus is cut off too far to count."""
NUCLEI = "the nucleus images themselves"


def crowded(predictor: Predictor, data: Path) -> Iterator[tuple[Cell, np.ndarray]]:
    """Crops of several nuclei, and which nucleus each pixel (H, W) belongs to."""
    crop = predictor.bundle.metadata.crop
    for path in sorted((data / "images" / "opencell_hoechst").glob("*.tif")):
        try:
            nucleus = Cell.load(
                path,
                size_px=crop.size_px,
                pixel_size_um=crop.pixel_size_um,
                image_pixel_size_um=FIELD_UM,
            )
        except DeepGPSError as error:
            print(f"{path.name}: left out: {error}")
            continue
        labels = OtsuWatershed()(nucleus.nucleus, nucleus.pixel_size_um)
        sizes = np.bincount(labels.ravel())
        labels = np.where(sizes[labels] >= SMALLEST_PX, labels, 0)
        if len(np.unique(labels[labels > 0])) > 1:
            yield nucleus, labels


def shares(image: np.ndarray, labels: np.ndarray, *, around: bool) -> np.ndarray:
    """Mean of each cell over that of the brightest, inside of its nucleus or in the ring around it."""
    means = []
    for number in np.unique(labels[labels > 0]):
        place = labels == number
        if around:
            place = ndimage.binary_dilation(place, iterations=RING_PX) & (labels == 0)
        if place.any():
            means.append(image[place].mean())
    return np.array(means) / max(means)


def measured(predictor: Predictor, data: Path) -> tuple[dict[str, Metric], int]:
    """Share of the cells that are drawn, by protein, and how many crops there are."""
    lines = (resources.files("deepgps.examples") / "proteins.fasta").read_text("utf-8").splitlines()
    texts = {each.id: each.sequence for each in fasta_records(lines)}
    latents = [each.latent for each in predictor.encode([texts[NUCLEAR], texts[CYTOPLASMIC]])]
    found: dict[str, list[np.ndarray]] = {NUCLEAR: [], CYTOPLASMIC: [], NUCLEI: []}
    for nucleus, labels in crowded(predictor, data):
        nuclear, cytoplasmic = predictor.draw([nucleus] * 2, latents)
        found[NUCLEAR].append(shares(nuclear, labels, around=False))
        found[CYTOPLASMIC].append(shares(cytoplasmic, labels, around=True))
        found[NUCLEI].append(shares(nucleus.nucleus, labels, around=False))
    whole = {name: np.concatenate(each) for name, each in found.items()}
    metrics = {name: Metric(value=float((each >= DRAWN).mean()), n=len(each)) for name, each in whole.items()}
    return metrics, len(found[NUCLEAR])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="deepgps-mini")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    metrics, crops = measured(Predictor.load(options.model), options.data)
    named = {f"HEK293T, crowded crops: cells that are drawn, {name}": each for name, each in metrics.items()}
    entries = {name: each.model_dump(exclude_none=True) for name, each in named.items()}
    (options.out / "crowds.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    print(f"{crops} crops of several cells")
    for name, each in named.items():
        print(f"{name}: {each.value:.3f} of {each.n}")


if __name__ == "__main__":
    main()
