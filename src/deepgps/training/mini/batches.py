"""Batches of crops for the image half, paired with proteins and augmented."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import IterableDataset

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.datasets.crops.settings import Source
from deepgps.datasets.crops.store import CropStore
from deepgps.localization import ClassSet
from deepgps.training.mini.settings import ImageSettings

Batch = tuple[Tensor, Tensor, Tensor]


class Draws(Protocol):
    """Draws the probabilities that a crop is drawn from; `Pairing` documents it."""

    @property
    def classes(self) -> ClassSet: ...  # noqa: D102
    def draw(self, localizations: str, accession: str, rng: np.random.Generator) -> Floats: ...  # noqa: D102


MIXED_SHARE = 0.15
"""Share of the cells with several protein images that are drawn as one dual-localized protein."""
MASKED = "hpa_u2os_cells"
"""The source whose cells are cut out of their surroundings, so that several can be put side by side."""
YES, NO = 0.9, 0.02
"""What stands for a sure probability: the generator never meets a surer one."""
CROWD, CROWD_ZOOM, CROWD_SPREAD = (2, 3), (0.55, 0.9), 0.35
"""Further cells of a crowd, how much smaller they are, and how far apart, as a share of the crop's edge."""


class ImageBatches(IterableDataset[Batch]):
    """One epoch of augmented batches: nucleus, protein image (B, 1, S, S) and probabilities (B, K).

    Every iteration gives the same batches, for a resumed run takes the first one twice.
    """

    def __init__(self, store: CropStore, pairing: Draws, settings: ImageSettings, epoch: int) -> None:
        self.store, self.pairing, self.settings = store, pairing, settings
        self.seed = [settings.seed, epoch]
        rows = store.rows(split="train")
        self.rows, self.weights = rows, sampling_weights(store, rows, settings.source_shares)
        self.localizations = store.index["localizations"].to_list()
        self.accessions = store.index["accession"].to_list()
        names = store.index["cell"].to_list()
        cells: dict[str, list[int]] = {}
        for row in rows:
            cells.setdefault(names[row], []).append(int(row))
        self.partners = [cells.get(name, []) for name in names]
        sources = store.index["source"].to_list()
        self.masked = {int(row) for row in rows if sources[row] == MASKED}
        self.alike: dict[str, list[int]] = {}
        for row in sorted(self.masked):
            self.alike.setdefault(self.localizations[row], []).append(row)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.settings.batches):
            chosen = rng.choice(self.rows, self.settings.batch_size, p=self.weights)
            samples = [self._sample(int(row), rng) for row in chosen]
            pairs = torch.from_numpy(np.stack([pair for pair, _ in samples]))
            yield pairs[:, :1], pairs[:, 1:], torch.from_numpy(np.stack([p for _, p in samples]))

    def _sample(self, row: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        pair = self.store.crops[row].astype(np.float32) / 255
        if self.settings.sure and rng.random() < self.settings.sure:
            probabilities = sure(self.pairing.classes, self.localizations[row])
        else:
            probabilities = self.pairing.draw(self.localizations[row], self.accessions[row], rng)
        others = [
            other for other in self.partners[row] if self.localizations[other] != self.localizations[row]
        ]
        if others and rng.random() < MIXED_SHARE:
            other = int(rng.choice(others))
            theirs = self.pairing.draw(self.localizations[other], self.accessions[other], rng)
            pair, probabilities = self._mixed(pair, other), np.maximum(probabilities, theirs)
        elif row in self.masked and rng.random() < self.settings.crowded:
            more = rng.choice(self.alike[self.localizations[row]], int(rng.integers(*CROWD, endpoint=True)))
            pair = crowd([pair, *self.store.crops[more].astype(np.float32) / 255], rng)
        return augment(pair, rng), probabilities

    def _mixed(self, pair: Floats, other: int) -> Floats:
        """Draw a dual-localized protein: the sum, dimmed, of two protein images of the same cell."""
        second = self.store.crops[other, 1].astype(np.float32) / 255
        return np.stack([pair[0], np.clip(0.6 * (pair[1] + second), 0, 1)])


def sure(classes: ClassSet, localizations: str) -> Floats:
    """Probabilities (K,) that are sure of localizations joined by ``|``."""
    named = classes.of(localizations.split("|"))
    return np.array([YES if slug in named else NO for slug in classes.slugs], np.float32)


def sampling_weights(store: CropStore, rows: Ints, shares: Mapping[Source, float]) -> Doubles:
    """Probability of each row: sources by their shares, within them rare localizations more often."""
    table = store.index[rows.tolist()]
    counts = table.group_by("source", "localizations").len()
    sizes = table.join(counts, on=["source", "localizations"], how="left", maintain_order="left")["len"]
    rarity = sizes.to_numpy() ** -0.75
    sources = table["source"].to_numpy()
    weights = np.zeros(len(rows))
    for source, share in shares.items():
        members = sources == source
        if members.any():
            weights[members] = share * rarity[members] / rarity[members].sum()
    return np.asarray(weights / weights.sum())


def augment(pair: Floats, rng: np.random.Generator) -> Floats:
    """Turn and flip both images; vary the nucleus's brightness, background and noise as microscopes do.

    Parameters
    ----------
    pair
        (2, S, S) nucleus and protein image in [0, 1].
    rng
        Source of chance.
    """
    pair = np.rot90(pair, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        pair = pair[:, :, ::-1]
    nucleus = pair[0] ** rng.uniform(0.6, 1.5) * rng.uniform(0.7, 1.1)
    if rng.random() < 0.6:
        nucleus = nucleus + rng.uniform(0, 0.06)
        nucleus = nucleus + rng.normal(0, rng.uniform(0, 0.05), nucleus.shape)
    return np.stack([np.clip(nucleus, 0, 1), pair[1]]).astype(np.float32)


def crowd(pairs: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """Put masked cells (2, S, S) side by side into one crop (2, S, S), smaller, for such are crowded fields.

    All are of one size; the first lies near the middle, and where cells overlap the brighter one is seen.
    """
    edge = pairs[0].shape[-1]
    zoom, field = rng.uniform(*CROWD_ZOOM), np.zeros_like(pairs[0])
    for number, pair in enumerate(pairs):
        turned = np.rot90(pair, int(rng.integers(4)), (1, 2))
        cell = ndimage.zoom(turned, (1, zoom, zoom), order=1, grid_mode=True, mode="nearest")
        reach = CROWD_SPREAD if number else CROWD_SPREAD / 7
        corner = rng.integers(-int(reach * edge), int(reach * edge) + 1, 2) + (edge - cell.shape[1]) // 2
        (top, left), size = corner, cell.shape[1]
        rows = slice(max(0, top), min(edge, top + size))
        columns = slice(max(0, left), min(edge, left + size))
        shown = cell[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(
            field[:, rows, columns], shown * np.float32(rng.uniform(0.7, 1)), out=field[:, rows, columns]
        )
    return field
