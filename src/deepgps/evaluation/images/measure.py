"""One pass over the crops: draw, measure and record each batch before the next.

Every crop has a record of the same length on disk, so that a killed run continues at the first crop without a
whole record, and metrics are computed column by column, however many crops there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from deepgps.arrays import Doubles, Floats, Indices, Ints
from deepgps.errors import InputError
from deepgps.evaluation.dataset import SEPARATOR, EvaluationDataset
from deepgps.evaluation.images.baselines import COPY, IMAGE_BASELINES, MASK, baseline_images
from deepgps.evaluation.images.features import FEATURES, CellGeometry, load_cells, structure_features
from deepgps.evaluation.images.reference import BATCH, UNKNOWN_CLASS, Classifiers, TrainingReference
from deepgps.files import AppendFile
from deepgps.images.cell import Cell
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.prediction import Predictor

REAL, DRAWN = "real", "drawn"
WRONG_CLASS, WRONG_PROTEIN = "wrong class (control)", "wrong protein, same class (control)"
IMAGE_KINDS = (REAL, DRAWN, WRONG_PROTEIN, WRONG_CLASS, *IMAGE_BASELINES)
"""The images that are measured of each crop."""
STRUCTURED_KINDS = (REAL, DRAWN, WRONG_PROTEIN, WRONG_CLASS, MASK, COPY)
"""Those that show some structure and are classified."""
CROP_MEASURES = ("psnr", "ssim", "pearson", "intranuclear")

_FEATURES_AT = len(IMAGE_KINDS) * len(CROP_MEASURES)
_PREDICTIONS = 2
_WIDTH = _PREDICTIONS + FEATURES
RECORD = _FEATURES_AT + len(STRUCTURED_KINDS) * _WIDTH
"""Numbers per crop."""
NO_PROTEIN = -1


@dataclass(frozen=True, slots=True, eq=False)
class CropMeasurements:
    """What was measured of N crops, on disk.

    Attributes
    ----------
    records
        (N, `RECORD`) float32, memory-mapped.
    """

    records: Floats

    def measure(self, kind: str, name: str) -> Doubles:
        """Return one of `CROP_MEASURES` of all crops, (N,)."""
        return self._column(IMAGE_KINDS.index(kind) * len(CROP_MEASURES) + CROP_MEASURES.index(name))

    def predicted(self, kind: str, *, by_profile: bool = False) -> Indices:
        """Return class numbers (N,) that a classifier predicted; `UNKNOWN_CLASS` where there is none."""
        return self._column(_FEATURES_AT + STRUCTURED_KINDS.index(kind) * _WIDTH + by_profile).astype(np.intp)

    def features(self, kind: str, rows: slice = slice(None)) -> Doubles:
        """Return the features (n, F) of some crops; NaN where undefined."""
        start = _FEATURES_AT + STRUCTURED_KINDS.index(kind) * _WIDTH + _PREDICTIONS
        return np.asarray(self.records[rows, start : start + FEATURES], np.float64)

    def _column(self, number: int) -> Doubles:
        return np.asarray(self.records[:, number], np.float64)


def open_measurements(path: Path) -> CropMeasurements:
    """Open what `measure_crops` wrote."""
    if not path.exists() or not path.stat().st_size:
        return CropMeasurements(np.zeros((0, RECORD), np.float32))
    return CropMeasurements(np.memmap(path, np.float32, "r").reshape(-1, RECORD))


class ImageGenerator:
    """Draws the proteins of a dataset into the cells that they are compared with.

    Parameters
    ----------
    predictor
        The model.
    dataset
        The proteins.
    """

    def __init__(self, predictor: Predictor, dataset: EvaluationDataset) -> None:
        self.predictor = predictor
        self.pixel_size_um = predictor.bundle.metadata.crop.pixel_size_um
        proteins = [each.protein for each in dataset.proteins]
        # A latent may be large; neighbouring crops ask for the same ones again.
        self._latent = lru_cache(1024)(lambda number: predictor.encode([proteins[number]])[0].latent)

    def draw(self, nuclei: Floats, proteins: Ints) -> Floats:
        """Draw proteins, by their numbers (n,), into nuclei (n, H, W); NaN for `NO_PROTEIN`.

        Returns
        -------
        Floats
            (n, H, W) in [0, 1].

        Raises
        ------
        InputError
            If a pixel is NaN or infinite, below 0 or above 1.
        """
        images = np.full(nuclei.shape, np.nan, np.float32)
        some = np.flatnonzero(proteins != NO_PROTEIN)
        if len(some):
            cells = [Cell("crop", nuclei[k], self.pixel_size_um, "crop store") for k in some]
            images[some] = self.predictor.draw(cells, [self._latent(int(proteins[k])) for k in some])
            check_images(images[some], DRAWN)
        return images


def check_images(images: Floats, name: str) -> None:
    """Refuse images (N, H, W) with pixels that are not numbers or lie outside [0, 1].

    Raises
    ------
    InputError
        If a pixel is NaN or infinite, below 0 or above 1.
    """
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"An image of '{name}' has pixels that are not numbers; a model that draws such is broken."
        )
    # Half a grey value: what rounding may add.
    if low < -0.002 or high > 1.002:
        raise InputError(
            f"An image of '{name}' has pixels from {low:.3g} to {high:.3g}; all images are in [0, 1]."
        )


def wrong_proteins(dataset: EvaluationDataset, seed: int) -> dict[str, Ints]:
    """Choose wrong proteins for each crop: (N,) numbers; `NO_PROTEIN` where there is none to choose from.

    Drawn at random from the dataset: one that shares no class, and another one of exactly the same classes.

    Returns
    -------
    dict
        By kind of control, (N,) protein numbers.
    """
    rng = np.random.default_rng(seed)
    names = np.array([each.class_name for each in dataset.proteins])
    sets = {name: set(name.split(SEPARATOR)) for name in np.unique(names).tolist()}
    same = {name: np.flatnonzero(names == name) for name in sets}
    disjoint = {
        name: np.flatnonzero([sets[name].isdisjoint(sets[other]) for other in names.tolist()])
        for name in sets
    }
    crops = [(protein, str(names[protein])) for protein in dataset.protein_of.tolist()]
    return {
        WRONG_CLASS: np.array([_any_of(disjoint[name], rng) for _, name in crops], np.int64),
        WRONG_PROTEIN: np.array(
            [_any_of(same[name][same[name] != protein], rng) for protein, name in crops], np.int64
        ),
    }


def _any_of(pool: Indices, rng: np.random.Generator) -> int:
    return int(rng.choice(pool)) if len(pool) else NO_PROTEIN


def measure_crops(
    dataset: EvaluationDataset,
    generator: ImageGenerator,
    reference: TrainingReference,
    path: Path,
    *,
    keep: int = 0,
    seed: int = 0,
    on_crops: Callable[[int], None] = lambda _: None,
) -> None:
    """Draw and measure every crop, and record each batch.

    Parameters
    ----------
    dataset, generator, reference
        The crops, what draws them, and what to measure with.
    path
        File of records.
    keep
        Crops that an earlier run measured.
    seed
        Seed of the choice of wrong proteins.
    on_crops
        Called with the number of crops done.
    """
    wrong = wrong_proteins(dataset, seed)
    file = AppendFile(path, keep * RECORD * 4)
    try:
        for start in range(keep, len(dataset.rows), BATCH):
            batch = slice(start, min(start + BATCH, len(dataset.rows)))
            real, cells = load_cells(dataset, dataset.rows[batch], generator.pixel_size_um)
            images = {
                DRAWN: generator.draw(cells.nuclei, dataset.protein_of[batch]),
                **{kind: generator.draw(cells.nuclei, proteins[batch]) for kind, proteins in wrong.items()},
                **baseline_images(
                    real, cells.nuclei, cells.masks, dataset.crop_classes[batch], reference.intensities
                ),
            }
            file.append(_measure_batch(images, real, cells, reference.classifiers).tobytes())
            on_crops(batch.stop)
    finally:
        file.close()


def _measure_batch(
    images: Mapping[str, Floats], real: Floats, cells: CellGeometry, classifiers: Classifiers
) -> Floats:
    """Measure n crops, (n, `RECORD`), of the real images and, for each other kind, (n, H, W) or NaN."""
    columns: list[Doubles] = []
    for kind in IMAGE_KINDS:
        drawn = real if kind == REAL else images[kind]
        columns += [psnr(real, drawn), ssim(real, drawn), pearson(real, drawn)]
        columns.append(intranuclear(drawn, cells.masks))
    for kind in STRUCTURED_KINDS:
        columns += _classify(real if kind == REAL else images[kind], cells, classifiers)
    return np.stack(columns, axis=1).astype(np.float32)


def _classify(images: Floats, cells: CellGeometry, classifiers: Classifiers) -> list[Doubles]:
    missing = np.isnan(images[:, 0, 0])
    features = structure_features(np.nan_to_num(images), cells)
    features[missing] = np.nan
    predicted = np.full((_PREDICTIONS, len(images)), float(UNKNOWN_CLASS))
    if classifiers is not None and not missing.all():
        predicted[:, ~missing] = [each.predict(features[~missing]) for each in classifiers]
    return [*predicted, *features.T]
