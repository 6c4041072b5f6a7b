"""How well nuclei are found: F1 of `OtsuWatershed` on the 2018 Data Science Bowl's fluorescence images.

Run ``python benchmarks/segmentation.py``. The images are in ``../shared/data/images/nuclei_dsb2018`` beside
the project (or under ``DEEPGPS_SHARED_DATA``).

Their pixel size is not recorded and varies about fivefold. It is set for each image from the image alone,
never from its labels: after a plain Otsu threshold, the median object is taken for a nucleus 12 µm across.
The smallest nucleus is set to 15 µm², for with a scale so rough the paper's bound would drop real nuclei. A
prediction matches a labelled nucleus when their intersection over union exceeds the threshold; counts are
pooled over all images.
"""

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from deepgps.images.normalise import percentile_normalise
from deepgps.images.segment import Labels, OtsuWatershed

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
NUCLEUS_UM = 12.0
SHARED = Path(os.environ.get("DEEPGPS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def estimated_pixel_size(pixels: NDArray[np.float32]) -> float:
    smooth = ndimage.gaussian_filter(pixels, 1)
    labels, _ = ndimage.label(smooth > threshold_otsu(smooth))
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas >= 20]
    return NUCLEUS_UM / (2 * np.sqrt(np.median(areas) / np.pi)) if areas.size else 0.5


def best_overlaps(truth: Labels, found: Labels) -> NDArray[np.float64]:
    """IoU of each true nucleus with the found one that fits best; above 0.5 that one is unique."""
    shape = truth.max() + 1, found.max() + 1
    shared = np.bincount(truth.ravel() * shape[1] + found.ravel(), minlength=shape[0] * shape[1]).reshape(
        shape
    )
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return (shared / np.maximum(union, 1))[1:, 1:].max(1, initial=0.0)


def f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    hits, found, true = counts.T
    return 2 * hits / np.maximum(found + true, 1)


def image_counts(image: Path, segmenter: OtsuWatershed) -> NDArray[np.int64]:
    """(thresholds, 3): matched, found and true nuclei."""
    pixels = percentile_normalise(np.asarray(Image.open(image)))
    truth = np.asarray(Image.open(image.with_name(f"{image.stem}_labels.png"))).astype(np.int32)
    found = segmenter(pixels, estimated_pixel_size(pixels))
    overlaps = best_overlaps(truth, found)
    true = len(np.unique(truth)) - 1
    return np.array([[(overlaps > threshold).sum(), found.max(), true] for threshold in THRESHOLDS])


def main() -> None:
    folder = SHARED / "images" / "nuclei_dsb2018"
    images = sorted(path for path in folder.glob("*.png") if not path.stem.endswith("_labels"))
    if not images:
        sys.exit(f"No images in '{folder}'; set DEEPGPS_SHARED_DATA to the folder of the shared data.")
    counts = np.array([image_counts(image, OtsuWatershed(min_area_um2=15.0)) for image in images])
    pooled = f1(counts.sum(0))
    print(f"{len(images)} images, {counts[:, 0, 2].sum()} nuclei, {counts[:, 0, 1].sum()} found")
    for threshold, score in zip(THRESHOLDS, pooled, strict=True):
        print(f"F1 at IoU {threshold}: {score:.3f}")
    print(f"F1, mean over IoU 0.5 to 0.9: {pooled.mean():.3f}")
    print(f"F1 at IoU 0.5, mean of images: {np.mean([f1(one)[0] for one in counts]):.3f}")


if __name__ == "__main__":
    main()
