"""Our predictions beside those of other tools, on the same proteins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepgps.arrays import Doubles, Mask
from deepgps.errors import InputError
from deepgps.evaluation.label_table import LabelledPredictions
from deepgps.evaluation.labels import BASELINES, Metric, measured
from deepgps.evaluation.measures.paired import Difference, McNemar, differences, mcnemar
from deepgps.evaluation.measures.rows import LabelGatherer, LabelRows
from deepgps.evaluation.peers.classes import onto
from deepgps.evaluation.peers.files import PeerPredictions

OURS = "deepGPS"
RANKED = ("auroc", "auprc", "brier", "ece")
"""Beginnings of the figures that need probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelRow:
    """One model, or baseline, in a comparison.

    Attributes
    ----------
    metrics
        Protein-level figures by name; those that need probabilities are missing for a tool that only names.
    differences
        Ours less its, by name; empty for our own row.
    mcnemar
        Ours against it; None for our own row.
    """

    metrics: Mapping[str, Metric]
    differences: Mapping[str, Difference]
    mcnemar: McNemar | None


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Models side by side.

    Attributes
    ----------
    classes
        The classes compared on.
    proteins
        How many, all predicted by every model.
    rows
        By name: ours, the peers in the order given, then the baselines.
    notes
        A sentence for each peer that lacks proteins of ours.
    """

    classes: tuple[str, ...]
    proteins: int
    rows: Mapping[str, ModelRow]
    notes: tuple[str, ...]


def compare(ours: LabelledPredictions, peers: Mapping[str, PeerPredictions], *, seed: int = 0) -> Comparison:
    """Measure all models on the proteins that every one of them has.

    Parameters
    ----------
    ours
        Our predictions, with what is true; crops become proteins by mean probability.
    peers
        The peers' predictions by name; proteins beyond ours are passed over.
    seed
        Seed of the bootstrap.

    Raises
    ------
    InputError
        If no protein is common to all, or a peer's classes cannot be told apart in ours.
    """
    gatherer = LabelGatherer(ours.classes, multi_label=ours.multi_label)
    gatherer.add(ours.probabilities, ours.targets, ours.proteins, ours.clusters)
    whole = gatherer.proteins()
    common = set(whole.ids).intersection(*(peer.proteins for peer in peers.values()))
    if not common:
        raise InputError(
            "No protein is in every file; name proteins alike in all of them, such as by UniProt accession."
        )
    kept = np.array([each in common for each in whole.ids])
    rows = _subset(whole, kept)
    models = {OURS: rows} | {name: peer_rows(peer, rows) for name, peer in peers.items()}
    models |= {name: baseline(rows) for name, baseline in BASELINES.items()}
    unranked = {name for name, peer in peers.items() if peer.probabilities is None}
    return Comparison(
        rows.classes,
        rows.n,
        {name: _row(each, rows, seed, unranked=name in unranked) for name, each in models.items()},
        tuple(_notes(whole.ids, peers)),
    )


def peer_rows(peer: PeerPredictions, ours: LabelRows) -> LabelRows:
    """A peer's predictions of the proteins in our rows, in our classes.

    Where we name one class, so does the peer: the one its own names map to, or, if they map to several or
    none, the likeliest. Its probability of one of our classes is the sum over its classes, their maximum if
    it predicts several at once; for one class they are then made to sum to 1.
    """
    place = {protein: row for row, protein in enumerate(peer.proteins)}
    order = [place[each] for each in ours.ids]
    members = onto(peer.classes, ours.classes)
    named = (peer.named[order].astype(np.int64) @ members) > 0
    chances = _chances(peer, order, members, named)
    if not ours.multi_label:
        total = chances.sum(1, keepdims=True)
        chances = np.where(total > 0, chances / np.where(total > 0, total, 1), 1 / len(ours.classes))
        best = chances.argmax(1)[:, None] == np.arange(len(ours.classes))
        named = np.where(named.sum(1, keepdims=True) == 1, named, best)
    return replace(ours, probabilities=chances, decided=named)


def _chances(peer: PeerPredictions, order: Sequence[int], members: Mask, named: Mask) -> Doubles:
    if peer.probabilities is None:
        return named.astype(np.float64)
    given = peer.probabilities[order]
    exclusive = bool((np.abs(peer.probabilities.sum(1) - 1) < 0.05).all())
    if exclusive:
        return np.asarray(np.clip(given @ members, 0, 1))
    return np.stack([(given * column).max(1) for column in members.T], axis=1)


def _subset(rows: LabelRows, kept: Mask) -> LabelRows:
    _, group = np.unique(rows.group[kept], return_inverse=True)
    ids = tuple(each for each, stays in zip(rows.ids, kept, strict=True) if stays)
    return replace(
        rows,
        ids=ids,
        probabilities=rows.probabilities[kept],
        targets=rows.targets[kept],
        count=rows.count[kept],
        group=group,
    )


def _row(rows: LabelRows, ours: LabelRows, seed: int, *, unranked: bool) -> ModelRow:
    metrics = measured(rows, seed)
    apart = {} if rows is ours else dict(differences(ours, rows, seed))
    if unranked:
        metrics = {name: each for name, each in metrics.items() if not name.startswith(RANKED)}
        apart = {name: each for name, each in apart.items() if not name.startswith(RANKED)}
    return ModelRow(metrics, apart, None if rows is ours else mcnemar(ours, rows))


def _notes(ours: Sequence[str], peers: Mapping[str, PeerPredictions]) -> list[str]:
    notes = []
    for name, peer in peers.items():
        lacking = [each for each in ours if each not in set(peer.proteins)]
        if lacking:
            shown = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")
            notes.append(
                f"{name} lacks {len(lacking)} of our {len(ours)} proteins ({shown}); no row counts them."
            )
    return notes
