"""Measure training of the paper-size network: our loop against a plain one, in one run on one machine.

``python benchmarks/train.py`` trains the network of the recipe ``single-2`` (U-Net 64-128-256-512-1024, 208
px) on noise, a few steps each way, alternately:

- *plain*: float32, channels first, as a simple script has it, with the default AdamW;
- *plain, keeping all*: the same, which moves every image and loss to the CPU in every step and appends them
  to arrays that grow, as the paper's published code does;
- *ours*: `deepgps.training.loop`, reading and laying out crops included, in bfloat16 and
  channels last, and the same in float32.

The fastest step of each way counts. Shares are of the peak of this machine, measured in the same run with
large matrix products and a large convolution. On a GPU, our loop is also measured with a compiled network.
Prints Markdown.
"""

import argparse
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L  # noqa: N812
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from deepgps.training.joint.data import BatchParts, epoch_order
from deepgps.training.joint.task import JointTask, build_model, label_loss
from deepgps.training.loop import Trainer
from deepgps.training.recipe import JointRecipe, load_recipe
from peak import peaks

EMBEDDING, PROTEINS, CROPS = 1280, 16, 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Embeddings:
    """Noise in the place of embeddings."""

    def __init__(self) -> None:
        self.values = torch.randn(PROTEINS, EMBEDDING)

    def batch(self, proteins: Any) -> Mapping[str, Tensor]:
        """Look them up."""
        return {"embedding": self.values[torch.as_tensor(proteins)]}


def noise(size: int) -> Any:
    """Return random crops and proteins, as the loop reads them."""
    rng = np.random.default_rng(0)
    return SimpleNamespace(
        store=SimpleNamespace(crops=rng.integers(0, 255, (CROPS, 2, size, size), np.uint8)),
        targets=np.eye(2, dtype=np.float32)[np.arange(PROTEINS) % 2],
        protein_of_row=np.arange(CROPS) % PROTEINS,
        rows={"train": np.arange(CROPS)},
    )


def seconds(step: Callable[[int], object], number: int = 0) -> float:
    """Return the seconds of a step."""
    start = time.perf_counter()
    step(number)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def fastest(ways: Mapping[str, Callable[[int], object]], steps: int) -> dict[str, float]:
    """Return the seconds of the fastest step of each way, measured alternately; the first is not counted."""
    measured = [{way: seconds(step, number) for way, step in ways.items()} for number in range(steps + 1)]
    return {way: min(each[way] for each in measured[1:]) for way in ways}


def plain(recipe: JointRecipe, data: Any, *, keep: bool) -> Callable[[int], object]:
    """Return a step as in a plain script."""
    model = build_model(recipe, EMBEDDING).to(DEVICE).train()
    optimiser = torch.optim.AdamW(model.parameters(), 2e-4)
    inputs, size = Embeddings(), recipe.training.batch_size
    losses, images = np.zeros(0), np.zeros((0, 1, recipe.crop.size_px, recipe.crop.size_px), np.float32)

    def step(number: int) -> None:
        nonlocal losses, images
        rows = np.arange(number * size, (number + 1) * size) % CROPS
        pairs = torch.from_numpy(data.store.crops[rows] / np.float32(255)).to(DEVICE)
        protein = {name: each.to(DEVICE) for name, each in inputs.batch(data.protein_of_row[rows]).items()}
        targets = torch.from_numpy(data.targets[data.protein_of_row[rows]]).to(DEVICE)
        optimiser.zero_grad()
        drawn = model(pairs[:, :1], protein)
        loss = F.l1_loss(drawn.image, pairs[:, 1:])
        loss = loss + label_loss(drawn.logits, targets, multi_label=False).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if keep:
            losses = np.append(losses, loss.detach().cpu().numpy())
            images = np.concatenate([images, drawn.image.detach().cpu().numpy()])

    return step


def ours(
    recipe: JointRecipe, data: Any, precision: str, *, compiled: bool = False
) -> Callable[[int], object]:
    """Return a step of the loop that `deepgps train` runs, with the reading of its crops."""
    for part in ("fabric", "pytorch"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.ERROR)
    fabric = L.Fabric(accelerator=DEVICE.type, devices=1, precision=precision)  # type: ignore[arg-type]
    module = build_model(recipe, EMBEDDING)
    if compiled:
        module.generator.compile()
    task = JointTask(recipe, data, Embeddings(), module, fabric)
    trainer = Trainer.of(task, fabric, Path())
    parts = BatchParts(data, task.inputs, epoch_order(data, data.rows["train"], 0, recipe.training))
    trainer.model.train()
    return lambda number: trainer._train_batch(fabric.to_device(parts[number % len(parts)]), 0, number)


def flop_of_an_image(recipe: JointRecipe) -> float:
    """Return the floating-point operations of one image, forward and backward."""
    model, size = build_model(recipe, EMBEDDING), recipe.crop.size_px
    with FlopCounterMode(display=False) as counter:
        drawn = model(torch.rand(2, 1, size, size), {"embedding": torch.randn(2, EMBEDDING)})
        (drawn.image.mean() + drawn.logits.mean()).backward()
    return float(counter.get_total_flops() / 2)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, help="threads of the CPU; as many as it has cores if not given"
    )
    parser.add_argument("--widths", help="of a smaller network, to try this out")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    widths = [f"model.widths=[{options.widths}]"] if options.widths else []
    recipe = load_recipe("single-2", [f"training.batch_size={options.batch_size}", *widths])
    assert isinstance(recipe, JointRecipe)
    data, single, half = noise(recipe.crop.size_px), torch.float32, torch.bfloat16
    ways = {
        "plain, keeping all": plain(recipe, data, keep=True),
        "plain": plain(recipe, data, keep=False),
        "ours, float32": ours(recipe, data, "32-true"),
        "ours": ours(recipe, data, "bf16-mixed"),
    }
    if DEVICE.type == "cuda":
        ways["ours, compiled"] = ours(recipe, data, "bf16-mixed", compiled=True)
    flop, before = flop_of_an_image(recipe), os.getloadavg()[0]
    rates_of = {dtype: peaks(dtype, DEVICE) for dtype in (single, half)}
    measured = fastest(ways, options.steps)
    name = (
        torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    print(f"{name}; load {before:.1f} before and {os.getloadavg()[0]:.1f} after; torch {torch.__version__};")
    print(f"batches of {options.batch_size}, the fastest of {options.steps} steps; {flop / 1e9:.0f} GFLOP a")
    print("image, forwards and backwards.\n")
    for dtype, rates in rates_of.items():
        described = ", ".join(f"{what} {rate / 1e9:,.0f} GFLOP/s" for what, rate in rates.items())
        print(f"- {str(dtype)[6:]}: {described}")
    print("\n| loop | images/s | times plain | of the matrices' rate | of the convolution's |")
    print("|---|---|---|---|---|")
    for way, each in measured.items():
        rates = rates_of[single if "plain" in way or "32" in way else half]
        shares = " | ".join(
            f"{100 * options.batch_size / each * flop / rate:.0f} %" for rate in rates.values()
        )
        print(f"| {way} | {options.batch_size / each:.2f} | {measured['plain'] / each:.2f} | {shares} |")


if __name__ == "__main__":
    main()
