"""One pixel size to another."""

import math

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.limits import MAX_PIXELS

SAME_SIZE = 0.01
"""Pixel sizes closer than this share are taken as equal: over a 208-px crop the difference is two pixels."""


def resample(pixels: Floats, from_um: float, to_um: float) -> Floats:
    """Resample an image to another pixel size, linearly, blurred first where it shrinks.

    Parameters
    ----------
    pixels
        (H, W) float32 of any range.
    from_um, to_um
        Pixel size of `pixels` and of the result, in micrometres.

    Returns
    -------
    (H', W') float32 with ``H' = round(H * from_um / to_um)``, 1 at least; `pixels` itself where the two sizes
    differ by no more than `SAME_SIZE`.

    Raises
    ------
    InputError
        If a pixel size is not a positive number, or the result would have more than `MAX_PIXELS` pixels.
    """
    for size in (from_um, to_um):
        if not (math.isfinite(size) and size > 0):
            raise InputError(f"Pixel size {size} is not a positive number; give micrometres per pixel.")
    if abs(from_um / to_um - 1) <= SAME_SIZE:
        return pixels
    shape = tuple(max(1, round(n * from_um / to_um)) for n in pixels.shape)
    if math.prod(shape) > MAX_PIXELS:
        raise InputError(
            f"At {from_um:g} µm per pixel the image would have {shape[1]:,} × {shape[0]:,} pixels of "
            f"{to_um:g} µm; at most {MAX_PIXELS:,} are taken. Check its pixel size, or crop it."
        )
    from scipy import ndimage  # 0.2 s that most predictions, in default nuclei, never need

    sigma = max(0.0, (to_um / from_um - 1) / 2)  # the choice of skimage.transform.resize
    blurred = ndimage.gaussian_filter(pixels, sigma, mode="nearest") if sigma else pixels
    zoom = [new / old for new, old in zip(shape, pixels.shape, strict=True)]
    resized = ndimage.zoom(blurred, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(resized, np.float32)
