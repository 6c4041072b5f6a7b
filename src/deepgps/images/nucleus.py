"""The nucleus image that travels between the rooms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Nucleus:
    """One nucleus image, normalised and ready to be drawn into.

    Attributes
    ----------
    name
        A short name that tells nuclei apart in tables and file names.
    pixels
        (H, W) float32 in [0, 1].
    pixel_size_um
        Edge of a pixel in micrometres.
    source
        Where it came from: a file, or ``drawn``.
    warnings
        What the user should know about how it was read.
    """

    name: str
    pixels: NDArray[np.float32]
    pixel_size_um: float
    source: str
    warnings: tuple[str, ...] = ()
