"""A nucleus image from a file: one channel, raw intensities, and the pixel size if it is known."""

import math
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.channel import check_channel, colour_channel, guess_channel
from deepgps.images.decode import Decoded, decode
from deepgps.images.limits import MIN_EDGE_PX


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of view, as it was recorded.

    Attributes
    ----------
    pixels
        (H, W) float32 raw intensities of the nucleus channel, finite and not all equal.
    pixel_size_um
        Edge of a pixel in micrometres, or None where neither the user nor the file says.
    source
        The file.
    warnings
        What the user should know about how it was read.
    """

    pixels: Floats
    pixel_size_um: float | None
    source: str
    warnings: tuple[str, ...] = ()


def read_field(
    path: str | PathLike[str], *, channel: int | None = None, pixel_size_um: float | None = None
) -> Field:
    """Read the nucleus channel of a TIFF, OME-TIFF, PNG or JPEG file.

    Parameters
    ----------
    path
        8- or 16-bit or float, (H, W), (C, H, W) or (H, W, C); the axes are those the file names, otherwise
        the shortest of three is the channels'.
    channel
        Which channel is the nucleus, from 0; guessed, with a warning, where it is not given.
    pixel_size_um
        Micrometres per pixel; otherwise that of the OME-XML, ImageJ's metadata or the TIFF resolution.

    Raises
    ------
    InputError
        If the file is no image, damaged, too large, too small, blank, a stack, an RGB photograph, or has NaN
        or infinite pixels; if the channel does not exist; if the pixel size is not a positive number.
    """
    path = Path(path)
    if pixel_size_um is not None and not (math.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise InputError(f"Pixel size {pixel_size_um} is not a positive number; give micrometres per pixel.")
    decoded = decode(path)
    index, notes = _choose(decoded, channel, path.name)
    return field_of(decoded, index, path, pixel_size_um, notes)


def field_of(
    decoded: Decoded, index: int, path: Path, pixel_size_um: float | None, notes: tuple[str, ...] = ()
) -> Field:
    """Take one channel of a decoded file, from 0, as `read_field` does.

    Raises
    ------
    InputError
        If the channel is too small, blank, or has NaN or infinite pixels.
    """
    return Field(
        pixels=_checked(decoded.channels[index], path),
        pixel_size_um=decoded.pixel_size_um if pixel_size_um is None else pixel_size_um,
        source=str(path),
        warnings=(*decoded.warnings, *notes),
    )


def image_stem(path: str | PathLike[str]) -> str:
    """Return an image's name without folder and suffixes: ``a.b`` for ``a.b.ome.tif``."""
    name = Path(path).name
    return re.sub(r"(\.ome)?\.(tiff?|btf|tf2|tf8|png|jpe?g)(\.gz)?$", "", name, flags=re.IGNORECASE) or name


def _choose(decoded: Decoded, channel: int | None, name: str) -> tuple[int, tuple[str, ...]]:
    count = len(decoded.channels)
    if channel is not None:
        return check_channel(channel, count, name), ()
    if decoded.colour:
        return colour_channel(decoded.channels, name)
    if count == 1:
        return 0, ()
    index, note = guess_channel(decoded.channels, decoded.names, name)
    return index, (note,)


def _checked(pixels: NDArray[np.generic], path: Path) -> Floats:
    height, width = pixels.shape
    if min(height, width) < MIN_EDGE_PX:
        raise InputError(
            f"Image '{path}' has {width} × {height} pixels; {MIN_EDGE_PX} × {MIN_EDGE_PX} are needed."
        )
    if np.iscomplexobj(pixels):
        raise InputError(f"Image '{path}' has complex numbers as pixels; give intensities.")
    values = pixels.astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise InputError(f"Image '{path}' has {bad:,} NaN or infinite pixels; replace them, e.g. by 0.")
    if values.min() == values.max():
        raise InputError(f"Image '{path}' is blank: every pixel is {values.flat[0]:g}; give one with cells.")
    return values
