"""Further class sets of the bundled model, read off the logits of its own classes and the neighbours' votes.

A single-label set is trained on proteins that are in exactly one of its classes and nowhere else; a
multi-label set on every protein that a microscope has seen. The logits come from models that never saw the
protein's cluster, and the votes once with and once without homologs among the neighbours, so the
probabilities are calibrated for such proteins; those of a single-label set for classes as frequent as in
OpenCell, whose terms they are. The logits contain the votes already, but weighted for the terms of all
tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.bundle import ClassSetSpec
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet
from deepgps.training.mini.labels import HeldOutPredictions, read_held_out
from deepgps.training.run_folder import write_json
from deepgps.training.thresholds import best_thresholds, top_class, unclear_below

CLASS_SETS_FILE = "class_sets.json"
PENALTY = 1.0
"""Inverse strength of the L2 penalty, scikit-learn's ``C``."""
OPENCELL_WEIGHT = 6
"""Weight of a protein of OpenCell in the multi-label set, whose terms are OpenCell's."""
PAPER_SETS = ("single-2", "single-4", "all")
"""The class sets of the paper."""


def fit_class_sets(
    proteins: LabelledProteins,
    fine: LabelledProteins,
    opencell: Mapping[str, frozenset[str]],
    sets: Sequence[ClassSet],
    folder: Path,
) -> None:
    """Fit class sets and write them into ``folder/class_sets.json``.

    Parameters
    ----------
    proteins
        The proteins that the encoder in ``folder`` was trained on.
    fine
        The same proteins with the classes of the multi-label set.
    opencell
        OpenCell's categories of each sequence.
    sets
        The class sets. Classes of a single-label set have the names of the model's own; a set with a class
        without proteins is left out.
    folder
        Folder with the held-out predictions of `deepgps.training.mini.labels.fit_labels`.
    """
    held_out = list(read_held_out(folder).values())
    specs = {}
    for each in sets:
        if each.multi_label:
            specs[each.name] = _multi_label(each, fine, opencell, held_out)
            continue
        labels, weights = single_label_targets(proteins, opencell, each.slugs)
        if set(labels.tolist()) >= set(range(len(each.slugs))):
            columns = [proteins.slugs.index(slug) for slug in each.slugs]
            specs[each.name] = _single_label(each, columns, labels, weights, held_out)
    write_json(folder / CLASS_SETS_FILE, {name: spec.model_dump(mode="json") for name, spec in specs.items()})


def classes_alone(proteins: LabelledProteins, slugs: Sequence[str]) -> Ints:
    """Return the class of each human protein in exactly one of ``slugs`` and nowhere else, (N,); else -1."""
    columns = [proteins.slugs.index(slug) for slug in slugs]
    yes = proteins.labels > 0.5
    single = proteins.view_mask[:, 0].any(1) & (yes.sum(1) == 1) & yes[:, columns].any(1)
    return np.where(single, np.argmax(yes[:, columns], axis=1), -1)


def opencell_alone(
    sequences: Sequence[str], opencell: Mapping[str, frozenset[str]], slugs: Sequence[str]
) -> Ints:
    """Return the class of each protein that OpenCell has in exactly one of ``slugs``, (N,); else -1."""
    alone = {frozenset((slug,)): number for number, slug in enumerate(slugs)}
    return np.array([alone.get(opencell.get(text, frozenset()), -1) for text in sequences], np.int64)


def single_label_targets(
    proteins: LabelledProteins, opencell: Mapping[str, frozenset[str]], slugs: Sequence[str]
) -> tuple[Ints, Doubles]:
    """Return the training targets of a single-label set.

    Returns
    -------
    labels, weights
        (N,) class of each protein, or -1, and its weight. OpenCell's proteins weigh as much as all others
        together, and the classes of both as often as they occur in OpenCell; all equally if OpenCell lacks
        one. The weights sum to 1 or 2.
    """
    own = opencell_alone(proteins.sequences, opencell, slugs)
    others = np.where(_in_opencell(opencell, proteins), -1, classes_alone(proteins, slugs))
    shares = np.bincount(own[own >= 0], minlength=len(slugs))
    shares = shares / shares.sum() if shares.all() else np.full(len(slugs), 1 / len(slugs))
    weights = np.zeros(len(proteins))
    for part in (own, others):
        for number, share in enumerate(shares):
            members = part == number
            weights[members] = share / max(1, members.sum())
    return np.maximum(own, others), weights


def _in_opencell(opencell: Mapping[str, frozenset[str]], proteins: LabelledProteins) -> Mask:
    return np.array([text in opencell for text in proteins.sequences], np.bool_)


def _single_label(
    classes: ClassSet,
    columns: Sequence[int],
    labels: Ints,
    weights: Doubles,
    held_out: Sequence[HeldOutPredictions],
) -> ClassSetSpec:
    """Fit a multinomial logistic layer over the logits of the set's own classes and the votes for them."""
    chosen, times = labels >= 0, len(held_out)
    mean = weights[chosen] / weights[chosen].mean()
    layer = LogisticRegression(C=PENALTY, max_iter=1000)
    seen = np.concatenate([_inputs(each, columns)[chosen] for each in held_out])
    layer.fit(seen, np.tile(labels[chosen], times), np.tile(mean / times, times))
    probabilities = layer.predict_proba(seen[: chosen.sum()])
    unclear = unclear_below(probabilities.max(1), probabilities.argmax(1) == labels[chosen], mean)
    rows, bias = layer.coef_, layer.intercept_
    if len(classes.slugs) == 2:  # scikit-learn then gives the second class's logit only
        rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    coefficients = np.zeros((2, len(rows), held_out[0].logits.shape[1]))  # other classes have weight 0
    coefficients[:, :, columns] = np.split(rows, 2, axis=1)
    return _spec(classes, coefficients, bias, [0.5] * len(classes.slugs), unclear)


def _multi_label(
    classes: ClassSet,
    fine: LabelledProteins,
    opencell: Mapping[str, frozenset[str]],
    held_out: Sequence[HeldOutPredictions],
) -> ClassSetSpec:
    """Fit a logistic layer for each class over all logits and votes, with the threshold of the best F1."""
    own, times = _in_opencell(opencell, fine), len(held_out)
    terms = [[slug in opencell.get(text, ()) for slug in classes.slugs] for text in fine.sequences]
    labels = np.where(own[:, None], terms, fine.view_labels[:, 0])
    known = fine.view_mask[:, 0] | own[:, None]
    weight = np.where(own, OPENCELL_WEIGHT, 1)[:, None] * known.astype(float)
    seen = np.concatenate([_inputs(each, range(each.logits.shape[1])) for each in held_out])
    labels, weight = np.tile(labels, (times, 1)), np.tile(weight, (times, 1))
    fits = [
        _logistic(seen[counts > 0], truth[counts > 0] > 0.5, counts[counts > 0])
        for truth, counts in zip(labels.T, weight.T, strict=True)
    ]
    rows, bias = np.stack([each[0] for each in fits]), np.array([each[1] for each in fits])
    probabilities = 1 / (1 + np.exp(-(seen @ rows.T + bias)))
    tensors = [torch.from_numpy(each.astype(np.float32)) for each in (probabilities, labels, weight)]
    unclear = unclear_below(*top_class(*(each[: len(fine)] for each in tensors)))
    return _spec(classes, np.stack(np.split(rows, 2, axis=1)), bias, best_thresholds(*tensors), unclear)


def _inputs(held_out: HeldOutPredictions, columns: Sequence[int]) -> Floats:
    """Return the inputs of a layer, (N, 2 C): the logits of some classes, then the votes for them."""
    return np.concatenate([held_out.logits[:, columns], held_out.votes[:, columns]], axis=1)


def _logistic(seen: Floats, truth: Mask, counts: Doubles) -> tuple[Doubles, float]:
    """Fit weights (2 K,) and bias; a class with no or all proteins has a bias alone."""
    if truth.all() or not truth.any():
        return np.zeros(seen.shape[1]), 10.0 if len(truth) and truth.all() else -10.0
    layer = LogisticRegression(C=PENALTY, max_iter=1000).fit(seen, truth, counts / counts.mean())
    return layer.coef_[0], float(layer.intercept_[0])


def _spec(
    classes: ClassSet,
    coefficients: Doubles,
    bias: Doubles,
    thresholds: Sequence[float],
    unclear: float,
) -> ClassSetSpec:
    """Round the coefficients (2, C, K) of logits and votes."""
    weights, votes = np.round(coefficients.astype(np.float64), 5).tolist()
    return ClassSetSpec(
        classes=classes.slugs,
        multi_label=classes.multi_label,
        thresholds=tuple(thresholds),
        weights=tuple(map(tuple, weights)),
        votes=tuple(map(tuple, votes)),
        bias=tuple(np.round(bias.astype(np.float64), 5).tolist()),
        unclear_below=unclear,
    )
