"""How well a model does on crops that it does not learn from, over all processes, each crop counted once."""

from dataclasses import dataclass

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepgps.arrays import Doubles, Ints
from deepgps.localization import class_set
from deepgps.models.deepgps import Drawn
from deepgps.training.joint.inputs.batches import Batch, Inputs, Trained, read_batch
from deepgps.training.joint.learning.losses import crop_losses, structural_similarity, weighted
from deepgps.training.joint.settings import JointRecipe

IMAGE_LOSS = "loss_image"
"""What of the loss the images make, weighted as in training."""
IMAGE_FIGURES = ("psnr", "ssim", "pearson")
"""Of a drawn image against the real one: dB, and two that are 1 at best."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model made of N crops.

    Attributes
    ----------
    proteins
        (N,) the protein that each crop shows.
    figures
        By name, (N,): ``loss`` and its parts as ``loss_<part>``, and `IMAGE_FIGURES`.
    logits
        (N, K).
    """

    proteins: Ints
    figures: dict[str, Doubles]
    logits: Doubles

    def by_protein(self, values: Doubles) -> Doubles:
        """Means over the crops of each protein, of values (N, …), the proteins ascending."""
        _, codes, counts = np.unique(self.proteins, return_inverse=True, return_counts=True)
        sums = np.zeros((len(counts), *values.shape[1:]))
        np.add.at(sums, codes, values)
        return np.asarray(sums / counts.reshape(-1, *[1] * (values.ndim - 1)))

    def mean(self, name: str) -> float:
        """Mean of a figure, every protein counted once however many crops it has."""
        return float(self.by_protein(self.figures[name]).mean())


def loss_names(recipe: JointRecipe) -> tuple[str, ...]:
    """Name the parts of the loss that weigh something on a crop."""
    return tuple(name for name in ("mae", "mse", "ssim", "label") if getattr(recipe.losses, name))


@torch.no_grad()
def evaluate(
    fabric: L.Fabric,
    model: nn.Module,
    recipe: JointRecipe,
    data: Trained,
    inputs: Inputs,
    rows: Ints,
    drawn_as: Ints | None = None,
) -> Evaluation:
    """Draw every crop of some rows and measure it.

    Parameters
    ----------
    fabric, model
        The processes, and the model as they hold it.
    recipe, data, inputs
        What was trained, on what.
    rows
        (N,) row numbers.
    drawn_as
        (N,) the proteins to draw in place of those that the crops show.
    """
    model.eval()
    names = ("loss", IMAGE_LOSS, *(f"loss_{name}" for name in loss_names(recipe)), *IMAGE_FIGURES)
    classes = data.targets.shape[1] if recipe.losses.label else 0
    table = torch.zeros(len(rows), len(names) + classes, dtype=torch.float64, device=fabric.device)
    size = max(1, recipe.training.batch_size // (recipe.training.accumulate * fabric.world_size))
    chunks = np.array_split(np.arange(len(rows)), -(-len(rows) // size))[
        fabric.global_rank :: fabric.world_size
    ]
    reading = _Chunks(data, inputs, rows, chunks, drawn_as)
    pinned = fabric.device.type == "cuda"
    loader = DataLoader(reading, batch_size=None, num_workers=recipe.training.workers, pin_memory=pinned)
    for at, batch in zip(chunks, loader, strict=True):
        table[torch.from_numpy(at)] = _measured(model, recipe, fabric.to_device(batch), names)
    table = _summed(fabric, table).cpu()
    figures = {name: table[:, column].numpy() for column, name in enumerate(names)}
    return Evaluation(data.protein_of_row[rows], figures, table[:, len(names) :].numpy())


class _Chunks(Dataset[Batch]):
    def __init__(
        self, data: Trained, inputs: Inputs, rows: Ints, chunks: list[Ints], drawn_as: Ints | None
    ) -> None:
        self.data, self.inputs, self.rows, self.chunks, self.drawn_as = data, inputs, rows, chunks, drawn_as

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch:
        at = self.chunks[number]
        shown = None if self.drawn_as is None else self.drawn_as[at]
        return read_batch(self.data, self.inputs, self.rows[at], proteins=shown)


def _measured(model: nn.Module, recipe: JointRecipe, batch: Batch, names: tuple[str, ...]) -> Tensor:
    """Figures and logits of a batch, (B, F + K)."""
    nucleus, real = images(batch)
    drawn: Drawn = model(nucleus, batch.protein)
    image, logits = drawn.image.float(), drawn.logits.float()
    multi_label = class_set(recipe.class_set).multi_label
    parts = crop_losses(image, logits, real, batch.targets, recipe.losses, multi_label=multi_label)
    found = {f"loss_{name}": value for name, value in parts.items()}
    found["loss"] = weighted(parts, recipe.losses)
    imaged = {name: value for name, value in parts.items() if name != "label"}
    found[IMAGE_LOSS] = weighted(imaged, recipe.losses)
    # A drawing that is equal to the real image would be infinitely good and spoil every mean.
    found["psnr"] = -10 * (image - real).square().mean((1, 2, 3)).clamp(min=1e-10).log10()
    found["ssim"] = structural_similarity(real, image)
    found["pearson"] = correlation(real, image)
    return torch.cat([torch.stack([found[name] for name in names], 1), logits], 1).double()


def images(batch: Batch) -> tuple[Tensor, Tensor]:
    """Nucleus and protein images of a batch, (B, 1, S, S) float32 in [0, 1] each."""
    pairs = batch.pairs.float() / 255
    return pairs[:, :1].contiguous(memory_format=torch.channels_last), pairs[:, 1:]


def correlation(real: Tensor, drawn: Tensor) -> Tensor:
    """Pearson correlation (B,) of images (B, 1, H, W), 0 where either is constant."""
    a, b = ((each - each.mean((1, 2, 3), keepdim=True)).flatten(1) for each in (real, drawn))
    norms = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(norms > 1e-9, (a * b).sum(1) / norms.clamp(min=1e-9), torch.zeros_like(norms))


def _summed(fabric: L.Fabric, table: Tensor) -> Tensor:
    """Sum over the processes; each has filled its own rows of zeros."""
    if fabric.world_size == 1:
        return table
    summed = fabric.all_reduce(table, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
