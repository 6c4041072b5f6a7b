"""ESM2 (Lin et al., Science 2023): protein language models, from the Hugging Face hub or a local folder.

Importing `transformers` takes seconds, so nothing imports this module but what computes with it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import EsmConfig, EsmModel
from transformers.utils import logging

from deepgps.arrays import Floats, Ints, Mask
from deepgps.errors import InputError
from deepgps.proteins.embedding import PADDING, SPECIAL, VOCABULARY, Precision

HUB = "facebook"
NAMES = (
    "esm2_t6_8M_UR50D",
    "esm2_t12_35M_UR50D",
    "esm2_t30_150M_UR50D",
    "esm2_t33_650M_UR50D",
    "esm2_t36_3B_UR50D",
)
"""The models up to the paper's size, and one above."""

# Parts of a configuration that determine the numbers, beside the weights.
_DECIDES = (
    *("num_attention_heads", "layer_norm_eps", "emb_layer_norm_before", "token_dropout", "pad_token_id"),
    *("mask_token_id", "position_embedding_type", "max_position_embeddings"),
)
# Optional parts of the files: a head that predicts contacts, and angles that are no weights.
_UNUSED = ("contact_head.", "pooler.", "rotary_embeddings.inv_freq")


@dataclass(frozen=True, slots=True)
class Esm2:
    """A `deepgps.proteins.embedding.ResidueEncoder` on torch.

    Attributes
    ----------
    name, fingerprint, precision, dimension, max_length
        As of every encoder.
    network
        Tokens (B, L) and mask (B, L) to vectors (B, L, E).
    """

    name: str
    fingerprint: str
    precision: str
    dimension: int
    max_length: int
    network: "TokenVectors"

    def __call__(self, tokens: Ints, mask: Mask) -> Floats:
        """Encode tokens (B, L), real where the mask (B, L) is true: (B, L, E) float32."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            vectors = self.network(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device))
        encoded: Floats = vectors.float().cpu().numpy()
        return encoded


class TokenVectors(nn.Module):
    """The last layer of an ESM2.

    Parameters
    ----------
    model
        The whole network.
    """

    def __init__(self, model: EsmModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L) int64 and mask (B, L) bool to vectors (B, L, E)."""
        vectors: Tensor = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return vectors


def canonical_name(name: str) -> str | None:
    """Return the full name of an ESM2 from its name, with or without owner, or its short form ``t30_150M``.

    Returns
    -------
    str or None
        None if it is not the name of an ESM2.
    """
    whole = name.removeprefix(f"{HUB}/")
    return next((known for known in NAMES if whole in {known, known[len("esm2_") : -len("_UR50D")]}), None)


def load_esm2(name_or_folder: str, *, offline: bool = False, precision: Precision = "auto") -> Esm2:
    """Load an ESM2, onto the GPU where there is one.

    Parameters
    ----------
    name_or_folder
        One of `NAMES`, or its short form, downloaded once into the Hugging Face cache; or a local folder with
        ``config.json`` and ``model.safetensors``, whose own name becomes the encoder's.
    offline
        Never use the network; use the cache only.
    precision
        ``auto`` is bfloat16 where the hardware has units for it, else float32.

    Returns
    -------
    Esm2
        The encoder, ready to embed.

    Raises
    ------
    InputError
        If there is no such model, it cannot be loaded, or it is not an ESM2.
    """
    known = canonical_name(name_or_folder)
    if known is None and not Path(name_or_folder).is_dir():
        raise InputError(_unknown(name_or_folder))
    model = _pretrained(f"{HUB}/{known}" if known else name_or_folder, offline)
    name = known or Path(name_or_folder).resolve().name
    return esm2_of(model, name, resolve_precision(precision))


def esm2_of(model: EsmModel, name: str, precision: str = "float32") -> Esm2:
    """Make an encoder of a float32 network, which is changed in place."""
    config, fingerprint = model.config, _fingerprint(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = TokenVectors(with_fast_layers(model)).eval().to(device=device, dtype=getattr(torch, precision))
    # Position embeddings are counted from the padding token on.
    tokens = config.max_position_embeddings - PADDING - 1
    return Esm2(name, fingerprint, precision, config.hidden_size, tokens - SPECIAL, network)


def resolve_precision(precision: Precision) -> Precision:
    """Return the precision that ``auto`` means on this machine."""
    if precision != "auto":
        return precision
    return "bfloat16" if _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    """Whether the hardware multiplies bfloat16; elsewhere it is slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _unknown(name: str) -> str:
    if name.endswith(".pt"):
        known = canonical_name(Path(name).stem) or "esm2_t33_650M_UR50D"
        return (
            f"'{name}' is a checkpoint of fair-esm, which is not read. Hugging Face has its weights: give "
            f"'{known}', which is downloaded once, or a folder with its config.json and model.safetensors "
            f"(hf download {HUB}/{known} --local-dir FOLDER)."
        )
    (nearest,) = get_close_matches(name, NAMES, 1, 0)
    known = ", ".join(NAMES)
    return f"Encoder '{name}' is neither a folder nor one of {known}; the nearest is '{nearest}'."


def _pretrained(source: str, offline: bool) -> EsmModel:
    # The bar of the weights' loading, and a report on the head for masked residues, which is left out.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        found, _ = EsmConfig.get_config_dict(source, local_files_only=offline)
        _check(found, source)
        model, loading = EsmModel.from_pretrained(
            source,
            config=EsmConfig.from_dict(found),
            add_pooling_layer=False,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=offline,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(_not_had(source, offline, str(error))) from error
    _check_whole(loading["missing_keys"], source)
    loaded: EsmModel = model
    return loaded


def _check(config: dict[str, Any], source: str) -> None:
    required = {"model_type": "esm", "vocab_size": VOCABULARY, "position_embedding_type": "rotary"}
    if any(config.get(key) != value for key, value in required.items()):
        raise InputError(f"'{source}' is no ESM2; give a folder with its config.json and model.safetensors.")


def _check_whole(missing: Iterable[str], source: str) -> None:
    if lacking := sorted(name for name in missing if not name.startswith(_UNUSED)):
        raise InputError(f"'{source}' lacks weights, such as '{lacking[0]}'; fetch or copy it again.")


def _not_had(source: str, offline: bool, reason: str) -> str:
    first = next(iter(reason.splitlines()), "")
    if Path(source).is_dir():
        return f"'{source}' cannot be read as an ESM2 ({first}); it takes config.json and model.safetensors."
    if offline:
        return f"Offline, and '{source}' is not in the Hugging Face cache; give a folder that holds it."
    return f"Encoder '{source}' cannot be fetched ({first}); try again later, or give a folder that holds it."


def _fingerprint(model: EsmModel) -> str:
    """Hash the parameters by name, shape and bytes, and what else decides the numbers."""
    digest = sha256(json.dumps({key: getattr(model.config, key) for key in _DECIDES}).encode())
    used = [each for each in model.named_parameters() if not each[0].startswith(_UNUSED)]
    for name, parameter in sorted(used, key=itemgetter(0)):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().contiguous().numpy().data)
    return digest.hexdigest()


# ---- layers that compute what those of `transformers` do, faster ----


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
        # ESM2 scales the queries before they are rotated.
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
        query, key = rotate(projected[:, :, :2], cos, sin).transpose(1, 3).unbind(2)
        value = projected[:, :, 2].transpose(1, 2)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=1.0)
        return mixed.transpose(1, 2).reshape(batch, length, -1), None


def rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves (a, b) of vectors (..., D) by angles, to (a cos - b sin, b cos + a sin)."""
    half = vectors.shape[-1] // 2
    first, second = vectors[..., :half], vectors[..., half:]
    cos, sin = cos[..., :half], sin[..., :half]
    return torch.cat(
        (torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(second * cos, first, sin)), dim=-1
    )


def with_fast_layers(model: Any) -> Any:
    """Replace the layers of an `EsmModel`, in place, by equivalent ones with fewer passes over the memory.

    The attention of `transformers` projects three times and rotates in single precision, its GELU is five
    operations; on a CPU they take longer than the large products between them. Same numbers up to rounding.

    Returns
    -------
    EsmModel
        The same model.
    """
    for layer in model.encoder.layer:
        layer.attention.self = RotaryAttention(layer.attention.self)
        layer.intermediate = nn.Sequential(layer.intermediate.dense, nn.GELU())
    return model
