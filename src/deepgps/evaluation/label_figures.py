"""Labels of the proteins evaluated on, and what the model had known of them before."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Doubles
from deepgps.bundle import NEIGHBOURS_FILE, Metric
from deepgps.evaluation import labels as measures
from deepgps.evaluation.labels import LabelReport, report_on
from deepgps.evaluation.measures.rows import LabelGatherer
from deepgps.evaluation.subjects import Subject, Subjects
from deepgps.prediction import Predictor

KNOWN = 0.95
"""Similarity to a protein of the model's own index from which a protein counts as known to it."""
FEWEST_NEW = 10
"""Proteins new to the model that are needed to measure on them alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What was found of labels.

    Attributes
    ----------
    report
        Figures on all proteins; None for a model that only draws.
    new
        The same on the proteins that are new to the model alone, where some are known to it and enough are
        new.
    nearest
        (P,) similarity of each protein to the nearest of the model's index; NaN if it has none.
    notes
        What a reader must know.
    """

    report: LabelReport | None
    new: LabelReport | None
    nearest: Doubles
    notes: tuple[str, ...]

    @property
    def is_test(self) -> bool:
        """Whether most proteins are new to the model, as far as can be known."""
        return not (self.nearest >= KNOWN).mean() > 0.5

    def flat(self) -> dict[str, Metric]:
        """Every figure by its whole name; undefined ones are left out."""
        found = {}
        if self.report is not None:
            found = {f"labels/{name}": metric for name, metric in self.report.metrics.items()}
            for baseline, rows in self.report.baselines.items():
                found |= {f"labels/{baseline}/{name}": metric for name, metric in rows.items()}
        if self.new is not None:
            found |= {f"labels/new proteins/{name}": metric for name, metric in self.new.metrics.items()}
        return {name: as_metric(each) for name, each in found.items() if np.isfinite(each.value)}


def as_metric(figure: measures.Metric) -> Metric:
    """A figure of labels as a bundle keeps figures."""
    low, high = (float(end) if np.isfinite(end) else None for end in (figure.low, figure.high))
    return Metric(value=float(figure.value), low=low, high=high, n=figure.n)


def label_figures(
    predictor: Predictor,
    subjects: Subjects,
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Labels:
    """Predict every protein and measure the labels; one row a crop, where there are crops."""
    metadata, crops = predictor.bundle.metadata, subjects.crops_of
    if not metadata.classes:
        return Labels(None, None, np.full(len(subjects.subjects), np.nan), (_UNKNOWABLE,))
    probabilities, nearest = [], []
    proteins = (each.protein for each in subjects.subjects)
    for number, answer in enumerate(predictor.predict(proteins, images=False), 1):
        probabilities.append(list(answer.probabilities.values()))
        nearest.append(answer.evidence[0].similarity if answer.evidence else 0.0)
        on_progress("proteins", number, len(subjects.subjects))
    similar = np.array(nearest) if predictor.bundle.has(NEIGHBOURS_FILE) else np.full(len(nearest), np.nan)
    rows = list(zip(subjects.subjects, probabilities, crops.tolist(), strict=True))
    new = similar < KNOWN
    enough = FEWEST_NEW <= new.sum() < len(new)
    return Labels(
        _report(predictor, rows, seed),
        _report(predictor, [row for row, is_new in zip(rows, new, strict=True) if is_new], seed)
        if enough
        else None,
        similar,
        knowledge_notes(similar),
    )


def _report(predictor: Predictor, rows: list[tuple[Subject, list[float], int]], seed: int) -> LabelReport:
    metadata = predictor.bundle.metadata
    gatherer = LabelGatherer(
        metadata.classes,
        multi_label=metadata.multi_label,
        thresholds=metadata.thresholds if metadata.multi_label else None,
    )
    clustered = any(subject.cluster is not None for subject, _, _ in rows)
    for subject, chances, crops in rows:
        times = max(crops, 1)
        truth = [slug in subject.classes for slug in metadata.classes]
        # One without a cluster is a cluster of its own.
        cluster = subject.cluster or f"of {subject.protein.id}"
        gatherer.add(
            np.tile(chances, (times, 1)),
            np.tile(np.array(truth, np.int64), (times, 1)),
            [subject.protein.id] * times,
            [cluster] * times if clustered else None,
        )
    return report_on(gatherer, by_cluster=clustered, seed=seed)


_UNKNOWABLE = (
    "The model carries no index of the proteins that it was trained on, so it cannot be said here whether it "
    "had seen these: that rests on the split it was trained with."
)


def knowledge_notes(nearest: Doubles) -> tuple[str, ...]:
    """Say how many proteins the model had known, (P,) similarities to the nearest of its index."""
    if np.isnan(nearest).all():
        return (_UNKNOWABLE,)
    known, near = int((nearest >= KNOWN).sum()), int(((nearest >= 0.3) & (nearest < KNOWN)).sum())
    if not known and not near:
        return ()
    head = "NO TEST OF LABELS: " if known == len(nearest) else "LABELS FLATTERED: " if known else ""
    return (
        f"{head}{known:,} of {len(nearest):,} proteins are in the index of annotated proteins that the model "
        f"answers with (similarity of at least {KNOWN}), {near:,} more have a relative there (at least 0.3). "
        "For the known ones labels and probabilities are looked up, not predicted, and images are drawn "
        "from them.",
    )
