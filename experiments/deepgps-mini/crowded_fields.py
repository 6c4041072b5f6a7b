"""Whether every cell of a crowded field is drawn: real HEK293T nuclei, several in a crop.

From each of the 22 raw Hoechst fields of OpenCell, the crop around the nucleus nearest to the middle is used,
as `deepgps predict --nucleus` does; crops with a single nucleus are left out. A nuclear protein of the
examples (PCNA) is measured in each nucleus, a cytoplasmic one (GAPDH) in a ring around each. A cell counts as
drawn where the mean is at least a quarter of that of the brightest cell in the crop. The same is recorded of
the nucleus images, since cells differ in brightness there as well. Nothing was trained on these fields.
"""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
from scipy import ndimage

from deepgps.arrays import Doubles, Floats, LabelImage
from deepgps.bundle import Metric
from deepgps.errors import DeepGPSError
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.prediction import Predictor
from deepgps.proteins.reading import fasta_records

FIELD_PIXEL_SIZE_UM = 0.2063
NUCLEAR, CYTOPLASMIC, NUCLEI = "PCNA", "GAPDH", "nucleus images"
MIN_SHARE = 0.25
"""Share of the brightest cell's mean from which a cell counts as drawn."""
RING_PX, MIN_AREA_PX = 10, 400
"""Width of the ring around a nucleus, and the area below which a nucleus is cut off too far to count."""


def measure(predictor: Predictor, data: Path) -> dict[str, Metric]:
    """Return the share of cells that are drawn, by protein."""
    lines = (resources.files("deepgps.examples") / "proteins.fasta").read_text("utf-8").splitlines()
    sequences = {each.id: each.sequence for each in fasta_records(lines)}
    latents = [each.latent for each in predictor.encode([sequences[NUCLEAR], sequences[CYTOPLASMIC]])]
    shares: dict[str, list[Doubles]] = {NUCLEAR: [], CYTOPLASMIC: [], NUCLEI: []}
    for cell, nuclei in _crowded_crops(predictor, data):
        nuclear, cytoplasmic = predictor.draw([cell] * 2, latents)
        shares[NUCLEAR].append(relative_means(nuclear, nuclei, around=False))
        shares[CYTOPLASMIC].append(relative_means(cytoplasmic, nuclei, around=True))
        shares[NUCLEI].append(relative_means(cell.nucleus, nuclei, around=False))
    print(f"{len(shares[NUCLEAR])} crops of several cells")
    return {
        f"HEK293T, crowded crops: cells drawn, {name}": Metric(
            value=float((np.concatenate(each) >= MIN_SHARE).mean()), n=len(np.concatenate(each))
        )
        for name, each in shares.items()
    }


def _crowded_crops(predictor: Predictor, data: Path) -> Iterator[tuple[Cell, LabelImage]]:
    """Crops of several nuclei, and the nucleus (H, W) of each pixel."""
    for path in sorted((data / "images" / "opencell_hoechst").glob("*.tif")):
        try:
            cell = predictor.load_cell(path, image_pixel_size_um=FIELD_PIXEL_SIZE_UM)
        except DeepGPSError as error:
            print(f"{path.name}: left out: {error}")
            continue
        nuclei = OtsuWatershed()(cell.nucleus, cell.pixel_size_um)
        sizes = np.bincount(nuclei.ravel())
        nuclei = np.where(sizes[nuclei] >= MIN_AREA_PX, nuclei, 0)
        if len(np.unique(nuclei[nuclei > 0])) > 1:
            yield cell, nuclei


def relative_means(image: Floats, nuclei: LabelImage, *, around: bool) -> Doubles:
    """Mean of each cell over that of the brightest, in its nucleus or in the ring around it."""
    means = []
    for number in np.unique(nuclei[nuclei > 0]):
        place = nuclei == number
        if around:
            place = ndimage.binary_dilation(place, iterations=RING_PX) & (nuclei == 0)
        if place.any():
            means.append(image[place].mean())
    return np.asarray(np.array(means) / max(means))
