"""The pixel size a TIFF file claims, from OME-XML, ImageJ's description or the resolution tags."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from deepgps.images.limits import PLAUSIBLE_PIXEL_UM

if TYPE_CHECKING:
    from tifffile import TiffFile

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
"""Micrometres in one of each unit that OME-XML and ImageJ write, in lower case."""

_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 1e4}  # TIFF 6.0: 2 is the inch, 3 the centimetre


def tiff_pixel_size(tif: "TiffFile") -> tuple[float | None, tuple[str, ...]]:
    """Tell the pixel size of a TIFF file, the most explicit source first.

    Parameters
    ----------
    tif
        An open file with at least one page.

    Returns
    -------
    Micrometres per pixel (of the first image, along x), or None where no source gives a plausible one; and
    what the user should know about it. A resolution of 72 or 96 dpi is a screen's, not a microscope's.
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
    """Find the ``Pixels`` element of the first image of an OME-XML document; None where it is broken."""
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
