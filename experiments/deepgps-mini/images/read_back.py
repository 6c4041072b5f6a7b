"""Read localizations back from images: a small network that is trained on real images only.

It sees the protein, each image scaled to its own brightness, and the nuclei, in crops of both cell lines. Its
accuracy on real held-out images is the ceiling for drawn ones; its features are those of the kernel and
Fréchet distances.

    python experiments/deepgps-mini/images/read_back.py --data runs/images/structure.npz \
        --out runs/images/read_back.pt
"""

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from real_images import SIZE, crops, single_class
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.arrays import Bytes, Doubles, Floats, Indices
from deepgps.training.mini.image_pack import ImagePack

MARGIN = 8
"""Pixels by which a training crop may be shifted."""
FEATURES = 128
READ_AS = {"extracellular": "er"}
"""Classes without real images, and the class whose images they are drawn like."""


class ReadBack(nn.Module):
    """Convolutional classifier of (B, 2, S, S) protein and nucleus images into classes.

    Parameters
    ----------
    classes
        Their slugs.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        widths, layers = (8, 32, 64, 96, 128, FEATURES), []
        for depth, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if depth in (1, 3) else 1
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(nn.PixelUnshuffle(2), *layers)
        self.head = nn.Linear(2 * FEATURES, len(classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K), and features (B, 2 `FEATURES`): mean and maximum over positions."""
        body = self.body(images)
        features = torch.cat([body.mean((2, 3)), body.amax((2, 3))], 1).float()
        return self.head(F.dropout(features, 0.3, self.training)), features


def ready(protein: Floats, nuclei: Floats) -> Tensor:
    """Scale images (N, S, S) as the network sees them: (N, 2, S, S)."""
    pairs = []
    for images in (protein, nuclei):
        low, high = (np.percentile(images, q, axis=(1, 2), keepdims=True) for q in (1, 99.8))
        scaled = np.clip((images - low) / np.maximum(high - low, 1e-3), 0, 1)
        pairs.append(2 * np.sqrt(scaled) - 1)
    return torch.from_numpy(np.stack(pairs, 1).astype(np.float32))


def train(pack: ImagePack, *, steps: int = 900, batch: int = 48, seed: int = 0) -> ReadBack:
    """Train on real images: each class as often, and within it domains by the root of their numbers."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows, slugs = single_class(pack, "train")
    classes = tuple(name for name in pack.arrays["class_names"].tolist() if name in set(slugs.tolist()))
    targets = torch.tensor([classes.index(slug) for slug in slugs])
    protein, nuclei = (np.round(each * 255).astype(np.uint8) for each in crops(pack, rows, SIZE + 2 * MARGIN))
    domains = pack.arrays["domain"][pack.fields(rows)]
    weights = np.zeros(len(rows))
    for slug in classes:
        mine = slugs == slug
        counts = np.bincount(domains[mine], minlength=3)
        weights[mine] = counts[domains[mine]] ** -0.5
        weights[mine] /= weights[mine].sum()
    weights /= weights.sum()
    network = ReadBack(classes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    began = time.process_time()
    for step in range(steps):
        chosen = rng.choice(len(rows), batch, p=weights)
        images = _augmented(protein[chosen], nuclei[chosen], rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}, loss {loss.item():.3f}, {time.process_time() - began:.0f} s", flush=True)
    network.eval()
    return network


def _augmented(protein: Bytes, nuclei: Bytes, rng: np.random.Generator) -> Tensor:
    """Shift, turn and flip each pair; vary contrast, focus and noise."""
    cut = []
    for pair in np.stack([protein, nuclei], 1):
        top, left = rng.integers(2 * MARGIN + 1, size=2)
        square = np.rot90(pair[:, top : top + SIZE, left : left + SIZE], int(rng.integers(4)), (1, 2))
        cut.append(square[:, :, ::-1] if rng.random() < 0.5 else square)
    images = np.stack(cut).astype(np.float32) / 255
    shape = (len(images), 2, 1, 1)
    images = images ** rng.uniform(0.75, 1.35, shape).astype(np.float32)
    noisy = (rng.uniform(0, 0.05, shape) * (rng.random(shape) < 0.5)).astype(np.float32)
    images = np.clip(images + noisy * rng.standard_normal(images.shape, np.float32), 0, 1)
    return ready(np.asarray(images[:, 0], np.float32), np.asarray(images[:, 1], np.float32))


@torch.no_grad()
def read(network: ReadBack, protein: Floats, nuclei: Floats) -> tuple[Indices, Doubles]:
    """Return the class numbers (N,) that images (N, S, S) are read as, and their features (N, F)."""
    numbers, features = [], []
    for start in range(0, len(protein), 64):
        part = slice(start, start + 64)
        logits, found = network(ready(protein[part], nuclei[part]))
        numbers.append(logits.argmax(1).numpy())
        features.append(found.double().numpy())
    return np.concatenate(numbers), np.concatenate(features)


def save(network: ReadBack, path: Path) -> None:
    """Write the network."""
    torch.save({"classes": network.classes, "weights": network.state_dict()}, path)


def load(path: Path) -> ReadBack:
    """Read a network that `save` wrote."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = ReadBack(tuple(state["classes"]))
    network.load_state_dict(state["weights"])
    return network.eval()


def main() -> None:
    """Train, and print the accuracy on real held-out images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/images/structure.npz"))
    parser.add_argument("--out", type=Path, default=Path("runs/images/read_back.pt"))
    parser.add_argument("--steps", type=int, default=900)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pack = ImagePack.load(options.data)
    network = train(pack, steps=options.steps)
    save(network, options.out)
    rows, slugs = single_class(pack, "test")
    found, _ = read(network, *crops(pack, rows, SIZE))
    hits = np.array(network.classes)[found] == slugs
    for slug in network.classes:
        if (slugs == slug).any():
            print(f"{slug}: {hits[slugs == slug].mean():.2f} of {(slugs == slug).sum()}")


if __name__ == "__main__":
    main()
