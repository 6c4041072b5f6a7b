"""From sequence features and votes of annotated neighbours to logits of localizations."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

VIEWS = 2
"""Each MLP predicts two views, which differ: what microscopes see, and what UniProt's curators write."""
EVIDENCE = 2 * (VIEWS + 2)
"""Inputs of the head per class: own logits, vote, nearest, and each of them times the top similarity."""

_CLIP = 6.0  # standardised features are clipped at this many standard deviations


class FeatureMLP(nn.Sequential):
    """Standardised features (B, F) to logits (B, `VIEWS` K): linear layers, ReLU and dropout.

    Parameters
    ----------
    features, classes
        F and K.
    widths
        Sizes of the hidden layers.
    dropout
        Share of the hidden units left out in training.
    """

    def __init__(self, features: int, classes: int, widths: Sequence[int], dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        sizes = (features, *widths)
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(sizes[-1], VIEWS * classes))


class SequenceEncoder(nn.Module):
    """An ensemble of feature MLPs, and a head that combines them with the nearest annotated proteins.

    The head is a logistic regression per class over `EVIDENCE` numbers: the weight of the neighbours depends
    on the similarity of the nearest. Its calibration, a scale and a shift per class, is part of the graph:
    ``sigmoid(logits)`` are calibrated probabilities. Rows are independent.

    Parameters
    ----------
    features
        F, the number of sequence features.
    votes
        V, the number of votes: 2 ``classes`` + 1, see `deepgps.proteins.neighbours.NeighbourIndex.vote`.
    classes
        K, the number of localizations.
    widths
        Hidden sizes of each member.
    members
        How many MLPs are averaged.
    dropout
        Share of the hidden units left out in training.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        features: int,
        votes: int,
        classes: int,
        widths: Sequence[int] = (512, 256),
        members: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if votes != 2 * classes + 1:
            raise ValueError(f"{votes} votes do not fit {classes} classes; give {2 * classes + 1}.")
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.members = nn.ModuleList(FeatureMLP(features, classes, widths, dropout) for _ in range(members))
        self.head_weight = nn.Parameter(torch.zeros(classes, EVIDENCE))
        self.head_bias = nn.Parameter(torch.zeros(classes))
        self.calibration_scale = nn.Parameter(torch.ones(classes))
        self.calibration_shift = nn.Parameter(torch.zeros(classes))
        with torch.no_grad():
            self.head_weight[:, :VIEWS] = 1 / VIEWS

    def standardise(self, features: Tensor) -> Tensor:
        """Scale raw features (B, F) to mean 0 and standard deviation 1, clipped."""
        return torch.clamp((features - self.mean) / self.scale, -_CLIP, _CLIP)

    def own_logits(self, features: Tensor) -> Tensor:
        """Return logits (B, `VIEWS`, K) of the sequence features (B, F) alone: the members' mean."""
        inputs = self.standardise(features)
        mean = torch.stack([member(inputs) for member in self.members]).mean(0)
        return mean.reshape(-1, VIEWS, len(self.head_bias))

    def combine(self, own: Tensor, votes: Tensor) -> Tensor:
        """Combine own logits (B, `VIEWS`, K) and votes (B, V) to uncalibrated logits (B, K)."""
        return (evidence(own, votes) * self.head_weight).sum(2) + self.head_bias

    def calibrate(self, logits: Tensor) -> Tensor:
        """Calibrate the head's logits (B, K)."""
        return logits * self.calibration_scale + self.calibration_shift

    def forward(self, features: Tensor, votes: Tensor) -> Tensor:
        """Encode proteins.

        Parameters
        ----------
        features
            (B, F) raw sequence features.
        votes
            (B, V) neighbour votes.

        Returns
        -------
        Tensor
            (B, K) calibrated logits.
        """
        return self.calibrate(self.combine(self.own_logits(features), votes))


def evidence(own: Tensor, votes: Tensor) -> Tensor:
    """Return the inputs of the head.

    Parameters
    ----------
    own
        (B, `VIEWS`, K) logits of the features alone.
    votes
        (B, 2 K + 1) shares, nearest similarities and the top similarity.

    Returns
    -------
    Tensor
        (B, K, `EVIDENCE`).
    """
    classes = own.shape[2]
    share, nearest, top = votes[:, :classes], votes[:, classes : 2 * classes], votes[:, 2 * classes :]
    plain = torch.cat([own.transpose(1, 2), torch.stack([share, nearest], dim=2)], dim=2)
    return torch.cat([plain, plain * top[:, :, None]], dim=2)
