"""The figures of drawn images, on a pack of discs whose answer is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from deepgps.localization import WORDS
from deepgps.training.mini.image_pack import ImagePack

FOLDER = Path(__file__).parents[2] / "experiments" / "deepgps-mini" / "images"
CLASSES = ("nucleoplasm", "cytoplasmic", "extracellular")
SOURCES = ("opencell_crops", "hpa_u2os_cells")
EDGE, EACH = 104, 4
ROWS, COLUMNS = np.indices((EDGE, EDGE))


@pytest.fixture(scope="module")
def measuring():
    sys.path.insert(0, str(FOLDER))
    try:
        import measuring

        return measuring
    finally:
        sys.path.remove(str(FOLDER))


def disc(radius):
    return np.hypot(ROWS - EDGE / 2, COLUMNS - EDGE / 2) < radius


def protein(slug, nucleus):
    """Nuclei alone, or everything else of a cell."""
    return nucleus if slug == "nucleoplasm" else np.where(nucleus > 0.5, 0.1, 0.8 * disc(45))


@pytest.fixture(scope="module")
def pack():
    rng, fields = np.random.default_rng(0), []
    for domain, source in enumerate(SOURCES):
        for slug in CLASSES[:2]:
            for split in ("test", "train"):
                for _ in range(EACH):
                    nucleus = disc(rng.uniform(16, 22)) * rng.uniform(0.8, 1.0)
                    pair = np.stack([nucleus, protein(slug, nucleus)])
                    fields.append((np.round(pair * 255).astype(np.uint8), slug, domain, source, split))
    count = len(fields)
    pixels, slugs, domains, sources, splits = zip(*fields, strict=True)
    words = np.zeros((count, len(WORDS)), np.float32)
    return ImagePack.of(
        {
            "pixels": np.concatenate([each.ravel() for each in pixels]),
            "offset": np.arange(count) * 2 * EDGE * EDGE,
            "shape": np.full((count, 2), EDGE),
            "present": np.tile([True, True, False, False], (count, 1)),
            "cells": np.column_stack([np.arange(count), np.full((count, 2), EDGE // 2)]),
            "classes": np.array([[slug == name for name in CLASSES] for slug in slugs], np.float32),
            "words": words,
            "label_weight": np.ones(count, np.float32),
            "domain": np.array(domains),
            "masked": np.zeros(count, bool),
            "name": np.array([f"field {k}" for k in range(count)]),
            "source": np.array(sources),
            "group": np.array([f"group {k % 9}" for k in range(count)]),
            "split": np.array(splits),
            "class_names": np.array(CLASSES),
            "word_names": np.array(WORDS),
            "domain_names": np.array(["HEK293T", "U-2 OS", "other"]),
            "pixel_size_um": np.array(0.413),
        }
    )


class Drawing:
    """Draws what the class says, with noise of its seed; or the other class."""

    name = "drawing"

    def __init__(self, measuring, pack, *, confused=False):
        self.crops, self.pack, self.confused = measuring.crops, pack, confused

    def mean(self, wanted):
        _, nuclei = self.crops(self.pack, wanted.rows)
        slugs = np.array(CLASSES)[wanted.classes.argmax(1)]
        if self.confused:
            slugs = np.where(slugs == "nucleoplasm", "cytoplasmic", "nucleoplasm")
        middle = slice((EDGE - nuclei.shape[1]) // 2, (EDGE + nuclei.shape[1]) // 2)
        padded = np.pad(nuclei, ((0, 0), *[(middle.start, EDGE - middle.stop)] * 2))
        images = [protein(slug, nucleus) for slug, nucleus in zip(slugs, padded, strict=True)]
        return np.stack(images)[:, middle, middle].astype(np.float32)

    def draw(self, wanted):
        means = self.mean(wanted)
        noise = [np.random.default_rng(seed).random(means.shape[1:]) for seed in wanted.seeds]
        return np.clip(means + 0.05 * np.stack(noise), 0, 1).astype(np.float32)


def figures_of(measuring, pack, model):
    wanted, kinds = measuring.class_images(pack, 4)
    drawn = measuring.images_of(pack, wanted.rows, kinds, model.mean(wanted))
    real = measuring.by_class(measuring.real_references(pack))
    return measuring.distance_figures(real, measuring.by_class(drawn)), drawn


def test_images_of_the_wrong_class_are_farther_from_the_real_ones(measuring, pack):
    right, drawn = figures_of(measuring, pack, Drawing(measuring, pack))
    wrong, _ = figures_of(measuring, pack, Drawing(measuring, pack, confused=True))
    for line in ("HEK293T", "U-2 OS"):
        for slug in CLASSES[:2]:
            name = f"{line} images, {slug}: structure distance"
            assert right[name].value < 0.5 * wrong[name].value
        assert f"{line} images, extracellular: structure distance" not in right
    assert len(drawn) == 2 * 4 * len(CLASSES)
    splits = pack.arrays["split"][pack.fields(measuring.class_images(pack, 4)[0].rows)]
    assert set(splits) == {"test"}


def test_read_back_is_balanced_and_secreted_proteins_count_as_the_er(measuring, pack, monkeypatch):
    _, drawn = figures_of(measuring, pack, Drawing(measuring, pack))
    network = measuring.ReadBack(("nucleoplasm", "cytoplasmic", "er"))
    answers = {"nucleoplasm": 0, "cytoplasmic": 0, "extracellular": 2}
    found = np.array([answers[kind] for kind in drawn.kinds.tolist()])
    monkeypatch.setattr(measuring, "read", lambda *_: (found, None))
    figures = measuring.read_back_figures(network, drawn)
    assert figures["HEK293T images: read-back, balanced accuracy"].value == pytest.approx(2 / 3)
    assert figures["U-2 OS images, extracellular: read back"].value == 1
    assert figures["U-2 OS images, cytoplasmic: read back"].value == 0
    assert figures["HEK293T images: read-back, five classes"].value == 0.5


def test_seeds_differ_and_one_seed_repeats(measuring, pack):
    figures = measuring.diversity_figures(Drawing(measuring, pack), pack)
    assert figures["Images: largest difference of two with the same seed"].value == 0
    seeds = figures["HEK293T images: r of two seeds in one nucleus"].value
    assert 0.9 < seeds < 1


def test_mean_images_are_compared_with_held_out_ones(measuring, pack):
    right, wrong = (
        measuring.mean_figures(Drawing(measuring, pack, confused=confused), pack)
        for confused in (False, True)
    )
    for line in ("HEK293T", "U-2 OS"):
        assert right[f"{line} mean images: Pearson r"].value == pytest.approx(1, abs=0.01)
        assert right[f"{line} mean images: Pearson r"].n == 2 * EACH
        assert wrong[f"{line} mean images: Pearson r"].value < 0.5
        assert right[f"{line} mean images: intranuclear r"].value > 0.95
