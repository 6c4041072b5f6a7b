"""Metrics of labelled probabilities: confusion counts, ranking, calibration; as they are, or on resamples.

Every metric is an array over resamples (R,), so that a thousand resamples cost little more than one.
scikit-learn measures one set of predictions per call, which would make the intervals some hundred times
slower; it draws the curves here, and tests hold every value against it. Names and definitions:
``docs/reference/metrics.md``.

A metric that is undefined (the sensitivity to a class that no protein has) is NaN and is left out of means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepgps.arrays import Doubles, Ints, Mask
from deepgps.bundle import Metric
from deepgps.errors import InputError
from deepgps.evaluation.bootstrap import percentile_interval, resampled

CALIBRATION_BINS = 15
"""Equal-width bins of [0, 1]."""
BINARY_METRICS = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")
"""Metrics that a model of two classes has under their bare names too, of its first class."""
_RANKING_STEPS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """Labelled probabilities on one level: a row a protein, or a row a crop.

    Attributes
    ----------
    classes
        The K classes.
    multi_label
        Whether a protein may belong to several.
    thresholds
        (K,) probabilities from which a class is predicted, if ``multi_label``; else the most probable class
        is.
    ids
        (N,) protein of each row.
    probabilities
        (N, K) in [0, 1].
    targets
        (N, K) bool.
    count
        (N,) how many proteins or crops a row stands for.
    group
        (N,) number of the homology cluster, or of the protein where clusters are unknown: what is resampled.
    predictions
        (N, K) bool classes that a tool itself predicts; None: those that the probabilities give.
    """

    classes: tuple[str, ...]
    multi_label: bool
    thresholds: Doubles
    ids: tuple[str, ...]
    probabilities: Doubles
    targets: Mask
    count: Doubles
    group: Ints
    predictions: Mask | None = None

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.group.max()) + 1

    @property
    def n(self) -> int:
        """Number of proteins or crops."""
        return int(self.count.sum())

    @property
    def predicted(self) -> Mask:
        """(N, K) the classes predicted; of equally probable ones the first."""
        if self.predictions is not None:
            return self.predictions
        if self.multi_label:
            return np.asarray(self.probabilities >= self.thresholds)
        return np.asarray(self.probabilities.argmax(1)[:, None] == np.arange(len(self.classes)))


@dataclass(slots=True)
class _CollectedProtein:
    """Classes and cluster of a protein, and how often it was given which probabilities."""

    targets: Mask
    cluster: str
    rows: dict[bytes, int] = field(default_factory=dict)


class LabelCollector:
    """Collect labelled probabilities in chunks of crops.

    Crops of one protein with the same probabilities are kept once, with their number: probabilities that are
    predicted from the sequence alone take the memory of one row a protein, however many crops there are.

    Parameters
    ----------
    classes
        The K classes.
    multi_label
        Whether a protein may belong to several.
    thresholds
        K probabilities from which a class is predicted, for multi-label models only; 0.5 each if None.
    """

    def __init__(
        self, classes: Sequence[str], *, multi_label: bool, thresholds: Sequence[float] | None = None
    ) -> None:
        self._classes = tuple(classes)
        self._multi_label = multi_label
        self._thresholds = np.asarray([0.5] * len(classes) if thresholds is None else thresholds, np.float64)
        self._proteins: dict[str, _CollectedProtein] = {}

    def add(
        self,
        probabilities: NDArray[np.floating],
        targets: NDArray[np.generic],
        proteins: Sequence[str] | NDArray[np.str_],
        clusters: Sequence[object] | NDArray[np.generic] | None = None,
    ) -> None:
        """Add a chunk of crops, or of proteins.

        Parameters
        ----------
        probabilities, targets
            (N, K) in [0, 1], and 0 or 1.
        proteins
            N ids; rows of one id are crops of one protein.
        clusters
            N homology clusters; None if unknown.

        Raises
        ------
        InputError
            If shapes do not fit, a probability or target is out of range, or rows of one protein contradict
            each other.
        """
        chances, truth = np.asarray(probabilities, np.float64), np.asarray(targets, np.float64)
        names = [str(each) for each in proteins]
        groups = names if clusters is None else [f"cluster {each}" for each in clusters]
        self._check_shapes(chances, truth, names, groups)
        _check_values(chances, truth, names, self._classes, multi_label=self._multi_label)
        for row, yes, name, cluster in zip(chances, truth > 0, names, groups, strict=True):
            known = self._proteins.setdefault(name, _CollectedProtein(yes, cluster))
            if not np.array_equal(known.targets, yes):
                raise InputError(
                    f"Protein '{name}' has different true classes in different rows; give it one set of them."
                )
            if known.cluster != cluster:
                raise InputError(
                    f"Protein '{name}' is in more than one homology cluster; give each protein one."
                )
            key = row.tobytes()
            known.rows[key] = known.rows.get(key, 0) + 1

    def proteins(self) -> LabelTable:
        """Return one row a protein, with its mean probabilities over crops.

        Returns
        -------
        LabelTable
            The proteins, in the order in which they were added.

        Raises
        ------
        InputError
            If nothing was added.
        """
        return self._table([(name, _mean_row(each.rows), 1) for name, each in self._proteins.items()])

    def crops(self) -> LabelTable | None:
        """Return the crops, or None where no protein has more than one."""
        if all(sum(each.rows.values()) == 1 for each in self._proteins.values()):
            return None
        return self._table(
            [
                (name, np.frombuffer(key), count)
                for name, each in self._proteins.items()
                for key, count in each.rows.items()
            ]
        )

    def _table(self, rows: list[tuple[str, Doubles, int]]) -> LabelTable:
        if not rows:
            raise InputError("There is no labelled protein to measure on; give a table with at least one.")
        clusters = dict.fromkeys(protein.cluster for protein in self._proteins.values())
        number = {cluster: place for place, cluster in enumerate(clusters)}
        proteins = [self._proteins[name] for name, _, _ in rows]
        return LabelTable(
            self._classes,
            self._multi_label,
            self._thresholds,
            tuple(name for name, _, _ in rows),
            np.array([chances for _, chances, _ in rows]),
            np.array([protein.targets for protein in proteins]),
            np.array([count for _, _, count in rows], np.float64),
            np.array([number[protein.cluster] for protein in proteins], np.int64),
        )

    def _check_shapes(self, chances: Doubles, truth: Doubles, names: list[str], groups: list[str]) -> None:
        expected = (len(names), len(self._classes))
        shapes = [chances.shape, truth.shape, (len(groups), len(self._thresholds))]
        if any(shape != expected for shape in shapes):
            raise InputError(
                f"Probabilities, targets, proteins, clusters and thresholds do not fit: {chances.shape}, "
                f"{truth.shape}, {len(names)}, {len(groups)}, {len(self._thresholds)} for "
                f"{len(self._classes)} classes."
            )


def _mean_row(rows: dict[bytes, int]) -> Doubles:
    chances = np.array([np.frombuffer(key) for key in rows])
    # Equal rows have exactly their own value as their mean.
    return np.asarray(
        np.average(chances, axis=0, weights=list(rows.values())) if len(chances) > 1 else chances[0]
    )


def _check_values(
    chances: Doubles, truth: Doubles, names: list[str], classes: tuple[str, ...], *, multi_label: bool
) -> None:
    # Negated, so that NaN is caught too.
    for row, column in np.argwhere(~((chances >= 0) & (chances <= 1)))[:1]:
        raise InputError(
            f"Protein '{names[row]}' has probability {chances[row, column]:g} for class '{classes[column]}'; "
            "give a number in [0, 1]."
        )
    for row, column in np.argwhere((truth != 0) & (truth != 1))[:1]:
        raise InputError(
            f"Protein '{names[row]}' has target {truth[row, column]:g} for class '{classes[column]}'; "
            "give 0 or 1."
        )
    for row in np.flatnonzero(truth.sum(1) != 1)[: not multi_label]:
        raise InputError(
            f"Protein '{names[row]}' has {truth[row].sum():g} true classes; a single-label model is measured "
            "on proteins that have exactly one."
        )


def label_metrics(table: LabelTable, seed: int = 0) -> dict[str, Metric]:
    """Measure every metric of one level with its interval; no interval for a single protein or cluster."""
    values, spread = metric_values(table), bootstrap_metrics(table, seed)
    metrics = {}
    for name, value in values.items():
        low, high = percentile_interval(spread[name]) if table.groups > 1 else (np.nan, np.nan)
        metrics[name] = Metric(value=value, low=known(low), high=known(high), n=table.n)
    return metrics


def known(end: float) -> float | None:
    """Return the end of an interval, None where it is NaN."""
    return None if np.isnan(end) else end


def metric_values(table: LabelTable) -> dict[str, float]:
    """Measure every metric of the rows as they are."""
    measured = _measure(table, np.ones((1, table.groups)), exact=True)
    return {name: float(values[0]) for name, values in measured.items()}


def bootstrap_metrics(table: LabelTable, seed: int) -> dict[str, Doubles]:
    """Measure every metric on resamples of the groups; the same seed draws the same ones."""
    return resampled(lambda weights: _measure(table, weights, exact=False), table.groups, seed=seed)


def confusion_matrix(table: LabelTable) -> Ints:
    """Count which classes were predicted for which.

    Returns
    -------
    (K, K) or (K, 2, 2)
        Of a single-label model: rows true, columns predicted. Of a multi-label model, for each class: rows
        absent and present, columns not predicted and predicted.
    """
    everything = np.ones((1, table.groups))
    if not table.multi_label:
        return np.asarray(_confusions(table, everything)[0], np.int64)
    each = _counts(table, everything)
    cells = [[each.tn[0], each.fp[0]], [each.fn[0], each.tp[0]]]
    return np.asarray(np.moveaxis(np.array(cells), 2, 0), np.int64)


def _measure(table: LabelTable, weights: Doubles, *, exact: bool) -> dict[str, Doubles]:
    if table.multi_label:
        counts = _counts(table, weights)
        exact_match = (table.predicted == table.targets).all(1)
        metrics = {"exact_match": _mean(table, weights, exact_match), **multi_label_metrics(counts)}
    else:
        confusions = _confusions(table, weights)
        counts = Counts.of(confusions)
        metrics = single_label_metrics(confusions)
    for name, values in class_metrics(counts).items():
        metrics |= {f"{name}/{slug}": values[:, k] for k, slug in enumerate(table.classes)}
    metrics |= _ranking_metrics(table, weights, exact=exact)
    if len(table.classes) == 2 and not table.multi_label:
        metrics |= {name: metrics[f"{name}/{table.classes[0]}"] for name in BINARY_METRICS}
    squares = ((table.probabilities - table.targets) ** 2).sum(1)
    return metrics | {
        "brier": _mean(table, weights, squares / (len(table.classes) if table.multi_label else 1)),
        "ece": _calibration_errors(table, weights),
    }


# ---- confusion counts ----


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """True and false positives and negatives of K classes, each against the rest: (R, K) each."""

    tp: Doubles
    fp: Doubles
    fn: Doubles
    tn: Doubles

    @classmethod
    def of(cls, confusion: Doubles) -> "Counts":
        """Count from confusion matrices (R, K, K), rows true, columns predicted."""
        tp = np.diagonal(confusion, axis1=1, axis2=2)
        fn, fp = confusion.sum(2) - tp, confusion.sum(1) - tp
        return cls(tp, fp, fn, confusion.sum((1, 2))[:, None] - tp - fp - fn)

    @property
    def support(self) -> Doubles:
        """(R, K) how many have the class."""
        return self.tp + self.fn

    def pooled(self) -> "Counts":
        """All classes' decisions as those of one: (R, 1) each."""
        return Counts(*(each.sum(1, keepdims=True) for each in (self.tp, self.fp, self.fn, self.tn)))


def class_metrics(counts: Counts) -> dict[str, Doubles]:
    """Metrics of each class against the rest, (R, K) each.

    A class that some have and that is never predicted has precision 0; one that is neither has neither
    precision nor F1.

    Returns
    -------
    dict
        (R, K) by name of the metric: R resamples, K classes.
    """
    tp, fp, fn, tn = counts.tp, counts.fp, counts.fn, counts.tn
    precision = _ratio(tp, tp + fp)
    spread = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "precision": np.where(np.isnan(precision) & (fn > 0), 0, precision),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": np.where(spread > 0, (tp * tn - fp * fn) / np.where(spread > 0, spread, 1), 0),
    }


def single_label_metrics(confusion: Doubles) -> dict[str, Doubles]:
    """Metrics of a model that predicts one class, from confusion matrices (R, K, K); (R,) each."""
    counts = Counts.of(confusion)
    each = class_metrics(counts)
    return {
        "accuracy": _ratio(counts.tp.sum(1), confusion.sum((1, 2))),
        "balanced_accuracy": _class_mean(each["sensitivity"]),
        "mcc": _matthews(confusion),
        "one_vs_rest_accuracy": _class_mean(each["accuracy"]),
        **_averages(counts, each),
    }


def multi_label_metrics(counts: Counts) -> dict[str, Doubles]:
    """Metrics of a model that may predict several classes; (R,) each."""
    each, pooled = class_metrics(counts), class_metrics(counts.pooled())
    return {
        "label_accuracy": _class_mean(each["accuracy"]),
        "mcc_macro": _class_mean(each["mcc"]),
        **{f"{name}_micro": pooled[name][:, 0] for name in ("sensitivity", "specificity", "precision", "f1")},
        **_averages(counts, each),
    }


def _averages(counts: Counts, each: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """Means over classes, plain (macro) and by how many proteins have each (weighted), (R,) each."""
    means = {}
    for name in ("sensitivity", "specificity", "precision", "f1"):
        defined = ~np.isnan(each[name])
        weight = np.where(defined, counts.support, 0)
        means[f"{name}_macro"] = _class_mean(each[name])
        weighted = (np.where(defined, each[name], 0) * weight).sum(1)
        means[f"{name}_weighted"] = _ratio(weighted, weight.sum(1))
    return means


def _matthews(confusion: Doubles) -> Doubles:
    """Matthews' correlation for K classes (Gorodkin's R_K); 0 where truth or predictions are constant."""
    total, right = confusion.sum((1, 2)), np.trace(confusion, axis1=1, axis2=2)
    true, predicted = confusion.sum(2), confusion.sum(1)
    spread = np.sqrt((total**2 - (true**2).sum(1)) * (total**2 - (predicted**2).sum(1)))
    agreement = (right * total - (true * predicted).sum(1)) / np.where(spread > 0, spread, 1)
    return np.asarray(np.where(spread > 0, agreement, 0.0))


def _confusions(table: LabelTable, weights: Doubles) -> Doubles:
    classes = len(table.classes)
    code = table.targets.argmax(1) * classes + table.predicted.argmax(1)
    by_code = csr_array((table.count, (code, table.group)), shape=(classes**2, table.groups))
    return np.ascontiguousarray((by_code @ weights.T).T).reshape(-1, classes, classes)


def _counts(table: LabelTable, weights: Doubles) -> Counts:
    true, predicted, width = table.targets, table.predicted, len(table.classes)
    classes = np.tile(np.arange(width), len(table.count))
    group, count = (np.repeat(each, width) for each in (table.group, table.count))
    sums = []
    for kind in (true & predicted, ~true & predicted, true & ~predicted, ~true & ~predicted):
        here = kind.ravel()
        by_class = csr_array((count[here], (classes[here], group[here])), shape=(width, table.groups))
        sums.append((by_class @ weights.T).T)
    return Counts(*sums)


def _ratio(part: Doubles, whole: Doubles) -> Doubles:
    """Part over whole; NaN where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0))


def _class_mean(values: Doubles) -> Doubles:
    """Mean over classes (R,) of values (R, K), the undefined left out."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(1), defined.sum(1).astype(np.float64))


def _mean(table: LabelTable, weights: Doubles, values: Doubles | Mask) -> Doubles:
    sums = (
        np.bincount(table.group, each, minlength=table.groups) for each in (table.count * values, table.count)
    )
    return _ratio(*(weights @ each for each in sums))


# ---- ranking: AUROC, AUPRC and their curves ----


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One class against the rest.

    Attributes
    ----------
    false_positive_rate, true_positive_rate
        ROC, from (0, 0) to (1, 1).
    recall, precision
        From recall 1 to recall 0.
    """

    false_positive_rate: Doubles
    true_positive_rate: Doubles
    recall: Doubles
    precision: Doubles


def curves(table: LabelTable) -> dict[str, Curve]:
    """Trace the curves of each class that some proteins have and others have not."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    traced = {}
    for k, slug in enumerate(table.classes):
        truth, scores = table.targets[:, k], table.probabilities[:, k]
        if truth.any() and not truth.all():
            false, true, _ = roc_curve(truth, scores, sample_weight=table.count)
            precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=table.count)
            traced[slug] = Curve(false, true, recall, precision)
    return traced


def _ranking_metrics(table: LabelTable, weights: Doubles, *, exact: bool) -> dict[str, Doubles]:
    """AUROC and AUPRC of each class, their means, and pooled for multi-label models; (R,) each."""
    # If exact, every distinct score is a step; else there are at most 4,096, which changes an area by 1e-4 at
    # most: enough for intervals.
    areas = [
        _areas(table.probabilities[:, k], table.targets[:, k], table.group, table.count, weights, exact=exact)
        for k in range(len(table.classes))
    ]
    metrics: dict[str, Doubles] = {}
    for name, values in zip(("auroc", "auprc"), zip(*areas, strict=True), strict=True):
        metrics[f"{name}_macro"] = _class_mean(np.stack(values, axis=1))
        metrics |= {f"{name}/{slug}": each for slug, each in zip(table.classes, values, strict=True)}
    if table.multi_label:
        group, count = np.repeat(table.group, len(table.classes)), np.repeat(table.count, len(table.classes))
        scores, truth = table.probabilities.ravel(), table.targets.ravel()
        pooled = _areas(scores, truth, group, count, weights, exact=exact)
        metrics |= dict(zip(("auroc_micro", "auprc_micro"), pooled, strict=True))
    return metrics


def _areas(
    scores: Doubles, truth: Mask, group: Ints, count: Doubles, weights: Doubles, *, exact: bool
) -> tuple[Doubles, Doubles]:
    """AUROC and AUPRC, (R,) each; NaN without positives, AUROC also without negatives."""
    # Half of the pairs of equal scores count as ordered. AUPRC is the average precision, a sum of steps.
    distinct, step = np.unique(-scores, return_inverse=True)
    steps = len(distinct)
    if not exact and steps > _RANKING_STEPS:
        step, steps = step * _RANKING_STEPS // steps, _RANKING_STEPS
    by_step = (
        csr_array((count[kind], (step[kind], group[kind])), shape=(steps, weights.shape[1]))
        for kind in (truth, ~truth)
    )
    # How many of each kind have each distinct score, from the highest score down: (R, steps).
    positive, negative = (np.ascontiguousarray((each @ weights.T).T) for each in by_step)
    above, false = positive.cumsum(1), negative.cumsum(1)
    positives, negatives = above[:, -1], false[:, -1]
    ordered = (negative * (above - positive / 2)).sum(1)
    precision = np.divide(positive * above, above + false, out=np.zeros_like(above), where=positive > 0).sum(
        1
    )
    return _ratio(ordered, positives * negatives), _ratio(precision, positives)


# ---- calibration ----


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Probability against frequency, bin by bin.

    Attributes
    ----------
    edges
        (B + 1,) of the bins; a probability on an edge belongs to the bin above it, 1 to the last.
    count
        (B,) probabilities in each bin.
    probability, frequency
        (B,) mean probability, and share that was true; NaN where a bin is empty.
    ece
        Expected calibration error: mean distance of the two, weighted by count.
    """

    edges: Doubles
    count: Doubles
    probability: Doubles
    frequency: Doubles
    ece: float


def bin_of(probabilities: NDArray[np.floating], bins: int = CALIBRATION_BINS) -> Ints:
    """Number of the bin of each probability, in the shape given."""
    # Rounded where a product misses an edge by its last digit (0.6 * 15 is one such).
    return np.asarray(np.minimum(np.floor(np.round(probabilities * bins, 9)), bins - 1), np.int64)


def reliability(
    probabilities: NDArray[np.floating], outcomes: NDArray[np.generic], count: Doubles | None = None
) -> Reliability:
    """Compare probabilities with what came true.

    Parameters
    ----------
    probabilities, outcomes
        (N,) in [0, 1]; outcomes may be shares.
    count
        (N,) how many each stands for; 1 if None.

    Returns
    -------
    Reliability
        Mean probability and mean outcome in each bin, and the expected calibration error.
    """
    chances, truth = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    weight: Doubles = np.ones(len(chances)) if count is None else count
    place = bin_of(chances)
    total, chance, true = (
        np.bincount(place, each, minlength=CALIBRATION_BINS).astype(np.float64)
        for each in (weight, weight * chances, weight * truth)
    )
    with np.errstate(invalid="ignore"):
        means = chance / total, true / total
    ece = float(np.abs(chance - true).sum() / weight.sum())
    return Reliability(np.linspace(0, 1, CALIBRATION_BINS + 1), total, *means, ece)


def table_reliability(table: LabelTable) -> Reliability:
    """Compare a table's probabilities with what was true.

    Of a single-label model: the probability of the class predicted. Of a multi-label model: all
    probabilities, classes pooled.

    Returns
    -------
    Reliability
        As `reliability` returns it.
    """
    return reliability(*_confidences(table))


def ece_by_chance(probabilities: NDArray[np.floating], *, draws: int = 500, seed: int = 0) -> float:
    """Return the expected calibration error that exact probabilities would show on so few outcomes.

    Parameters
    ----------
    probabilities
        (N,) in [0, 1], as in `reliability`.
    draws, seed
        How often outcomes are drawn from them, and the seed of the draws.

    Returns
    -------
    float
        The mean over the draws; about 0 for very many probabilities.
    """
    rng, chances = np.random.default_rng(seed), np.asarray(probabilities, np.float64)
    errors = [reliability(chances, rng.random(len(chances)) < chances).ece for _ in range(draws)]
    return float(np.mean(errors))


def _confidences(table: LabelTable) -> tuple[Doubles, Mask, Doubles]:
    """Probabilities, whether each came true, and how many it stands for: (M,) each."""
    if table.multi_label:
        count = np.repeat(table.count, len(table.classes))
        return table.probabilities.ravel(), table.targets.ravel(), count
    first = table.probabilities.argmax(1)
    return table.probabilities.max(1), table.targets[np.arange(len(first)), first], table.count


def _calibration_errors(table: LabelTable, weights: Doubles) -> Doubles:
    chance, came_true, count = _confidences(table)
    group = np.repeat(table.group, len(chance) // len(table.group))
    gaps, total = (
        csr_array((each, (bin_of(chance), group)), shape=(CALIBRATION_BINS, table.groups)) @ weights.T
        for each in (count * (chance - came_true), count)
    )
    return _ratio(np.abs(gaps).sum(0), total.sum(0))
