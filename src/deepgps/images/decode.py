"""Decode TIFF, PNG and JPEG files into channels with a pixel size."""

import gzip
import logging
import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from deepgps.errors import InputError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries


MAX_PIXELS = 100_000_000
"""Largest height × width × channels of an image, checked in its header before decoding."""

MIN_EDGE_PX = 16
"""Smallest height and width of an image, in pixels."""

PLAUSIBLE_PIXEL_UM = (0.01, 10.0)
"""Range of pixel sizes of microscopes in micrometres; others are print resolutions or defaults."""


UNIT_UM: Mapping[str, float] = {
    "µm": 1.0,
    "μm": 1.0,  # the Greek letter; the line above has the micro sign
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "\\u00b5m": 1.0,  # ImageJ writes the escape itself
    "å": 1e-4,
    "pm": 1e-6,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Micrometres per unit, for units that OME-XML and ImageJ write, in lower case."""

_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 1e4}  # TIFF 6.0: 2 is the inch, 3 the centimetre


def tiff_pixel_size(tif: "TiffFile") -> tuple[float | None, tuple[str, ...]]:
    """Return the pixel size of a TIFF file, from the most explicit source.

    Parameters
    ----------
    tif
        An open file with at least one page.

    Returns
    -------
    size_um : float or None
        Micrometres per pixel of the first image along x; None if no source has a plausible one. Resolutions
        of 72 or 96 dpi are those of screens.
    warnings : tuple of str
        What the user should know about it.
    """
    size = _from_ome(tif.ome_metadata) if tif.is_ome else None
    if size is None and tif.is_imagej:
        size = _from_imagej(tif)
    if size is None:
        size = _from_tags(tif)
        return (size, ()) if size and _plausible(size) else (None, ())
    if _plausible(size):
        return size, ()
    low, high = PLAUSIBLE_PIXEL_UM
    return None, (
        f"Its metadata give {size:g} µm per pixel, which is not within {low} and {high} µm; ignored.",
    )


def _plausible(size_um: float) -> bool:
    return PLAUSIBLE_PIXEL_UM[0] <= size_um <= PLAUSIBLE_PIXEL_UM[1]


def ome_pixels(xml: str | None) -> ElementTree.Element | None:
    """Find the ``Pixels`` element of the first image of an OME-XML document; None if it is malformed."""
    try:
        root = ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return None
    return next((node for node in root.iter() if node.tag.endswith("}Pixels")), None)


def _from_ome(xml: str | None) -> float | None:
    pixels = ome_pixels(xml)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    return _scaled(pixels.attrib["PhysicalSizeX"], pixels.get("PhysicalSizeXUnit", "µm"))


def _from_imagej(tif: "TiffFile") -> float | None:
    unit = str((tif.imagej_metadata or {}).get("unit", ""))
    per_unit = _pixels_per_unit(tif)
    return _scaled(1 / per_unit, unit) if per_unit else None


def _from_tags(tif: "TiffFile") -> float | None:
    unit = tif.pages.first.tags.get("ResolutionUnit")
    um = _RESOLUTION_UNIT_UM.get(int(unit.value)) if unit else None
    per_unit = _pixels_per_unit(tif)
    return um / per_unit if um and per_unit else None


def _pixels_per_unit(tif: "TiffFile") -> float | None:
    tag = tif.pages.first.tags.get("XResolution")
    if tag is None:
        return None
    numerator, denominator = tag.value
    return numerator / denominator if numerator and denominator else None


def _scaled(length: float | str, unit: str) -> float | None:
    try:
        return float(length) * UNIT_UM[unit.strip().lower()]
    except (KeyError, ValueError):
        return None


# Without a handler, Python prints what tifffile logs about damaged tags.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAX_CHANNELS = 8
"""An unnamed third axis of at most this length is taken for channels; a longer one is a stack."""

_EXACT_MODES = ("L", "I", "I;16", "I;16B", "F", "RGB")
_GREY_MODES = ("1", "LA", "La", *_EXACT_MODES[:-1])


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The decoded channels of an image file.

    Attributes
    ----------
    channels
        (C, H, W) intensities as stored.
    names
        Names of the channels; empty if unknown.
    colour
        Whether the channels are red, green and blue.
    pixel_size_um
        Pixel size in micrometres from the metadata, or None.
    warnings
        What the user should know.
    """

    channels: NDArray[np.generic]
    names: tuple[str, ...] = ()
    colour: bool = False
    pixel_size_um: float | None = None
    warnings: tuple[str, ...] = ()


def decode_image(path: Path) -> Decoded:
    """Decode a TIFF, OME-TIFF, PNG or JPEG file, plain or gzipped, detected by its first bytes.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Decoded
        All channels, as stored.

    Raises
    ------
    InputError
        If the file cannot be opened, has another format, is damaged, has more than `MAX_PIXELS`, or is a
        stack.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"Image '{path}' cannot be opened: {error.strerror}.") from None
    content: Path | BytesIO = path
    if start[:2] == b"\x1f\x8b":
        content = _decompress(path)
        start = content.getvalue()[:8]
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        reader = _decode_tiff
    elif start == b"\x89PNG\r\n\x1a\n" or start[:3] == b"\xff\xd8\xff":
        reader = _decode_image
    else:
        raise InputError(f"'{path}' is not an image deepGPS can read; give a TIFF, OME-TIFF or PNG file.")
    try:
        return reader(path, content)
    except InputError:
        raise
    except Exception as error:  # decoders raise exceptions of any type on damaged files
        raise InputError(_damage_message(path, error)) from None


def _damage_message(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return f"Image '{path}' is truncated or damaged ({reason}); save it again."


def _decompress(path: Path) -> BytesIO:
    """Decompress a gzipped file, up to the size of the largest image."""
    max_bytes = 4 * MAX_PIXELS
    try:
        with gzip.open(path) as packed:
            content = packed.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(_damage_message(path, error)) from None
    if len(content) > max_bytes:
        raise InputError(_size_message(path))
    return BytesIO(content)


def _size_message(path: Path) -> str:
    return (
        f"Image '{path}' has more than {MAX_PIXELS:,} pixels, the most that are read. "
        "Crop it or save it smaller."
    )


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if math.prod(shape) > MAX_PIXELS:
        size = " × ".join(f"{n:,}" for n in shape)
        raise InputError(
            f"Image '{path}' has {size} pixels; at most {MAX_PIXELS:,} are read. Crop it or save it smaller."
        )


def _decode_image(path: Path, content: Path | BytesIO) -> Decoded:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is stricter
        try:
            image = Image.open(content)
        except Image.DecompressionBombError:
            raise InputError(_size_message(path)) from None
    with image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise InputError(_stack_message(path, f"{frames} frames"))
        grey = image.mode in _GREY_MODES
        _check_size((image.height, image.width, 1 if grey else 3), path)
        pixels = np.asarray(image if image.mode in _EXACT_MODES else image.convert("L" if grey else "RGB"))
        jpeg = image.format != "PNG"
    lossy = (f"Image '{path.name}' is a JPEG; its compression blurs texture.",) if jpeg else ()
    channels = pixels[None] if grey else np.moveaxis(pixels, -1, 0)
    return Decoded(channels, colour=not grey, warnings=lossy)


def _decode_tiff(path: Path, content: Path | BytesIO) -> Decoded:
    from tifffile import TiffFile

    with TiffFile(content) as tif:
        series = tif.series[0]
        axes, shape = _squeezed(series.axes, series.shape)
        channel_axis = _channel_axis(axes, shape, path)
        _check_size(shape, path)
        _check_complete(tif, path)
        pixels = _tiff_pixels(series, content).reshape(shape)
        size, notes = tiff_pixel_size(tif)
        names = _channel_names(tif)
        if len(tif.series) > 1:
            notes += (f"Image '{path.name}' has {len(tif.series)} images; the first was read.",)
    channels = pixels[None] if channel_axis is None else np.moveaxis(pixels, channel_axis, 0)
    colour = channel_axis is not None and axes[channel_axis] == "S" and len(channels) in (3, 4)
    if colour:
        channels = channels[:3]  # the fourth is transparency
    return Decoded(channels, names if len(names) == len(channels) else (), colour, size, notes)


def _squeezed(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    kept = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n > 1 or axis in "YX"]
    return "".join(axis for axis, _ in kept), tuple(n for _, n in kept)


def _channel_axis(axes: str, shape: tuple[int, ...], path: Path) -> int | None:
    """Return the channel axis, or None for a plain (H, W) image; raise an error for a stack."""
    if len(shape) == 2:
        return None
    named = [index for index, axis in enumerate(axes) if axis in "CS"]
    if len(shape) == 3 and named:
        return named[0]
    smallest = int(np.argmin(shape))
    if len(shape) == 3 and not set(axes) & set("ZT") and shape[smallest] <= _MAX_CHANNELS:
        return smallest
    raise InputError(_stack_message(path, " × ".join(f"{n} {a}" for a, n in zip(axes, shape, strict=True))))


def _stack_message(path: Path, extent: str) -> str:
    return (
        f"Image '{path}' is a stack or a time series ({extent}); "
        "deepGPS reads one plane: give a maximum projection or a single slice."
    )


def _check_complete(tif: "TiffFile", path: Path) -> None:
    pages = [page for page in tif.series[0].pages if page is not None]
    end = max(
        offset + count
        for page in pages
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    )
    if end > (size := tif.filehandle.size):
        raise InputError(f"Image '{path}' is truncated: {end:,} bytes expected, {size:,} found.")


def _tiff_pixels(series: "TiffPageSeries", content: Path | BytesIO) -> NDArray[np.generic]:
    try:
        return np.asarray(series.asarray(maxworkers=1))
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    return _tiff_pixels_by_pillow(series, content)


def _tiff_pixels_by_pillow(series: "TiffPageSeries", content: Path | BytesIO) -> NDArray[np.generic]:
    """Decode pages in compressions that tifffile does not support by itself (LZW, JPEG)."""
    from PIL import Image

    with Image.open(content) as image:
        pages = []
        for page in series.pages:
            if page is None:
                raise ValueError("a page is missing")
            image.seek(page.index)
            pages.append(np.asarray(image))
    return np.stack(pages)


def _channel_names(tif: "TiffFile") -> tuple[str, ...]:
    if not tif.is_ome:
        return tuple(map(str, (tif.imagej_metadata or {}).get("Labels", ()))) if tif.is_imagej else ()
    pixels = ome_pixels(tif.ome_metadata)
    nodes = () if pixels is None else [node for node in pixels if node.tag.endswith("}Channel")]
    return tuple(node.get("Name") or node.get("Fluor") or "" for node in nodes)
