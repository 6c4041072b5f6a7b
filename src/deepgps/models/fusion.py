"""Fusion: how latent tokens and nucleus features are combined at the bottleneck of the U-Net.

Four ways, one signature: image (B, C, H, W), latent (B, T, D), optional mask (B, T) → (B, C, H, W).

``paper``
    As published: one latent token for each input is key and value of a one-head attention without a residual.
    A softmax over one key is 1, so with one input every position receives the same vector and the deepest
    nucleus features are lost.
``residual``
    Layer normalisation, positions, several heads and a residual; several latent tokens to choose from.
``per_residue``
    The same over one token per residue, with the residues' positions and a mask for padding.
``film``
    No attention: the mean token scales and shifts each channel, the same at every position
    (Perez et al. 2018).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.models import FusionMode


def sinusoids(length: int, dimension: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (length, dimension), as in "Attention is all you need" (2017), section 3.5."""
    rates = torch.exp(torch.arange(0, dimension, 2, device=device) * (-math.log(10_000.0) / dimension))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :dimension]


def grid_sinusoids(height: int, width: int, dimension: int, device: torch.device) -> Tensor:
    """Positions of a grid (height · width, dimension): half of the channels for rows, half for columns."""
    half = dimension // 2
    rows = sinusoids(height, half, device)[:, None].expand(height, width, half)
    columns = sinusoids(width, dimension - half, device)[None].expand(height, width, dimension - half)
    return torch.cat([rows, columns], -1).flatten(0, 1)


class PaperFusion(nn.Module):
    """The published fusion (paper, figure 1 and methods): attention of one head, with output projection."""

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(latent_dim, channels)
        self.value = nn.Linear(latent_dim, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, image: Tensor, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuse; with one token, (B, 1, D), the result is the same at every position."""
        tokens = image.flatten(2).transpose(1, 2)
        # One head, named as an axis, which ONNX wants.
        query, key, value = self.query(tokens), self.key(latent), self.value(latent)
        attended = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        fused: Tensor = self.out(attended).transpose(1, 2).reshape_as(image)
        return fused


class AttentionFusion(nn.Module):
    """Cross-attention with positions, heads and a residual, for ``residual`` and ``per_residue``."""

    def __init__(self, channels: int, latent_dim: int, *, heads: int = 4, residue_positions: bool) -> None:
        super().__init__()
        self.heads = heads
        self.residue_positions = residue_positions
        self.image_norm = nn.LayerNorm(channels)
        self.latent_norm = nn.LayerNorm(latent_dim) if residue_positions else nn.Identity()
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(latent_dim, channels)
        self.value = nn.Linear(latent_dim, channels)
        self.out = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))

    def _split(self, tokens: Tensor) -> Tensor:
        batch, length, channels = tokens.shape
        return tokens.reshape(batch, length, self.heads, channels // self.heads).transpose(1, 2)

    def forward(self, image: Tensor, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuse; ``mask`` (B, T) is true for real tokens."""
        batch, channels, height, width = image.shape
        tokens = image.flatten(2).transpose(1, 2)
        queries = self.image_norm(tokens) + grid_sinusoids(height, width, channels, image.device)
        keys = self.latent_norm(latent)
        if self.residue_positions:
            keys = keys + sinusoids(latent.shape[1], latent.shape[2], latent.device)
        attended = F.scaled_dot_product_attention(
            self._split(self.query(queries)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            attn_mask=None if mask is None else mask[:, None, None, :],
        )
        tokens = tokens + self.out(attended.transpose(1, 2).reshape(batch, height * width, channels))
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        fused: Tensor = tokens.transpose(1, 2).reshape_as(image)
        return fused


class FiLMFusion(nn.Module):
    """Feature-wise linear modulation (Perez et al. 2018, section 2): initially the identity."""

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(latent_dim, 2 * channels)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, image: Tensor, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """Fuse; ``mask`` (B, T) is true for real tokens."""
        weight = latent.new_ones(latent.shape[:2]) if mask is None else mask.to(latent.dtype)
        mean = (latent * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        scale, shift = self.modulate(mean)[..., None, None].chunk(2, 1)
        fused: Tensor = image * (1 + scale) + shift
        return fused


def build_fusion(mode: FusionMode, channels: int, latent_dim: int, heads: int = 4) -> nn.Module:
    """Build the fusion of that name."""
    if mode == "paper":
        return PaperFusion(channels, latent_dim)
    if mode == "film":
        return FiLMFusion(channels, latent_dim)
    return AttentionFusion(channels, latent_dim, heads=heads, residue_positions=mode == "per_residue")
