"""From which probability a class is named."""

import torch


def best_thresholds(chances: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> list[float]:
    """Find the probability of each class from which naming it gives the best weighted F1.

    Parameters
    ----------
    chances, labels
        (N, K) probabilities and labels in [0, 1].
    weight
        (N, K); 0 where a label is unknown.

    Returns
    -------
    list[float]
        K thresholds, on a grid of 0.01 from 0.05 to 0.95.
    """
    grid = torch.arange(5, 96) / 100
    named = chances[:, :, None] >= grid
    hits = torch.stack([(weight * labels)[:, k] @ named[:, k].float() for k in range(chances.shape[1])])
    total = torch.stack([weight[:, k] @ named[:, k].float() for k in range(chances.shape[1])])
    f1 = 2 * hits / (total + (weight * labels).sum(0)[:, None]).clamp(min=1e-9)
    return [round(float(grid[best]), 2) for best in f1.argmax(1)]
