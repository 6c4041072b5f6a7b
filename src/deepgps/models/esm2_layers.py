"""Layers of ESM2 that compute what those of `transformers` do in fewer passes over the memory.

Its attention projects three times and turns the positions in single precision, its GELU is five operations;
on a processor they take longer than the large products between them. Same numbers up to rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions: one projection for queries, keys and values.

    Parameters
    ----------
    attention
        The `EsmSelfAttention` to stand in for.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads: int = attention.num_attention_heads
        # ESM2 scales the queries, before their positions are turned.
        scales = (attention.attention_head_size**-0.5, 1, 1)
        parts = (attention.query, attention.key, attention.value)
        self.project = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
        for name in ("weight", "bias"):
            whole = [getattr(part, name).detach() * scale for part, scale in zip(parts, scales, strict=True)]
            setattr(self.project, name, nn.Parameter(torch.cat(whole)))

    def forward(
        self,
        states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """States (B, L, E) to states (B, L, E), as `EsmSelfAttention` is called."""
        assert position_embeddings is not None
        batch, length, _width = states.shape
        cos, sin = (each[:, :, None, None] for each in position_embeddings)
        projected = self.project(states).view(batch, length, 3, self.heads, -1)
        query, key = turned(projected[:, :, :2], cos, sin).transpose(1, 3).unbind(2)
        value = projected[:, :, 2].transpose(1, 2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=1.0)
        return mixed.transpose(1, 2).reshape(batch, length, -1), None


def turned(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the halves (a, b) of vectors (..., D) by angles, to (a cos - b sin, b cos + a sin)."""
    half = vectors.shape[-1] // 2
    first, second = vectors[..., :half], vectors[..., half:]
    cos, sin = cos[..., :half], sin[..., :half]
    return torch.cat(
        (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)), dim=-1
    )


def quickened(model: Any) -> Any:
    """Replace the layers of an `EsmModel`, in place."""
    for layer in model.encoder.layer:
        layer.attention.self = RotaryAttention(layer.attention.self)
        layer.intermediate = nn.Sequential(layer.intermediate.dense, nn.GELU())
    return model
