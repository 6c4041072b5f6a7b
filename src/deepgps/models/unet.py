"""The generator: a U-Net over the nucleus image, combined with the protein at the bottleneck.

The paper's is ``UNet()``: widths 64-128-256-512-1024, 208 px in, 13 x 13 at the bottleneck. A narrower one
for laptops folds ``fold`` x ``fold`` pixels into channels at the stem, which saves memory traffic; only its
last step works at full resolution, beside the nucleus image.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.models import FusionMode
from deepgps.models.fusion import build_fusion

PAPER_WIDTHS = (64, 128, 256, 512, 1024)
HEAD_CHANNELS = 8


def double_conv(inputs: int, outputs: int, *, bias: bool = False) -> nn.Sequential:
    """Return two 3 x 3 convolutions with batch norm and ReLU (Ronneberger et al. 2015, plus batch norm)."""
    # A bias before a batch norm changes nothing but the number of weights.
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=bias),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class FoldedHead(nn.Module):
    """Upsample features to full resolution and finish there, beside the nucleus image.

    Bilinear, as a pixel shuffle leaves a grid in the image.
    """

    def __init__(self, channels: int, fold: int) -> None:
        super().__init__()
        self.fold = fold
        self.reduce = nn.Conv2d(channels, HEAD_CHANNELS, 1)
        self.finish = nn.Sequential(
            nn.Conv2d(HEAD_CHANNELS + 1, HEAD_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HEAD_CHANNELS, 1, 3, padding=1),
        )

    def forward(self, features: Tensor, nucleus: Tensor) -> Tensor:
        """Return (B, 1, H, W) logits of (B, C, H / fold, W / fold) features."""
        wide = F.interpolate(self.reduce(features), scale_factor=float(self.fold), mode="bilinear")
        drawn: Tensor = self.finish(torch.cat([wide, nucleus], 1))
        return drawn


class UNet(nn.Module):
    """Nucleus image and latent tokens in, protein image out.

    Parameters
    ----------
    widths
        Channels from the first level to the bottleneck.
    latent_dim
        Size of a latent token.
    fusion
        How protein and nucleus are combined: ``paper``, ``residual``, ``per_residue`` or ``film``.
    heads
        Attention heads of the fusion (not of ``paper``, which has one).
    fold
        Edge of the square of pixels folded into channels at the stem; 1 for the paper's network.
    margin
        Pixels of reflected padding around the nucleus image while drawing, against border artefacts of zero
        padding; 0 for the paper's network.
    conv_bias
        Biases of the convolutions before batch norms; the paper's network has them.
    """

    def __init__(
        self,
        widths: Sequence[int] = PAPER_WIDTHS,
        latent_dim: int = 1024,
        fusion: FusionMode = "residual",
        heads: int = 4,
        fold: int = 1,
        margin: int = 0,
        *,
        conv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.fold = fold
        self.margin = margin
        self.multiple = fold * 2 ** (len(widths) - 1)
        inputs = [fold**2, *widths[:-1]]
        self.down = nn.ModuleList(
            double_conv(i, o, bias=conv_bias) for i, o in zip(inputs, widths, strict=True)
        )
        self.fusion = build_fusion(fusion, widths[-1], latent_dim, heads)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, stride=2) for deep, flat in pairs)
        self.merge = nn.ModuleList(double_conv(2 * flat, flat, bias=conv_bias) for _, flat in pairs)
        self.head = nn.Conv2d(widths[0], 1, 1) if fold == 1 else FoldedHead(widths[0], fold)

    def encode(self, nucleus: Tensor) -> list[Tensor]:
        """Return the features of nuclei, from the first level to the bottleneck."""
        if nucleus.shape[-1] % self.multiple or nucleus.shape[-2] % self.multiple:
            size = " x ".join(str(edge) for edge in nucleus.shape[-2:])
            raise ValueError(
                f"the nucleus image is {size} px; its edges must be multiples of {self.multiple}."
            )
        level = F.pixel_unshuffle(nucleus, self.fold) if self.fold > 1 else nucleus
        levels = []
        for depth, block in enumerate(self.down):
            level = block(F.max_pool2d(level, 2) if depth else level)
            levels.append(level)
        return levels

    def forward(
        self,
        nucleus: Tensor,
        latent: Tensor,
        which: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Draw the protein.

        Parameters
        ----------
        nucleus
            (N, 1, H, W) in [0, 1]; H and W multiples of ``fold * 2 ** (levels - 1)``.
        latent
            (B, T, latent_dim) latent tokens, or residue vectors for ``per_residue``.
        which
            (B,) the nucleus, of N, into which each protein is drawn; features of a nucleus are computed once.
            If None, N is B, and each protein has its own nucleus.
        mask
            (B, T), true for real tokens; by default all are.

        Returns
        -------
        Tensor
            (B, 1, H, W) in [0, 1].
        """
        if self.margin:
            nucleus = F.pad(nucleus, [self.margin] * 4, mode="reflect")
        *skips, features = self.encode(nucleus)
        nucleus, features = _each(nucleus, which), _each(features, which)
        features = self.fusion(features, latent, mask)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            features = _merged(merge, skip, up(features), which)  # type: ignore[arg-type]
        drawn = self.head(features) if self.fold == 1 else self.head(features, nucleus)
        inner = slice(self.margin, -self.margin or None)
        return torch.sigmoid(drawn[..., inner, inner])


def initialise_as_paper(generator: UNet) -> None:
    """Draw fresh weights as the paper's code does: Kaiming-uniform convolutions, Xavier-uniform attention.

    Biases are 0. Torch draws the output projection of the attention, and all weights outside the generator.

    Parameters
    ----------
    generator
        A U-Net of fusion ``paper`` and fold 1.
    """
    for part in generator.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    fusion: Any = generator.fusion
    for projection in (fusion.query, fusion.key, fusion.value):
        # Of one matrix for all three, as torch's multi-head attention holds them.
        outputs, inputs = projection.weight.shape
        nn.init.uniform_(projection.weight, -(bound := math.sqrt(6 / (inputs + 3 * outputs))), bound)
        nn.init.zeros_(projection.bias)
    nn.init.zeros_(fusion.out.bias)


def _each(of_nuclei: Tensor, which: Tensor | None) -> Tensor:
    """Select the features of nuclei (N, ...) for each image (B, ...)."""
    return of_nuclei if which is None else of_nuclei.index_select(0, which)


def _merged(merge: nn.Sequential, skip: Tensor, wide: Tensor, which: Tensor | None) -> Tensor:
    """Merge the features of nuclei (N, C, H, W) into those of images (B, C, H, W)."""
    if which is None or merge.training:
        merged: Tensor = merge(torch.cat([_each(skip, which), wide], 1))
        return merged
    # A convolution of both is the sum of one of each, so that of the nuclei is computed once. Its batch norm
    # is part of the kernel, as the sum would keep it from being folded when the graph is loaded.
    first: nn.Conv2d = merge[0]  # type: ignore[assignment]
    norm: Any = merge[1]
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if first.bias is None else norm.running_mean - first.bias
    shift = norm.bias - mean * scale
    kernels = torch.split(first.weight * scale[:, None, None, None], [skip.shape[1], wide.shape[1]], 1)
    of_nuclei = F.conv2d(skip, kernels[0], shift, padding=1)
    of_images = F.conv2d(wide, kernels[1], padding=1)
    rest: Tensor = merge[2:](of_images + _each(of_nuclei, which))
    return rest
