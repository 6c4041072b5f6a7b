"""Compare our predictions with those of other tools on the same proteins: metrics and paired tests."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from deepgps.arrays import Doubles, Mask
from deepgps.bundle import Metric
from deepgps.errors import InputError
from deepgps.evaluation.bootstrap import percentile_interval
from deepgps.evaluation.label_metrics import (
    LabelCollector,
    LabelTable,
    bootstrap_metrics,
    label_metrics,
    metric_values,
)
from deepgps.evaluation.labelled_predictions import LabelledPredictions
from deepgps.evaluation.labels import LABEL_BASELINES
from deepgps.evaluation.peers.classes import map_classes
from deepgps.evaluation.peers.files import PeerPredictions

OURS = "deepGPS"
RANKED = ("auroc", "auprc", "brier", "ece")
"""Beginnings of the metrics that need probabilities."""
COMPARISON_COLUMNS = (
    *("model", "metric", "value", "low", "high", "n"),
    *("ours_less_it", "difference_low", "difference_high", "p", "mcnemar_p"),
)
"""Columns of the CSV file."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of a metric between two models.

    Attributes
    ----------
    value
        The first model's value less the second's.
    low, high
        95 % paired bootstrap interval; None for a single protein or cluster.
    p
        Two-sided: twice the smaller share of resamples on which the difference is not above, or not below, 0;
        None without an interval.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test of which model is right where only one is.

    Attributes
    ----------
    only_first, only_second
        Proteins that only one of the two predicts correctly; of a multi-label model, with all classes right.
    p
        Two-sided binomial; 1 where they never differ. It does not account for homology clusters.
    """

    only_first: int
    only_second: int
    p: float


def differences(first: LabelTable, second: LabelTable, seed: int = 0) -> dict[str, Difference]:
    """Compare every metric of two models by a paired bootstrap: both are measured on the same resamples.

    Parameters
    ----------
    first, second
        The same proteins in the same order, with the same classes and clusters.
    seed
        Seed of the bootstrap.

    Returns
    -------
    dict
        Difference by name of the metric.

    Raises
    ------
    InputError
        If they are not the same proteins.
    """
    _same_proteins(first, second)
    values, spreads = zip(
        *((metric_values(table), bootstrap_metrics(table, seed)) for table in (first, second)), strict=True
    )
    return {
        name: _difference(values[0][name] - values[1][name], spreads[0][name] - spreads[1][name], first)
        for name in values[0]
    }


def mcnemar(first: LabelTable, second: LabelTable) -> McNemar:
    """Test whether one of two models is right more often where only one is.

    Returns
    -------
    McNemar
        The counts and the p-value.

    Raises
    ------
    InputError
        If they are not measured on the same proteins.
    """
    _same_proteins(first, second)
    right, other = ((table.predicted == table.targets).all(1) for table in (first, second))
    only = int((right & ~other).sum()), int((other & ~right).sum())
    return McNemar(*only, float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0)


def _difference(value: float, spread: Doubles, table: LabelTable) -> Difference:
    known = spread[~np.isnan(spread)]
    if table.groups == 1 or not len(known):
        return Difference(value, None, None, None)
    # One is added: a thousand resamples cannot show a probability below one in a thousand.
    tails = ((known <= 0).sum() + 1) / (len(known) + 1), ((known >= 0).sum() + 1) / (len(known) + 1)
    return Difference(value, *percentile_interval(spread), float(min(1, 2 * min(tails))))


def _same_proteins(first: LabelTable, second: LabelTable) -> None:
    same = first.ids == second.ids and np.array_equal(first.targets, second.targets)
    if not same or not np.array_equal(first.group, second.group):
        raise InputError(
            "The two models were measured on different proteins, classes or clusters; give both the same."
        )


@dataclass(frozen=True, slots=True, eq=False)
class ModelMetrics:
    """One model, or baseline, in a comparison.

    Attributes
    ----------
    metrics
        Protein-level metrics by name; those that need probabilities are missing for a tool that gives none.
    differences
        Ours less its, by metric; empty for our own row.
    mcnemar
        Ours against it; None for our own row.
    """

    metrics: Mapping[str, Metric]
    differences: Mapping[str, Difference]
    mcnemar: McNemar | None


@dataclass(frozen=True, slots=True, eq=False)
class PeerComparison:
    """Models side by side.

    Attributes
    ----------
    classes
        The classes compared on.
    proteins
        How many, all predicted by every model.
    models
        By name: ours, the peers in their order, then the baselines.
    notes
        A sentence for each peer that lacks proteins of ours.
    """

    classes: tuple[str, ...]
    proteins: int
    models: Mapping[str, ModelMetrics]
    notes: tuple[str, ...]


def compare_peers(
    ours: LabelledPredictions, peers: Mapping[str, PeerPredictions], *, seed: int = 0
) -> PeerComparison:
    """Measure all models on the proteins that every one of them has.

    Parameters
    ----------
    ours
        Our predictions, with what is true; crops become proteins by mean probability.
    peers
        The peers' predictions by name; proteins that are not among ours are ignored.
    seed
        Seed of the bootstrap.

    Returns
    -------
    PeerComparison
        Metrics of every model, with differences from ours.

    Raises
    ------
    InputError
        If no protein is common to all, or a peer's class may be several of ours.
    """
    collector = LabelCollector(ours.classes, multi_label=ours.multi_label)
    collector.add(ours.probabilities, ours.targets, ours.proteins, ours.clusters)
    whole = collector.proteins()
    common = set(whole.ids).intersection(*(peer.proteins for peer in peers.values()))
    if not common:
        raise InputError(
            "No protein is in every file; name proteins alike in all of them, such as by UniProt accession."
        )
    kept = np.array([each in common for each in whole.ids])
    table = _subset(whole, kept)
    tables = {OURS: table} | {name: _peer_table(peer, table) for name, peer in peers.items()}
    tables |= {name: baseline(table) for name, baseline in LABEL_BASELINES.items()}
    unranked = {name for name, peer in peers.items() if peer.probabilities is None}
    return PeerComparison(
        table.classes,
        table.n,
        {name: _compared(each, table, seed, unranked=name in unranked) for name, each in tables.items()},
        tuple(_notes(whole.ids, peers)),
    )


def _peer_table(peer: PeerPredictions, ours: LabelTable) -> LabelTable:
    """Return a peer's predictions of the proteins in our table, in our classes."""
    # Where we predict one class, so does the peer: the one that its own predictions map to, or the most
    # probable if they map to several or none. Its probability of one of our classes is the sum over its
    # classes, or their maximum if it predicts several at once; for a single-label model they are then scaled
    # to sum to 1.
    place = {protein: row for row, protein in enumerate(peer.proteins)}
    order = [place[each] for each in ours.ids]
    members = map_classes(peer.classes, ours.classes)
    predicted = (peer.predicted[order].astype(np.int64) @ members) > 0
    chances = _chances(peer, order, members, predicted)
    if not ours.multi_label:
        total = chances.sum(1, keepdims=True)
        chances = np.where(total > 0, chances / np.where(total > 0, total, 1), 1 / len(ours.classes))
        best = chances.argmax(1)[:, None] == np.arange(len(ours.classes))
        predicted = np.where(predicted.sum(1, keepdims=True) == 1, predicted, best)
    return replace(ours, probabilities=chances, predictions=predicted)


def _chances(peer: PeerPredictions, order: Sequence[int], members: Mask, predicted: Mask) -> Doubles:
    if peer.probabilities is None:
        return predicted.astype(np.float64)
    chances = peer.probabilities[order]
    exclusive = bool((np.abs(peer.probabilities.sum(1) - 1) < 0.05).all())
    if exclusive:
        return np.asarray(np.clip(chances @ members, 0, 1))
    return np.stack([(chances * column).max(1) for column in members.T], axis=1)


def _subset(table: LabelTable, kept: Mask) -> LabelTable:
    _, group = np.unique(table.group[kept], return_inverse=True)
    ids = tuple(each for each, stays in zip(table.ids, kept, strict=True) if stays)
    return replace(
        table,
        ids=ids,
        probabilities=table.probabilities[kept],
        targets=table.targets[kept],
        count=table.count[kept],
        group=group,
    )


def _compared(table: LabelTable, ours: LabelTable, seed: int, *, unranked: bool) -> ModelMetrics:
    metrics = label_metrics(table, seed)
    apart = {} if table is ours else differences(ours, table, seed)
    if unranked:
        metrics = {name: each for name, each in metrics.items() if not name.startswith(RANKED)}
        apart = {name: each for name, each in apart.items() if not name.startswith(RANKED)}
    return ModelMetrics(metrics, apart, None if table is ours else mcnemar(ours, table))


def _notes(ours: Sequence[str], peers: Mapping[str, PeerPredictions]) -> list[str]:
    notes = []
    for name, peer in peers.items():
        missing = [each for each in ours if each not in set(peer.proteins)]
        if missing:
            names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            notes.append(
                f"{name} lacks {len(missing)} of our {len(ours)} proteins ({names}); no row counts them."
            )
    return notes


def comparison_text(comparison: PeerComparison, names: Sequence[str]) -> str:
    """Format the models as lines of a table, value and 95 % interval in each cell, notes below.

    Parameters
    ----------
    comparison
        The models.
    names
        Metrics to show; those that no model has are left out.

    Returns
    -------
    str
        Lines of text.
    """
    columns = [name for name in names if any(name in each.metrics for each in comparison.models.values())]
    head = [f"n = {comparison.proteins}", *columns, "p (McNemar)"]
    lines = [head, *([name, *_cells(each, columns)] for name, each in comparison.models.items())]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*(line.rstrip() for line in text), *comparison.notes])


def comparison_csv(comparison: PeerComparison) -> str:
    """Format every metric of every model, a line each, with the columns `COMPARISON_COLUMNS`.

    ``ours_less_it`` and the columns after it compare our model with that of the line; ``p`` is of the paired
    bootstrap of that metric, ``mcnemar_p`` of McNemar's exact test, on the lines of accuracy and exact match.

    Returns
    -------
    str
        Content of the CSV file, header included.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COMPARISON_COLUMNS)
    for model, row in comparison.models.items():
        for name, metric in row.metrics.items():
            apart = row.differences.get(name)
            paired = [apart.value, apart.low, apart.high, apart.p] if apart else [None] * 4
            test = row.mcnemar if name in ("accuracy", "exact_match") else None
            numbers = [metric.value, metric.low, metric.high, metric.n, *paired, test.p if test else None]
            writer.writerow([model, name, *map(_digits, numbers)])
    return text.getvalue()


def _cells(model: ModelMetrics, names: Sequence[str]) -> list[str]:
    cells = [_cell(model.metrics.get(name)) for name in names]
    return [*cells, f"{model.mcnemar.p:.3g}" if model.mcnemar else ""]


def _cell(metric: Metric | None) -> str:
    if metric is None or np.isnan(metric.value):
        return "–"
    interval = "" if metric.low is None else f" ({metric.low:.3f}–{metric.high:.3f})"
    return f"{metric.value:.3f}{interval}"


def _digits(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6g}"
