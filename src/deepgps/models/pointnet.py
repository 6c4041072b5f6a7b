"""Structure encoders. The default is PointNet (Qi et al. 2017, arXiv:1612.00593) over the atoms of a protein.

Of the classification network of its figure 2 this is all up to the global feature: a 3 x 3 transform of the
coordinates, a shared MLP 64-64, a 64 x 64 transform of the features, a shared MLP 64-128-1024, and the
maximum over the points. Batch normalisation and ReLU follow every layer (appendix C). `PaperPointNet` is the
one of the paper's code.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

GLOBAL_FEATURE = 1024
POINT_CHANNELS = 6
# Å; about the spread of a protein's atoms. Unscaled coordinates outweigh the elements, which are 0 or 1; the
# unit sphere of Qi et al. would hide the size of a protein.
XYZ_UNIT = 16.0


def shared_mlp(*widths: int, bias: bool = False) -> nn.Sequential:
    """Return layers shared by all points, (B, C, n) → (B, C', n)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv1d(inputs, outputs, 1, bias=bias), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Transform(nn.Module):
    """A small PointNet that predicts a square matrix, initially the identity or, with biases, near it.

    Parameters
    ----------
    channels
        Edge of the matrix, and channels of the points.
    bias
        Whether all layers have biases, and torch draws the last one, as in the paper's code.
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.points = shared_mlp(channels, 64, 128, 1024, bias=bias)
        # Dense layers, as a shared MLP over the one point that is left of a cloud.
        self.whole = shared_mlp(1024, 512, 256, bias=bias)
        self.matrix = nn.Linear(256, channels**2)
        if not bias:
            nn.init.zeros_(self.matrix.weight)
            nn.init.zeros_(self.matrix.bias)
        with torch.no_grad():
            self.matrix.bias.add_(torch.eye(channels).flatten())

    def forward(self, points: Tensor) -> Tensor:
        """Predict (B, C, C) from (B, C, n)."""
        whole = self.whole(self.points(points).max(2, keepdim=True).values)
        matrix: Tensor = self.matrix(whole.squeeze(2))
        return matrix.reshape(-1, self.channels, self.channels)


def orthogonality_loss(transform: Tensor) -> Tensor:
    """Return the mean squared distance of matrices from orthogonality, ``|I - A Aᵀ|²`` (equation 2).

    Parameters
    ----------
    transform
        (B, C, C).

    Returns
    -------
    Tensor
        A scalar, at least 0; the paper adds 0.001 of it to the loss.
    """
    identity = torch.eye(transform.shape[-1], device=transform.device, dtype=transform.dtype)
    return (identity - transform @ transform.mT).square().sum((1, 2)).mean()


class PointNet(nn.Module):
    """A point cloud in, one global feature out, whatever the order of the points.

    Training needs two clouds or more in a batch, as every network whose normalisation acts on whole clouds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_transform = Transform(3)
        self.low = shared_mlp(POINT_CHANNELS, 64, 64)
        self.feature_transform = Transform(64)
        self.high = shared_mlp(64, 64, 128, GLOBAL_FEATURE)

    def encode(self, cloud: Tensor) -> tuple[Tensor, Tensor]:
        """Encode, and return the feature transform for `orthogonality_loss` as well.

        Parameters
        ----------
        cloud
            (B, n, 6): x, y, z in Å, centred, and a one-hot C, N, O; any n from 1.

        Returns
        -------
        tuple of Tensor
            The global feature (B, 1024), at least 0, and the feature transform (B, 64, 64).

        Raises
        ------
        ValueError
            If the cloud is not of that shape.
        """
        _check_cloud(cloud)
        xyz, elements = cloud.mT[:, :3] / XYZ_UNIT, cloud.mT[:, 3:]
        turned = self.input_transform(xyz).mT @ xyz
        points = self.low(torch.cat([turned, elements], 1))
        transform: Tensor = self.feature_transform(points)
        return self.high(transform.mT @ points).max(2).values, transform

    def forward(self, cloud: Tensor) -> Tensor:
        """Encode (B, n, 6) point clouds into (B, 1024) global features."""
        return self.encode(cloud)[0]


class PaperPointNet(nn.Module):
    """The PointNet of the paper's code: a 6 x 6 transform of whole points, and a last layer without ReLU.

    Coordinates are taken as they are, in Å; no penalty keeps its feature transform orthogonal.

    Parameters
    ----------
    size
        Numbers of the global feature (1024 in the paper).
    """

    def __init__(self, size: int = GLOBAL_FEATURE) -> None:
        super().__init__()
        self.input_transform = Transform(POINT_CHANNELS, bias=True)
        self.low = shared_mlp(POINT_CHANNELS, 64, bias=True)
        self.feature_transform = Transform(64, bias=True)
        self.high = shared_mlp(64, 128, size, bias=True)[:-1]

    def encode(self, cloud: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, n, 6) to the global feature (B, size), and return the feature transform as well.

        Returns
        -------
        tuple of Tensor
            The global feature (B, size) and the feature transform (B, 64, 64).

        Raises
        ------
        ValueError
            If the cloud is not of that shape.
        """
        _check_cloud(cloud)
        points = self.low(self.input_transform(cloud.mT).mT @ cloud.mT)
        transform: Tensor = self.feature_transform(points)
        return self.high(transform.mT @ points).max(2).values, transform


def _check_cloud(cloud: Tensor) -> None:
    if cloud.ndim != 3 or cloud.shape[1] == 0 or cloud.shape[2] != POINT_CHANNELS:
        raise ValueError(f"the point clouds are {tuple(cloud.shape)}; give (B, n, {POINT_CHANNELS}).")
