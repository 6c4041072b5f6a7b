"""Intensities onto a common scale."""

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Floats

LOW, HIGH = 3.0, 99.8
"""The percentiles that become 0 and 1, as in CSBDeep and the paper."""


def percentile_normalise(
    pixels: NDArray[np.integer | np.floating],
    low: float = LOW,
    high: float = HIGH,
    *,
    clip: bool = True,
    eps: float = 1e-20,
) -> Floats:
    """Map two percentiles of a whole field onto 0 and 1.

    Equal to ``csbdeep.utils.normalize(x, pmin, pmax, clip=...)``, which the paper uses:
    ``(x - p_low) / (p_high - p_low + eps)``, percentiles with linear interpolation over every pixel, the
    arithmetic in float32. It differs in the default of `clip` alone: deepGPS clips, for its images are in
    [0, 1].

    Parameters
    ----------
    pixels
        (H, W) intensities of any numeric type, finite.
    low, high
        The percentiles, 0 … 100.
    clip
        Whether to cut the result to [0, 1].
    eps
        Keeps a constant image from dividing by zero.

    Returns
    -------
    (H, W) float32.
    """
    p_low, p_high = np.asarray(np.percentile(pixels, (low, high)), np.float32)
    scaled = (pixels.astype(np.float32) - p_low) / (p_high - p_low + np.float32(eps))
    return np.asarray(np.clip(scaled, 0, 1) if clip else scaled, np.float32)
