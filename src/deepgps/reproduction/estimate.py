"""Time and disk that a reproduction takes, before it starts."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from deepgps.errors import InputError
from deepgps.proteins.features import FEATURES_NAME, feature_names
from deepgps.reproduction import published
from deepgps.reproduction.steps import MODELS, SCALES, Reproduction
from deepgps.training.joint.task import build_model

FIELD_BYTES = {"opencell": 1.4e6, "hpa": 2 * 2 * 2048**2}
"""A field of OpenCell as measured; one of the HPA at most: two channels of 2,048 x 2,048 px of 16 bits."""
HPA_FIELDS = 2
"""Fields of a protein in one cell line, for most antibodies."""
STRUCTURE_BYTES = 550 * 8 * 81
"""A PDB file of a protein of 550 residues, with 8 atoms each."""
CONNECTION = 100e6 / 8
"""Bytes a second of a connection of 100 Mbit/s."""
COPIES = 5
"""Weights in a run: of the last epoch with two moments each, of the best one, and the result."""
ESM2_DIMENSION, ESM2_WEIGHTS, ESM2_BYTES = 1280, 650e6, 2.6e9
GENERATOR_FLOP = 3 * 64.9e9
"""Of a training step of the paper-size network, for each crop: three times drawing it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step takes: seconds, None where they are few or unknown, and bytes left on the disk."""

    step: str
    seconds: float | None
    bytes: float


def estimate(reproduction: Reproduction) -> list[Estimate]:
    """Estimate time and disk of each step; a training step is timed on this machine.

    Returns
    -------
    list of Estimate
        In the order of the steps.
    """
    a_crop, weights = time_of_a_crop(reproduction)
    return [*_data(reproduction, a_crop), *_models(reproduction, a_crop, weights)]


def _data(reproduction: Reproduction, a_crop: float) -> Iterator[Estimate]:
    proteins = {source: _proteins(reproduction, source) for source in published.PROTEINS}
    for source, count in proteins.items():
        share = count / published.PROTEINS[source]
        fields = published.FIELDS * share if source == "opencell" else HPA_FIELDS * count
        fetched = fields * FIELD_BYTES[source] + (source == "opencell") * count * STRUCTURE_BYTES
        yield Estimate(f"fetch {source}, at 100 Mbit/s", fetched / CONNECTION, fetched)
        size = reproduction.recipe(MODELS[0]).crop.size_px
        yield Estimate(f"prepare {source}", None, published.CROPS[source] * share * 2 * size**2)
    if reproduction.used_encoder == FEATURES_NAME:
        yield Estimate("embed", None, 0)
    else:
        work = 2 * ESM2_WEIGHTS * 550 * sum(proteins.values())
        yield Estimate(
            "embed with ESM2 of 650 million weights", work * a_crop / GENERATOR_FLOP, 2 * ESM2_BYTES
        )


def _models(reproduction: Reproduction, a_crop: float, weights: int) -> Iterator[Estimate]:
    for model in MODELS:
        share = _proteins(reproduction, model.source) / published.PROTEINS[model.source]
        epochs = reproduction.recipe(model).training.max_epochs
        crops = published.TRAINING_CROPS[model.name] * share * epochs
        yield Estimate(f"train {model.name}", crops * a_crop, 4 * COPIES * weights)


def _proteins(reproduction: Reproduction, source: str) -> int:
    every = published.PROTEINS[source]
    return min(every, SCALES[reproduction.scale].proteins.get(source, every))


def time_of_a_crop(reproduction: Reproduction) -> tuple[float, int]:
    """Time a training step of single-2 on this machine's GPU, or on its CPU.

    Returns
    -------
    tuple
        Seconds for each crop, and the number of weights.
    """
    recipe = reproduction.recipe(MODELS[0])
    dimension = len(feature_names()) if reproduction.used_encoder == FEATURES_NAME else ESM2_DIMENSION
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, batch = recipe.crop.size_px, recipe.training.batch_size if device == "cuda" else 2
    model = build_model(recipe, dimension).to(device)
    optimiser = torch.optim.AdamW(model.parameters())
    nuclei = torch.rand(batch, 1, size, size, device=device)
    protein = {"embedding": torch.rand(batch, dimension, device=device)}
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        drawn = model(nuclei, protein)
        (drawn.image.mean() + drawn.logits.mean()).backward()
        optimiser.step()
        seconds = float(time.perf_counter() - started + 0 * drawn.image.mean().item())
    return seconds / batch, sum(each.numel() for each in model.parameters())


def check_disk(reproduction: Reproduction, estimates: list[Estimate]) -> None:
    """Refuse a disk that is too small for what is not there yet.

    Raises
    ------
    InputError
        If it is.
    """
    reproduction.data.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in reproduction.data.rglob("*") if path.is_file())
    more = sum(each.bytes for each in estimates) - there
    free = shutil.disk_usage(reproduction.data).free
    if more > free:
        raise InputError(
            f"A reproduction at scale '{reproduction.scale}' needs about {more / 1e9:,.0f} GB more, and "
            f"'{reproduction.data}' has {free / 1e9:,.0f} GB free; give --data a folder on a larger disk."
        )


def estimate_lines(estimates: list[Estimate]) -> Iterator[str]:
    """Yield the estimate as lines of text."""
    seconds, size = (
        sum(column) for column in zip(*((e.seconds or 0, e.bytes) for e in estimates), strict=True)
    )
    rows = [*estimates, Estimate("together", seconds, size)]
    width = max(len(each.step) for each in rows)
    for each in rows:
        yield f"{each.step:<{width}}  {_duration(each.seconds):>10}  {_size(each.bytes):>9}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "this machine's CPU"
    yield f"Times of training and embedding are of one step, timed on {device}."
    if not torch.cuda.is_available():
        yield "At paper size, training takes days to months on a CPU, and hours on a GPU."


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "minutes"
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"
