"""From what was measured of each crop to figures with intervals.

Figures are named ``images/<kind>/<measure>``; what they mean: ``docs/reference/metrics.md``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Mask, Strings
from deepgps.bundle import Metric
from deepgps.evaluation.images.baselines import BASELINES
from deepgps.evaluation.images.intervals import balanced_interval, correlation_interval, mean_interval
from deepgps.evaluation.images.measuring import (
    DRAWN,
    READ_KINDS,
    REAL,
    WRONG_CLASS,
    WRONG_PROTEIN,
    Measured,
    Trained,
)
from deepgps.evaluation.images.reader import ImageReader, Moments, frechet_distance
from deepgps.evaluation.images.structure import BANDS, PROFILE, fine_detail
from deepgps.evaluation.subjects import Subjects

SHOWN_KINDS = (DRAWN, WRONG_PROTEIN, WRONG_CLASS, *BASELINES)
MEANS = ("psnr", "ssim", "pearson")
COLUMNS = (
    "psnr",
    "ssim",
    "pearson",
    "intranuclear_r",
    "intranuclear_mae",
    "profile_error",
    "fine_detail",
    "read_back",
    "read_back_balanced",
    "place",
    "place_balanced",
    "distance",
)
"""Measures of a kind, in the order of every table."""
EFFECTS = {"sequence_effect": WRONG_CLASS, "sequence_effect_same_class": WRONG_PROTEIN}

Figures = dict[str, Metric]
_CHUNK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class ImageFigures:
    """All figures of images.

    Attributes
    ----------
    kinds
        By kind of image, figures by measure.
    effects
        `EFFECTS` by name.
    by_class
        By class shown, figures of the drawn images.
    """

    kinds: dict[str, Figures]
    effects: Figures
    by_class: dict[str, Figures]

    def flat(self) -> Figures:
        """Every figure by its whole name; undefined ones are left out."""
        named = {f"images/{kind}/{name}": m for kind, row in self.kinds.items() for name, m in row.items()}
        named |= {f"images/{name}": metric for name, metric in self.effects.items()}
        named |= {
            f"images/by class/{slug}/{name}": metric
            for slug, row in self.by_class.items()
            for name, metric in row.items()
        }
        return {name: metric for name, metric in named.items() if np.isfinite(metric.value)}


def image_figures(measured: Measured, subjects: Subjects, trained: Trained, *, seed: int = 0) -> ImageFigures:
    """Summarise what was measured of all crops."""
    groups, reader = subjects.groups, trained.readers[0] if trained.readers else None
    kinds = {REAL: {}, **{kind: _likeness(measured, kind, groups, seed) for kind in SHOWN_KINDS}}
    for kind in READ_KINDS:
        kinds[kind] |= _structure(measured, kind, groups, seed)
        if reader is not None:
            kinds[kind] |= _reading(measured, kind, reader, subjects, seed)
    for kind, distance in _distances(measured, trained).items():
        kinds[kind]["distance"] = Metric(value=distance, n=len(groups))
    right = measured.measure(DRAWN, "pearson")
    effects = {
        name: mean_interval(right - measured.measure(wrong, "pearson"), groups, seed=seed)
        for name, wrong in EFFECTS.items()
    }
    by_class = {
        str(name): _of_class(measured, subjects, reader, subjects.shown == name, seed)
        for name in np.unique(subjects.shown)
    }
    return ImageFigures(kinds, effects, by_class)


def _likeness(measured: Measured, kind: str, groups: NDArray[np.integer], seed: int) -> Figures:
    real, drawn = (measured.measure(each, "intranuclear") for each in (REAL, kind))
    figures = {name: mean_interval(measured.measure(kind, name), groups, seed=seed) for name in MEANS}
    figures["intranuclear_r"] = correlation_interval(real, drawn, groups, seed=seed)
    figures["intranuclear_mae"] = mean_interval(np.abs(real - drawn), groups, seed=seed)
    return figures


def _structure(measured: Measured, kind: str, groups: NDArray[np.integer], seed: int) -> Figures:
    if kind == REAL:
        return {}
    profile, detail = _chunked(measured, kind)
    return {
        "profile_error": mean_interval(profile, groups, seed=seed),
        "fine_detail": mean_interval(detail, groups, seed=seed),
    }


def _chunked(measured: Measured, kind: str) -> tuple[Doubles, Doubles]:
    """Error of the profile, and log2 of the share of fine detail over that of the real image, (N,) each."""
    errors, details = [], []
    for start in range(0, len(measured.records), _CHUNK):
        rows = slice(start, start + _CHUNK)
        real, drawn = (measured.features(each, rows) for each in (REAL, kind))
        apart = np.abs(real - drawn)[:, :PROFILE]
        known = ~np.isnan(apart)
        with np.errstate(invalid="ignore", divide="ignore"):
            errors.append(np.where(known.any(1), np.nansum(apart, 1) / known.sum(1), np.nan))
            shares = [fine_detail(10 ** each[:, PROFILE : PROFILE + BANDS]) for each in (drawn, real)]
            details.append(np.log2(shares[0] / shares[1]))
    return np.concatenate([*errors, np.zeros(0)]), np.concatenate([*details, np.zeros(0)])


def hits(
    measured: Measured, kind: str, reader: ImageReader, shown: Strings, *, by_place: bool = False
) -> Doubles:
    """1 where the class read is the one shown, else 0; NaN where the reader does not know that class."""
    truth = reader.numbers(shown)
    missing = np.isnan(measured.measure(kind, "psnr"))
    return np.where((truth < 0) | missing, np.nan, measured.read(kind, by_place=by_place) == truth)


def _reading(measured: Measured, kind: str, reader: ImageReader, subjects: Subjects, seed: int) -> Figures:
    classes, figures = reader.numbers(subjects.shown), {}
    for name, by_place in (("read_back", False), ("place", True)):
        right = hits(measured, kind, reader, subjects.shown, by_place=by_place)
        figures[name] = mean_interval(right, subjects.groups, seed=seed)
        figures[f"{name}_balanced"] = balanced_interval(right, classes, subjects.groups, seed=seed)
    return figures


def _distances(measured: Measured, trained: Trained) -> dict[str, float]:
    """Fréchet distance of each kind to the real images; of the real ones, to the real training images."""
    if trained.readers is None:
        return {}
    reader = trained.readers[0]
    moments = {}
    for kind in READ_KINDS:
        moments[kind] = Moments.empty(trained.features.shape[1])
        for start in range(0, len(measured.records), _CHUNK):
            features = measured.features(kind, slice(start, start + _CHUNK))
            moments[kind].add(reader.standardised(features[~np.isnan(features).all(1)]))
    training = Moments.empty(trained.features.shape[1])
    training.add(reader.standardised(trained.features))
    to_real = {kind: frechet_distance(each, moments[REAL]) for kind, each in moments.items()}
    return to_real | {REAL: frechet_distance(moments[REAL], training)}


def _of_class(
    measured: Measured, subjects: Subjects, reader: ImageReader | None, chosen: Mask, seed: int
) -> Figures:
    groups = subjects.groups[chosen]

    def over(values: Doubles) -> Metric:
        return mean_interval(values[chosen], groups, seed=seed)

    right, wrong = (measured.measure(kind, "pearson") for kind in (DRAWN, WRONG_CLASS))
    real, drawn = (measured.measure(kind, "intranuclear") for kind in (REAL, DRAWN))
    figures = {
        "psnr": over(measured.measure(DRAWN, "psnr")),
        "psnr_class_mean": over(measured.measure("class mean", "psnr")),
        "pearson": over(right),
        "sequence_effect": over(right - wrong),
        "intranuclear_mae": over(np.abs(real - drawn)),
    }
    if reader is not None:
        for name, by_place in (("read_back", False), ("place", True)):
            for end, kind in (("", DRAWN), ("_real", REAL)):
                right = hits(measured, kind, reader, subjects.shown, by_place=by_place)
                figures[f"{name}{end}"] = over(right)
    return figures
