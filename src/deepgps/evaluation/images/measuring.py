"""One pass over the crops: each is drawn, measured, and written down before the next.

What is written has one length for every crop, so that a killed run goes on at the first crop that is not
whole, and the figures are made column by column, however many crops there are.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from deepgps.arrays import Doubles, Floats, Indices, Ints, Mask
from deepgps.evaluation.images.baselines import BASELINES, COPY, MASK, TrainingLevels, baselines
from deepgps.evaluation.images.likeness import check_images
from deepgps.evaluation.images.reader import UNREAD, ImageReader
from deepgps.evaluation.images.structure import FEATURES, Surroundings, structure_features
from deepgps.evaluation.subjects import MANY, Subjects
from deepgps.files import AppendFile
from deepgps.images.cell import Cell
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.prediction import Predictor

REAL, DRAWN = "real", "drawn"
WRONG_CLASS, WRONG_PROTEIN = "wrong class (control)", "wrong protein, same class (control)"
KINDS = (REAL, DRAWN, WRONG_PROTEIN, WRONG_CLASS, *BASELINES)
"""The images that are measured of each crop."""
READ_KINDS = (REAL, DRAWN, WRONG_PROTEIN, WRONG_CLASS, MASK, COPY)
"""Those that show some structure, and are read by the classifier."""
MEASURES = ("psnr", "ssim", "pearson", "intranuclear")
BATCH = 8

_READ_AT = len(KINDS) * len(MEASURES)
_READINGS = 2
_WIDTH = _READINGS + FEATURES
RECORD = _READ_AT + len(READ_KINDS) * _WIDTH
"""Numbers per crop."""
NOBODY = -1

Readers = tuple[ImageReader, ImageReader] | None
"""The reader of all features, and the one of the profile alone; None where classes have too few images."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was measured of N crops, on disk.

    Attributes
    ----------
    records
        (N, `RECORD`) float32, memory-mapped.
    """

    records: Floats

    def measure(self, kind: str, name: str) -> Doubles:
        """One of `MEASURES` of all crops, (N,)."""
        return self._column(KINDS.index(kind) * len(MEASURES) + MEASURES.index(name))

    def read(self, kind: str, *, by_place: bool = False) -> Indices:
        """Class numbers (N,) that a reader read; `UNREAD` where there is none."""
        return self._column(_READ_AT + READ_KINDS.index(kind) * _WIDTH + by_place).astype(np.intp)

    def features(self, kind: str, rows: slice = slice(None)) -> Doubles:
        """Features (n, F) of some crops; NaN where undefined."""
        start = _READ_AT + READ_KINDS.index(kind) * _WIDTH + _READINGS
        return np.asarray(self.records[rows, start : start + FEATURES], np.float64)

    def _column(self, number: int) -> Doubles:
        return np.asarray(self.records[:, number], np.float64)


def open_measured(path: Path) -> Measured:
    """Open what `measure_crops` wrote."""
    if not path.exists() or not path.stat().st_size:
        return Measured(np.zeros((0, RECORD), np.float32))
    return Measured(np.memmap(path, np.float32, "r").reshape(-1, RECORD))


def cells(subjects: Subjects, rows: Ints, pixel_size_um: float) -> tuple[Floats, Surroundings]:
    """Real images (n, H, W) of some rows of the store, and where their pixels lie."""
    assert subjects.store is not None
    pairs = subjects.store.images(rows)
    masks = np.stack([nuclear_mask(nucleus, pixel_size_um) for nucleus in pairs[:, 0]])
    return pairs[:, 1], Surroundings.of(pairs[:, 0], masks, pixel_size_um)


def nuclear_mask(nucleus: Floats, pixel_size_um: float) -> Mask:
    """Where the nuclei are (H, W), as `Predictor` finds them for its read-out."""
    return OtsuWatershed()(nucleus, pixel_size_um) > 0


def other_proteins(subjects: Subjects, seed: int) -> dict[str, Ints]:
    """Choose a wrong protein for each crop: (N,) numbers; `NOBODY` where there is none to choose from.

    Drawn by chance from the proteins evaluated on: one that shares no class, and another one of exactly the
    same classes.
    """
    rng = np.random.default_rng(seed)
    names = np.array([each.class_name for each in subjects.subjects])
    sets = {name: set(name.split(MANY)) for name in np.unique(names).tolist()}
    alike = {name: np.flatnonzero(names == name) for name in sets}
    apart = {
        name: np.flatnonzero([sets[name].isdisjoint(sets[other]) for other in names.tolist()])
        for name in sets
    }
    owners = [(owner, str(names[owner])) for owner in subjects.owner.tolist()]
    return {
        WRONG_CLASS: np.array([_any_of(apart[name], rng) for _, name in owners], np.int64),
        WRONG_PROTEIN: np.array(
            [_any_of(alike[name][alike[name] != owner], rng) for owner, name in owners], np.int64
        ),
    }


def _any_of(pool: Indices, rng: np.random.Generator) -> int:
    return int(rng.choice(pool)) if len(pool) else NOBODY


class Artist:
    """Draws the proteins evaluated on into the cells that they are compared with.

    Parameters
    ----------
    predictor
        The model.
    subjects
        The proteins.
    """

    def __init__(self, predictor: Predictor, subjects: Subjects) -> None:
        self.predictor, self.um = predictor, predictor.bundle.metadata.crop.pixel_size_um
        proteins = [each.protein for each in subjects.subjects]
        # A latent may be large; those of a batch's neighbours are what is asked for again.
        self._latent = lru_cache(1024)(lambda number: predictor.encode([proteins[number]])[0].latent)

    def draw(self, nuclei: Floats, numbers: Ints) -> Floats:
        """Draw proteins (n,) into nuclei (n, H, W), pair by pair; NaN for `NOBODY`."""
        drawn = np.full(nuclei.shape, np.nan, np.float32)
        wanted = np.flatnonzero(numbers != NOBODY)
        if len(wanted):
            into = [Cell("crop", nuclei[k], self.um, "crop store") for k in wanted]
            drawn[wanted] = self.predictor.draw(into, [self._latent(int(numbers[k])) for k in wanted])
            check_images(drawn[wanted], DRAWN)
        return drawn


def measure_batch(
    images: Mapping[str, Floats], real: Floats, around: Surroundings, readers: Readers
) -> Floats:
    """Measure n crops: (n, `RECORD`).

    Parameters
    ----------
    images
        For each of `KINDS` but the first, (n, H, W); NaN where there is none.
    real, around
        The real images, and where their pixels lie.
    readers
        The classifiers of images.
    """
    columns: list[Doubles] = []
    for kind in KINDS:
        drawn = real if kind == REAL else images[kind]
        columns += [psnr(real, drawn), ssim(real, drawn), pearson(real, drawn)]
        columns.append(intranuclear(drawn, around.masks))
    for kind in READ_KINDS:
        columns += _read(real if kind == REAL else images[kind], around, readers)
    return np.stack(columns, axis=1).astype(np.float32)


def _read(images: Floats, around: Surroundings, readers: Readers) -> list[Doubles]:
    missing = np.isnan(images[:, 0, 0])
    features = structure_features(np.nan_to_num(images), around)
    features[missing] = np.nan
    read = np.full((_READINGS, len(images)), float(UNREAD))
    if readers is not None and not missing.all():
        read[:, ~missing] = [reader.read(features[~missing]) for reader in readers]
    return [*read, *features.T]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What was learned from real training images, to measure others with."""

    levels: TrainingLevels
    readers: Readers
    features: Doubles


def measure_crops(
    subjects: Subjects,
    artist: Artist,
    trained: Trained,
    path: Path,
    *,
    keep: int = 0,
    seed: int = 0,
    on_crops: Callable[[int], None] = lambda _: None,
) -> None:
    """Draw and measure every crop, and write each batch down.

    Parameters
    ----------
    subjects, artist, trained
        What to draw, who draws it, and what to measure with.
    path
        File of records.
    keep
        Crops that an earlier run left there.
    seed
        Seed of the choice of wrong proteins.
    on_crops
        Called with the number of crops done.
    """
    others = other_proteins(subjects, seed)
    file = AppendFile(path, keep * RECORD * 4)
    try:
        for batch in _batches(keep, len(subjects.rows)):
            real, around = cells(subjects, subjects.rows[batch], artist.um)
            images = {
                DRAWN: artist.draw(around.nuclei, subjects.owner[batch]),
                **{kind: artist.draw(around.nuclei, numbers[batch]) for kind, numbers in others.items()},
                **baselines(real, around.nuclei, around.masks, subjects.shown[batch], trained.levels),
            }
            file.append(measure_batch(images, real, around, trained.readers).tobytes())
            on_crops(len(real))
    finally:
        file.close()


def _batches(start: int, stop: int) -> Iterator[slice]:
    for first in range(start, stop, BATCH):
        yield slice(first, min(first + BATCH, stop))
