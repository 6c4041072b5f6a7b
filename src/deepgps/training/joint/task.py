"""What a model of the paper learns: network, losses, validation, as the training loop asks for them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.images.similarity import SSIM_WINDOW
from deepgps.localization import class_set
from deepgps.models.deepgps import DeepGPS, Drawn
from deepgps.models.latents import PaperStructureLatent, SequenceLatent, StructureLatent
from deepgps.models.unet import UNet, initialise_as_paper
from deepgps.results.labelled_images import write_text
from deepgps.training.joint.data import (
    Batch,
    BatchParts,
    ProteinTensors,
    TrainingData,
    epoch_order,
    read_batch,
)
from deepgps.training.loop import learning_rate
from deepgps.training.recipe import JointRecipe

IMAGE_LOSS = "loss_image"
"""The terms of the loss that come from the images, weighted as in training."""
IMAGE_METRICS = ("psnr", "ssim", "pearson")
"""Of a drawn against the real image: dB, and two that are at most 1."""
LOSS_TERMS = ("mae", "mse", "ssim", "label")
"""Terms of the loss that every crop has."""
_C1, _C2 = 0.01**2, 0.03**2


def build_model(recipe: JointRecipe, embedding_dim: int | None) -> DeepGPS:
    """Build the network of a recipe, with fresh weights.

    Parameters
    ----------
    recipe
        The recipe.
    embedding_dim
        Size of an embedding; None for a recipe without sequences.

    Returns
    -------
    DeepGPS
        The network.

    Raises
    ------
    ValueError
        If the recipe uses sequences and ``embedding_dim`` is None.
    """
    settings, inputs = recipe.model, recipe.protein.inputs
    if "sequence" in inputs and embedding_dim is None:
        raise ValueError("the recipe uses sequences; give the embedding's dimension.")
    dim, tokens = settings.latent_dim, 1 if settings.fusion == "per_residue" else settings.latent_tokens
    generator = UNet(
        settings.widths,
        dim,
        settings.fusion,
        settings.heads,
        settings.fold,
        settings.margin,
        conv_bias=settings.conv_bias,
    )
    if settings.initialisation == "paper":
        initialise_as_paper(generator)
    structure: StructureLatent | PaperStructureLatent | None = None
    if "structure" in inputs:
        paper = settings.structure_encoder == "paper"
        structure = PaperStructureLatent(dim) if paper else StructureLatent(dim, tokens)
    return DeepGPS(
        generator,
        sequence=SequenceLatent(embedding_dim or 0, dim, tokens) if "sequence" in inputs else None,
        structure=structure,
        latent_dim=dim,
        classes=len(class_set(recipe.class_set).slugs) if recipe.losses.label else 0,
        dropout=settings.dropout,
    )


class JointTask:
    """Label and image of the proteins of a crop store: a `deepgps.training.loop.Task`.

    Parameters
    ----------
    recipe, data, inputs
        What is trained, on which crops and proteins.
    module
        The network.
    fabric
        The processes.
    """

    # A label learned by heart is sure of its errors long before the images are good.
    best_metric: str | None = IMAGE_LOSS
    batch_norm_learns = True

    def __init__(
        self,
        recipe: JointRecipe,
        data: TrainingData,
        inputs: ProteinTensors,
        module: DeepGPS,
        fabric: L.Fabric,
    ) -> None:
        self.recipe, self.data, self.inputs, self.fabric = recipe, data, inputs, fabric
        self.module: nn.Module = module
        self.settings = recipe.training
        self.accumulate, self.patience = self.settings.accumulate, self.settings.patience
        self.steps = max(len(data.rows["train"]) // self.settings.batch_size, 1)
        self.multi_label = class_set(recipe.class_set).multi_label
        settings = recipe.losses
        self.weights = {name: weight for name in LOSS_TERMS if (weight := getattr(settings, name))}
        self.terms = tuple(self.weights)
        if "structure" in recipe.protein.inputs and settings.orthogonality:
            self.weights["orthogonality"] = settings.orthogonality
        self.loss_names = ("loss", *self.weights)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(
            self.module.parameters(),
            self.settings.learning_rate,
            eps=self.settings.eps,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def schedule(self, step: int) -> Mapping[str, Any]:
        """Return the learning rate."""
        return {"lr": learning_rate(self.settings, step, self.steps)}

    def batches(self, epoch: int, first: int) -> Iterable[Batch]:
        """Read the parts of the epoch's batches that this process computes."""
        order = epoch_order(self.data, self.data.rows["train"], epoch, self.settings)
        fabric = self.fabric
        parts = BatchParts(
            self.data, self.inputs, order, self.accumulate, fabric.global_rank, fabric.world_size
        )
        return self._loader(parts, range(first, len(parts)))

    def _loader(self, batches: Dataset[Batch], numbers: Iterable[int]) -> DataLoader[Batch]:
        pinned = self.fabric.device.type == "cuda"
        workers = self.settings.workers
        return DataLoader(batches, batch_size=None, sampler=numbers, num_workers=workers, pin_memory=pinned)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss and its terms, means over the crops."""
        nucleus, real = images(batch)
        drawn: Drawn = model(nucleus, batch.protein)
        terms = self._terms(drawn.image.float(), drawn.logits.float(), real, batch.targets)
        means = {name: value.mean() for name, value in terms.items()}
        if "orthogonality" in self.loss_names:
            means["orthogonality"] = drawn.penalty.float()
        return torch.stack([weighted_sum(means, self.weights), *means.values()])

    def _terms(self, image: Tensor, logits: Tensor, real: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self.recipe.losses.label_softmax:
            logits = logits.softmax(1)
        return loss_terms(image, logits, real, targets, self.terms, multi_label=self.multi_label)

    def validate(self, model: nn.Module) -> Mapping[str, float]:
        """Return the means of all metrics over the validation proteins."""
        found = self.evaluate(model, self.data.rows["validation"])
        return {name: found.mean(name) for name in found.metrics}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, rows: Ints, proteins: Ints | None = None) -> "CropMetrics":
        """Draw crops and measure them; all processes take part, and each crop counts once.

        Parameters
        ----------
        model
            The network as the processes hold it.
        rows
            (N,) row numbers of the store.
        proteins
            (N,) proteins to draw; by default those that the crops show.

        Returns
        -------
        CropMetrics
            (N,) values of each metric, and the logits.
        """
        model.eval()
        fabric = self.fabric
        names = ("loss", IMAGE_LOSS, *(f"loss_{name}" for name in self.terms), *IMAGE_METRICS)
        classes = self.data.targets.shape[1] if self.recipe.losses.label else 0
        table = torch.zeros(len(rows), len(names) + classes, dtype=torch.float64, device=fabric.device)
        size = max(1, self.settings.batch_size // (self.accumulate * fabric.world_size))
        chunks = np.array_split(np.arange(len(rows)), -(-len(rows) // size))
        mine = chunks[fabric.global_rank :: fabric.world_size]
        batches = _Chunks(self.data, self.inputs, rows, mine, proteins)
        for at, batch in zip(mine, self._loader(batches, range(len(mine))), strict=True):
            table[torch.from_numpy(at)] = self._measure(model, fabric.to_device(batch), names)
        if fabric.world_size > 1:
            # Each process has filled its own rows of zeros.
            table = fabric.all_reduce(table, reduce_op="sum")  # type: ignore[assignment]
        table = table.cpu()
        metrics = {name: table[:, column].numpy() for column, name in enumerate(names)}
        return CropMetrics(self.data.protein_of_row[rows], metrics, table[:, len(names) :].numpy())

    def _measure(self, model: nn.Module, batch: Batch, names: tuple[str, ...]) -> Tensor:
        """Return metrics and logits of a batch, (B, M + K)."""
        nucleus, real = images(batch)
        drawn: Drawn = model(nucleus, batch.protein)
        image, logits = drawn.image.float(), drawn.logits.float()
        terms = self._terms(image, logits, real, batch.targets)
        found = {f"loss_{name}": value for name, value in terms.items()}
        found["loss"] = weighted_sum(terms, self.weights)
        of_images = {name: value for name, value in terms.items() if name != "label"}
        found[IMAGE_LOSS] = weighted_sum(of_images, self.weights)
        # An image equal to the real one would have an infinite PSNR and spoil every mean.
        found["psnr"] = -10 * (image - real).square().mean((1, 2, 3)).clamp(min=1e-10).log10()
        found["ssim"] = structural_similarity(real, image)
        found["pearson"] = correlation(real, image)
        return torch.cat([torch.stack([found[name] for name in names], 1), logits], 1).double()

    def samples(self, model: nn.Module) -> Image.Image:
        """Draw the same few validation crops, side by side with the real ones."""
        rows = sample_rows(self.data, self.data.rows["validation"])
        return sample_sheet(self._draw(model, rows), self._captions(rows))

    @torch.no_grad()
    def _draw(self, model: nn.Module, rows: Ints) -> Floats:
        """Draw some rows: (n, 3, S, S) in [0, 1], nucleus, real and drawn protein image."""
        model.eval()
        batch = self.fabric.to_device(read_batch(self.data, self.inputs, rows))
        nucleus, real = images(batch)
        drawn = model(nucleus, batch.protein).image.float()
        return torch.cat([nucleus, real, drawn], 1).cpu().numpy()

    def _captions(self, rows: Ints) -> list[str]:
        data = self.data
        numbers = data.protein_of_row[rows]
        classes = [
            ", ".join(c for c, has in zip(data.classes, data.targets[n], strict=True) if has) for n in numbers
        ]
        return [f"{data.protein_ids[n]}: {named}" for n, named in zip(numbers, classes, strict=True)]


@dataclass(frozen=True, slots=True)
class CropMetrics:
    """Metrics of N crops.

    Attributes
    ----------
    proteins
        (N,) protein that each crop shows.
    metrics
        (N,) each: ``loss`` and its terms as ``loss_<term>``, and `IMAGE_METRICS`.
    logits
        (N, K).
    """

    proteins: Ints
    metrics: dict[str, Doubles]
    logits: Doubles

    def by_protein(self, values: Doubles) -> Doubles:
        """Return the means of values (N, …) over the crops of each protein, proteins ascending."""
        _, codes, counts = np.unique(self.proteins, return_inverse=True, return_counts=True)
        sums = np.zeros((len(counts), *values.shape[1:]))
        np.add.at(sums, codes, values)
        return np.asarray(sums / counts.reshape(-1, *[1] * (values.ndim - 1)))

    def mean(self, name: str) -> float:
        """Return the mean of a metric; every protein counts the same, however many crops it has."""
        return float(self.by_protein(self.metrics[name]).mean())


class _Chunks(Dataset[Batch]):
    def __init__(
        self,
        data: TrainingData,
        inputs: ProteinTensors,
        rows: Ints,
        chunks: list[Ints],
        proteins: Ints | None,
    ) -> None:
        self.data, self.inputs, self.rows, self.chunks, self.proteins = data, inputs, rows, chunks, proteins

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Batch:
        at = self.chunks[number]
        proteins = None if self.proteins is None else self.proteins[at]
        return read_batch(self.data, self.inputs, self.rows[at], proteins=proteins)


def images(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return nucleus and protein images of a batch, (B, 1, S, S) float32 in [0, 1] each."""
    pairs = batch.pairs.float() / 255
    return pairs[:, :1].contiguous(memory_format=torch.channels_last), pairs[:, 1:]


# ---- losses ----


def loss_terms(
    image: Tensor,
    logits: Tensor,
    real: Tensor,
    targets: Tensor,
    names: Collection[str],
    *,
    multi_label: bool,
) -> dict[str, Tensor]:
    """Return terms of the loss for each crop.

    Parameters
    ----------
    image, real
        (B, 1, H, W) drawn and real protein images in [0, 1].
    logits, targets
        (B, K).
    names
        Which terms: ``mae``, ``mse``, ``ssim`` (1 - SSIM), ``label``.
    multi_label
        Whether a protein may have several classes.

    Returns
    -------
    dict
        (B,) for each name.
    """
    terms = {}
    if "mae" in names:
        terms["mae"] = (image - real).abs().mean((1, 2, 3))
    if "mse" in names:
        terms["mse"] = (image - real).square().mean((1, 2, 3))
    if "ssim" in names:
        terms["ssim"] = 1 - structural_similarity(real, image)
    if "label" in names:
        terms["label"] = label_loss(logits, targets, multi_label=multi_label)
    return terms


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the weighted sum of the terms."""
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum(0)


def label_loss(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Return the cross-entropy (B,) of logits (B, K) against one- or multi-hot targets (B, K).

    For several labels it is binary, the mean over the classes.

    Returns
    -------
    Tensor
        (B,).
    """
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return -(targets * F.log_softmax(logits, 1)).sum(1)


def structural_similarity(real: Tensor, drawn: Tensor) -> Tensor:
    """Return the SSIM (B,) of images (Wang et al. 2004), differentiable; scikit-image's default.

    Parameters
    ----------
    real, drawn
        (B, 1, H, W) in [0, 1], at least 7 x 7.

    Returns
    -------
    Tensor
        (B,), at most 1.
    """
    maps = torch.cat([real, drawn, real * real, drawn * drawn, real * drawn], 1)
    a, b, aa, bb, ab = F.avg_pool2d(maps, SSIM_WINDOW, 1).unbind(1)
    # Sample and not population variance, as in scikit-image.
    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    var_a, var_b, cov = sample * (aa - a * a), sample * (bb - b * b), sample * (ab - a * b)
    top = (2 * a * b + _C1) * (2 * cov + _C2)
    return (top / ((a * a + b * b + _C1) * (var_a + var_b + _C2))).mean((1, 2))


def correlation(real: Tensor, drawn: Tensor) -> Tensor:
    """Return the Pearson correlation (B,) of images (B, 1, H, W); 0 where either is constant."""
    a, b = ((each - each.mean((1, 2, 3), keepdim=True)).flatten(1) for each in (real, drawn))
    norms = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(norms > 1e-9, (a * b).sum(1) / norms.clamp(min=1e-9), torch.zeros_like(norms))


# ---- sample images ----

_SAMPLES = 6
_GAP, _HEADER, _CAPTION = 4, 18, 14
_BACKGROUND, _INK = (19, 20, 23), (233, 234, 238)


def sample_rows(data: TrainingData, rows: Ints, count: int = _SAMPLES) -> Ints:
    """Choose rows, always the same: the classes in turn, of different proteins if possible."""
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(rows)
    _, first = np.unique(data.protein_of_row[shuffled], return_index=True)
    rest = np.setdiff1d(np.arange(len(shuffled)), first)
    ordered = shuffled[np.concatenate([np.sort(first), rest])]
    kind = data.targets[data.protein_of_row[ordered]].argmax(1)
    turn = np.array([(kind[:place] == each).sum() for place, each in enumerate(kind)])
    return np.asarray(ordered[np.lexsort((kind, turn))][:count])


def sample_sheet(drawn: Floats, captions: list[str]) -> Image.Image:
    """Place samples (n, 3, S, S) side by side, two in a row, all on one intensity scale."""
    size = max(drawn.shape[-1], 96)
    block = (3 * size + 4 * _GAP, size + _GAP + _CAPTION)
    across = min(2, len(drawn))
    canvas = Image.new(
        "RGB", (across * block[0], _HEADER + -(-len(drawn) // across) * block[1] + _GAP), _BACKGROUND
    )
    pen = ImageDraw.Draw(canvas)
    for number, (panels, caption) in enumerate(zip(drawn, captions, strict=True)):
        left, top = number % across * block[0] + _GAP, _HEADER + number // across * block[1]
        write_text(pen, (left, top), caption, 10, _INK, 3 * size)
        for place, panel in enumerate(panels):
            image = Image.fromarray((np.clip(panel, 0, 1) * 255).astype(np.uint8))
            if image.width < size:
                image = image.resize((size, size), Image.Resampling.NEAREST)
            canvas.paste(image, (left + place * (size + _GAP), top + _CAPTION))
    for column in range(across):
        for place, label in enumerate(("nucleus", "real", "drawn")):
            write_text(pen, (column * block[0] + _GAP + place * (size + _GAP), 2), label, 11, _INK, size)
    return canvas
