"""What the paper published: Tables 1 and 2, figures 2 to 4 (Yuan, Li, Yang et al. 2025).

In tables of two classes cytoplasm is the positive one.
"""

from collections.abc import Mapping
from typing import NamedTuple

TABLE_COLUMNS = ("accuracy", "specificity", "sensitivity", "f1", "auroc", "auprc")
"""Columns of the two tables, as `deepgps.evaluation` names them."""
TABLES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "single-2": {
        "MultiLoc2": (0.746, 0.652, 0.800, 0.800, 0.774, 0.802),
        "DeepLoc 1.0": (0.825, 0.783, 0.850, 0.861, 0.799, 0.821),
        "BUSCA": (0.667, 0.650, 0.675, 0.720, 0.650, 0.714),
        "MULocDeep": (0.794, 0.739, 0.825, 0.835, 0.841, 0.915),
        "deepGPS-single-2": (0.744, 0.745, 0.792, 0.795, 0.761, 0.838),
    },
    "u2os-single-2": {
        "MultiLoc2": (0.645, 0.553, 0.837, 0.604, 0.753, 0.553),
        "DeepLoc 1.0": (0.731, 0.684, 0.830, 0.667, 0.803, 0.601),
        "BUSCA": (0.607, 0.546, 0.733, 0.547, 0.663, 0.452),
        "MULocDeep": (0.763, 0.723, 0.844, 0.697, 0.835, 0.641),
        "deepGPS-single-2": (0.797, 0.751, 0.797, 0.793, 0.829, 0.645),
    },
}
"""Tables 1 and 2, by the model of ours that stands beside them."""
OWN_ROW = "deepGPS-single-2"

FOUR_CLASSES = ("cytoplasmic", "vesicles", "er", "nucleoplasm")
CONFUSION: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "protein": ((26, 3, 1, 10), (8, 14, 3, 3), (1, 2, 11, 0), (6, 2, 0, 15)),
    "crop": ((1197, 162, 38, 522), (408, 640, 156, 122), (46, 87, 460, 0), (251, 83, 0, 793)),
}
"""Figures 4d and 4e: rows true, columns predicted, in the order of `FOUR_CLASSES`."""
FOUR_CLASS_FIGURES = {"one_vs_rest_accuracy": 0.81, "auroc_macro": 0.83}
"""Means over the four classes, in the text of figures 4b and 4c."""


class ImageFigures(NamedTuple):
    """PSNR (dB) and SSIM of a model, and where they were read."""

    psnr: float
    ssim: float
    source: str


IMAGES: Mapping[str, ImageFigures] = {
    "single-2": ImageFigures(14.5, 0.20, "text, figure 3d"),
    "single-2-structure": ImageFigures(14.4, 0.19, "bar of figure 3d"),
    "single-2-both": ImageFigures(14.2, 0.195, "bar of figure 3d"),
    "single-4": ImageFigures(14.7, 0.194, "bar of figure 4g"),
    "all": ImageFigures(15.4, 0.222, "bar of figure 4g"),
}
PROTEINS = {"opencell": 1301, "hpa": 2087}
CROPS = {"opencell": 62_108, "hpa": 42_204}
"""Proteins and crops of the two datasets."""
FIELDS = 6239
"""Fields of OpenCell."""
TRAINING_CROPS = {
    "single-2": 13_463,
    "single-4": 21_923,
    "all": 49_971,
    "u2os-single-2": 33_763,
    "single-2-structure": 13_463,
    "single-2-both": 13_463,
}
"""Crops in training, of U-2 OS four fifths of all."""
CROSS_ASSAY = ("AGO1", "FAM120A", "HNRNPD", "SMARCD2")
"""Proteins of figure 2e: two cytoplasmic ones, then two of the nucleoplasm."""
MAX_LENGTH = 2700
"""Longest protein."""
