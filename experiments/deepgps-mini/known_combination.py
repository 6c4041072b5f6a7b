"""How reliable each source is, and how sources and prediction combine, measured with one source hidden.

A row is a protein and a source that is hidden, its *target*: OpenCell, the HPA or UniProt's experimental
statements. Whether the target says a class is to be told from what the other sources say and from the
prediction, which knows none of them. Rows are divided by homology cluster, so that no protein is told from
its relatives.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.bundle import BundleMetadata, Metric
from deepgps.evaluation.bootstrap import interval_of_sums, sums_by_group
from deepgps.evaluation.label_metrics import reliability
from deepgps.evaluation.protocols import folds
from deepgps.localization import ClassSet, undecided_localizations
from deepgps.prediction.overall import WEAK, Combination, SourceReliability, level, statement_masks
from deepgps.prediction.prediction import named_classes
from deepgps.proteins.known import Statement, main_statements
from figures import rounded

TARGETS: Mapping[str, float] = {"OpenCell": 4.0, "HPA": 1.0, "UniProt": 0.5}
"""Sources that are hidden in turn, and the weight of a protein in each: the answer is what a microscope
sees."""
PENALTY = 0.3
"""Inverse strength of the L2 penalty, scikit-learn's ``C``."""
OWN = 1.0
"""How freely the weights of a class may differ from those that all classes share."""
FEWEST = 10
"""Statements that the other source must judge for a row of the table of reliabilities."""
FOLDS = 5
HIDDEN = "OpenCell hidden, overall answer"
_UNSEEN = ("extracellular", "plastid")
_MAPS = "maps"


def levels_of(statements: Sequence[Statement]) -> tuple[str, ...]:
    """Return the levels that occur, by source and from the most reliable to the least."""
    order: tuple[str, ...] = (
        "grade 3",
        "grade 2",
        "grade 1",
        "enhanced",
        "supported",
        "approved",
        "experimental",
    )
    order += ("enhanced, additional", "supported, additional", "approved, additional", "uncertain")
    order += ("by similarity", "curated", "predicted", "map")
    found = {(each.source, order.index(each.reliability), level(each)) for each in statements}
    return tuple(name for *_, name in sorted(found))


def target_labels(statements: Sequence[Statement], source: str, classes: ClassSet) -> tuple[Mask, Mask]:
    """Return the classes that a source says of a protein, (K,), and those that it says or excludes, (K,)."""
    own = [each for each in main_statements(statements) if each.source == source and each.localizations]
    sure = [each for each in own if _is_sure(each)]
    if source == "OpenCell":
        best = min((each.reliability[-1] for each in sure), default="", key=lambda grade: -int(grade))
        sure = [each for each in sure if each.reliability[-1] == best]
    positive = classes.of(name for each in sure for name in each.localizations)
    doubtful = {name for each in own if each not in sure for name in each.localizations}
    doubtful |= {name for each in sure for name in undecided_localizations(each.word)}
    if source != "UniProt":
        doubtful |= set(_UNSEEN)
    open_ = classes.of(doubtful) - positive
    slugs = classes.slugs
    decided = [bool(sure) and slug not in open_ for slug in slugs]
    return np.array([slug in positive for slug in slugs]), np.array(decided)


def _is_sure(statement: Statement) -> bool:
    return statement.reliability not in ("grade 1", "uncertain", "by similarity", "curated", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Proteins with a hidden source.

    Attributes
    ----------
    proteins
        (R,) number of each row's protein.
    targets
        (R,) the hidden source.
    predicted
        (R, K) predicted logits.
    said, silent
        (R, S, K) what the others say and leave out.
    labels, decided
        (R, K) what the hidden source says, and whether it says or excludes a class.
    informed
        (R,) whether the others say anything.
    """

    proteins: Ints
    targets: Any
    predicted: Floats
    said: Mask
    silent: Mask
    labels: Mask
    decided: Mask
    informed: Mask

    def subset(self, keep: Mask) -> "Rows":
        """Return some rows."""
        return Rows(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def hidden_rows(
    statements: Sequence[Sequence[Statement]], predicted: Floats, classes: ClassSet, levels: Sequence[str]
) -> Rows:
    """Hide each target of each of P proteins whose predicted logits are (P, K)."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for number, own in enumerate(statements):
        main = main_statements(own)
        for target in TARGETS:
            labels, decided = target_labels(own, target, classes)
            if not decided.any() or np.isnan(predicted[number]).any():
                continue
            others = [each for each in main if each.source != target]
            said, silent = statement_masks(others, classes, levels)
            for name, value in (
                ("proteins", number),
                ("targets", target),
                ("predicted", predicted[number]),
                ("said", said),
                ("silent", silent),
                ("labels", labels),
                ("decided", decided),
                ("informed", any(each.localizations for each in others)),
            ):
                columns[name].append(value)
    return Rows(**{name: np.array(values) for name, values in columns.items()})


def fit_combination(rows: Rows, levels: Sequence[str]) -> Combination:
    """Fit the weights on rows whose other sources say anything.

    The weights of a class are those that all classes share plus its own, which are drawn to 0.
    """
    rows = rows.subset(rows.informed)
    count, classes = rows.labels.shape
    inputs = [rows.predicted[:, None, :], rows.said, rows.silent]
    shared = np.concatenate(inputs, axis=1).transpose(0, 2, 1).reshape(count * classes, -1)
    number = np.tile(np.arange(classes), count)
    weight = np.repeat([TARGETS[target] for target in rows.targets], classes) * rows.decided.reshape(-1)
    keep = weight > 0
    matrix = _with_own(sparse.csr_array(shared[keep]), number[keep], classes)
    model = LogisticRegression(C=PENALTY, max_iter=1500, fit_intercept=False)
    model.fit(matrix, rows.labels.reshape(-1)[keep], weight[keep])
    size = shared.shape[1]
    common, own = model.coef_[0][:size], model.coef_[0][size:].reshape(classes, size + 1)
    weights = common + OWN * own[:, 1:]
    says, silent = weights[:, 1 : 1 + len(levels)].T, weights[:, 1 + len(levels) :].T
    arrays = (_BIAS * own[:, 0], weights[:, 0], says, silent)
    return Combination(tuple(levels), *(np.asarray(each, np.float32).round(3) for each in arrays))


_BIAS = 10.0
"""Scale of the bias, which the penalty shall not hold back."""


def _with_own(shared: sparse.csr_array, number: Ints, classes: int) -> sparse.csr_array:
    """Add columns for each class: a bias, and the shared ones again."""
    bias = np.full((shared.shape[0], 1), _BIAS)
    own = sparse.csr_array(sparse.hstack([sparse.csr_array(bias), OWN * shared]))
    blocks = [sparse.diags_array((number == k).astype(float)) @ own for k in range(classes)]
    return sparse.csr_array(sparse.hstack([shared, *blocks]))


def combined_logits(combination: Combination, rows: Rows) -> Floats:
    """Return the overall logits (R, K) of rows; the predicted ones where the others say nothing."""
    said = np.einsum("rsk,sk->rk", rows.said.astype(np.float32), combination.says)
    silent = np.einsum("rsk,sk->rk", rows.silent.astype(np.float32), combination.silent)
    combined = combination.bias + combination.prediction * rows.predicted + said + silent
    return np.asarray(np.where(rows.informed[:, None], combined, rows.predicted), np.float32)


def measure_hidden_opencell(
    rows: Rows, clusters: Ints, levels: Sequence[str], metadata: BundleMetadata
) -> dict[str, Metric]:
    """Tell what OpenCell says from all else, for proteins of clusters that did not fit the weights.

    Parameters
    ----------
    rows
        All rows.
    clusters
        (P,) homology cluster of each protein.
    levels
        The levels.
    metadata
        The model's thresholds.

    Returns
    -------
    dict of Metric
        Macro-F1 of the named classes and calibration error, beside those of copying the HPA and of the
        prediction alone.
    """
    fold = folds(clusters, FOLDS)[rows.proteins]
    tested = rows.targets == "OpenCell"
    overall = np.zeros_like(rows.predicted)
    for number in range(FOLDS):
        here = fold == number
        overall[here] = combined_logits(fit_combination(rows.subset(~here), levels), rows.subset(here))
    chosen, groups = rows.subset(tested), clusters[rows.proteins[tested]]
    hpa = [place for place, name in enumerate(levels) if name.startswith("HPA") and "uncertain" not in name]
    strong = [place for place, name in enumerate(levels) if not name.endswith(WEAK)]
    copied: Mask = np.asarray(chosen.said[:, hpa].any(1))
    said: Mask = np.asarray(chosen.said[:, strong].any(1))
    combined, predicted = expit(overall[tested]), expit(chosen.predicted)
    answers = {
        "": (combined, _named(combined, said, chosen.informed, metadata)),
        " of the baseline 'copy HPA'": (copied.astype(np.float32), copied),
        " of the baseline 'prediction alone'": (
            predicted,
            _named(predicted, np.zeros_like(said), np.zeros_like(chosen.informed), metadata),
        ),
    }
    figures: dict[str, Metric] = {}
    for ending, (probabilities, named) in answers.items():
        error = reliability(probabilities[chosen.decided], chosen.labels[chosen.decided]).ece
        figures[f"{HIDDEN}: macro-F1{ending}"] = rounded(_macro_f1(chosen, named, groups))
        figures[f"{HIDDEN}: calibration error (ECE){ending}"] = Metric(
            value=round(float(error), 4), n=len(chosen.labels)
        )
    return figures


def _named(probabilities: Floats, said: Mask, known: Mask, metadata: BundleMetadata) -> Mask:
    """Return the classes (R, K) that the answer would name."""
    named = np.zeros(probabilities.shape, np.bool_)
    for row, (own, sources, is_known) in enumerate(zip(probabilities, said, known, strict=True)):
        slugs = [slug for slug, yes in zip(metadata.classes, sources, strict=True) if yes]
        for slug in named_classes(own, metadata, slugs, known=bool(is_known))[0]:
            if slug in metadata.classes:
                named[row, metadata.classes.index(slug)] = True
    return named


def _macro_f1(rows: Rows, named: Mask, groups: Ints) -> Metric:
    """Return the mean F1 of the classes with at least `FEWEST` proteins, with an interval over clusters."""
    often = (rows.labels & rows.decided).sum(0) >= FEWEST
    parts = (rows.labels & named, rows.labels, named)
    columns = np.concatenate([(each & rows.decided)[:, often] for each in parts], axis=1).astype(float)

    def statistic(sums: Doubles) -> Doubles:
        hits, true, claimed = np.split(sums, 3, axis=-1)
        return np.asarray((2 * hits / np.maximum(1, true + claimed)).mean(-1))

    _, numbers = np.unique(groups, return_inverse=True)
    return interval_of_sums(sums_by_group(columns, numbers), statistic, len(rows.labels))


def reliability_table(
    statements: Sequence[Sequence[Statement]], classes: ClassSet
) -> list[SourceReliability]:
    """Count how often what each source says holds in each other one, by reliability and class.

    The other source is OpenCell, the HPA, UniProt's experimental statements, or all maps together.
    """
    hits: dict[tuple[str, str | None, str], list[int]] = defaultdict(list)
    for own in statements:
        main = [each for each in main_statements(own) if each.localizations]
        judges = {name: target_labels(own, name, classes) for name in TARGETS}
        judges[_MAPS] = _map_labels(main, classes)
        said: dict[tuple[str, str], set[str]] = defaultdict(set)
        for each in main:
            said[each.source, level(each)] |= classes.of(each.localizations)
        for (source, name), slugs in said.items():
            for other, (positive, decided) in judges.items():
                if other == source or (other == _MAPS and name == source):
                    continue
                for slug in slugs:
                    place = classes.slugs.index(slug)
                    if decided[place]:
                        for key in (slug, None):
                            hits[name, key, other].append(int(positive[place]))
    return [
        SourceReliability(name, slug, other, len(found), round(float(np.mean(found)), 3))
        for (name, slug, other), found in sorted(hits.items(), key=lambda item: tuple(map(str, item[0])))
        if len(found) >= FEWEST
    ]


def _map_labels(statements: Sequence[Statement], classes: ClassSet) -> tuple[Mask, Mask]:
    own = [each for each in statements if each.reliability == "map"]
    positive = classes.of(name for each in own for name in each.localizations)
    undecided = classes.of(name for each in own for name in undecided_localizations(each.word)) - positive
    slugs = classes.slugs
    decided = [bool(own) and slug not in undecided for slug in slugs]
    return np.array([slug in positive for slug in slugs]), np.array(decided)


def document(combinations: Mapping[str, Combination], table: Sequence[SourceReliability]) -> dict[str, Any]:
    """Return the content of ``overall.json``."""
    return {
        "combinations": {
            name: {
                "levels": list(each.levels),
                **{key: _numbers(getattr(each, key)) for key in ("bias", "prediction", "says", "silent")},
            }
            for name, each in combinations.items()
        },
        "reliability": [[row.source, row.slug, row.other, row.count, row.holds] for row in table],
    }


def _numbers(array: Floats | Doubles) -> Any:
    return np.round(array.astype(float), 3).tolist()
