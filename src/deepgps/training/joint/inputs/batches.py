"""Which crops make an epoch, in which order, and how they are laid: decided by seed, epoch and place alone.

A batch is cut into equal parts that are computed one after the other, and each part into equal slices, one a
process, so that one process and several see the same crops in the same step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deepgps.arrays import Floats, Ints
from deepgps.datasets.crops.store import CropStore
from deepgps.training.joint.inputs.augment import WAYS, laid


class Inputs(Protocol):
    """What the model looks at of proteins, by their numbers (B,)."""

    def batch(self, proteins: Ints) -> Mapping[str, Tensor]: ...  # noqa: D102


class Trained(Protocol):
    """What is trained on; `TrainingData` documents it."""

    @property
    def store(self) -> CropStore: ...  # noqa: D102
    @property
    def targets(self) -> Floats: ...  # noqa: D102
    @property
    def protein_of_row(self) -> Ints: ...  # noqa: D102


class Batch(NamedTuple):
    """Crops and the proteins they show.

    Attributes
    ----------
    pairs
        (B, 2, S, S) uint8, nucleus and protein.
    protein
        What the model looks at of each.
    targets
        (B, K) float32.
    """

    pairs: Tensor
    protein: dict[str, Tensor]
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Order:
    """An epoch, batch by batch.

    Attributes
    ----------
    rows
        (n, B) row numbers of the store.
    ways
        (n, B) how each is laid.
    """

    rows: Ints
    ways: Ints


def cycled(items: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Draw ``count`` of the items, each as often as any other give or take one, in an order of chance."""
    rounds = -(-count // len(items))
    return np.asarray(rng.permuted(np.tile(items, (rounds, 1)), axis=1).ravel()[:count])


def balanced_rows(rows: Ints, proteins: Ints, targets: Floats, count: int, seed: list[int]) -> Ints:
    """Draw rows: the classes equally often, within a class its proteins, within a protein its crops.

    Parameters
    ----------
    rows, proteins
        (n,) row numbers, and the protein of each.
    targets
        (P, K) classes of all proteins.
    count
        How many to draw.
    seed
        Seed of the draw.

    Returns
    -------
    (count,) row numbers.
    """
    rng = np.random.default_rng(seed)
    there = np.unique(proteins)
    members = [there[targets[there, k] > 0] for k in range(targets.shape[1])]
    classes = cycled(np.array([k for k, found in enumerate(members) if len(found)]), count, rng)
    drawn = np.empty(count, np.int64)
    for k in np.unique(classes):
        at = np.flatnonzero(classes == k)
        drawn[at] = cycled(members[k], len(at), rng)
    chosen = np.empty(count, np.int64)
    by_protein, starts = np.argsort(proteins, kind="stable"), np.searchsorted(np.sort(proteins), there)
    rows_of = dict(zip(there, np.split(rows[by_protein], starts[1:]), strict=True))
    for protein in np.unique(drawn):
        at = np.flatnonzero(drawn == protein)
        chosen[at] = cycled(rows_of[protein], len(at), rng)
    return chosen


def epoch_order(
    data: Trained, rows: Ints, *, epoch: int, batch_size: int, balanced: bool, augment: bool, seed: int
) -> Order:
    """Put an epoch in order: as many whole batches as the rows fill, and one where they fill none."""
    count = max(len(rows) // batch_size, 1) * batch_size
    if balanced:
        chosen = balanced_rows(rows, data.protein_of_row[rows], data.targets, count, [seed, epoch, 0])
    else:
        chosen = cycled(rows, count, np.random.default_rng([seed, epoch, 0]))
    ways = np.random.default_rng([seed, epoch, 1]).integers(WAYS if augment else 1, size=count)
    return Order(chosen.reshape(-1, batch_size), ways.reshape(-1, batch_size))


class Parts(Dataset[Batch]):
    """The parts of an epoch's batches that one process computes.

    Parameters
    ----------
    data, inputs
        The crops, and what the model looks at of their proteins.
    order
        The epoch.
    accumulate
        Parts that a batch is computed in.
    rank, processes
        Which process this is, of how many.
    """

    def __init__(
        self,
        data: Trained,
        inputs: Inputs,
        order: Order,
        accumulate: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.data, self.inputs, self.order = data, inputs, order
        self.accumulate, self.rank, self.processes = accumulate, rank, processes
        self.size = order.rows.shape[1] // (accumulate * processes)

    def __len__(self) -> int:
        return len(self.order.rows) * self.accumulate

    def __getitem__(self, number: int) -> Batch:
        batch, part = divmod(number, self.accumulate)
        start = (part * self.processes + self.rank) * self.size
        mine = slice(start, start + self.size)
        return read_batch(self.data, self.inputs, self.order.rows[batch, mine], self.order.ways[batch, mine])


def read_batch(
    data: Trained, inputs: Inputs, rows: Ints, ways: Ints | None = None, proteins: Ints | None = None
) -> Batch:
    """Read the crops of some rows, laid as asked for, with the proteins that they show or with others."""
    ways = np.zeros_like(rows) if ways is None else ways
    pairs = [laid(data.store.crops[row], int(way)) for row, way in zip(rows, ways, strict=True)]
    proteins = data.protein_of_row[rows] if proteins is None else proteins
    targets = torch.from_numpy(data.targets[proteins])
    return Batch(torch.from_numpy(np.stack(pairs)), dict(inputs.batch(proteins)), targets)
