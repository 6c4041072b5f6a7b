"""Further class sets of the bundled model, read off the held-out logits of its own classes.

A protein that is in exactly one class of a single-label set and nowhere else teaches that set; every protein
that a microscope has seen teaches a multi-label one. The logits come from models that never saw the protein's
cluster, once with and once without homologs among the neighbours, so that the probabilities are calibrated on
such proteins: those of a single-label set for classes as frequent as among OpenCell's, whose words they are.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from deepgps.bundle import ClassSetSpec
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet
from deepgps.training.mini.label_quality import best_thresholds, first_named, unclear_below
from deepgps.training.mini.labels import REGIMES

FILE = "class_sets.json"
PENALTY = 1.0
"""Inverse strength of the squared weights' penalty, as scikit-learn's ``C``."""
READ_OUT = ("single-2", "single-4", "all")
"""The class sets of the paper, which are read off the model's own."""

Floats = NDArray[np.float32]


def fit_class_sets(
    proteins: LabelledProteins,
    fine: LabelledProteins,
    singles: Mapping[str, str],
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
    singles
        The category of each sequence that OpenCell sees in one place only.
    sets
        The class sets; classes of a single-label one have the names of the model's own, and one of which a
        class has no protein is left out.
    folder
        Where `deepgps.training.mini.labels.fit_labels` left the held-out logits.
    """
    by_regime = load_file(folder / "held_out.safetensors")
    held_out = [by_regime[name] for name in REGIMES]
    specs = {}
    for each in sets:
        if each.multi_label:
            specs[each.name] = _several(each, fine, held_out)
            continue
        labels, weights = taught(proteins, singles, each.slugs)
        if set(labels.tolist()) >= set(range(len(each.slugs))):
            specs[each.name] = _one(each, labels, weights, held_out)
    text = json.dumps({name: spec.model_dump(mode="json") for name, spec in specs.items()}, indent=2)
    draft = folder / "class_sets.part"
    draft.write_text(text + "\n", "utf-8")
    draft.replace(folder / FILE)


def only_in(proteins: LabelledProteins, slugs: Sequence[str]) -> NDArray[np.int64]:
    """Which of ``slugs`` a human protein is in and nowhere else, (N,); -1 for all others."""
    columns = [proteins.slugs.index(slug) for slug in slugs]
    yes = proteins.labels > 0.5
    single = proteins.view_mask[:, 0].any(1) & (yes.sum(1) == 1) & yes[:, columns].any(1)
    return np.where(single, np.argmax(yes[:, columns], axis=1), -1)


def taught(
    proteins: LabelledProteins, singles: Mapping[str, str], slugs: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What teaches a single-label set, and how much.

    Returns
    -------
    labels, weights
        (N,) class of each protein, or -1, and what it weighs: OpenCell's proteins as much as all others
        together, and the classes of both as their shares of OpenCell's proteins are; of equal shares where
        OpenCell has none of a class. All weights together are 1 or 2.
    """
    place = {slug: number for number, slug in enumerate(slugs)}
    own = np.array([place.get(singles.get(text, ""), -1) for text in proteins.sequences], np.int64)
    elsewhere = np.array([text in singles for text in proteins.sequences], np.bool_)
    others = np.where(elsewhere, -1, only_in(proteins, slugs))
    shares = np.bincount(own[own >= 0], minlength=len(slugs))
    shares = shares / shares.sum() if shares.all() else np.full(len(slugs), 1 / len(slugs))
    weights = np.zeros(len(proteins))
    for part in (own, others):
        for number, share in enumerate(shares):
            members = part == number
            weights[members] = share / max(1, members.sum())
    return np.maximum(own, others), weights


def _one(
    classes: ClassSet, labels: NDArray[np.int64], weights: NDArray[np.float64], held_out: Sequence[Floats]
) -> ClassSetSpec:
    """A multinomial logistic layer over all logits."""
    chosen, times = labels >= 0, len(held_out)
    mean = weights[chosen] / weights[chosen].mean()
    layer = LogisticRegression(C=PENALTY, max_iter=1000)
    logits = np.concatenate([each[chosen] for each in held_out])
    layer.fit(logits, np.tile(labels[chosen], times), np.tile(mean / times, times))
    chances = layer.predict_proba(logits[: chosen.sum()])
    unclear = unclear_below(chances.max(1), chances.argmax(1) == labels[chosen], mean)
    rows, bias = layer.coef_, layer.intercept_
    if len(classes.slugs) == 2:  # scikit-learn then gives the second class's logit only
        rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    return _spec(classes, rows, bias, [0.5] * len(classes.slugs), unclear)


def _several(classes: ClassSet, fine: LabelledProteins, held_out: Sequence[Floats]) -> ClassSetSpec:
    """A logistic layer for each class over all logits, named from where that serves its F1 best."""
    logits = np.concatenate(held_out)
    labels, known = (np.tile(each[:, 0], (len(held_out), 1)) for each in (fine.view_labels, fine.view_mask))
    fits = [_logistic(logits[told], truth[told] > 0.5) for truth, told in zip(labels.T, known.T, strict=True)]
    weights, bias = np.stack([each[0] for each in fits]), np.array([each[1] for each in fits])
    chances = 1 / (1 + np.exp(-(logits @ weights.T + bias)))
    seen = [torch.from_numpy(each.astype(np.float32)) for each in (chances, labels, known)]
    unclear = unclear_below(*first_named(*(each[: len(fine)] for each in seen)))
    return _spec(classes, weights, bias, best_thresholds(*seen), unclear)


def _logistic(logits: Floats, truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Weights (K,) and bias; of a class that nobody is in, or everybody, a bias alone."""
    if truth.all() or not truth.any():
        return np.zeros(logits.shape[1]), 10.0 if len(truth) and truth.all() else -10.0
    layer = LogisticRegression(C=PENALTY, max_iter=1000).fit(logits, truth)
    return layer.coef_[0], float(layer.intercept_[0])


def _spec(
    classes: ClassSet,
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
    thresholds: Sequence[float],
    unclear: float,
) -> ClassSetSpec:
    return ClassSetSpec(
        classes=classes.slugs,
        multi_label=classes.multi_label,
        thresholds=tuple(thresholds),
        weights=tuple(tuple(row) for row in np.round(weights, 5).tolist()),
        bias=tuple(np.round(bias, 5).tolist()),
        unclear_below=unclear,
    )
