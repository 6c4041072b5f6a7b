"""Both images of one field, read and held against each other."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from skimage.filters import threshold_otsu

from deepgps.arrays import Floats
from deepgps.datasets.crops.fields import FieldRow
from deepgps.errors import InputError
from deepgps.images.decode import Decoded, decode
from deepgps.images.read import Field, check_channel, dominant_colour, nucleus_score, select_channel

SWAPPED = 0.5
"""By how much more nucleus-like the protein image must be for the channels to be taken as swapped."""


SMALLEST_UM2 = 40.0
"""What is smaller is no nucleus."""


class FieldImages(NamedTuple):
    """Raw images (H, W) of the same cells, and their pixel size in micrometres."""

    nucleus: Floats
    protein: Floats
    pixel_size_um: float


def read_images(row: FieldRow, *, check_order: bool = True) -> FieldImages:
    """Read both images of a field.

    Parameters
    ----------
    row
        The field; its paths as they are to be opened.
    check_order
        Whether to refuse a field whose protein image looks far more like nuclei than its nucleus image.

    Raises
    ------
    InputError
        If an image cannot be read, its channel is not named, its pixel size is not known, the two do not have
        one shape, or they look swapped.
    """
    first = decode(row.nucleus)
    second = first if row.protein == row.nucleus else decode(row.protein)
    if second is first and row.nucleus_channel == row.protein_channel:
        raise InputError(
            f"Nucleus and protein are the same channel of '{row.nucleus.name}'; "
            "give nucleus_channel and protein_channel."
        )
    nucleus = _channel(first, row.nucleus, row.nucleus_channel, row.pixel_size_um, "nucleus")
    protein = _channel(second, row.protein, row.protein_channel, row.pixel_size_um, "protein")
    if nucleus.pixels.shape != protein.pixels.shape:
        sizes = [" × ".join(map(str, image.pixels.shape[::-1])) for image in (nucleus, protein)]
        raise InputError(f"Its nucleus image has {sizes[0]} pixels, its protein image {sizes[1]}.")
    if nucleus.pixel_size_um is None:
        raise InputError("Neither the list nor the image says its pixel size; give pixel_size_um.")
    if check_order:
        _check_order(nucleus.pixels, protein.pixels, nucleus.pixel_size_um)
    return FieldImages(nucleus.pixels, protein.pixels, nucleus.pixel_size_um)


def _channel(decoded: Decoded, path: Path, channel: int | None, um: float | None, kind: str) -> Field:
    count = len(decoded.channels)
    if channel is not None:
        return select_channel(decoded, check_channel(channel, count, path.name), path, um)
    index = dominant_colour(decoded.channels) if decoded.colour else 0 if count == 1 else None
    if index is None:
        raise InputError(
            f"Image '{path.name}' has {count} channels, and the list does not say which is the {kind}; "
            f"give {kind}_channel, from 0."
        )
    return select_channel(decoded, index, path, um)


def _check_order(nucleus: Floats, protein: Floats, um: float) -> None:
    # In a dense field nuclei merge, while nucleoli, round as they are, stay apart: size tells them.
    smallest = SMALLEST_UM2 / (um**2 * nucleus.size)
    # One dividing or dying cell outshines all others: without its excess they are seen, too.
    dimmed = np.minimum(nucleus, threshold_otsu(nucleus))  # type: ignore[no-untyped-call]
    its = max(nucleus_score(pixels, smallest) for pixels in (nucleus, dimmed))
    # The other can be 1 at most.
    if its < 1 - SWAPPED and (other := nucleus_score(protein, smallest)) > its + SWAPPED:
        raise InputError(
            f"Its protein image looks far more like nuclei than its nucleus image ({other:.2f} against "
            f"{its:.2f}); are the channels swapped? If not, use --channel-order trust."
        )
