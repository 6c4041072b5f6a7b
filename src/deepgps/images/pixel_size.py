"""The pixel size that an image file states: OME-XML, ImageJ, other programs' metadata, resolution tags."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from tifffile import TiffFile

PLAUSIBLE_PIXEL_UM = (0.01, 10.0)
"""Range of pixel sizes of microscopes in micrometres; others are print resolutions or defaults."""

UNIT_UM: Mapping[str, float] = {
    # The micro sign, the Greek letter, ImageJ's escape, and the micro sign read in a wrong encoding.
    **dict.fromkeys(("µm", "μm", "um", "\\u00b5m", "âµm", "\ufffdm"), 1.0),
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1.0),
    **dict.fromkeys(("å", "angstrom", "angstroms"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), 25_400.0),
}
"""Micrometres per unit, for units that OME-XML, ImageJ and MetaMorph write, in lower case."""

# TIFF 6.0 knows the inch and the centimetre; tifffile also writes the millimetre and the micrometre.
_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 1e4, 4: 1e3, 5: 1.0}

PixelSize = tuple[float, float]
"""Height and width of a pixel in micrometres."""


def tiff_pixel_size(tif: "TiffFile") -> tuple[PixelSize | None, tuple[str, ...]]:
    """Return the pixel size of a TIFF file, from the most explicit source that has a plausible one.

    Parameters
    ----------
    tif
        An open file with at least one page.

    Returns
    -------
    size_um : PixelSize or None
        Size of a pixel of the first image; None if no source has a plausible one. Where a source has one axis
        only, pixels are square. Resolutions of 72 or 96 dpi are those of screens.
    warnings : tuple of str
        What the user should know about it.
    """
    notes: tuple[str, ...] = ()
    for read in _SOURCES:
        try:
            found = square_or_not(read(tif))
        except Exception:  # metadata may be damaged in any way, and then say nothing
            continue
        if found is None:
            continue
        if plausible(found):
            return found, notes
        if read is not _tags and not notes:
            low, high = PLAUSIBLE_PIXEL_UM
            notes = (
                f"The metadata of '{tif.filename}' give {max(found):g} µm per pixel, which is not within "
                f"{low} and {high} µm; ignored.",
            )
    return None, notes


def plausible(size: PixelSize) -> bool:
    """Return whether a microscope may have pixels of that size."""
    return all(PLAUSIBLE_PIXEL_UM[0] <= um <= PLAUSIBLE_PIXEL_UM[1] for um in size)


def square_or_not(size: tuple[float | None, float | None]) -> PixelSize | None:
    """Complete a size (y, x) of which one axis may be unknown or zero; None if both are."""
    y, x = (um if um and math.isfinite(um) and um > 0 else None for um in size)
    y, x = y or x, x or y
    return None if y is None or x is None else (y, x)


def ome_root(xml: str | None) -> ElementTree.Element | None:
    """Parse an OME-XML document; None if it is malformed."""
    try:
        return ElementTree.fromstring(xml or "")
    except ElementTree.ParseError:
        return None


def ome_elements(node: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Yield the elements of a name below a node, with or without a namespace."""
    return (each for each in node.iter() if each.tag.rpartition("}")[2] == name)


def ome_pixels(xml: str | None) -> ElementTree.Element | None:
    """Find the ``Pixels`` element of the first image of an OME-XML document; None if there is none."""
    root = ome_root(xml)
    return None if root is None else next(ome_elements(root, "Pixels"), None)


_MICRONS_PER_PIXEL = re.compile(r"\bMPP\s*=\s*([0-9.]+)")

_Sizes = tuple[float | None, float | None]
_NONE: _Sizes = (None, None)


def _ome(tif: "TiffFile") -> _Sizes:
    pixels = ome_pixels(tif.ome_metadata)
    if pixels is None:
        return _NONE
    y, x = (
        _scaled(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YX"
    )
    return y, x


def _imagej(tif: "TiffFile") -> _Sizes:
    # The keyword ``yunit`` exists where the axes differ; a missing ``unit`` means pixels.
    metadata = tif.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    y, x = _pixels_per_unit(tif)
    return (
        _scaled(1 / y, str(metadata.get("yunit", unit))) if y else None,
        _scaled(1 / x, unit) if x else None,
    )


def _metamorph(tif: "TiffFile") -> _Sizes:
    from tifffile.tifffile import metaseries_description_metadata

    text = tif.pages.first.description
    plane: Any = metaseries_description_metadata(text)["PlaneInfo"] if text.startswith("<MetaData") else {}
    if plane and plane.get("spatial-calibration-state", True):
        unit = str(plane.get("spatial-calibration-units", "um"))
        y, x = (_scaled(plane.get(f"spatial-calibration-{axis}"), unit) for axis in "yx")
        if y or x:
            return y, x
    stack: Any = tif.stk_metadata or {}
    unit = str(stack.get("CalibrationUnits", ""))
    y, x = (_scaled(stack.get(f"{axis}Calibration"), unit) for axis in "YX")
    return y, x


def _aperio(tif: "TiffFile") -> _Sizes:
    stated = _MICRONS_PER_PIXEL.search(tif.pages.first.description) if tif.is_svs else None
    size = _scaled(stated[1], "µm") if stated else None
    return size, size


def _zeiss(tif: "TiffFile") -> _Sizes:
    metadata: Any = tif.lsm_metadata or {}
    return _scaled(metadata.get("VoxelSizeY"), "m"), _scaled(metadata.get("VoxelSizeX"), "m")


def _olympus(tif: "TiffFile") -> _Sizes:
    metadata: Any = tif.sis_metadata or {}
    return _scaled(metadata.get("pixelsizey"), "m"), _scaled(metadata.get("pixelsizex"), "m")


def _micro_manager(tif: "TiffFile") -> _Sizes:
    page: Any = tif.pages.first.tags.valueof(51123) or {}  # MicroManagerMetadata
    size = _scaled(page.get("PixelSizeUm"), "µm")
    return size, size


def _tags(tif: "TiffFile") -> _Sizes:
    unit = tif.pages.first.tags.get("ResolutionUnit")
    um = _RESOLUTION_UNIT_UM.get(int(unit.value) if unit else 2)  # TIFF 6.0: the inch, unless stated
    y, x = _pixels_per_unit(tif)
    return (um / y if um and y else None), (um / x if um and x else None)


_SOURCES: tuple[Callable[["TiffFile"], _Sizes], ...] = (
    _ome,
    _imagej,
    _metamorph,
    _aperio,
    _zeiss,
    _olympus,
    _micro_manager,
    _tags,
)


def _pixels_per_unit(tif: "TiffFile") -> _Sizes:
    y, x = (_ratio(tif, f"{axis}Resolution") for axis in "YX")
    return y, x


def _ratio(tif: "TiffFile", name: str) -> float | None:
    tag = tif.pages.first.tags.get(name)
    if tag is None:
        return None
    numerator, denominator = tag.value
    return numerator / denominator if numerator and denominator else None


def _scaled(length: Any, unit: str) -> float | None:
    """Convert a length to micrometres; None if it is no positive number or the unit is unknown."""
    try:
        um = float(length) * UNIT_UM[unit.strip().lower()]
    except (KeyError, TypeError, ValueError):
        return None
    return um if um > 0 else None
