"""Read an OME-Zarr image (OME-NGFF 0.4 and 0.5), and describe the images that deepGPS stores as one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.errors import InputError, MissingExtraError
from deepgps.images.decode import MAX_PIXELS, Decoded, damage_message, size_message, stack_message
from deepgps.images.pixel_size import UNIT_UM, PixelSize, plausible, square_or_not

OME_ZARR_VERSION = "0.5"
_OLD_AXES = ("t", "c", "z", "y", "x")
"""Axes of images up to 0.2, which name none."""


def decode_ome_zarr(path: Path) -> Decoded:
    """Decode an OME-Zarr image: the finest level that has at most `MAX_PIXELS`.

    Parameters
    ----------
    path
        The folder of one image, with ``multiscales`` in its attributes; not that of a plate or of several.

    Returns
    -------
    Decoded
        All channels, with their names and pixel size.

    Raises
    ------
    InputError
        If the folder holds no such image or a damaged one, or the image is a stack or too large.
    MissingExtraError
        If ``zarr`` is not installed.
    """
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Image '{path}' needs '{error.name}', which is not installed: pip install 'deepgps[scale]'."
        ) from None
    try:
        group = zarr.open_group(path, mode="r")
        attributes = group.attrs.asdict()
        metadata = attributes.get("ome", attributes)
        if not metadata.get("multiscales"):
            raise InputError(
                f"'{path}' is no OME-Zarr image: its attributes have no 'multiscales'. Of a plate, or of "
                "several images, give the folder of one, such as 'A/1/0'."
            )
        return _decode(path, group, metadata)
    except InputError:
        raise
    except Exception as error:  # codecs and metadata of other programs raise exceptions of any type
        raise InputError(damage_message(path, error)) from None


def _decode(path: Path, group: Any, metadata: Mapping[str, Any]) -> Decoded:
    multiscale = metadata["multiscales"][0]
    axes = [each if isinstance(each, str) else each["name"] for each in multiscale.get("axes", _OLD_AXES)]
    notes: list[str] = []
    for number, level in enumerate(multiscale["datasets"]):
        array = group[level["path"]]
        size = dict(zip(axes, array.shape, strict=True))
        if stacked := [axis for axis in axes if axis not in ("c", "y", "x") and size[axis] > 1]:
            raise InputError(stack_message(path, f"{size[stacked[0]]} images along '{stacked[0]}'"))
        if math.prod(array.shape) <= MAX_PIXELS:
            break
        notes = [f"Image '{path.name}' is too large; its level {number + 1} was read, which is coarser."]
    else:
        raise InputError(size_message(path))
    pixels = np.asarray(array[tuple(slice(None) if axis in ("c", "y", "x") else 0 for axis in axes)])
    kept = [axis for axis in axes if axis in ("c", "y", "x")]
    pixels = pixels if "c" in kept else pixels[None]
    order = [(kept if "c" in kept else ["c", *kept]).index(axis) for axis in ("c", "y", "x")]
    labels = [str(each.get("label", "")) for each in metadata.get("omero", {}).get("channels", ())]
    names = tuple(labels) if len(labels) == pixels.shape[order[0]] and any(labels) else ()
    return Decoded(
        pixels.transpose(order),
        names,
        pixel_size_um=_pixel_size(multiscale, level, axes),
        warnings=tuple(notes),
    )


def _pixel_size(
    multiscale: Mapping[str, Any], level: Mapping[str, Any], axes: Sequence[str]
) -> PixelSize | None:
    """Return height and width of a pixel in micrometres; None if the unit is not stated or implausible."""
    units = [each.get("unit") if isinstance(each, dict) else None for each in multiscale.get("axes", ())]
    key = "coordinateTransformations"
    transforms = (*level.get(key, ()), *multiscale.get(key, ()))
    scales = [each["scale"] for each in transforms if each.get("type") == "scale"]
    if not scales or len(units) != len(axes):
        return None
    sizes = []
    for axis in ("y", "x"):
        place = axes.index(axis)
        unit = UNIT_UM.get(str(units[place]).lower())
        sizes.append(None if unit is None else unit * math.prod(float(each[place]) for each in scales))
    size = square_or_not((sizes[0], sizes[1]))
    return size if size and plausible(size) else None


def ome_metadata(images: Mapping[str, str], pixel_size_um: float) -> dict[str, Any]:
    """Return the attribute ``ome`` of a group whose arrays hold a list of images each.

    Parameters
    ----------
    images
        By name of the array, what its first axis counts; the others are y and x.
    pixel_size_um
        Edge of a pixel in micrometres.

    Returns
    -------
    dict
        Metadata of OME-NGFF 0.5 with one entry of ``multiscales``, of one level, for each array.
    """
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    scale = [{"type": "scale", "scale": [1.0, pixel_size_um, pixel_size_um]}]
    return {
        "version": OME_ZARR_VERSION,
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": counted, "type": counted}, *space],
                "datasets": [{"path": name, "coordinateTransformations": scale}],
            }
            for name, counted in images.items()
        ],
    }
