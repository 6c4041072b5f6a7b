"""Train the label model under a hold-out protocol and predict the proteins held out."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepgps.arrays import Floats
from deepgps.bundle import ClassSetSpec, Metric
from deepgps.datasets.labels import LabelledProteins, opencell_localizations
from deepgps.evaluation.labels import LabelReport
from deepgps.evaluation.protocols import Protocol
from deepgps.localization import CLASS_SETS
from deepgps.proteins.features import sequence_features
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.mini.class_sets import CLASS_SETS_FILE, fit_class_sets
from deepgps.training.mini.labels import REGIMES, fit_labels, load_encoder, read_held_out
from deepgps.training.recipe import LabelSettings

REGIME: Mapping[Protocol, str] = {"A": REGIMES[0], "B": REGIMES[1]}
"""Votes that a held-out training protein gets under each protocol."""
Specs = Mapping[str, ClassSetSpec]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """A label model trained under a protocol, and its predictions of the proteins held out.

    Attributes
    ----------
    train
        The T training proteins.
    train_logits
        (T, K) their logits from models that never saw their cluster, with votes as in the protocol.
    logits
        (n, K) calibrated logits of the test proteins.
    votes
        (n, K) votes of their nearest annotated neighbours.
    nearest
        (n,) similarity of the nearest annotated neighbour.
    folder
        Where the model is.
    """

    train: LabelledProteins
    train_logits: Floats
    logits: Floats
    votes: Floats
    nearest: Floats
    folder: Path


def hold_out(
    train: LabelledProteins,
    tested: LabelledProteins,
    protocol: Protocol,
    settings: LabelSettings,
    folder: Path,
) -> HeldOut:
    """Train on what a protocol leaves, or continue what the folder holds, and predict the test proteins."""
    started = time.perf_counter()
    fit_labels(train, settings, folder)
    train_logits = read_held_out(folder)[REGIME[protocol]].logits
    held_out = HeldOut(train, train_logits, *predict(folder, tested.sequences), folder)
    print(f"{folder}: {time.perf_counter() - started:.0f} s")
    return held_out


def predict(folder: Path, sequences: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Return calibrated logits (n, K), the votes for the classes (n, K), and the nearest similarity (n,)."""
    index = NeighbourIndex.load(folder / "neighbours.npz")
    votes = np.stack([index.votes(sequence) for sequence in sequences])
    features = np.stack([sequence_features(sequence) for sequence in sequences])
    with torch.no_grad():
        logits = load_encoder(folder)(torch.from_numpy(features), torch.from_numpy(votes)).numpy()
    return logits, votes[:, : logits.shape[1]], votes[:, -1]


def fit_read_outs(
    train: LabelledProteins,
    data: Path,
    folder: Path,
    names: Iterable[str] = ("single-2", "single-4"),
    fine: LabelledProteins | None = None,
) -> Specs:
    """Fit the layers for other class sets on held-out training proteins, as the shipped model has them.

    ``fine`` are the same proteins in the classes of a multi-label set, where ``names`` has one.
    """
    sets = [CLASS_SETS[name] for name in names]
    fit_class_sets(train, train if fine is None else fine, opencell_localizations(data), sets, folder)
    specs = json.loads((folder / CLASS_SETS_FILE).read_text("utf-8"))
    return {name: ClassSetSpec.model_validate(spec) for name, spec in specs.items()}


def with_baselines(models: Mapping[str, LabelReport]) -> dict[str, dict[str, Metric]]:
    """Return protein-level metrics of models, then of the trivial baselines of the first."""
    first = next(iter(models.values()))
    rows = {name: report.metrics for name, report in models.items()} | dict(first.baselines)
    return {
        row: {
            name.removeprefix("protein/"): each
            for name, each in metrics.items()
            if name.startswith("protein/")
        }
        for row, metrics in rows.items()
    }
