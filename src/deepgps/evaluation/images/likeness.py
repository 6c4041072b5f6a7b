"""What of the measures in `deepgps.images.similarity` only evaluating needs.

Images are (N, H, W) float32 in [0, 1], so the data range of every measure is 1. A measure that says nothing
of an image, such as a correlation with a constant one, is NaN there and left out of every mean.
"""

import numpy as np

from deepgps.arrays import Doubles, Floats, Mask
from deepgps.errors import InputError


def check_images(images: Floats, name: str) -> None:
    """Refuse images with pixels that are no numbers or lie outside [0, 1].

    Parameters
    ----------
    images
        (N, H, W).
    name
        What the refusal calls them.

    Raises
    ------
    InputError
        If a pixel is NaN or infinite, below 0 or above 1.
    """
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            f"An image of '{name}' has pixels that are not numbers; a model that draws such is broken."
        )
    # Half a grey value: what rounding may add.
    if low < -0.002 or high > 1.002:
        raise InputError(
            f"An image of '{name}' has pixels from {low:.3g} to {high:.3g}; all images are in [0, 1]."
        )


def right_side(fractions: Doubles, nuclear: Mask, cytoplasmic: Mask) -> tuple[float, float]:
    """Share of images whose intranuclear fraction lies on the right side of the middle of the two means.

    Parameters
    ----------
    fractions
        (N,) intranuclear fractions.
    nuclear, cytoplasmic
        (N,) which images are of which kind.

    Returns
    -------
    share, threshold
    """
    threshold = (np.nanmean(fractions[nuclear]) + np.nanmean(fractions[cytoplasmic])) / 2
    right = np.concatenate([fractions[nuclear] > threshold, fractions[cytoplasmic] <= threshold])
    return float(right.mean()), float(threshold)
