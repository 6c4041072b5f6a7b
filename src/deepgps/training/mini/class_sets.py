"""Further class sets of the bundled model, read off the logits of its own classes and the neighbours' votes.

A protein that is in exactly one class of a single-label set and nowhere else teaches that set; every protein
that a microscope has seen teaches a multi-label one. The logits come from models that never saw the protein's
cluster, and the votes once with and once without homologs among the neighbours, so that the probabilities are
calibrated on such proteins: those of a single-label set for classes as frequent as among OpenCell's, whose
words they are. The votes are in the logits already, but weighed for the words of all the tables.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.bundle import ClassSetSpec
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet
from deepgps.training.mini.held_out import HeldOutAnswers, held_out_answers
from deepgps.training.mini.label_quality import best_thresholds, first_named, unclear_below

FILE = "class_sets.json"
PENALTY = 1.0
"""Inverse strength of the squared weights' penalty, as scikit-learn's ``C``."""
OPENCELL = 6
"""What a protein of OpenCell counts beside another one in the multi-label set, whose words are OpenCell's."""
READ_OUT = ("single-2", "single-4", "all")
"""The class sets of the paper, which are read off the model's own."""


def fit_class_sets(
    proteins: LabelledProteins,
    fine: LabelledProteins,
    places: Mapping[str, frozenset[str]],
    sets: Sequence[ClassSet],
    folder: Path,
) -> None:
    """Fit the read-outs of class sets and write them into ``folder/class_sets.json``.

    Parameters
    ----------
    proteins
        What the encoder in ``folder`` was trained on.
    fine
        The same proteins in the classes of the multi-label set.
    places
        The categories that OpenCell sees each sequence in.
    sets
        The class sets; classes of a single-label one have the names of the model's own, and one of which a
        class has no protein is left out.
    folder
        Where `deepgps.training.mini.labels.fit_labels` left what is said of held-out proteins.
    """
    said = list(held_out_answers(folder).values())
    specs = {}
    for each in sets:
        if each.multi_label:
            specs[each.name] = _several(each, fine, places, said)
            continue
        labels, weights = taught(proteins, places, each.slugs)
        if set(labels.tolist()) >= set(range(len(each.slugs))):
            columns = [proteins.slugs.index(slug) for slug in each.slugs]
            specs[each.name] = _one(each, columns, labels, weights, said)
    text = json.dumps({name: spec.model_dump(mode="json") for name, spec in specs.items()}, indent=2)
    draft = folder / "class_sets.part"
    draft.write_text(text + "\n", "utf-8")
    draft.replace(folder / FILE)


def only_in(proteins: LabelledProteins, slugs: Sequence[str]) -> Ints:
    """Which of ``slugs`` a human protein is in and nowhere else, (N,); -1 for all others."""
    columns = [proteins.slugs.index(slug) for slug in slugs]
    yes = proteins.labels > 0.5
    single = proteins.view_mask[:, 0].any(1) & (yes.sum(1) == 1) & yes[:, columns].any(1)
    return np.where(single, np.argmax(yes[:, columns], axis=1), -1)


def seen_alone(sequences: Sequence[str], places: Mapping[str, frozenset[str]], slugs: Sequence[str]) -> Ints:
    """Which of ``slugs`` OpenCell sees a protein in and nowhere else, (N,); -1 for all others."""
    alone = {frozenset((slug,)): number for number, slug in enumerate(slugs)}
    return np.array([alone.get(places.get(text, frozenset()), -1) for text in sequences], np.int64)


def taught(
    proteins: LabelledProteins, places: Mapping[str, frozenset[str]], slugs: Sequence[str]
) -> tuple[Ints, Doubles]:
    """What teaches a single-label set, and how much.

    Returns
    -------
    labels, weights
        (N,) class of each protein, or -1, and what it weighs: OpenCell's proteins as much as all others
        together, and the classes of both as their shares of OpenCell's proteins are; of equal shares where
        OpenCell has none of a class. All weights together are 1 or 2.
    """
    own = seen_alone(proteins.sequences, places, slugs)
    others = np.where(_known_to(places, proteins), -1, only_in(proteins, slugs))
    shares = np.bincount(own[own >= 0], minlength=len(slugs))
    shares = shares / shares.sum() if shares.all() else np.full(len(slugs), 1 / len(slugs))
    weights = np.zeros(len(proteins))
    for part in (own, others):
        for number, share in enumerate(shares):
            members = part == number
            weights[members] = share / max(1, members.sum())
    return np.maximum(own, others), weights


def _known_to(places: Mapping[str, frozenset[str]], proteins: LabelledProteins) -> Mask:
    """Which proteins (N,) OpenCell sees."""
    return np.array([text in places for text in proteins.sequences], np.bool_)


def _one(
    classes: ClassSet,
    columns: Sequence[int],
    labels: Ints,
    weights: Doubles,
    said: Sequence[HeldOutAnswers],
) -> ClassSetSpec:
    """A multinomial logistic layer over the logits of the set's own classes and the votes for them."""
    chosen, times = labels >= 0, len(said)
    mean = weights[chosen] / weights[chosen].mean()
    layer = LogisticRegression(C=PENALTY, max_iter=1000)
    seen = np.concatenate([_of(each, columns)[chosen] for each in said])
    layer.fit(seen, np.tile(labels[chosen], times), np.tile(mean / times, times))
    chances = layer.predict_proba(seen[: chosen.sum()])
    unclear = unclear_below(chances.max(1), chances.argmax(1) == labels[chosen], mean)
    rows, bias = layer.coef_, layer.intercept_
    if len(classes.slugs) == 2:  # scikit-learn then gives the second class's logit only
        rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    # Nothing is asked of the other classes.
    weighed = np.zeros((2, len(rows), said[0].logits.shape[1]))
    weighed[:, :, columns] = np.split(rows, 2, axis=1)
    return _spec(classes, weighed, bias, [0.5] * len(classes.slugs), unclear)


def _several(
    classes: ClassSet,
    fine: LabelledProteins,
    places: Mapping[str, frozenset[str]],
    said: Sequence[HeldOutAnswers],
) -> ClassSetSpec:
    """A logistic layer for each class over all logits and votes, named from where that serves its F1 best.

    OpenCell's proteins teach its own words, and count more than others.
    """
    own, times = _known_to(places, fine), len(said)
    words = [[slug in places.get(text, ()) for slug in classes.slugs] for text in fine.sequences]
    labels = np.where(own[:, None], words, fine.view_labels[:, 0])
    known = fine.view_mask[:, 0] | own[:, None]
    weight = np.where(own, OPENCELL, 1)[:, None] * known.astype(float)
    seen = np.concatenate([_of(each, range(each.logits.shape[1])) for each in said])
    labels, weight = np.tile(labels, (times, 1)), np.tile(weight, (times, 1))
    fits = [
        _logistic(seen[counts > 0], truth[counts > 0] > 0.5, counts[counts > 0])
        for truth, counts in zip(labels.T, weight.T, strict=True)
    ]
    rows, bias = np.stack([each[0] for each in fits]), np.array([each[1] for each in fits])
    chances = 1 / (1 + np.exp(-(seen @ rows.T + bias)))
    told = [torch.from_numpy(each.astype(np.float32)) for each in (chances, labels, weight)]
    unclear = unclear_below(*first_named(*(each[: len(fine)] for each in told)))
    return _spec(classes, np.stack(np.split(rows, 2, axis=1)), bias, best_thresholds(*told), unclear)


def _of(said: HeldOutAnswers, columns: Sequence[int]) -> Floats:
    """What is said of some of the model's classes, (N, 2 C): their logits, then the votes for them."""
    return np.concatenate([said.logits[:, columns], said.votes[:, columns]], axis=1)


def _logistic(seen: Floats, truth: Mask, counts: Doubles) -> tuple[Doubles, float]:
    """Weights (2 K,) and bias; of a class that nobody is in, or everybody, a bias alone."""
    if truth.all() or not truth.any():
        return np.zeros(seen.shape[1]), 10.0 if len(truth) and truth.all() else -10.0
    layer = LogisticRegression(C=PENALTY, max_iter=1000).fit(seen, truth, counts / counts.mean())
    return layer.coef_[0], float(layer.intercept_[0])


def _spec(
    classes: ClassSet,
    weighed: Doubles,
    bias: Doubles,
    thresholds: Sequence[float],
    unclear: float,
) -> ClassSetSpec:
    """Write down what logits and votes weigh, (2, C, K)."""
    weights, votes = np.round(weighed.astype(np.float64), 5).tolist()
    return ClassSetSpec(
        classes=classes.slugs,
        multi_label=classes.multi_label,
        thresholds=tuple(thresholds),
        weights=tuple(map(tuple, weights)),
        votes=tuple(map(tuple, votes)),
        bias=tuple(np.round(bias.astype(np.float64), 5).tolist()),
        unclear_below=unclear,
    )
