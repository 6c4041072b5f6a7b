"""Train the nucleus segmenter that ships.

    python experiments/deepgps-mini/nucleus_network.py --out nuclei.onnx

A narrow U-Net learns two maps at 0.5 µm a pixel from one half of the fluorescence images of the 2018 Data
Science Bowl: nucleus or not, and how deep in its nucleus a pixel lies (twice the distance to the outline over
the largest such distance, clipped at 1: nuclei of all sizes peak at 1, and a valley separates touching ones).
`nucleus_segmentation.py` tests on the other half. The halves are the parity of the sha256 of an image's name,
so that they do not depend on the order or the number of the images.

Training takes the time given and can continue from the weights of an earlier round (`--start-from`). The
card, `docs/reference/nucleus-network.md`, lists the rounds of the network that ships.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from scipy import ndimage
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deepgps.arrays import Floats, LabelImage
from deepgps.images.processing import resample
from deepgps.images.segmentation import NETWORK_PIXEL_SIZE_UM
from deepgps.models.unet import double_conv
from deepgps.training.graphs import rounded_to_half, to_onnx
from nucleus_segmentation import DsbImage, half_of, read_images

WIDTHS = (32, 64, 96, 128)
PATCH, BATCH = 160, 8


class NucleusNet(nn.Module):
    """(B, 1, H, W) in [0, 1] to logits (B, 2, H, W) of nucleus and depth; H and W are multiples of 16.

    A U-Net at half resolution: four pixels go in, and come out, as channels of one.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.down = nn.ModuleList(double_conv(*pair) for pair in zip((8, *widths), widths, strict=False))
        self.up = nn.ModuleList(double_conv(here + below, here) for here, below in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 8, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute both maps."""
        # The square root makes dim nuclei visible beside bright ones.
        maps = F.pixel_unshuffle(torch.cat([pixels, pixels.sqrt()], 1), 2)
        skips = []
        for depth, stage in enumerate(self.down):
            maps = stage(F.max_pool2d(maps, 2) if depth else maps)
            skips.append(maps)
        for skip, stage in zip(skips[-2::-1], reversed(self.up), strict=True):
            maps = stage(torch.cat([skip, F.interpolate(maps, scale_factor=2.0)], 1))
        return F.pixel_shuffle(self.head(maps), 2)


def depths(labels: LabelImage) -> Floats:
    """Return twice the distance to the outline over the largest, clipped at 1; the border is no outline."""
    wide = np.pad(labels, 1, "edge")
    depth = np.zeros(wide.shape, np.float32)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            grown = tuple(slice(span.start, span.stop + 2) for span in box)
            inside = wide[grown] == label
            distance = ndimage.distance_transform_edt(inside) - 0.5
            depth[grown][inside] = np.minimum(2 * distance / distance.max(), 1)[inside]
    return depth[1:-1, 1:-1]


def weights(labels: LabelImage, pixel_size_um: float) -> Floats:
    """Return weights of 1, and up to 6 where two nuclei touch."""
    highest = ndimage.maximum_filter(labels, 3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, highest.max() + 1), 3)
    between = ((highest > 0) & (lowest < highest)).astype(np.float32)
    return np.asarray(1 + 5 * np.minimum(3 * ndimage.gaussian_filter(between, 0.7 / pixel_size_um), 1))


def maps_of(image: DsbImage) -> Tensor:
    """(4, H, W) at `NETWORK_PIXEL_SIZE_UM`: pixels, nucleus or not, depth, weight."""
    truth, size = image.truth, image.pixel_size_um
    maps = [image.pixels, (truth > 0).astype(np.float32), depths(truth), weights(truth, size)]
    return torch.from_numpy(np.stack([resample(each, size, NETWORK_PIXEL_SIZE_UM) for each in maps]))


def patch(maps: Tensor, rng: np.random.Generator) -> Tensor:
    """Cut a random patch (4, PATCH, PATCH), rotated, mirrored, stretched; weight 0 beyond the border.

    Sizes vary because the scales are estimates.
    """
    height, width = maps.shape[1:]
    angle, scale = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.35, 0.35))
    stretch = np.diag([scale * np.exp(rng.uniform(-0.1, 0.1)) * rng.choice((-1, 1)), scale])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_unit = np.diag([PATCH / width, PATCH / height])
    nuclear = np.argwhere(maps[1, ::8, ::8].numpy() > 0.5) * 8 / (height, width)
    middle = (
        rng.choice(nuclear)[::-1] * 2 - 1
        if len(nuclear) and rng.random() < 0.8
        else rng.uniform(-0.9, 0.9, 2)
    )
    affine = np.column_stack([to_unit @ turn @ stretch, middle])
    grid = F.affine_grid(torch.tensor(affine[None], dtype=torch.float32), [1, 1, PATCH, PATCH], False)
    inside = (grid.abs() <= 1).all(-1).float()
    return torch.cat(
        [F.grid_sample(maps[None], grid, padding_mode="reflection", align_corners=False)[0], inside]
    )


def disturbed(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary (H, W) pixels: contrast, blur, mottled stain as of nucleoli, uneven light, noise."""
    pixels = pixels.clamp(0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.3:
        mottle = torch.from_numpy(rng.normal(size=(1, 1, *2 * [PATCH // int(rng.integers(3, 12))])))
        mottle = F.interpolate(mottle.float(), (PATCH, PATCH), mode="bicubic")[0, 0]
        pixels = pixels * torch.exp(rng.uniform(0, 0.4) * mottle)
    if rng.random() < 0.2:
        pixels = torch.from_numpy(ndimage.gaussian_filter(pixels.numpy(), rng.uniform(0.3, 1.0)))
    if rng.random() < 0.3:
        light = F.interpolate(
            torch.from_numpy(rng.random((1, 1, 2, 2))).float(), (PATCH, PATCH), mode="bilinear"
        )
        pixels = pixels + rng.uniform(0, 0.3) * light[0, 0]
    noise = rng.choice((0, 0, 0.01, 0.03)) * rng.normal(size=pixels.shape)
    pixels = rng.uniform(0.6, 1.2) * (pixels + torch.from_numpy(noise).float())
    shifted: Tensor = pixels - rng.choice((0, 0, 0.03)) + rng.choice((0, 0, 0.05))
    return shifted.clamp(0, 1)


def batches(images: list[DsbImage], rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield pixels (B, 1, P, P), targets (B, 2, P, P) and weights (B, 1, P, P), endlessly.

    Images are drawn in proportion to the square root of their number of nuclei.
    """
    maps = [maps_of(image) for image in images]
    share = np.sqrt([max(image.truth.max(), 4) for image in images])
    while True:
        chosen = rng.choice(len(maps), BATCH, p=share / share.sum())
        patches = torch.stack([patch(maps[index], rng) for index in chosen])
        pixels = torch.stack([disturbed(each[0], rng) for each in patches])
        yield pixels[:, None], patches[:, 1:3].clamp(0, 1), patches[:, 3:]


def train(images: list[DsbImage], minutes: float, seed: int, start_from: Path | None) -> nn.Module:
    """Train for some minutes; return the moving average of the weights."""
    torch.manual_seed(seed)
    net = NucleusNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start_from:
        net.load_state_dict(torch.load(start_from, weights_only=True))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-3)
    start, losses = time.monotonic(), []
    for step, (pixels, targets, weight) in enumerate(batches(images, np.random.default_rng(seed))):
        done = (time.monotonic() - start) / (60 * minutes)
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = (
            2e-3 * min(1, step / 100) * (0.5 + 0.5 * np.cos(np.pi * done)) + 1e-6
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(pixels.contiguous(memory_format=torch.channels_last))
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets, weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        average.update_parameters(net)
        losses.append(loss.item())
        if step % 100 == 99:
            print(f"step {step + 1}, {done:.0%}: loss {np.mean(losses[-100:]):.4f}", flush=True)
    return average.module.eval()


def write(net: nn.Module, path: Path) -> None:
    """Write the graph for any batch and any size in steps of 16."""
    sides = [16 * torch.export.Dim(name, min=2, max=256) for name in ("rows", "columns")]
    free = {0: torch.export.Dim("batch"), 2: sides[0], 3: sides[1]}
    path.write_bytes(to_onnx(rounded_to_half(net), {"pixels": torch.rand(2, 1, 64, 96)}, ("maps",), [free]))


def main() -> None:
    """Read the command line, train, and write weights and graph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--half", type=int, default=0, help="which half to train on, 0 (ships) or 1")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--start-from", type=Path, help="weights (.pt) of an earlier round")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = [image for image in read_images() if half_of(image.name) == arguments.half]
    net = train(images, arguments.minutes, arguments.seed, arguments.start_from)
    torch.save(net.state_dict(), arguments.out.with_suffix(".pt"))
    write(net, arguments.out)
    print(f"{len(images)} images; {arguments.out} has {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
