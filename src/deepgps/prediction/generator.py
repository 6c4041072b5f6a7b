"""A bundle's generator: from latents of proteins to images of them in cells.

Generators of the paper's models draw in one pass. That of a model trained by flow matching starts from noise
and removes it step by step, first for the structure, at twice the pixel size, then for the grain;
`deepgps.models.flow_matching` has the networks and the literature.
"""

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from deepgps.arrays import Floats
from deepgps.bundle import GRAIN_FILE, Bundle
from deepgps.images.cell import Cell
from deepgps.images.processing import halved
from deepgps.runtime import Graph, open_graph


class Generator(Protocol):
    """Draws proteins into cells."""

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats], *, seed: int, mean: bool) -> Floats:
        """Draw each protein into the cell at the same position.

        Parameters
        ----------
        cells
            B cells of the model's crop size.
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

    def draw(self, cells: Sequence[Cell], latents: Sequence[Floats], *, seed: int, mean: bool) -> Floats:
        """Draw, as `Generator.draw`; a repeated cell is looked at only once."""
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


class FlowMatchingGenerator:
    """Draws by flow matching: structure by ``generator.onnx``, then grain by ``grain.onnx``.

    The start is noise that depends on the seed and the nucleus, so proteins drawn into one cell with one seed
    differ by the protein alone. An image does not depend on what is drawn beside it.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        assert bundle.metadata.flow_matching is not None
        self._spec = bundle.metadata.flow_matching
        self._structure = open_graph(bundle.read("generator.onnx"), threads, reduced=True)
        self._grain = open_graph(bundle.read(GRAIN_FILE), threads, reduced=True)

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
        unknown = np.stack([self._condition(cell, None) for cell in cells])
        start = np.stack([_noise(seed, cell, images.shape[-2:]) for cell in cells])
        structure = self._structures(start, images, given, known, unknown)
        nuclei = np.stack([cell.nucleus for cell in cells]).astype(np.float32)
        start = np.stack([_noise(seed, cell, nuclei.shape[-2:]) for cell in cells])
        return self._grained(start, np.stack([nuclei, _enlarged(structure)], 1), known)

    def _condition(self, cell: Cell, latent: Floats | None) -> Floats:
        """Lay out what is known of a protein as `flow_matching.condition` does; None for nothing."""
        domain = [float(name == cell.cell_line) for name in self._spec.domains]
        classes, words = (len(names) for names in (self._spec.classes, self._spec.words))
        described = np.zeros(classes + words, np.float32)
        if latent is not None:
            described[: latent.size] = latent.ravel()
        known, worded = float(latent is not None), float(described[classes:].any())
        return np.array([*described[:classes], known, *described[classes:], worded, *domain], np.float32)

    def _images(self, cells: Sequence[Cell]) -> tuple[Floats, Floats]:
        """Return images (B, C, H / 2, W / 2) of the cells, and which are given (B, C)."""
        names = self._spec.landmarks
        channels = [[cell.nucleus, *(cell.landmarks.get(name) for name in names)] for cell in cells]
        blank = np.zeros_like(cells[0].nucleus)
        stacks = np.stack([[blank if each is None else each for each in stack] for stack in channels])
        given = np.array([[float(each is not None) for each in stack] for stack in channels], np.float32)
        return halved(stacks.astype(np.float32)), given

    def _structures(
        self, start: Floats, images: Floats, given: Floats, known: Floats, unknown: Floats
    ) -> Floats:
        """Draw (B, H, W) at twice the pixel size, guided away from the prediction for an unknown protein."""
        drawn, steps, guidance = start[:, None], self._spec.steps, np.float32(self._spec.guidance)
        for step in range(steps):
            clean = self._clean(self._structure, drawn, step / steps, images, given, known)
            if guidance != 1:
                plain = self._clean(self._structure, drawn, step / steps, images, given, unknown)
                clean = plain + guidance * (clean - plain)
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
