"""The paper's model: protein and nucleus image in, label and protein image out."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from deepgps.models.latents import PaperStructureLatent, SequenceLatent, StructureLatent
from deepgps.models.unet import UNet

NetworkInputs = Mapping[str, Tensor]
"""Inputs by name, as `DeepGPS.encode` takes them."""


class Classifier(nn.Sequential):
    """Latent (B, D) to logits (B, K) through D/2 and D/4; logits, not probabilities, go into the loss."""

    def __init__(self, latent_dim: int, classes: int) -> None:
        super().__init__(
            nn.Linear(latent_dim, latent_dim // 2),
            nn.ReLU(),
            nn.Linear(latent_dim // 2, latent_dim // 4),
            nn.ReLU(),
            nn.Linear(latent_dim // 4, classes),
        )


class Drawn(NamedTuple):
    """Predictions for proteins in nuclei.

    Attributes
    ----------
    image
        (B, 1, H, W) in [0, 1].
    logits
        (B, K); K is 0 for a model without a classifier.
    penalty
        (), a loss: distance of PointNet's feature transform from an orthogonal one; 0 without structures.
    """

    image: Tensor
    logits: Tensor
    penalty: Tensor


class Encoded(NamedTuple):
    """Encoded proteins, before they are drawn.

    Attributes
    ----------
    tokens
        (B, T, D) latent tokens for the generator.
    mask
        (B, T), true for real tokens; all are if None.
    logits, penalty
        As in `Drawn`.
    """

    tokens: Tensor
    mask: Tensor | None
    logits: Tensor
    penalty: Tensor


class DeepGPS(nn.Module):
    """The model of figure 1: latent tokens of a protein go to the classifier and, by fusion, to the U-Net.

    The tokens of all inputs are stacked; the classifier gets their mean.

    Parameters
    ----------
    generator
        A U-Net of the same ``latent_dim``.
    sequence, structure
        Modules from a sequence's embedding and from a structure to latent tokens; at least one.
    latent_dim
        Size of a latent token (1024 in the paper).
    classes
        Number of classes; 0 for a model without a classifier.
    dropout
        Dropout before the classifier.

    Raises
    ------
    ValueError
        If both modules are None.
    """

    def __init__(
        self,
        generator: UNet,
        *,
        sequence: SequenceLatent | None = None,
        structure: StructureLatent | PaperStructureLatent | None = None,
        latent_dim: int = 1024,
        classes: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if sequence is None and structure is None:
            raise ValueError("the model has no input from the protein; give sequence, structure or both.")
        self.sequence, self.structure = sequence, structure
        self.dropout = nn.Dropout(dropout)
        self.classifier = Classifier(latent_dim, classes) if classes else None
        self.generator = generator

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Set the mean (E) and standard deviation (E) by which embeddings are standardised.

        Raises
        ------
        ValueError
            If the model uses no sequences.
        """
        if self.sequence is None:
            raise ValueError("the model uses no sequences; there is nothing to standardise.")
        self.sequence.mean.copy_(mean)
        self.sequence.scale.copy_(scale)

    def encode(self, protein: NetworkInputs) -> Encoded:
        """Encode proteins, independently of nuclei.

        Parameters
        ----------
        protein
            The model's inputs: ``embedding`` (B, E), or ``residues`` (B, L, E) with ``mask`` (B, L),
            true for real residues; ``points`` (B, n, 6).

        Returns
        -------
        Encoded
            Latent tokens and logits of each protein.
        """
        tokens, penalty = self._tokens(protein)
        mask = protein.get("mask")
        if mask is not None and tokens.shape[1] > mask.shape[1]:
            mask = F.pad(mask, (0, tokens.shape[1] - mask.shape[1]), value=True)
        mean = _masked_mean(tokens, mask)
        logits = self.classifier(self.dropout(mean)) if self.classifier else mean[:, :0]
        return Encoded(tokens, mask, logits, penalty)

    def _tokens(self, protein: NetworkInputs) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, T, D) of all inputs, and the penalty."""
        parts: list[Tensor] = []
        penalty = torch.zeros((), device=next(iter(protein.values())).device)
        if self.sequence is not None:
            parts.append(self.sequence(protein["residues" if "residues" in protein else "embedding"]))
        if self.structure is not None:
            latent, penalty = self.structure(protein["points"])
            parts.append(latent)
        return torch.cat(parts, 1), penalty

    def forward(self, nucleus: Tensor, protein: NetworkInputs) -> Drawn:
        """Predict and draw proteins, as `encode` takes them, in nuclei (B, 1, H, W) in [0, 1]."""
        encoded = self.encode(protein)
        image = self.generator(nucleus, encoded.tokens, mask=encoded.mask)
        return Drawn(image, encoded.logits, encoded.penalty)


def _masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (B, D) of the real tokens among (B, T, D)."""
    if mask is None:
        return tokens.mean(1)
    real = mask[..., None]
    # Not a product with the mask: padding need not be finite.
    return torch.where(real, tokens, 0.0).sum(1) / real.sum(1).clamp(min=1)
