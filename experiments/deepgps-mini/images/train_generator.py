"""Train the image generator by flow matching, on a CPU or a GPU, resumable to the step.

A second call with the same folder goes on from the last checkpoint. Every step is a function of the seed, the
data and its number.

    python train_generator.py --data runs/images/coarse.npz --out runs/images/coarse
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples import Batch, Pack, conditions, one_hot, plain_batch, training_batch
from muon import Muon
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deepgps.models.flow_matching import (
    WIDTHS,
    FlowMatchingUNet,
    between,
    condition,
    draw,
    encode,
    mean_image,
    noise,
    velocity_loss,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the generator is trained."""

    fine: bool = False
    """Whether it is the second stage, which adds grain to an image drawn at twice the pixel size."""
    size: int = 96
    """Edge of a crop in pixels."""
    widths: tuple[int, ...] = WIDTHS
    """Channels of each level of the network."""
    batch_size: int = 32
    """Crops in a step."""
    kernel_rate: float = 0.02
    """Learning rate of the kernels of the blocks, by Muon."""
    learning_rate: float = 1e-3
    """Learning rate of everything else, by AdamW."""
    warm_up: int = 100
    """Steps in which the learning rate rises."""
    images: int = 0
    """Images after which to stop; 0 to go on until stopped."""
    decay: int = 0
    """Images before the end in which the learning rate falls to 0."""
    mean_share: float = 0.125
    """Share of a batch on which the mean image is learned."""
    mean_weight: float = 2.0
    """Weight of the mean image's squared error."""
    average: float = 0.998
    """Decay of the moving average of the weights, which draws."""
    seed: int = 0
    """Seed of the weights and of every step."""


FINE = Settings(fine=True, widths=(32, 48), mean_share=0.0)
"""Settings of the second stage."""


class Trainer:
    """Network, its moving average, optimizers and the number of the next step."""

    def __init__(self, pack: Pack, settings: Settings, device: str) -> None:
        torch.manual_seed(settings.seed)
        self.pack, self.settings, self.device = pack, settings, device
        self.rows = pack.rows("train")
        self.weights = pack.weights(self.rows)
        self.network, self.averaged = (self._network() for _ in range(2))
        self.averaged.load_state_dict(self.network.state_dict())
        self.averaged.requires_grad_(False)
        kernels, others = _kernels(self.network)
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            Muon(kernels, settings.kernel_rate),
            torch.optim.AdamW(others, settings.learning_rate, weight_decay=0.01, fused=True),
        )
        self.step = 0

    def _network(self) -> FlowMatchingUNet:
        images, heads = (2, 0) if self.settings.fine else (3, 4)
        network = FlowMatchingUNet(images, conditions(self.pack), self.settings.widths, attention=heads)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    @property
    def seen(self) -> int:
        """Images seen so far."""
        return self.step * self.settings.batch_size

    def train_step(self) -> tuple[float, float]:
        """One step; loss of the drawn and of the mean images."""
        settings = self.settings
        seed = [settings.seed, self.step]
        batch = training_batch(
            self.pack,
            self.rows,
            self.weights,
            settings.size,
            settings.batch_size,
            seed,
            fine=settings.fine,
        )
        start, at, mean = self._chance(seed)
        batch = Batch(*(part.to(self.device) for part in batch))
        encoded = encode(batch.protein)
        target = torch.where(mean[:, None, None, None] > 0, 2 * batch.protein - 1, encoded)
        mixed = between(start, encoded, at)
        with torch.autocast(self.device, torch.bfloat16):
            predicted = self.network(_last(mixed), at, batch.images, batch.given, batch.condition, mean)
        predicted = predicted.float()
        drawn_loss = velocity_loss(predicted, encoded, at) * (1 - mean)
        mean_loss = ((predicted - target) ** 2).mean((1, 2, 3)) * mean
        loss = (drawn_loss + settings.mean_weight * mean_loss).mean()
        self.network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rates = settings.kernel_rate, settings.learning_rate
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * self._pace()
            optimizer.step()
        self.step += 1
        decay = min(settings.average, self.step / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
        means = float(mean.sum())
        count = settings.batch_size - means
        return drawn_loss.sum().item() / max(count, 1), mean_loss.sum().item() / max(means, 1)

    def _chance(self, seed: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Noise (B, 1, S, S), times (B,) and whether the mean is asked for (B,)."""
        size, count = self.settings.size, self.settings.batch_size
        rng = np.random.default_rng([*seed, 1])
        noisy = rng.standard_normal((count, 1, size, size), np.float32)
        times = 1 / (1 + np.exp(0.4 - rng.standard_normal(count)))
        means = np.arange(count) < round(self.settings.mean_share * count)
        start, at, mean = (
            torch.from_numpy(part.astype(np.float32)).to(self.device) for part in (noisy, times, means)
        )
        return start, at, mean

    def _pace(self) -> float:
        """What the learning rates are multiplied by."""
        settings = self.settings
        rising = min(1.0, (self.step + 1) / settings.warm_up)
        left = (settings.images - self.seen) / settings.decay if settings.images and settings.decay else 1.0
        return min(rising, max(left, 0.0))

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "step": self.step,
            "settings": asdict(self.settings),
        }
        draft = path.with_suffix(".part")
        torch.save(state, draft)
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = int(state["step"])


def _kernels(network: FlowMatchingUNet) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters that are 3 x 3 kernels between features, and all others."""
    ends = ("stem", "unfold", "finish")
    named = list(network.named_parameters())
    inner = {name for name, each in named if each.shape[2:] == (3, 3) and not name.startswith(ends)}
    return [each for name, each in named if name in inner], [
        each for name, each in named if name not in inner
    ]


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def held_out_rows(pack: Pack, per_source: int = 24) -> NDArray[np.int64]:
    """Held-out examples to measure on, the same every time: protein images, localizations in turn."""
    rows = pack.rows("test")
    rows = rows[pack.examples[rows, 1] == 1]
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    for source in ("hpa_u2os_cells", "opencell_crops", "opencell_tiles"):
        members = rng.permutation(rows[pack.arrays["source"][pack.field(rows)] == source])
        kinds: dict[bytes, int] = {}
        order = []
        for row in members:
            classes, _, trust = pack.classes(int(row))
            if trust:
                kinds[classes.tobytes()] = turn = kinds.get(classes.tobytes(), 0) + 1
                order.append((turn, int(row)))
        chosen += [row for _, row in sorted(order)[:per_source]]
    return np.array(chosen, np.int64)


@torch.no_grad()
def held_out_metrics(trainer: Trainer) -> dict[str, float]:
    """Velocity loss on held-out examples, and correlation of the mean image by domain."""
    pack, size, fine = trainer.pack, trainer.settings.size, trainer.settings.fine
    rows = held_out_rows(pack)
    if not len(rows):
        return {}
    found: dict[str, list[float]] = {}
    for start in range(0, len(rows), 16):
        some = rows[start : start + 16]
        for landmarks in (False,) if fine else (False, True):
            batch = plain_batch(pack, some, size, landmarks=landmarks, fine=fine)
            batch = Batch(*(part.to(trainer.device) for part in batch))
            if landmarks and not batch.given[:, 1:].any():
                continue
            with torch.autocast(trainer.device, torch.bfloat16):
                means = mean_image(trainer.averaged, batch.images, batch.given, batch.condition)
            for row, real, mean, given in zip(some, batch.protein, means, batch.given, strict=True):
                domain = "hek" if pack.arrays["domain"][pack.field(np.array([row]))[0]] == 0 else "u2os"
                if not fine and (not landmarks or given[1:].all()):
                    name = f"mean r {domain}{' landmarks' if landmarks else ''}"
                    r = torch.corrcoef(torch.stack([real.flatten(), mean.flatten()]))[0, 1]
                    found.setdefault(name, []).append(float(torch.nan_to_num(r)))
            if not landmarks:
                at = (torch.arange(len(some), device=trainer.device) % 8 + 0.5) / 8
                encoded = encode(batch.protein)
                mixed = between(noise([int(n) for n in some], size, size).to(trainer.device), encoded, at)
                with torch.autocast(trainer.device, torch.bfloat16):
                    args = batch.images, batch.given, batch.condition, torch.zeros_like(at)
                    predicted = trainer.averaged(_last(mixed), at, *args).float()
                found.setdefault("loss", []).extend(velocity_loss(predicted, encoded, at).tolist())
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


@torch.no_grad()
def sample_sheet(trainer: Trainer, path: Path, *, steps: int = 10, guidance: float = 2.0) -> None:
    """Draw each class into a few held-out nuclei.

    A line of the sheet: nucleus and real protein, then a drawn image of each class; below, its mean image.
    """
    pack, size, device = trainer.pack, trainer.settings.size, trainer.device
    classes = len(pack.arrays["class_names"])
    lines = []
    for number, row in enumerate(sheet_rows(pack)):
        shown = plain_batch(pack, np.array([row]), size, landmarks=number == 3)
        domain = pack.arrays["domain"][pack.field(np.array([row]))[0]]
        ones, zeros = torch.ones(classes), torch.zeros(classes)
        words = torch.zeros(classes, len(pack.arrays["word_names"]))
        domains = torch.from_numpy(one_hot(pack, int(domain))).expand(classes, -1)
        told = condition(0.97 * torch.eye(classes) + 0.02, ones, words, zeros, domains).to(device)
        nothing = condition(torch.eye(classes), zeros, words, zeros, domains).to(device)
        images = shown.images.expand(classes, -1, -1, -1).to(device)
        given = shown.given.expand(classes, -1).to(device)
        start = noise(range(classes), size, size).to(device)
        with torch.autocast(device, torch.bfloat16):
            drawn = draw(
                trainer.averaged, start, images, given, told, nothing, steps=steps, guidance=guidance
            )
            means = mean_image(trainer.averaged, images, given, told)
        for real, some in ((shown.protein[0, 0], drawn), (shown.images[0, 1], means)):
            left = torch.cat([shown.images[0, 0], real], 1)
            lines.append(torch.cat([left, *some[:, 0].cpu()], 1))
    sheet = np.round(torch.cat(lines).numpy() * 255).astype(np.uint8)
    Image.fromarray(sheet).save(path)


@torch.no_grad()
def fine_sheet(trainer: Trainer, path: Path, *, steps: int = 3) -> None:
    """Add grain to held-out coarse images: a line is nucleus, real, coarse and two drawn images of a cell."""
    size, device = 2 * trainer.settings.size, trainer.device
    rows = held_out_rows(trainer.pack, 8)
    batch = Batch(*(part.to(device) for part in plain_batch(trainer.pack, rows, size, fine=True)))
    lines = [batch.images[:, :1], batch.protein, batch.images[:, 1:]]
    for seed in (0, 1):
        start = noise(range(seed * len(rows), (seed + 1) * len(rows)), size, size).to(device)
        with torch.autocast(device, torch.bfloat16):
            lines.append(
                draw(trainer.averaged, start, batch.images, batch.given, batch.condition, steps=steps)
            )
    cells = torch.cat(lines, 3)[:, 0].cpu()
    sheet = np.round(torch.cat(list(cells)).numpy() * 255).astype(np.uint8)
    Image.fromarray(sheet).save(path)


def sheet_rows(pack: Pack) -> list[int]:
    """Held-out examples that are shown: two OpenCell crops and two U-2 OS cells, a nucleus in the middle."""
    rows = np.random.default_rng(3).permutation(pack.rows("test"))
    rows = rows[pack.examples[rows, 1] == 1]
    sources = pack.arrays["source"][pack.field(rows)]
    shown = []
    for source in ("opencell_crops", "hpa_u2os_cells"):
        middles = [
            (pack.window(int(pack.examples[row, 0]), 16)[0].mean() < 0.3, int(row))
            for row in rows[sources == source]
        ]
        shown += [row for _, row in sorted(middles, key=lambda each: each[0])[:2]]
    return shown


def train(
    pack: Pack, settings: Settings, out: Path, *, device: str, minutes: float = 4, every: int = 6000
) -> Trainer:
    """Train until the images of the settings are seen, going on from what is in the folder.

    Parameters
    ----------
    pack
        The data.
    settings
        How to train; those of a resumed run may differ in how long it goes on.
    out
        Folder of ``last.pt``, ``metrics.jsonl`` and the sample sheets.
    device
        ``cpu`` or ``cuda``.
    minutes
        Between two checkpoints.
    every
        Images between two measurements and sample sheets; 0 for none.
    """
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(pack, settings, device)
    last = out / "last.pt"
    if last.exists():
        trainer.load(last)
    began, first, saved = time.monotonic(), trainer.seen, time.monotonic()
    smooth: NDArray[Any] | None = None
    while not settings.images or trainer.seen < settings.images:
        losses = np.array(trainer.train_step())
        smooth = losses if smooth is None else 0.98 * smooth + 0.02 * losses
        if trainer.step % 10 == 0:
            rate = (trainer.seen - first) / (time.monotonic() - began)
            print(
                f"{trainer.seen} images, loss {smooth[0]:.4f}, mean image {smooth[1]:.4f}, "
                f"{rate:.2f} images/s",
                flush=True,
            )
        if time.monotonic() - saved > 60 * minutes:
            trainer.save(last)
            saved = time.monotonic()
        if every and trainer.seen // every > (trainer.seen - settings.batch_size) // every:
            trainer.save(last)
            figures = {"images": trainer.seen, **held_out_metrics(trainer)}
            print(figures, flush=True)
            with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
            sheet = fine_sheet if settings.fine else sample_sheet
            sheet(trainer, out / f"sheet_{trainer.seen:07d}.png")
    trainer.save(last)
    return trainer


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/images/coarse.npz"))
    parser.add_argument("--out", type=Path, default=Path("runs/images/coarse"))
    parser.add_argument("--fine", action="store_true", help="train the second stage, on fine images")
    parser.add_argument("--images", type=int, default=0, help="images after which to stop; 0: never")
    parser.add_argument("--decay", type=int, default=0, help="last images with a falling learning rate")
    parser.add_argument("--threads", type=int, default=1, help="more than one is slow beside other work")
    parser.add_argument("--every", type=int, default=6000, help="images between two sample sheets")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = replace(FINE if options.fine else Settings(), images=options.images, decay=options.decay)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train(Pack.load(options.data), settings, options.out, device=device, every=options.every)


if __name__ == "__main__":
    main()
