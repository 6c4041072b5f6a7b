"""How good labels are, by protein and by crop, beside trivial baselines, with intervals.

Figures are named ``protein/…`` and ``crop/…``: ``protein/accuracy``, ``protein/f1_macro``,
``protein/auroc/er``, ``crop/accuracy``. All names and definitions: ``docs/reference/metrics.md``. The crop
level is there only where some protein has several rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Ints, Strings
from deepgps.evaluation.measures.calibration import Reliability
from deepgps.evaluation.measures.figures import calibration, confusion, figures, resampled_figures
from deepgps.evaluation.measures.ranking import Curve, curves
from deepgps.evaluation.measures.resampling import interval
from deepgps.evaluation.measures.rows import LabelGatherer, LabelRows


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured figure.

    Attributes
    ----------
    value
        As measured; NaN where undefined, such as the AUROC of a class that no protein has.
    low, high
        95 % bootstrap interval over proteins, or over homology clusters where known; NaN if there is but one.
    n
        Proteins, or crops, measured on.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class LabelReport:
    """All that is measured of labels.

    Attributes
    ----------
    classes
        The K classes; of a model of two the first is the positive one.
    multi_label
        Whether a protein may belong to several.
    proteins, crops
        How many of each; no crops if no protein has several rows.
    clusters
        Number of homology clusters that intervals are resampled over; None: over proteins.
    metrics
        Figures by name.
    baselines
        The same figures of ``majority class`` (always the most frequent class) and ``class prior`` (always
        the frequencies). Both know the frequencies of the very proteins measured on, which no model does.
    curves
        ROC and precision-recall by class, protein-level; none for a class that no protein has, or every one.
    confusion_by_protein, confusion_by_crop
        (K, K) counts, rows true, columns named; of a multi-label model (K, 2, 2), for each class rows absent
        and present, columns not named and named. By crop None without crops.
    reliability
        Protein-level: of the class named, or of all classes pooled if ``multi_label``.
    """

    classes: tuple[str, ...]
    multi_label: bool
    proteins: int
    crops: int | None
    clusters: int | None
    metrics: Mapping[str, Metric]
    baselines: Mapping[str, Mapping[str, Metric]]
    curves: Mapping[str, Curve]
    confusion_by_protein: Ints
    confusion_by_crop: Ints | None
    reliability: Reliability


def label_report(
    probabilities: NDArray[np.floating],
    targets: NDArray[np.generic],
    classes: Sequence[str],
    *,
    multi_label: bool,
    proteins: Sequence[str] | Strings,
    clusters: Sequence[object] | NDArray[np.generic] | None = None,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
) -> LabelReport:
    """Measure labelled probabilities.

    Parameters
    ----------
    probabilities
        (N, K) in [0, 1], a row a crop or a protein; crops become proteins by mean probability.
    targets
        (N, K) 0 or 1.
    classes
        K class slugs.
    multi_label
        Whether a protein may belong to several; if not, each has exactly one and the likeliest is named.
    proteins
        N ids; rows of one id are crops of one protein.
    clusters
        N homology clusters, which the bootstrap then draws; None if unknown.
    thresholds
        K probabilities from which a class is named, by a multi-label model only; 0.5 each if None.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        If shapes do not fit, there is no row, a probability is no number in [0, 1], a target neither 0 nor
        1, or rows of one protein contradict each other.
    """
    gatherer = LabelGatherer(classes, multi_label=multi_label, thresholds=thresholds)
    gatherer.add(probabilities, targets, proteins, clusters)
    return report_on(gatherer, by_cluster=clusters is not None, seed=seed)


def report_on(gatherer: LabelGatherer, *, by_cluster: bool, seed: int = 0) -> LabelReport:
    """Measure what was gathered in chunks; as `label_report`.

    Parameters
    ----------
    gatherer
        With every crop added.
    by_cluster
        Whether the crops were added with their homology clusters.
    seed
        Seed of the bootstrap.
    """
    rows, crops = gatherer.proteins(), gatherer.crops()
    levels = {"protein": rows} | ({"crop": crops} if crops else {})
    return LabelReport(
        classes=rows.classes,
        multi_label=rows.multi_label,
        proteins=rows.n,
        crops=crops.n if crops else None,
        clusters=rows.groups if by_cluster else None,
        metrics=_on_each_level(levels, lambda level: level, seed),
        baselines={name: _on_each_level(levels, baseline, seed) for name, baseline in BASELINES.items()},
        curves=curves(rows),
        confusion_by_protein=confusion(rows),
        confusion_by_crop=confusion(crops) if crops else None,
        reliability=calibration(rows),
    )


def measured(rows: LabelRows, seed: int = 0) -> dict[str, Metric]:
    """Figures of one level with their intervals, by bare name."""
    values, spread = figures(rows), resampled_figures(rows, seed)
    # One protein drawn again and again is no sample of anything.
    ends = {name: interval(spread[name]) if rows.groups > 1 else (np.nan, np.nan) for name in values}
    return {name: Metric(value, *ends[name], rows.n) for name, value in values.items()}


def majority_class(rows: LabelRows) -> LabelRows:
    """Name the most frequent class for every protein."""
    most = int((rows.count @ rows.targets).argmax())
    return _constant(rows, np.eye(len(rows.classes))[most])


def class_prior(rows: LabelRows) -> LabelRows:
    """Give every protein the frequency of each class as its probability."""
    return _constant(rows, rows.count @ rows.targets / rows.count.sum())


BASELINES = {"majority class": majority_class, "class prior": class_prior}


def _constant(rows: LabelRows, chances: Doubles) -> LabelRows:
    return replace(rows, probabilities=np.tile(chances, (len(rows.count), 1)), decided=None)


def _on_each_level(
    levels: Mapping[str, LabelRows], change: Callable[[LabelRows], LabelRows], seed: int
) -> dict[str, Metric]:
    return {
        f"{level}/{name}": metric
        for level, rows in levels.items()
        for name, metric in measured(change(rows), seed).items()
    }
