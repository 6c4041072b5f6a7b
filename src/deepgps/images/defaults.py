"""The nuclei that ship: drawn by `deepgps.images.drawn`, stored as 8-bit PNG."""

from importlib import resources

import numpy as np

from deepgps.errors import InputError
from deepgps.images.cell import Cell

PIXEL_SIZE_UM = 0.206349
"""Edge of a pixel of every default nucleus, in micrometres: that of the OpenCell fields."""

DEFAULT_NAMES = ("hek-1", "hek-2", "hek-3", "hek-crowded", "hek-kidney", "u2os-1")
"""The default nuclei; the first is used where a user gives none."""


def default_nuclei() -> tuple[Cell, ...]:
    """Read all default nuclei, in the order of `DEFAULT_NAMES`."""
    return tuple(default_nucleus(name) for name in DEFAULT_NAMES)


def default_nucleus(name: str = DEFAULT_NAMES[0]) -> Cell:
    """Read one default nucleus.

    Returns
    -------
    A nucleus of (208, 208) pixels of `PIXEL_SIZE_UM`, in the centre of the image, perhaps with neighbours.

    Raises
    ------
    InputError
        If there is no default nucleus of that name.
    """
    if name not in DEFAULT_NAMES:
        raise InputError(f"Default nucleus '{name}' is unknown; use one of {', '.join(DEFAULT_NAMES)}.")
    from PIL import Image

    file = resources.files("deepgps.images") / "default_nuclei" / f"{name}.png"
    with file.open("rb") as stream, Image.open(stream) as image:
        pixels = np.asarray(image, np.float32) / np.float32(255)
    return Cell(name, pixels, PIXEL_SIZE_UM, "drawn")
