"""The models whose images are measured: a checkpoint of the generator, or a bundle through `Predictor`.

Both draw `ImageBatch`es of the packed images, at the coarse pixel size: crops of `SIZE` pixels of 0.41 um.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from real_images import SIZE
from torch import Tensor

from deepgps import Predictor
from deepgps.arrays import Doubles, Floats, Ints
from deepgps.images.cell import LANDMARKS, Cell
from deepgps.images.processing import resample
from deepgps.models.flow_matching import condition, draw, mean_image, noise
from deepgps.training.loop import read_checkpoint
from deepgps.training.mini.image_batches import ImageBatch, one_hot, plain_batch
from deepgps.training.mini.image_pack import PROTEIN, ImagePack
from deepgps.training.mini.images import AveragedNetwork, build_network
from deepgps.training.recipe import ImageSettings, MiniRecipe, load_recipe

CHUNK = 24
"""Images drawn together."""
CELL_LINES = ("HEK293T", "U-2 OS", None)
"""Cell line of each domain."""
SURE, NOT = 0.97, 0.02
"""Probabilities of a class that is known to apply, and of one that is known not to."""


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """N images to draw.

    Attributes
    ----------
    rows
        (N,) examples of the packed file, into whose cells they are drawn.
    classes
        (N, K) probabilities.
    words
        (N, W) finer annotation words, 1 where one applies; a row of zeros: not known.
    seeds
        (N,).
    landmarks
        Whether microtubules and ER are given where the cell has them.
    """

    rows: Ints
    classes: Floats
    words: Floats
    seeds: Ints
    landmarks: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, rows: slice) -> "Wanted":
        """Return some of the images."""
        return Wanted(self.rows[rows], self.classes[rows], self.words[rows], self.seeds[rows], self.landmarks)


class Model(Protocol):
    """What can be measured."""

    name: str

    def draw(self, wanted: Wanted) -> Floats:
        """Draw images (N, `SIZE`, `SIZE`) in [0, 1]."""
        ...

    def mean(self, wanted: Wanted) -> Floats:
        """Predict mean images (N, `SIZE`, `SIZE`) in [0, 1]."""
        ...


def mini_settings() -> ImageSettings:
    """Return the settings of the recipe ``mini``."""
    recipe = load_recipe("mini")
    assert isinstance(recipe, MiniRecipe)
    return recipe.images


class Checkpoint:
    """A checkpoint of the coarse stage; its averaged weights draw.

    Parameters
    ----------
    path
        ``structure/checkpoints/last.ckpt``, with the networks of the recipe ``mini``.
    pack
        The packed images.
    steps, guidance
        Of every image; see `deepgps.models.flow_matching.draw`.
    """

    def __init__(self, path: Path, pack: ImagePack, *, steps: int = 10, guidance: float = 1.0) -> None:
        settings, state = mini_settings().structure, read_checkpoint(path)["model"]
        averaged = AveragedNetwork(build_network(settings, len(pack.arrays["class_names"])), settings.average)
        averaged.load_state_dict(state)
        steps_done, network = int(averaged.average.n_averaged), averaged.average.module
        self.network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pack, self.steps, self.guidance = pack, steps, guidance
        self.images = steps_done * settings.batch_size
        self.name = f"checkpoint after {self.images:,} images"

    def draw(self, wanted: Wanted) -> Floats:
        """Draw images (N, `SIZE`, `SIZE`) in [0, 1]."""
        return self._in_chunks(wanted, mean=False)

    def mean(self, wanted: Wanted) -> Floats:
        """Predict mean images (N, `SIZE`, `SIZE`) in [0, 1]."""
        return self._in_chunks(wanted, mean=True)

    def _in_chunks(self, wanted: Wanted, *, mean: bool) -> Floats:
        chunks = [wanted.part(slice(start, start + CHUNK)) for start in range(0, len(wanted), CHUNK)]
        return np.concatenate([self._chunk(each, mean=mean) for each in chunks])

    @torch.no_grad()
    def _chunk(self, wanted: Wanted, *, mean: bool) -> Floats:
        batch = plain_batch(self.pack, wanted.rows, SIZE, landmarks=wanted.landmarks)
        told, nothing = self._conditions(wanted)
        with torch.autocast("cpu", torch.bfloat16):
            if mean:
                images = mean_image(self.network, batch.images, batch.given, told)
            else:
                start = noise(wanted.seeds.tolist(), SIZE, SIZE)
                images = self._drawn(start, batch, told, nothing)
        return np.asarray(images[:, 0].float().numpy(), np.float32)

    def _drawn(self, start: Tensor, batch: ImageBatch, told: Tensor, nothing: Tensor) -> Tensor:
        return draw(
            self.network,
            start,
            batch.images,
            batch.given,
            told,
            nothing,
            steps=self.steps,
            guidance=self.guidance,
        )

    def _conditions(self, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Lay out what is known of the proteins, and the same without it."""
        domains = self.pack.arrays["domain"][self.pack.fields(wanted.rows)]
        domain = torch.from_numpy(np.stack([one_hot(self.pack, int(each)) for each in domains]))
        classes, words = torch.from_numpy(wanted.classes), torch.from_numpy(wanted.words)
        worded, ones = (words.sum(1) > 0).float(), torch.ones(len(wanted))
        told = condition(classes, ones, words, worded, domain)
        return told, condition(classes, 0 * ones, words, 0 * ones, domain)


class Bundled:
    """A bundle, through the public `Predictor`.

    Parameters
    ----------
    model
        Name of an installed model, or a bundle.
    pack
        The packed images.
    """

    def __init__(self, model: str | Path, pack: ImagePack) -> None:
        self.pack = pack
        self.drawing = Predictor.load(model, threads=1)
        self.averaging = self.drawing.with_mean_images()
        metadata = self.drawing.bundle.metadata
        self.name = f"{metadata.name} {metadata.version}"
        self.flow_matching = metadata.flow_matching is not None
        self.tokens = None if self.flow_matching else _tokens(self.drawing)

    def draw(self, wanted: Wanted) -> Floats:
        """Draw images (N, `SIZE`, `SIZE`) in [0, 1]; a model that draws in one pass has no use for a seed."""
        return self._images(self.drawing, wanted)

    def mean(self, wanted: Wanted) -> Floats:
        """Predict mean images (N, `SIZE`, `SIZE`) in [0, 1]."""
        return self._images(self.averaging, wanted)

    def _images(self, predictor: Predictor, wanted: Wanted) -> Floats:
        edge = predictor.bundle.metadata.crop.size_px // 2
        middle = slice((edge - SIZE) // 2, (edge - SIZE) // 2 + SIZE)
        images, latents = [], self._latents(wanted)
        for row, latent, seed in zip(wanted.rows.tolist(), latents, wanted.seeds.tolist(), strict=True):
            cell = self._cell(row, edge, wanted.landmarks)
            drawn = predictor.with_seed(seed).draw([cell], [latent])[0]
            images.append(drawn.reshape(edge, 2, edge, 2).mean((1, 3))[middle, middle])
        return np.stack(images).astype(np.float32)

    def _cell(self, row: int, edge: int, landmarks: bool) -> Cell:
        """The cell of an example, at the pixel size of the bundle."""
        cell, shown = (int(number) for number in self.pack.examples[row])
        number = self.pack.arrays["cells"][cell, 0]
        nucleus, _, *others = np.clip(
            [resample(each, 2.0, 1.0) for each in self.pack.window(cell, edge)], 0, 1
        ).astype(np.float32)
        given = {
            name: image
            for channel, (name, image) in enumerate(zip(LANDMARKS, others, strict=True), PROTEIN + 1)
            if landmarks and channel != shown and self.pack.arrays["present"][number, channel]
        }
        um = self.drawing.bundle.metadata.crop.pixel_size_um
        line = CELL_LINES[int(self.pack.arrays["domain"][number])]
        return Cell(f"row {row}", nucleus, um, "packed images", cell_line=line, **given)

    def _latents(self, wanted: Wanted) -> Floats:
        """Latents (N, T, D) of probabilities and words, as the encoder of the bundle makes them."""
        if self.tokens is None:
            return np.concatenate([wanted.classes, wanted.words], 1)[:, None]
        squares = wanted.classes**2
        latents = (squares / squares.sum(1, keepdims=True))[..., None] * self.tokens
        return np.asarray(latents, np.float32)


def _tokens(predictor: Predictor) -> Doubles:
    """Return the tokens (K, D) of the classes of a bundle up to 0.4.

    A latent is the token of each class times its share of the squared probabilities.
    """
    rng = np.random.default_rng(0)
    sequences = ["M" + "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 200)) for _ in range(64)]
    encodings = predictor.encode(sequences)
    squares = np.stack([1 / (1 + np.exp(-each.logits.astype(np.float64))) for each in encodings]) ** 2
    shares = squares / squares.sum(1, keepdims=True)
    surest = shares.argmax(0)
    return np.stack([encodings[n].latent[k] / shares[n, k] for k, n in enumerate(surest)]).astype(np.float64)


def sure(pack: ImagePack, names: Sequence[str]) -> Floats:
    """Return probabilities (K,) of a protein that is known to be in some classes."""
    found = np.isin(pack.arrays["class_names"], list(names))
    return np.where(found, SURE, NOT).astype(np.float32)


def worded(pack: ImagePack, names: Sequence[str]) -> Floats:
    """Return the vector (W,) of annotation words."""
    return np.isin(pack.arrays["word_names"], list(names)).astype(np.float32)
