"""F1 of the nucleus segmenters on the fluorescence images of the 2018 Data Science Bowl.

    python experiments/deepgps-mini/nucleus_segmentation.py

The images are in ``../shared/data/images/nuclei_dsb2018`` beside the project (or under
``DEEPGPS_SHARED_DATA``). Their pixel size is not recorded and varies about fivefold. It is estimated for each
image from the image alone, never from its labels: after an Otsu threshold, above the local background, the
median object is taken for a nucleus 12 µm across. The smallest nucleus is set to 15 µm², because with so
rough a scale the paper's bound would drop real nuclei. A prediction matches a labelled nucleus when their
intersection over union exceeds the threshold; counts are pooled over all images. Settings were chosen, and
the network was trained, on half 0; half 1 tests them.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from deepgps.arrays import Doubles, Floats, Ints, LabelImage
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import NetworkWatershed, OtsuWatershed, Segmenter, refined_otsu

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
NUCLEUS_UM = 12.0
SEGMENTERS: dict[str, Segmenter] = {
    "otsu, for prediction": OtsuWatershed(min_area_um2=15.0),
    "otsu": refined_otsu(15.0),
    "network": NetworkWatershed(min_area_um2=15.0),
}
SHARED = Path(os.environ.get("DEEPGPS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


class DsbImage(NamedTuple):
    """An image with its true nuclei: pixels (H, W) in [0, 1], their estimated edge in µm, labels (H, W)."""

    name: str
    pixels: Floats
    pixel_size_um: float
    truth: LabelImage


def read_images() -> list[DsbImage]:
    """Read all images with their labels."""
    folder = SHARED / "images" / "nuclei_dsb2018"
    paths = sorted(path for path in folder.glob("*.png") if not path.stem.endswith("_labels"))
    if not paths:
        sys.exit(f"No images in '{folder}'; set DEEPGPS_SHARED_DATA to the folder of the shared data.")
    return [_read(path) for path in paths]


def _read(path: Path) -> DsbImage:
    pixels = percentile_normalise(np.asarray(Image.open(path)))
    truth = np.asarray(Image.open(path.with_name(f"{path.stem}_labels.png"))).astype(np.int32)
    return DsbImage(path.stem, pixels, estimated_pixel_size(pixels), truth)


def half_of(name: str) -> int:
    """Return the half of an image: 0 to choose and train on, 1 to test."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def estimated_pixel_size(pixels: Floats) -> float:
    """Estimate the edge of a pixel in µm from the median object."""
    smooth = ndimage.gaussian_filter(pixels, 1)
    background = ndimage.gaussian_filter(smooth, min(pixels.shape) / 8)
    otsu = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    labels, _ = ndimage.label((smooth > otsu) & (smooth > background))
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas >= 20]
    return NUCLEUS_UM / (2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.5


def best_overlaps(truth: LabelImage, found: LabelImage) -> Doubles:
    """Return the best IoU of each true nucleus with a found one; above 0.5 that one is unique."""
    shape = truth.max() + 1, found.max() + 1
    shared = np.bincount(truth.ravel() * shape[1] + found.ravel(), minlength=shape[0] * shape[1]).reshape(
        shape
    )
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return np.asarray((shared / np.maximum(union, 1))[1:, 1:].max(1, initial=0.0))


def f1(counts: Ints) -> Doubles:
    """Return F1 of matched, found and true nuclei (…, 3)."""
    hits, found, true = counts.T
    return np.asarray(2 * hits / np.maximum(found + true, 1))


def image_counts(image: DsbImage, segment: Segmenter) -> Ints:
    """Count matched, found and true nuclei: (thresholds, 3)."""
    found = segment(image.pixels, image.pixel_size_um)
    overlaps = best_overlaps(image.truth, found)
    true = len(np.unique(image.truth)) - 1
    return np.array([[(overlaps > threshold).sum(), found.max(), true] for threshold in THRESHOLDS])


def row(name: str, counts: Ints) -> str:
    """Format the F1 of a segmenter on some images."""
    pooled = f1(counts.sum(0))
    _, found, true = counts[:, 0].sum(0)
    scores = "".join(f"{score:8.3f}" for score in (*pooled, pooled.mean()))
    return f"{name:30}{len(counts):7}{true:9}{found:8}{scores}"


def main() -> None:
    """Measure and print."""
    images = read_images()
    halves = np.array([half_of(image.name) for image in images])
    ious = "".join(f"{threshold:8}" for threshold in THRESHOLDS)
    print(f"{'F1 at IoU':30}{'images':>7}{'nuclei':>9}{'found':>8}{ious}{'mean':>8}")
    for name, segment in SEGMENTERS.items():
        counts = np.array([image_counts(image, segment) for image in images])
        for half, which in (("half 0", halves == 0), ("half 1", halves == 1), ("all", halves >= 0)):
            print(row(f"{name}, {half}", counts[which]))


if __name__ == "__main__":
    main()
