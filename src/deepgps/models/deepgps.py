"""The paper's model in one piece: an embedding and a nucleus in, a label and a picture out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepgps.models.unet import UNet


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


class DeepGPS(nn.Module):
    """The model of figure 1: one latent serves the classifier and, through the fusion, the U-Net.

    Parameters
    ----------
    generator
        A U-Net whose ``latent_dim`` is ``latent_dim``.
    embedding_dim
        Size of the mean-pooled protein embedding (1280 for ESM2 650M).
    latent_dim
        Size of the latent (1024 in the paper).
    classes
        Number of classes.
    """

    def __init__(
        self, generator: UNet, embedding_dim: int = 1280, latent_dim: int = 1024, classes: int = 2
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(embedding_dim, latent_dim), nn.ReLU())
        self.classifier = Classifier(latent_dim, classes)
        self.generator = generator

    def forward(self, nucleus: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Predict from a nucleus (B, 1, H, W) and an embedding (B, E).

        Returns
        -------
        image, logits
            (B, 1, H, W) in [0, 1] and (B, K).
        """
        latent = self.project(embedding)
        return self.generator(nucleus, latent[:, None]), self.classifier(latent)


class LocalizationTokens(nn.Module):
    """A localization mixture as latent tokens: one per class, weighted by its share of the probability.

    A protein of two localizations carries both tokens, so that it can be drawn in both places.
    """

    def __init__(self, classes: int, latent_dim: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(classes, latent_dim))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Probabilities (B, K) to tokens (B, K, D)."""
        shares = probabilities / probabilities.sum(-1, keepdim=True).clamp(min=1e-6)
        return shares[..., None] * self.tokens


class MiniGenerator(nn.Module):
    """Localization tokens and a folded U-Net, trained together for the bundled model."""

    def __init__(
        self,
        classes: int,
        latent_dim: int = 64,
        widths: Sequence[int] = (64, 128, 256),
        fold: int = 4,
        margin: int = 8,
    ) -> None:
        super().__init__()
        self.tokens = LocalizationTokens(classes, latent_dim)
        self.unet = UNet(widths, latent_dim, fusion="residual", fold=fold, margin=margin)

    def forward(self, nucleus: Tensor, probabilities: Tensor) -> Tensor:
        """Draw (B, 1, H, W) from a nucleus (B, 1, H, W) and probabilities (B, K)."""
        drawn: Tensor = self.unet(nucleus, self.tokens(probabilities))
        return drawn
