"""How good labels are, by protein and by crop, beside trivial baselines, with intervals.

Metrics are named ``protein/…`` and ``crop/…``: ``protein/accuracy``, ``protein/f1_macro``,
``protein/auroc/er``, ``crop/accuracy``. All names and definitions: ``docs/reference/metrics.md``. The crop
level is there only where some protein has several rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles, Ints
from deepgps.bundle import NEIGHBOURS_FILE, Metric
from deepgps.evaluation.dataset import EvaluatedProtein, EvaluationDataset
from deepgps.evaluation.label_metrics import (
    Curve,
    LabelCollector,
    LabelTable,
    Reliability,
    confusion_matrix,
    curves,
    label_metrics,
    table_reliability,
)
from deepgps.evaluation.labelled_predictions import LabelledPredictions
from deepgps.prediction import Predictor

KNOWN = 0.95
"""Similarity to a protein of the model's own index from which a protein counts as known to it."""
RELATED = 0.3
"""Similarity from which it has a relative there."""
MIN_NEW = 10
"""Proteins new to the model that are needed to measure on them alone."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelReport:
    """Everything measured of labels.

    Attributes
    ----------
    classes
        The K classes; of a single-label model of two the first is the positive one.
    multi_label
        Whether a protein may belong to several.
    proteins, crops
        How many of each; no crops if no protein has several rows.
    clusters
        Number of homology clusters that intervals are resampled over; None: over proteins.
    metrics
        Metrics by name. A value is NaN where it is undefined, such as the AUROC of a class that no protein
        has.
    baselines
        The same metrics of ``majority class`` (always the most frequent class) and ``class prior`` (always
        the frequencies). Both know the frequencies of the very proteins measured on, which no model does.
    curves
        ROC and precision-recall by class, protein level; none for a class that no protein has, or every one.
    confusion_by_protein, confusion_by_crop
        (K, K) counts, rows true, columns predicted; of a multi-label model (K, 2, 2), for each class rows
        absent and present, columns not predicted and predicted. By crop None without crops.
    reliability
        Protein level: of the class predicted, or of all classes pooled if ``multi_label``.
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
    proteins: Sequence[str] | NDArray[np.str_],
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
        Whether a protein may belong to several; if not, each has exactly one and the most probable is
        predicted.
    proteins
        N ids; rows of one id are crops of one protein.
    clusters
        N homology clusters, which the bootstrap then draws; None if unknown.
    thresholds
        K probabilities from which a class is predicted, by a multi-label model only; 0.5 each if None.
    seed
        Seed of the bootstrap.

    Returns
    -------
    LabelReport
        Metrics with intervals, by protein and, with crops, by crop.

    Raises
    ------
    InputError
        If shapes do not fit, there is no row, a probability lies outside [0, 1], a target is neither 0 nor 1,
        or rows of one protein contradict each other.
    """
    collector = LabelCollector(classes, multi_label=multi_label, thresholds=thresholds)
    collector.add(probabilities, targets, proteins, clusters)
    return report_on(collector, by_cluster=clusters is not None, seed=seed)


def report_on(collector: LabelCollector, *, by_cluster: bool, seed: int = 0) -> LabelReport:
    """Measure what was collected in chunks, as `label_report` does.

    Parameters
    ----------
    collector
        With every crop added.
    by_cluster
        Whether the crops were added with their homology clusters.
    seed
        Seed of the bootstrap.

    Returns
    -------
    LabelReport
        As `label_report` returns it.
    """
    proteins, crops = collector.proteins(), collector.crops()
    levels = {"protein": proteins} | ({"crop": crops} if crops else {})
    return LabelReport(
        classes=proteins.classes,
        multi_label=proteins.multi_label,
        proteins=proteins.n,
        crops=crops.n if crops else None,
        clusters=proteins.groups if by_cluster else None,
        metrics=_on_each_level(levels, lambda table: table, seed),
        baselines={
            name: _on_each_level(levels, baseline, seed) for name, baseline in LABEL_BASELINES.items()
        },
        curves=curves(proteins),
        confusion_by_protein=confusion_matrix(proteins),
        confusion_by_crop=confusion_matrix(crops) if crops else None,
        reliability=table_reliability(proteins),
    )


def majority_class(table: LabelTable) -> LabelTable:
    """Predict the most frequent class for every protein."""
    most = int((table.count @ table.targets).argmax())
    return _constant(table, np.eye(len(table.classes))[most])


def class_prior(table: LabelTable) -> LabelTable:
    """Give every protein the frequency of each class as its probability."""
    return _constant(table, table.count @ table.targets / table.count.sum())


LABEL_BASELINES = {"majority class": majority_class, "class prior": class_prior}


def _constant(table: LabelTable, chances: Doubles) -> LabelTable:
    return replace(table, probabilities=np.tile(chances, (len(table.count), 1)), predictions=None)


def _on_each_level(
    levels: Mapping[str, LabelTable], change: Callable[[LabelTable], LabelTable], seed: int
) -> dict[str, Metric]:
    return {
        f"{level}/{name}": metric
        for level, table in levels.items()
        for name, metric in label_metrics(change(table), seed).items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class LabelEvaluation:
    """Labels of a model on an evaluation dataset.

    Attributes
    ----------
    report
        Metrics on all proteins; None for a model that only draws.
    new
        The same on the proteins that are new to the model alone, where some are known to it and enough are
        new.
    nearest
        (P,) similarity of each protein to the nearest of the model's index; NaN if it has none.
    notes
        What a reader must know.
    predictions
        What was predicted of each protein and what is true, as `deepgps.evaluation.peers` compares it; None
        for a model that only draws.
    """

    report: LabelReport | None
    new: LabelReport | None
    nearest: Doubles
    notes: tuple[str, ...]
    predictions: LabelledPredictions | None = None

    @property
    def is_test(self) -> bool:
        """Whether most proteins are new to the model, as far as can be known."""
        return not (self.nearest >= KNOWN).mean() > 0.5

    def metrics(self) -> dict[str, Metric]:
        """Return every metric by its whole name; undefined ones are left out."""
        found = {}
        if self.report is not None:
            found = {f"labels/{name}": metric for name, metric in self.report.metrics.items()}
            for baseline, rows in self.report.baselines.items():
                found |= {f"labels/{baseline}/{name}": metric for name, metric in rows.items()}
        if self.new is not None:
            found |= {f"labels/new proteins/{name}": metric for name, metric in self.new.metrics.items()}
        return {name: metric for name, metric in found.items() if np.isfinite(metric.value)}


def evaluate_labels(
    predictor: Predictor,
    dataset: EvaluationDataset,
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> LabelEvaluation:
    """Predict every protein and measure the labels; one row a crop, where there are crops.

    What is measured is the prediction without the protein's own record, not the overall answer.

    Parameters
    ----------
    predictor
        The model.
    dataset
        What to measure it on.
    seed
        Seed of the resampling.
    on_progress
        Called with what is counted, how many are done, and how many there are.

    Returns
    -------
    LabelEvaluation
        The metrics.
    """
    metadata = predictor.bundle.metadata
    if not metadata.classes:
        nothing = np.full(len(dataset.proteins), np.nan)
        return LabelEvaluation(None, None, nothing, (_NO_INDEX,))
    probabilities, similarities = [], []
    proteins = (each.protein for each in dataset.proteins)
    for number, prediction in enumerate(predictor.predict(proteins, images=False), 1):
        probabilities.append(list(prediction.predicted.values()))
        near = prediction.evidence[0].similarity if prediction.evidence else 0.0
        similarities.append(1.0 if prediction.known is not None and prediction.known.whole else near)
        on_progress("proteins", number, len(dataset.proteins))
    has_index = predictor.bundle.has(NEIGHBOURS_FILE)
    nearest = np.array(similarities) if has_index else np.full(len(similarities), np.nan)
    rows = list(zip(dataset.proteins, probabilities, dataset.crops_of.tolist(), strict=True))
    new = nearest < KNOWN
    new_report = None
    if MIN_NEW <= new.sum() < len(new):
        new_rows = [row for row, is_new in zip(rows, new, strict=True) if is_new]
        new_report = _report_on_proteins(predictor, new_rows, seed)
    return LabelEvaluation(
        _report_on_proteins(predictor, rows, seed),
        new_report,
        nearest,
        knowledge_notes(nearest),
        _labelled(predictor.classes, rows),
    )


def _labelled(
    classes: tuple[str, ...], rows: list[tuple[EvaluatedProtein, list[float], int]]
) -> LabelledPredictions:
    proteins = [protein for protein, _, _ in rows]
    clustered = any(each.cluster is not None for each in proteins)
    return LabelledPredictions(
        classes,
        tuple(each.protein.id for each in proteins),
        np.array([chances for _, chances, _ in rows], np.float64),
        np.array([[slug in each.classes for slug in classes] for each in proteins], np.bool_),
        tuple(each.cluster or f"of {each.protein.id}" for each in proteins) if clustered else None,
    )


def _report_on_proteins(
    predictor: Predictor, rows: list[tuple[EvaluatedProtein, list[float], int]], seed: int
) -> LabelReport:
    metadata = predictor.bundle.metadata
    collector = LabelCollector(
        metadata.classes,
        multi_label=metadata.multi_label,
        thresholds=metadata.thresholds if metadata.multi_label else None,
    )
    clustered = any(protein.cluster is not None for protein, _, _ in rows)
    for protein, chances, crops in rows:
        times = max(crops, 1)
        truth = [slug in protein.classes for slug in metadata.classes]
        # One without a cluster is a cluster of its own.
        cluster = protein.cluster or f"of {protein.protein.id}"
        collector.add(
            np.tile(chances, (times, 1)),
            np.tile(np.array(truth, np.int64), (times, 1)),
            [protein.protein.id] * times,
            [cluster] * times if clustered else None,
        )
    return report_on(collector, by_cluster=clustered, seed=seed)


_NO_INDEX = (
    "The model carries no index of the proteins that it was trained on, so that it cannot be checked here "
    "whether it had seen these: that depends on the split that it was trained with."
)


def knowledge_notes(nearest: Doubles) -> tuple[str, ...]:
    """Report how many proteins the model knew, by their similarities (P,) to the nearest of its index."""
    if np.isnan(nearest).all():
        return (_NO_INDEX,)
    known = int((nearest >= KNOWN).sum())
    related = int(((nearest >= RELATED) & (nearest < KNOWN)).sum())
    if not known and not related:
        return ()
    head = "NO TEST OF LABELS: " if known == len(nearest) else "LABELS FLATTERED: " if known else ""
    return (
        f"{head}{known:,} of {len(nearest):,} proteins are in the index of annotated proteins that the model "
        f"predicts with (similarity of at least {KNOWN}), {related:,} more have a relative there (at least "
        f"{RELATED}). Known ones are predicted without their own record, but by a model that may have "
        "trained on it.",
    )
