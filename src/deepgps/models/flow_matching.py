"""Protein images by conditional flow matching.

A network is trained to remove noise from protein images; an image is drawn by starting from noise alone and
removing it step by step (flow matching: Lipman et al. 2023, arXiv:2210.02747). What is given of the cell and
of the protein steers each step, and more strongly so with classifier-free guidance (Ho and Salimans 2022,
arXiv:2207.12598).

Intensities enter as ``2 sqrt(p) - 1``, because the noise of a microscope grows with the square root of the
signal. Between noise ``z`` at time 0 and an image ``x`` at time 1 lies ``t x + (1 - t) z``; its velocity is
``x - z``. The network predicts the clean image, from which the velocity follows, and its loss is the error of
the velocity.

The same network also predicts the mean of all images that could be drawn, in one pass.

Shapes: B images, C image channels of the cell (the nucleus first), K classes, W annotation words, D domains.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WIDTHS = (96, 160, 224)
"""Channels of each level of the network that draws structure."""
LATEST = 0.9
"""Time from which the velocity's error is weighted no further: the clean image is then almost there."""


class FlowMatchingUNet(nn.Module):
    """Predicts the clean protein image from a noisy one, the cell and what is known of the protein.

    A U-Net over folded pixels: each square of ``fold`` x ``fold`` pixels becomes the channels of one
    position, and a small convolution at full resolution finishes the image.

    Parameters
    ----------
    images
        C, the image channels of the cell.
    conditions
        Numbers that describe the protein, as `condition` lays them out.
    widths
        Channels of each level; each level has half the resolution of the one before.
    fold
        Edge of the square of pixels that is folded into channels.
    embedding
        Size of the vector that carries time and condition.
    attention
        Heads of the self-attention in the two deepest levels; 0 for none.
    """

    def __init__(
        self,
        images: int,
        conditions: int,
        widths: Sequence[int] = WIDTHS,
        fold: int = 4,
        embedding: int = 256,
        attention: int = 4,
    ) -> None:
        super().__init__()
        self.images, self.conditions, self.fold = images, conditions, fold
        squares = fold * fold
        self.time = _mlp(64, embedding)
        self.condition = _mlp(conditions + images + 1, embedding)
        self.stem = nn.Conv2d((1 + images) * squares, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.halve = nn.ModuleList()
        channels = widths[0]
        for width in widths:
            if self.down:
                self.halve.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
            self.down.append(_Level([channels, width, width], embedding))
            channels = width
        self.middle = _Level([channels, channels], embedding, attention)
        self.up = nn.ModuleList()
        for depth, width in enumerate(reversed(widths)):
            heads = attention if depth == 1 else 0
            self.up.append(_Level([channels + width, width, width], embedding, heads))
            channels = width
        self.unfold = nn.Conv2d(channels, 2 * squares, 3, padding=1)
        self.finish = nn.Sequential(
            nn.Conv2d(3 + images, 12, 3, padding=1), nn.SiLU(), nn.Conv2d(12, 1, 3, padding=1)
        )

    def forward(
        self, noisy: Tensor, time: Tensor, images: Tensor, given: Tensor, condition: Tensor, mean: Tensor
    ) -> Tensor:
        """Predict the clean image, or the mean of all that could be.

        Parameters
        ----------
        noisy
            (B, 1, H, W) between noise and the encoded image; H and W multiples of ``fold``.
        time
            (B,) in [0, 1]: 0 where it is noise alone.
        images
            (B, C, H, W) images of the cell in [0, 1].
        given
            (B, C) 1 where such an image is given, 0 where what stands in its place is to be ignored.
        condition
            (B, conditions) as `condition` makes it.
        mean
            (B,) 0 to predict the clean image, as ``2 sqrt(p) - 1``; 1 to predict the mean of the intensities,
            as ``2 p - 1``, for which `noisy` and `time` are ignored.

        Returns
        -------
        Tensor
            (B, 1, H, W).
        """
        drawn = 1 - mean
        noisy, time = noisy * drawn[:, None, None, None], time * drawn
        cell = (2 * images - 1) * given[:, :, None, None]
        described = torch.cat([condition, given, mean[:, None]], 1)
        embedding = F.silu(self.time(_waves(time)) + self.condition(described))
        seen = torch.cat([noisy, cell], 1)
        features = self.stem(F.pixel_unshuffle(seen, self.fold))
        skips = []
        for depth, level in enumerate(self.down):
            features = level(self.halve[depth - 1](features) if depth else features, embedding)
            skips.append(features)
        features = self.middle(features, embedding)
        for level in self.up:
            skip = skips.pop()
            if skip.shape[-2:] != features.shape[-2:]:
                features = F.interpolate(features, size=skip.shape[-2:], mode="nearest")
            features = level(torch.cat([features, skip], 1), embedding)
        unfolded = F.pixel_shuffle(self.unfold(F.silu(features)), self.fold)
        finished: Tensor = unfolded[:, :1] + self.finish(torch.cat([unfolded, seen], 1))
        return finished


class _Level(nn.Module):
    """Residual blocks of one resolution; `channels` before, between and after them."""

    def __init__(self, channels: Sequence[int], embedding: int, attention: int = 0) -> None:
        super().__init__()
        pairs = pairwise(channels)
        self.blocks = nn.ModuleList(_Block(before, after, embedding) for before, after in pairs)
        self.attention = _Attention(channels[-1], attention) if attention else nn.Identity()

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            features = block(features, embedding)
        attended: Tensor = self.attention(features)
        return attended


class _Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the embedding."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, before), nn.GroupNorm(8, after)])
        self.modulate = nn.Linear(embedding, 2 * after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        changed = self.first(F.silu(self.norms[0](features)))
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, 1)
        changed = self.norms[1](changed) * (1 + scale) + shift
        block: Tensor = self.skip(features) + self.second(F.silu(changed))
        return block


class _Attention(nn.Module):
    """Self-attention over all positions, added to the features."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        projected = self.project(self.norm(features)).permute(0, 2, 3, 1)
        projected = projected.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        # By hand: in training on CPUs a third of the time of torch's own function, for so few positions.
        scores = (query * (channels // self.heads) ** -0.5) @ key.transpose(2, 3)
        attended = (scores.softmax(-1).to(value.dtype) @ value).permute(0, 2, 1, 3)
        attended = attended.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        summed: Tensor = features + self.out(attended)
        return summed


def condition(
    classes: Tensor, classes_known: Tensor, words: Tensor, words_known: Tensor, domain: Tensor
) -> Tensor:
    """Lay out what is known of a protein as the network expects it.

    Parameters
    ----------
    classes
        (B, K) localization probabilities.
    classes_known, words_known
        (B,) 1 where they are known; what is not known enters as 0.
    words
        (B, W) finer annotation words, 1 where one applies.
    domain
        (B, D) one-hot of cell line and microscope; all 0 where unknown.

    Returns
    -------
    Tensor
        (B, K + W + D + 2).
    """
    known, worded = classes_known[:, None], words_known[:, None]
    return torch.cat([classes * known, known, words * worded, worded, domain], 1)


def encode(image: Tensor) -> Tensor:
    """Encode intensities in [0, 1] as ``2 sqrt(p) - 1``."""
    return 2 * image.clamp(0, 1).sqrt() - 1


def decode(encoded: Tensor) -> Tensor:
    """Undo `encode`; what is out of range is clipped."""
    return ((encoded + 1) / 2).clamp(0, 1) ** 2


def between(noise: Tensor, encoded: Tensor, time: Tensor) -> Tensor:
    """Mix noise and encoded images (B, 1, H, W) at times (B,)."""
    at = time[:, None, None, None]
    return at * encoded + (1 - at) * noise


def velocity_loss(predicted: Tensor, encoded: Tensor, time: Tensor) -> Tensor:
    """Squared error (B,) of the velocity that follows from a predicted clean image.

    From the mix at time t, the velocity of the true image differs by ``(predicted - encoded) / (1 - t)``.

    Parameters
    ----------
    predicted, encoded
        (B, 1, H, W) predicted and true clean images, encoded.
    time
        (B,); counts as `LATEST` where it is later.

    Returns
    -------
    Tensor
        (B,).
    """
    left = (1 - time).clamp(min=1 - LATEST)
    return ((predicted - encoded) ** 2).mean((1, 2, 3)) / left**2


def noise(seeds: Sequence[int], height: int, width: int) -> Tensor:
    """Draw standard normal noise (B, 1, H, W), each image's from its own seed."""
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(1, height, width, generator=each) for each in generators])


@torch.no_grad()
def draw(
    network: nn.Module,
    start: Tensor,
    images: Tensor,
    given: Tensor,
    condition: Tensor,
    unconditional: Tensor | None = None,
    *,
    steps: int = 10,
    guidance: float = 1.0,
) -> Tensor:
    """Draw images from noise.

    Parameters
    ----------
    network
        A `FlowMatchingUNet`.
    start
        (B, 1, H, W) standard normal noise, as `noise` makes it; the image is a function of it.
    images, given, condition
        As the network takes them.
    unconditional
        The condition that says nothing of the protein; no guidance if None.
    steps
        Evaluations of the network, twice as many with guidance.
    guidance
        How far to go beyond the conditional prediction, away from the unconditional; 1 for no guidance.

    Returns
    -------
    Tensor
        (B, 1, H, W) float32 in [0, 1].
    """
    drawn, no_mean = start, torch.zeros(len(start), device=start.device)
    guided = unconditional is not None and guidance != 1
    for step in range(steps):
        time = torch.full_like(no_mean, step / steps)
        clean = network(drawn, time, images, given, condition, no_mean).float()
        if guided:
            plain = network(drawn, time, images, given, unconditional, no_mean).float()
            clean = plain + guidance * (clean - plain)
        drawn = drawn + (clean - drawn) / (steps - step)
    return decode(drawn)


@torch.no_grad()
def mean_image(network: nn.Module, images: Tensor, given: Tensor, condition: Tensor) -> Tensor:
    """Predict the mean (B, 1, H, W) in [0, 1] of all images that could be drawn."""
    zeros = torch.zeros_like(images[:, :1])
    ones = torch.ones(len(images), device=images.device)
    predicted: Tensor = network(zeros, 0 * ones, images, given, condition, ones).float()
    return ((predicted + 1) / 2).clamp(0, 1)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))


def _waves(time: Tensor, size: int = 64) -> Tensor:
    """Describe times (B,) by sines and cosines (B, size) of many frequencies."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(size // 2, device=time.device) / (size // 2))
    angles = 1000 * time[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)
