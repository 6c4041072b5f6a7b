"""Training examples out of an image pack: which are chosen, how they are cut, turned and changed.

All chance comes from the seed and the number of the step, so that a resumed run trains on the same examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.models.flow_matching import condition
from deepgps.training.mini.image_pack import (
    ER,
    LANDMARKS,
    MICROTUBULES,
    NUCLEUS,
    PROTEIN,
    UNKNOWN_DOMAIN,
    ImagePack,
)

LANDMARK_SHARE = 0.1
"""Share of the landmark channels among the protein images."""
RARITY = 0.75
"""Within a source an example's weight is the number with its localizations to the power of minus this."""
SCARCITY = 0.5
"""Over all sources it is weighted by the localizations' shares of the examples to the power of minus this."""
SECRETED_SHARE = 0.15
"""Share of the ER images that serve as secreted proteins, which a cell shows on their way only."""
MIXED_SHARE = 0.08
"""Share of the examples with landmarks that become the sum of two proteins of one cell."""
SOURCE_WINDOW = 1.5
"""Edge of what is cut before it is turned and scaled, in edges of the crop."""
CROWD, CROWD_ZOOM, CROWD_SPREAD = (2, 3), (0.55, 0.9), 0.35
"""Additional cells of a crowd, how much smaller they are, and how far apart, as a share of the edge."""


class ImageBatch(NamedTuple):
    """Examples as the network takes them, B of them.

    Attributes
    ----------
    protein
        (B, 1, S, S) in [0, 1].
    images
        (B, 3, S, S) nucleus, microtubules, ER in [0, 1]; for the grain (B, 2, S, S), nucleus and the protein
        image of twice the pixel size.
    given
        (B, 3) or (B, 2): which of these are given.
    condition
        (B, conditions).
    """

    protein: Tensor
    images: Tensor
    given: Tensor
    condition: Tensor


class ImageExamples:
    """Training examples of an image pack.

    Parameters
    ----------
    pack
        The pack.
    size
        Edge of a crop in pixels.
    shares
        Share of each source in a batch, of protein images that are no landmark.
    crowded
        Share of the masked cells that are placed several to a crop.
    grain
        Whether they are for the grain: cut anywhere near the nuclei, and given the coarse protein image.
    """

    def __init__(
        self,
        pack: ImagePack,
        size: int,
        shares: Mapping[str, float],
        *,
        crowded: float = 0,
        grain: bool = False,
    ) -> None:
        self.pack, self.size, self.crowded, self.grain = pack, size, crowded, grain
        self.rows = pack.rows("train")
        self.kinds = [pack.labels(int(row))[0].tobytes() for row in self.rows]
        self.weights = self._balanced(self._by_source(shares))
        self.alike: dict[tuple[Any, ...], list[int]] = {}
        if crowded:
            for row in self.rows[pack.arrays["masked"][pack.fields(self.rows)]]:
                self.alike.setdefault(self._kind(int(row)), []).append(int(row))

    def _by_source(self, shares: Mapping[str, float]) -> Doubles:
        """Return the probability of each row: sources by their shares, in each rare ones more often."""
        is_landmark = self.pack.examples[self.rows, 1] != PROTEIN
        sources = np.where(is_landmark, "landmark", self.pack.arrays["source"][self.pack.fields(self.rows)])
        kinds = np.unique(np.array(self.kinds, object), return_inverse=True)[1]
        weights = np.zeros(len(self.rows))
        for source, share in {**shares, "landmark": LANDMARK_SHARE}.items():
            members = np.flatnonzero(sources == source)
            if len(members):
                _, kind, count = np.unique(kinds[members], return_inverse=True, return_counts=True)
                rarity = count[kind] ** -RARITY
                weights[members] = share * rarity / rarity.sum()
        return np.asarray(weights / weights.sum())

    def _balanced(self, weights: Doubles) -> Doubles:
        """Raise the weights of localizations that are rare in all sources together; their sum stays."""
        weights = weights.copy()
        classes = np.stack([self.pack.labels(int(row))[0] > 0 for row in self.rows])
        scarcity = np.maximum(weights @ classes, 1e-9) ** -SCARCITY
        labelled = classes.any(1)
        factors = (classes @ scarcity)[labelled] / classes[labelled].sum(1)
        share = weights[labelled].sum()
        weights[labelled] *= factors * (share / (weights[labelled] @ factors))
        return weights

    def _kind(self, row: int) -> tuple[Any, ...]:
        """What cells of a crowd have in common: source, channels, and the labels of their protein image."""
        cell, channel = (int(n) for n in self.pack.examples[row])
        number = self.pack.arrays["cells"][cell, 0]
        labels = self.pack.labels(row)[0].tobytes()
        return (
            self.pack.arrays["source"][number],
            self.pack.arrays["present"][number].tobytes(),
            channel,
            labels,
        )

    def batch(self, count: int, seed: Sequence[int]) -> ImageBatch:
        """Choose, cut, turn and change `count` examples."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(self.rows, count, p=self.weights)
        parts = [self._example(int(row), rng) for row in chosen]
        stacks, given, labels = zip(*parts, strict=True)
        images = turned(torch.from_numpy(np.stack(stacks)), self.size, rng)
        images = torch.cat(
            [varied_nucleus(images[:, :1], rng), images[:, 1:2], _varied_landmarks(images[:, 2:], rng)], 1
        )
        batch = ImageBatch(
            images[:, 1:2],
            images[:, [NUCLEUS, MICROTUBULES, ER]],
            torch.tensor(np.array(given, np.float32)),
            condition(*_stacked(labels)),
        )
        return with_coarse_image(batch, rng) if self.grain else batch

    def _example(self, row: int, rng: np.random.Generator) -> tuple[Floats, list[float], tuple[Any, ...]]:
        """Return nucleus, protein, microtubules and ER (4, E, E), which images are given, and the labels."""
        pack = self.pack
        edge = 2 * round(SOURCE_WINDOW * self.size / 2)
        reach = self.size // 2 if self.grain else self.size // 16
        cell, channel = (int(n) for n in pack.examples[row])
        down, right = (int(n) for n in rng.integers(-reach, reach + 1, 2))
        stack = pack.window(cell, edge, (down, right))
        present = pack.arrays["present"][pack.arrays["cells"][cell, 0]].copy()
        classes, words, trust = pack.labels(row)
        if self.crowded and (alike := self.alike.get(self._kind(row))) and rng.random() < self.crowded:
            more = rng.choice(alike, int(rng.integers(*CROWD, endpoint=True)))
            others = [pack.window(int(pack.examples[each, 0]), edge) for each in more]
            stack = crowd([stack, *others], rng)
        protein = stack[channel]
        present[channel] = False
        landmarks = [other for other in LANDMARKS if present[other]]
        if landmarks and trust and rng.random() < MIXED_SHARE:
            other = int(rng.choice(landmarks))
            theirs = pack.landmark_labels(other)
            protein = np.minimum(0.7 * (protein + stack[other]), 1)
            classes, words = np.maximum(classes, theirs[0]), np.maximum(words, theirs[1])
            present[other] = False
        given = _landmarks_given(present, rng)
        labels = _varied_labels(pack, row, classes, words, trust, rng)
        return np.stack([stack[NUCLEUS], protein, stack[MICROTUBULES], stack[ER]]), given, labels


def plain_batch(
    pack: ImagePack, rows: Ints, size: int, *, landmarks: bool = False, grain: bool = False
) -> ImageBatch:
    """Return examples as they are, their labels and domain known, with or without landmarks."""
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
        classes, words, trust = pack.labels(int(row))
        known = float(trust > 0)
        labels.append((classes, known, words, 0.0, one_hot(pack, int(pack.arrays["domain"][number]))))
    batch = ImageBatch(
        torch.from_numpy(np.stack(protein)),
        torch.from_numpy(np.stack(images)),
        torch.tensor(np.array(given, np.float32)),
        condition(*_stacked(labels)),
    )
    return with_coarse_image(batch) if grain else batch


def with_coarse_image(batch: ImageBatch, rng: np.random.Generator | None = None) -> ImageBatch:
    """Give nucleus and coarse protein image, both at the fine pixel size, instead of the cell's images.

    With chance, some coarse images are blurred and noisy, as drawn ones may be.

    Returns
    -------
    ImageBatch
        The same examples; `images` are nucleus and coarse protein image, both given.
    """
    images = torch.cat([batch.images[:, :1], coarse_image(batch.protein, rng)], 1)
    return batch._replace(images=images, given=torch.ones(len(images), 2))


def coarse_image(images: Tensor, rng: np.random.Generator | None = None) -> Tensor:
    """Return images (B, 1, S, S) as they are at twice the pixel size, enlarged to (B, 1, S, S) again."""
    coarse = F.avg_pool2d(images, 2)
    if rng is not None:
        shape = (len(coarse), 1, 1, 1)
        sigma = torch.from_numpy((rng.uniform(0, 0.7, shape) * (rng.random(shape) < 0.4)).astype(np.float32))
        amount = torch.from_numpy((rng.uniform(0, 0.1, shape) * (rng.random(shape) < 0.4)).astype(np.float32))
        grain = torch.from_numpy(rng.standard_normal(coarse.shape, np.float32))
        coarse = blurred(coarse, sigma)
        coarse = (coarse + amount * coarse.clamp(min=0).sqrt() * grain).clamp(0, 1)
    return F.interpolate(coarse, scale_factor=2.0, mode="bilinear")


def one_hot(pack: ImagePack, domain: int) -> Floats:
    """Return the one-hot vector of a domain; zeros for `UNKNOWN_DOMAIN`."""
    vector = np.zeros(len(pack.arrays["domain_names"]), np.float32)
    if domain != UNKNOWN_DOMAIN:
        vector[domain] = 1
    return vector


def _stacked(labels: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """Turn B tuples of arrays and numbers into a tensor (B, ...) each."""
    return [torch.from_numpy(np.stack(part).astype(np.float32)) for part in zip(*labels, strict=True)]


def _landmarks_given(present: NDArray[np.bool_], rng: np.random.Generator) -> list[float]:
    """Choose none, one or both of the landmarks that are present; the nucleus is always given."""
    which = rng.choice(4, p=[0.45, 0.1, 0.1, 0.35])
    return [1.0, float(present[MICROTUBULES] and which in (1, 3)), float(present[ER] and which in (2, 3))]


def _varied_labels(
    pack: ImagePack,
    row: int,
    classes: Floats,
    words: Floats,
    trust: float,
    rng: np.random.Generator,
) -> tuple[Floats, float, Floats, float, Floats]:
    """Soften the labels and drop them by chance, for guidance needs images of which nothing is known."""
    number = int(pack.fields(np.array([row]))[0])
    if classes.sum() == 1 and classes[pack.arrays["class_names"] == "er"] and rng.random() < SECRETED_SHARE:
        classes = (pack.arrays["class_names"] == "extracellular").astype(np.float32)
        words = np.zeros_like(words)
    known = trust > 0 and rng.random() < 0.9 * (1 - 0.3 * (1 - trust))
    softened = np.where(classes > 0, 1 - 0.5 * rng.random() ** 2, 0.12 * rng.random(len(classes)) ** 2)
    worded = known and words.any() and rng.random() < 0.5
    domain = int(pack.arrays["domain"][number]) if rng.random() < 0.9 else UNKNOWN_DOMAIN
    if pack.arrays["domain"][number] == UNKNOWN_DOMAIN:
        # Whichever domain a prediction names, the cells of the crops are drawn.
        domain = int(rng.integers(UNKNOWN_DOMAIN, len(pack.arrays["domain_names"])))
    return softened.astype(np.float32), float(known), words, float(worded), one_hot(pack, domain)


def crowd(cells: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """Place masked cells (C, S, S) side by side in one crop (C, S, S), smaller, as in crowded fields.

    All have one size; the first lies near the middle, and where cells overlap the brighter one is visible.

    Returns
    -------
    Floats
        (C, S, S).
    """
    edge = cells[0].shape[-1]
    zoom, field = rng.uniform(*CROWD_ZOOM), np.zeros_like(cells[0])
    for number, each in enumerate(cells):
        quarter = np.rot90(each, int(rng.integers(4)), (1, 2))
        cell = ndimage.zoom(quarter, (1, zoom, zoom), order=1, grid_mode=True, mode="nearest")
        reach = CROWD_SPREAD if number else CROWD_SPREAD / 7
        corner = rng.integers(-int(reach * edge), int(reach * edge) + 1, 2) + (edge - cell.shape[1]) // 2
        (top, left), size = corner, cell.shape[1]
        rows = slice(max(0, top), min(edge, top + size))
        columns = slice(max(0, left), min(edge, left + size))
        visible = cell[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        visible = visible * np.float32(rng.uniform(0.7, 1))
        np.maximum(field[:, rows, columns], visible, out=field[:, rows, columns])
    return field


def turned(images: Tensor, size: int, rng: np.random.Generator) -> Tensor:
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
    moved = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1)


def varied_nucleus(nucleus: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness, contrast, focus, background and noise of nuclei (B, 1, S, S) as microscopes do."""
    count = len(nucleus)

    def uniform(low: float, high: float, share: float = 1.0) -> Tensor:
        drawn = rng.uniform(low, high, count) * (rng.random(count) < share)
        return torch.from_numpy(drawn.astype(np.float32))[:, None, None, None]

    changed = blurred(nucleus, uniform(0.4, 2.0, 0.25))
    changed = changed ** uniform(0.6, 1.5) * uniform(0.7, 1.1) + uniform(0, 0.08, 0.5)
    grain = torch.from_numpy(rng.standard_normal(nucleus.shape, np.float32))
    return (changed + grain * uniform(0, 0.05, 0.5)).clamp(0, 1)


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each of (B, 1, S, S) by its own sigma (B, 1, 1, 1) in pixels; 0 leaves it sharp."""
    offsets = torch.arange(-5, 6, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, 0, 0] ** 2).clamp(min=1e-3))
    kernel = kernel / kernel.sum(1, keepdim=True)
    padded = F.pad(images, [5] * 4, mode="reflect").transpose(0, 1)
    down = F.conv2d(padded, kernel[:, None, :, None], groups=len(images))
    return F.conv2d(down, kernel[:, None, None, :], groups=len(images)).transpose(0, 1)


def _varied_landmarks(landmarks: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness and contrast of landmark images (B, 2, S, S)."""
    shape = (*landmarks.shape[:2], 1, 1)
    power, gain = (
        torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))
        for low, high in ((0.75, 1.3), (0.8, 1.1))
    )
    return (landmarks**power * gain).clamp(0, 1)
