"""A bundle's generator: from latents of proteins to images of them in cells.

Generators of the paper's models draw in one pass. That of a model trained by flow matching starts from noise
and removes it step by step, first for the structure, at twice the pixel size, then for the grain;
`deepgps.models.flow_matching` has the networks and the literature.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from deepgps.arrays import Floats
from deepgps.bundle import GRAIN_FILE, Bundle
from deepgps.images.cell import Cell
from deepgps.images.processing import halved
from deepgps.runtime import Graph, open_graph

TILE_BATCH = 8
"""Tiles of a field that are drawn at a time."""


class Generator(Protocol):
    """Draws proteins into cells."""

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats], *, seed: int, mean: bool) -> Floats:
        """Draw each protein into the cell at the same position.

        Parameters
        ----------
        cells
            B cells of one size: the model's crop size, or a larger field of even height and width, which is
            drawn in overlapping tiles.
        latents
            B latents of the same shape (T, D).
        seed
            Chooses one of the possible images.
        mean
            Whether to draw the mean of all possible images, if the generator can draw others.

        Returns
        -------
        Floats
            (B, H, W) in [0, 1].
        """


def open_generator(bundle: Bundle, threads: int | None = None) -> Generator:
    """Open the generator of a bundle.

    Parameters
    ----------
    bundle
        The verified bundle.
    threads
        Threads to compute with; all cores if None.

    Returns
    -------
    Generator
        The loaded generator.
    """
    if bundle.metadata.flow_matching is None:
        return OnePassGenerator(bundle, threads)
    return FlowMatchingGenerator(bundle, threads)


class OnePassGenerator:
    """Draws in one pass of ``generator.onnx``, the same image for every seed."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._graph = open_graph(bundle.read("generator.onnx"), threads, reduced=True)
        self._size = bundle.metadata.crop.size_px

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats], *, seed: int, mean: bool) -> Floats:
        """Draw, as `Generator.draw`; a repeated cell is looked at only once."""
        if cells[0].nucleus.shape != (self._size, self._size):
            return np.stack(
                [self._field(cell, latent, mean) for cell, latent in zip(cells, latents, strict=True)]
            )
        distinct = {id(cell): cell for cell in cells}
        positions = {key: position for position, key in enumerate(distinct)}
        which = np.array([positions[id(cell)] for cell in cells], np.int64)
        nuclei = np.stack([cell.nucleus for cell in distinct.values()])[:, None].astype(np.float32)
        inputs = {"nucleus": nuclei, "latent": np.stack(latents), "which": which}
        if "which" not in self._graph.inputs:  # graphs from before deepgps-mini 0.3
            inputs = {"nucleus": nuclei[which], "latent": inputs["latent"]}
        output = "mean" if mean and "mean" in self._graph.outputs else "image"
        images: Floats = self._graph.run([output], inputs)[0]
        return images[:, 0]

    def _field(self, cell: Cell, latent: Floats, mean: bool) -> Floats:
        tiling = Tiling.of(cell.nucleus.shape, self._size)
        tiles = [replace(cell, nucleus=tile[0]) for tile in tiling.split(cell.nucleus[None])]
        parts = (tiles[start : start + TILE_BATCH] for start in range(0, len(tiles), TILE_BATCH))
        drawn = [self.draw(part, [latent] * len(part), seed=0, mean=mean) for part in parts]
        merged = tiling.merge(np.concatenate(drawn)[:, None])
        return np.asarray(merged[0], np.float32)


class FlowMatchingGenerator:
    """Draws by flow matching: structure by ``generator.onnx``, then grain by ``grain.onnx``.

    The start is noise that depends on the seed and the nucleus, so proteins drawn into one cell with one seed
    differ by the protein alone. An image does not depend on what is drawn beside it.

    A field larger than the graphs' images is drawn in overlapping tiles, whose predictions are averaged at
    every step, so that the image has no seams (as in MultiDiffusion, Bar-Tal et al. 2023, arXiv:2302.08113).
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        assert bundle.metadata.flow_matching is not None
        self._spec = bundle.metadata.flow_matching
        self._structure = open_graph(bundle.read("generator.onnx"), threads, reduced=True)
        self._grain = open_graph(bundle.read(GRAIN_FILE), threads, reduced=True)
        size = bundle.metadata.crop.size_px
        self._sizes = {id(self._structure): size // 2, id(self._grain): size}

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats], *, seed: int, mean: bool) -> Floats:
        """Draw, as `Generator.draw`.

        Parameters
        ----------
        cells, seed, mean
            As in `Generator.draw`.
        latents
            Each (1, K) probabilities of the generator's classes, or (1, K + W) with 1 for each annotation
            word that applies.

        Returns
        -------
        Floats
            (B, H, W) in [0, 1].
        """
        known = np.stack([self._condition(*pair) for pair in zip(cells, latents, strict=True)])
        images, given = self._images(cells)
        if mean:
            return _enlarged(self._mean(images, given, known))
        start = np.stack([_noise(seed, cell, images.shape[-2:]) for cell in cells])
        structure = self._structures(start, images, given, known)
        nuclei = np.stack([cell.nucleus for cell in cells]).astype(np.float32)
        start = np.stack([_noise(seed, cell, nuclei.shape[-2:]) for cell in cells])
        return self._grained(start, np.stack([nuclei, _enlarged(structure)], 1), known)

    def _condition(self, cell: Cell, latent: Floats) -> Floats:
        """Lay out what is known of a protein as `flow_matching.condition` does."""
        domain = [float(name == cell.cell_line) for name in self._spec.domains]
        classes, words = (len(names) for names in (self._spec.classes, self._spec.words))
        described = np.zeros(classes + words, np.float32)
        described[: latent.size] = latent.ravel()
        worded = float(described[classes:].any())
        return np.array([*described[:classes], 1, *described[classes:], worded, *domain], np.float32)

    def _images(self, cells: Sequence[Cell]) -> tuple[Floats, Floats]:
        """Return images (B, C, H / 2, W / 2) of the cells, and which are given (B, C)."""
        names = self._spec.landmarks
        channels = [[cell.nucleus, *(cell.landmarks.get(name) for name in names)] for cell in cells]
        blank = np.zeros_like(cells[0].nucleus)
        stacks = np.stack([[blank if each is None else each for each in stack] for stack in channels])
        given = np.array([[float(each is not None) for each in stack] for stack in channels], np.float32)
        return halved(stacks.astype(np.float32)), given

    def _structures(self, start: Floats, images: Floats, given: Floats, known: Floats) -> Floats:
        """Draw (B, H, W) at twice the pixel size."""
        drawn, steps = start[:, None], self._spec.steps
        for step in range(steps):
            clean = self._clean(self._structure, drawn, step / steps, images, given, known)
            drawn = drawn + (clean - drawn) / np.float32(steps - step)
        return _decoded(drawn)

    def _grained(self, start: Floats, images: Floats, known: Floats) -> Floats:
        """Add the grain to structures (B, H, W), which `images` (B, 2, H, W) holds beside the nuclei."""
        drawn, steps = start[:, None], self._spec.grain_steps
        given = np.ones(images.shape[:2], np.float32)
        for step in range(steps):
            clean = self._clean(self._grain, drawn, step / steps, images, given, known)
            drawn = drawn + (clean - drawn) / np.float32(steps - step)
        return _decoded(drawn)

    def _mean(self, images: Floats, given: Floats, known: Floats) -> Floats:
        """Predict mean images (B, H, W), averaged over reflections, so that no direction is preferred."""
        found = []
        for axes in ((), (2,), (3,), (2, 3)):
            flipped = np.ascontiguousarray(np.flip(images, axes))
            noisy = np.zeros_like(flipped[:, :1])
            found.append(np.flip(self._clean(self._structure, noisy, 0, flipped, given, known, mean=1), axes))
        return np.asarray(np.clip((np.mean(found, axis=0) + 1) / 2, 0, 1)[:, 0], np.float32)

    def _clean(
        self,
        graph: Graph,
        noisy: Floats,
        time: float,
        images: Floats,
        given: Floats,
        condition: Floats,
        mean: float = 0,
    ) -> Floats:
        """Predict clean images (B, 1, H, W), in tiles where they are larger than the graph's."""
        size = self._sizes[id(graph)]
        if noisy.shape[-2:] != (size, size):
            tiling = Tiling.of(noisy.shape[-2:], size)
            known = zip(noisy, images, given, condition, strict=True)
            return np.stack([self._clean_field(graph, time, tiling, mean, *each) for each in known])
        count = len(noisy)
        inputs: dict[str, Any] = {
            "noisy": noisy,
            "time": np.full(count, time, np.float32),
            "images": images,
            "given": given,
            "condition": condition,
            "mean": np.full(count, mean, np.float32),
        }
        clean: Floats = graph.run(["clean"], inputs)[0]
        return clean

    def _clean_field(
        self,
        graph: Graph,
        time: float,
        tiling: "Tiling",
        mean: float,
        noisy: Floats,
        images: Floats,
        given: Floats,
        condition: Floats,
    ) -> Floats:
        """Predict the clean image (1, H, W) of one field."""
        noisy_tiles, image_tiles = tiling.split(noisy), tiling.split(images)
        found = []
        for start in range(0, len(noisy_tiles), TILE_BATCH):
            part = slice(start, start + TILE_BATCH)
            count = len(noisy_tiles[part])
            known = np.repeat(given[None], count, 0), np.repeat(condition[None], count, 0)
            found.append(self._clean(graph, noisy_tiles[part], time, image_tiles[part], *known, mean))
        return tiling.merge(np.concatenate(found))


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a field is divided into overlapping square tiles, and put together again.

    Attributes
    ----------
    shape
        Height and width of the field.
    size
        Edge of a tile.
    rows, columns
        First row and column of the tiles.
    """

    shape: tuple[int, int]
    size: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], size: int) -> "Tiling":
        """Divide a field (H, W), at least as large as a tile, so that neighbours share a quarter or more."""
        height, width = shape
        return cls((height, width), size, _starts(height, size), _starts(width, size))

    def split(self, images: Floats) -> Floats:
        """Cut images (C, H, W) into tiles (T, C, size, size), row by row."""
        size = self.size
        return np.stack(
            [images[:, top : top + size, left : left + size] for top in self.rows for left in self.columns]
        )

    def merge(self, tiles: Floats) -> Floats:
        """Average tiles (T, C, size, size), each weighted less towards its border, to (C, H, W)."""
        ramp = np.sin(np.pi * (np.arange(self.size) + 0.5) / self.size).astype(np.float32) ** 2 + 1e-3
        weight = np.outer(ramp, ramp)
        total = np.zeros((tiles.shape[1], *self.shape), np.float32)
        weights = np.zeros(self.shape, np.float32)
        places = [(top, left) for top in self.rows for left in self.columns]
        for (top, left), tile in zip(places, tiles, strict=True):
            place = slice(top, top + self.size), slice(left, left + self.size)
            total[:, *place] += tile * weight
            weights[place] += weight
        return total / weights


def _starts(length: int, size: int) -> tuple[int, ...]:
    count = 1 + max(0, -(-(length - size) // (size * 3 // 4)))
    return tuple(np.linspace(0, length - size, count).round().astype(int).tolist())


def _noise(seed: int, cell: Cell, shape: tuple[int, int]) -> Floats:
    """Draw standard normal noise (H, W) of a seed and a nucleus."""
    nucleus = zlib.crc32(np.round(cell.nucleus * 255).astype(np.uint8).tobytes())
    return np.random.default_rng([seed, nucleus]).standard_normal(shape, np.float32)


def _decoded(encoded: Floats) -> Floats:
    """Return the intensities (B, H, W) that are encoded as ``2 sqrt(p) - 1`` in (B, 1, H, W)."""
    return np.asarray(np.clip((encoded[:, 0] + 1) / 2, 0, 1) ** 2, np.float32)


def _enlarged(images: Floats) -> Floats:
    """Interpolate (B, H, W) linearly to (B, 2 H, 2 W), as `torch.nn.functional.interpolate` does."""
    for axis in (1, 2):
        images = np.moveaxis(images, axis, -1)
        before, after = (
            np.concatenate(parts, -1)
            for parts in (
                (images[..., :1], images[..., :-1]),
                (images[..., 1:], images[..., -1:]),
            )
        )
        both = np.stack([0.75 * images + 0.25 * before, 0.75 * images + 0.25 * after], -1)
        images = np.moveaxis(both.reshape(*images.shape[:-1], -1), -1, axis)
    return np.asarray(images, np.float32)
