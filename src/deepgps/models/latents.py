"""From a protein to latent tokens (B, T, D): one module for each kind of input."""

import torch
from torch import Tensor, nn

from deepgps.models.pointnet import GLOBAL_FEATURE, PaperPointNet, PointNet, orthogonality_loss


class SequenceLatent(nn.Module):
    """An embedding, or one for every residue, through a linear layer and ReLU to latent tokens.

    With one token and 1280 numbers in, 1024 out, this is the paper's. ``mean`` and ``scale`` bring the
    encoder's numbers to mean 0 and deviation 1; they change nothing until they are set.

    Parameters
    ----------
    embedding_dim
        Numbers of an embedding.
    latent_dim
        Size of a latent token.
    tokens
        Tokens that each embedding becomes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, embedding_dim: int, latent_dim: int, tokens: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("scale", torch.ones(embedding_dim))
        self.project = nn.Sequential(nn.Linear(embedding_dim, tokens * latent_dim), nn.ReLU())

    def forward(self, embedding: Tensor) -> Tensor:
        """Project (B, E) to (B, T, D), or residues (B, L, E) to (B, L T, D)."""
        projected: Tensor = self.project((embedding - self.mean) / self.scale)
        return projected.reshape(embedding.shape[0], -1, self.latent_dim)


class StructureLatent(nn.Module):
    """Point clouds through PointNet to latent tokens.

    Parameters
    ----------
    latent_dim
        Size of a latent token.
    tokens
        Tokens that each cloud becomes.
    """

    def __init__(self, latent_dim: int, tokens: int = 1) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.pointnet = PointNet()
        # The global feature is of one size, latents of any; the sequence's embedding passes such a layer too.
        self.project = nn.Sequential(nn.Linear(GLOBAL_FEATURE, tokens * latent_dim), nn.ReLU())

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, n, 6) to (B, T, D), and a penalty () for a feature transform that is not orthogonal."""
        feature, transform = self.pointnet.encode(points)
        latent = self.project(feature).reshape(points.shape[0], -1, self.latent_dim)
        return latent, orthogonality_loss(transform)


class PaperStructureLatent(nn.Module):
    """Point clouds through the paper's PointNet; its global feature is the one latent token.

    Parameters
    ----------
    latent_dim
        Size of the token.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.pointnet = PaperPointNet(latent_dim)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, n, 6) to (B, 1, D), and a penalty () as `StructureLatent` has it."""
        feature, transform = self.pointnet.encode(points)
        return feature[:, None], orthogonality_loss(transform)
