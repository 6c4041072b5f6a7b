"""Training examples out of a packed file: which are chosen, how they are cut, turned and changed.

All chance comes from the seed and the number of the step, so that a resumed run sees what it would have seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from deepgps.models.flow_matching import condition

NUCLEUS, PROTEIN, MICROTUBULES, ER = range(4)
LANDMARKS = {MICROTUBULES: ("cytoskeleton", "Microtubules"), ER: ("er", "er")}
"""Class and word of the landmark channels, which also serve as images of TUBA1A and CALR."""
SHARES = {
    "hpa_u2os_cells": 0.34,
    "hpa_fields": 0.08,
    "hpa_dictionary": 0.16,
    "hpa_landmark_fields": 0.07,
    "opencell_crops": 0.16,
    "opencell_tiles": 0.14,
    "other_pairs": 0.02,
}
"""Share of each source in a batch, of images of proteins that are no landmark."""
LANDMARK_SHARE = 0.1
RARITY = 0.6
"""Within a source an example's weight is the number with its localizations to the power of minus this."""
SECRETED_SHARE = 0.15
"""Share of the ER images that are shown as secreted proteins, which a cell shows on their way only."""
MIXED_SHARE = 0.08
"""Share of the examples with landmarks that become the sum of two proteins of one cell."""
SOURCE_WINDOW = 1.5
"""Edge of what is cut before it is turned and scaled, in edges of the crop."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A file made by ``pack.py``, in memory, and its examples.

    Attributes
    ----------
    arrays
        As ``pack.py`` documents them.
    examples
        (N, 2): cell, and the channel that serves as the protein.
    """

    arrays: Mapping[str, NDArray[Any]]
    examples: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> "Pack":
        """Read a packed file."""
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        present = arrays["present"][arrays["cells"][:, 0]]
        cells = [
            (cell, channel)
            for channel in (PROTEIN, MICROTUBULES, ER)
            for cell in np.flatnonzero(present[:, channel])
        ]
        return cls(arrays, np.array(cells, np.int64))

    def field(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Fields of examples given by number."""
        fields: NDArray[np.int64] = self.arrays["cells"][self.examples[examples, 0], 0].astype(np.int64)
        return fields

    def rows(self, split: str) -> NDArray[np.int64]:
        """Numbers of the examples of a split."""
        return np.flatnonzero(self.arrays["split"][self.field(np.arange(len(self.examples)))] == split)

    def classes(self, example: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Classes (K,), words (W,) and how far they are to be trusted."""
        cell, channel = self.examples[example]
        number = self.arrays["cells"][cell, 0]
        if channel == PROTEIN:
            label_weight = float(self.arrays["label_weight"][number])
            return self.arrays["classes"][number], self.arrays["words"][number], label_weight
        slug, word = LANDMARKS[int(channel)]
        classes = (self.arrays["class_names"] == slug).astype(np.float32)
        return classes, (self.arrays["word_names"] == word).astype(np.float32), 1.0

    def weights(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of each of these examples to be drawn."""
        fields = self.field(rows)
        is_landmark = self.examples[rows, 1] != PROTEIN
        sources = np.where(is_landmark, "landmark", self.arrays["source"][fields])
        named = np.array([self.classes(int(row))[0].tobytes() for row in rows], dtype="S64")
        weights = np.zeros(len(rows))
        for source, share in {**SHARES, "landmark": LANDMARK_SHARE}.items():
            members = np.flatnonzero(sources == source)
            if len(members):
                _, kind, count = np.unique(named[members], return_inverse=True, return_counts=True)
                rarity = count[kind] ** -RARITY
                weights[members] = share * rarity / rarity.sum()
        return np.asarray(weights / weights.sum())

    def window(self, cell: int, size: int, shift: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
        """Cut (4, size, size) in [0, 1] around a cell.

        Beyond its border a field is mirrored, and a masked cell empty; a channel that is absent is 0.
        """
        number, row, column = (int(n) for n in self.arrays["cells"][cell])
        shape = tuple(int(n) for n in self.arrays["shape"][number])
        present, start = self.arrays["present"][number], int(self.arrays["offset"][number])
        channels = np.flatnonzero(present)
        stack = self.arrays["pixels"][start : start + len(channels) * shape[0] * shape[1]]
        stack = stack.reshape(len(channels), *shape)
        places, inside = [], []
        for at, length, moved in zip((row, column), shape, shift, strict=True):
            place = np.arange(size) + at - size // 2 + moved
            inside.append((place >= 0) & (place < length))
            period = max(2 * (length - 1), 1)
            place = place % period
            places.append(np.where(place < length, place, period - place))
        square = np.zeros((4, size, size), np.float32)
        square[channels] = stack[:, places[0]][:, :, places[1]] / np.float32(255)
        if self.arrays["masked"][number]:
            square *= inside[0][:, None] & inside[1][None]
        return square


class Batch(NamedTuple):
    """Examples as the network takes them, B of them.

    Attributes
    ----------
    protein
        (B, 1, S, S) in [0, 1].
    images
        (B, 3, S, S) nucleus, microtubules, ER in [0, 1]; (B, 2, S, S) nucleus and coarse protein image for
        the fine stage.
    given
        (B, 3) or (B, 2): which of these are given.
    condition
        (B, conditions).
    """

    protein: Tensor
    images: Tensor
    given: Tensor
    condition: Tensor


def conditions(pack: Pack) -> int:
    """Length of the vector that `deepgps.models.flow_matching.condition` makes."""
    return sum(len(pack.arrays[f"{name}_names"]) for name in ("class", "word", "domain")) + 2


def training_batch(
    pack: Pack,
    rows: NDArray[np.int64],
    weights: NDArray[np.float64],
    size: int,
    count: int,
    seed: Sequence[int],
    *,
    fine: bool = False,
) -> Batch:
    """Choose `count` of the examples `rows` by their `weights`, and cut, turn and change them by chance.

    Crops are around nuclei or, for the fine stage, anywhere near them.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.choice(rows, count, p=weights)
    edge = 2 * round(SOURCE_WINDOW * size / 2)
    reach = size // 2 if fine else size // 16
    stacks, given, labels = [], [], []
    for row in chosen:
        cell, channel = (int(n) for n in pack.examples[row])
        shift = tuple(int(n) for n in rng.integers(-reach, reach + 1, 2))
        stack = pack.window(cell, edge, shift)  # type: ignore[arg-type]
        present = pack.arrays["present"][pack.arrays["cells"][cell, 0]].copy()
        classes, words, trust = pack.classes(int(row))
        protein = stack[channel]
        present[channel] = False
        others = [other for other in LANDMARKS if present[other]]
        if others and trust and rng.random() < MIXED_SHARE:
            other = int(rng.choice(others))
            theirs = pack.classes(_example(pack, cell, other))
            protein = np.minimum(0.7 * (protein + stack[other]), 1)
            classes, words = np.maximum(classes, theirs[0]), np.maximum(words, theirs[1])
            present[other] = False
        stacks.append(np.stack([stack[NUCLEUS], protein, stack[MICROTUBULES], stack[ER]]))
        given.append(_landmarks_given(present, rng))
        labels.append(_label(pack, row, classes, words, trust, rng))
    images = _turned(torch.from_numpy(np.stack(stacks)), size, rng)
    images = torch.cat([_microscope(images[:, :1], rng), images[:, 1:2], _gain(images[:, 2:], rng)], 1)
    batch = Batch(
        images[:, 1:2],
        images[:, [NUCLEUS, MICROTUBULES, ER]],
        torch.tensor(np.array(given, np.float32)),
        condition(*_stacked(labels)),
    )
    return _fine(batch, rng) if fine else batch


def plain_batch(
    pack: Pack, rows: NDArray[np.int64], size: int, *, landmarks: bool = False, fine: bool = False
) -> Batch:
    """Examples as they are, their labels and domain known, with or without landmarks."""
    protein, images, given, labels = [], [], [], []
    for row in rows:
        cell, channel = (int(n) for n in pack.examples[row])
        stack = pack.window(cell, size)
        number = pack.arrays["cells"][cell, 0]
        present = pack.arrays["present"][number].copy()
        present[channel] = False
        protein.append(stack[channel : channel + 1])
        images.append(stack[[NUCLEUS, MICROTUBULES, ER]])
        given.append([1.0, *(float(landmarks and present[other]) for other in LANDMARKS)])
        classes, words, trust = pack.classes(int(row))
        known = float(trust > 0)
        labels.append((classes, known, words, 0.0, one_hot(pack, int(pack.arrays["domain"][number]))))
    batch = Batch(
        torch.from_numpy(np.stack(protein)),
        torch.from_numpy(np.stack(images)),
        torch.tensor(np.array(given, np.float32)),
        condition(*_stacked(labels)),
    )
    return _fine(batch) if fine else batch


def _fine(batch: Batch, rng: np.random.Generator | None = None) -> Batch:
    """Give nucleus and coarse protein image, both at the fine pixel size, instead of the cell's images.

    With chance, some coarse images are blurred and noisy, as drawn ones may be.
    """
    coarse = F.avg_pool2d(batch.protein, 2)
    if rng is not None:
        shape = (len(coarse), 1, 1, 1)
        sigma = torch.from_numpy((rng.uniform(0, 0.7, shape) * (rng.random(shape) < 0.4)).astype(np.float32))
        amount = torch.from_numpy((rng.uniform(0, 0.1, shape) * (rng.random(shape) < 0.4)).astype(np.float32))
        grain = torch.from_numpy(rng.standard_normal(coarse.shape, np.float32))
        coarse = _blurred(coarse, sigma)
        coarse = (coarse + amount * coarse.clamp(min=0).sqrt() * grain).clamp(0, 1)
    wide = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    images = torch.cat([batch.images[:, :1], wide], 1)
    return batch._replace(images=images, given=torch.ones(len(images), 2))


def one_hot(pack: Pack, domain: int | None) -> NDArray[np.float32]:
    """One-hot vector of a domain; zeros for None."""
    vector = np.zeros(len(pack.arrays["domain_names"]), np.float32)
    if domain is not None:
        vector[domain] = 1
    return vector


def _stacked(labels: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Turn B tuples of arrays and numbers into a tensor (B, ...) each."""
    return [torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*labels, strict=True)]


def _example(pack: Pack, cell: int, channel: int) -> int:
    return int(np.flatnonzero((pack.examples == (cell, channel)).all(1))[0])


def _landmarks_given(present: NDArray[np.bool_], rng: np.random.Generator) -> list[float]:
    """None, one or both of the landmarks that are present; the nucleus always."""
    which = rng.choice(4, p=[0.45, 0.1, 0.1, 0.35])
    return [1.0, float(present[MICROTUBULES] and which in (1, 3)), float(present[ER] and which in (2, 3))]


def _label(
    pack: Pack,
    row: int,
    classes: NDArray[np.float32],
    words: NDArray[np.float32],
    trust: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], float, NDArray[np.float32], float, NDArray[np.float32]]:
    """Soften the labels and drop them by chance, for guidance needs images of which nothing is known."""
    number = int(pack.field(np.array([row]))[0])
    if classes.sum() == 1 and classes[pack.arrays["class_names"] == "er"] and rng.random() < SECRETED_SHARE:
        classes = (pack.arrays["class_names"] == "extracellular").astype(np.float32)
        words = np.zeros_like(words)
    known = trust > 0 and rng.random() < 0.9 * (1 - 0.3 * (1 - trust))
    softened = np.where(classes > 0, 1 - 0.5 * rng.random() ** 2, 0.12 * rng.random(len(classes)) ** 2)
    worded = known and words.any() and rng.random() < 0.5
    domain = int(pack.arrays["domain"][number]) if rng.random() < 0.9 else None
    return softened.astype(np.float32), float(known), words, float(worded), one_hot(pack, domain)


def _turned(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """Turn, flip, scale and stretch (B, C, E, E), and cut the middle (B, C, size, size)."""
    count, edge = len(images), images.shape[-1]
    quarter = rng.integers(4, size=count) * (np.pi / 2)
    freely = rng.random(count) < 0.6
    angle = quarter + freely * rng.uniform(-np.pi / 4, np.pi / 4, count)
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    zoom = np.exp(freely * rng.uniform(-0.15, 0.15, count))
    stretch = np.exp(freely * rng.uniform(-0.08, 0.08, count))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.zeros((count, 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = cosine * flip * zoom * stretch, -sine * zoom / stretch
    matrix[:, 1, 0], matrix[:, 1, 1] = sine * flip * zoom * stretch, cosine * zoom / stretch
    theta = torch.from_numpy(matrix * size / edge).float()
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    turned = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return turned.clamp(0, 1)


def _microscope(nucleus: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness, contrast, focus, background and noise of nucleus images (B, 1, S, S)."""
    count = len(nucleus)

    def uniform(low: float, high: float, share: float = 1.0) -> Tensor:
        drawn = rng.uniform(low, high, count) * (rng.random(count) < share)
        return torch.from_numpy(drawn.astype(np.float32))[:, None, None, None]

    blurred = _blurred(nucleus, uniform(0.4, 2.0, 0.25))
    changed = blurred ** uniform(0.6, 1.5) * uniform(0.7, 1.1) + uniform(0, 0.08, 0.5)
    grain = torch.from_numpy(rng.standard_normal(nucleus.shape, np.float32))
    return (changed + grain * uniform(0, 0.05, 0.5)).clamp(0, 1)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each of (B, 1, S, S) by its own sigma (B, 1, 1, 1) in pixels; 0 leaves it sharp."""
    offsets = torch.arange(-5, 6, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, 0, 0] ** 2).clamp(min=1e-3))
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = F.pad(images, [5] * 4, mode="reflect").transpose(0, 1)
    down = F.conv2d(padded, kernel[:, None, :, None], groups=len(images))
    return F.conv2d(down, kernel[:, None, None, :], groups=len(images)).transpose(0, 1)


def _gain(landmarks: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness and contrast of landmark images (B, 2, S, S)."""
    shape = (*landmarks.shape[:2], 1, 1)
    power, gain = (
        torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))
        for low, high in ((0.75, 1.3), (0.8, 1.1))
    )
    return (landmarks**power * gain).clamp(0, 1)
