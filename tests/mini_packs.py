"""Small image packs for tests."""

import numpy as np

from deepgps.training.mini.image_pack import ImagePack

CLASSES = ("er", "cytoskeleton", "extracellular")
EDGE = 40


def small_pack(masked: bool = True) -> ImagePack:
    """Four fields of random pixels: OpenCell crops, two cells with landmarks, and one that is held out."""
    from deepgps.datasets.crops.reference import DOMAINS
    from deepgps.localization import WORDS

    rng = np.random.default_rng(0)
    present = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    sizes = present.sum(1) * EDGE * EDGE
    words = np.zeros((4, len(WORDS)), np.float32)
    words[:, WORDS.index("er")] = 1
    arrays = {
        "pixels": rng.integers(0, 256, sizes.sum(), np.uint8),
        "offset": np.concatenate([[0], np.cumsum(sizes)[:-1]]),
        "shape": np.full((4, 2), EDGE),
        "present": present,
        "cells": np.array([[0, 20, 20], [1, 18, 22], [2, 20, 20], [3, 20, 20]], np.int32),
        "classes": np.eye(3, dtype=np.float32)[[0, 1, 1, 0]],
        "words": words,
        "label_weight": np.array([0.6, 1, 1, 1], np.float32),
        "domain": np.array([0, 1, 1, 0]),
        "masked": np.array([False, masked, masked, False]),
        "name": np.array(["a", "b", "c", "d"]),
        "source": np.array(["opencell_crops", "hpa_u2os_cells", "hpa_u2os_cells", "opencell_crops"]),
        "group": np.array(["a", "b", "c", "d"]),
        "split": np.array(["train", "train", "train", "test"]),
        "class_names": np.array(CLASSES),
        "word_names": np.array(WORDS),
        "domain_names": np.array(DOMAINS),
        "pixel_size_um": np.array(0.4),
    }
    return ImagePack.of(arrays)
