"""Nuclei to draw into: a user's own, from an image file, and those that ship."""

import re
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.images.defaults import default_nuclei, default_nucleus
from deepgps.images.limits import MIN_EDGE_PX
from deepgps.images.normalise import percentile_normalise
from deepgps.images.read import Field, read_field
from deepgps.images.resample import resample

if TYPE_CHECKING:
    from deepgps.images.segment import Segmenter

__all__ = ["default_nuclei", "default_nucleus", "fit_nucleus", "image_stem", "load_nucleus"]


def load_nucleus(
    path: str | PathLike[str],
    *,
    crop_px: int,
    pixel_size_um: float,
    channel: int | None = None,
    image_pixel_size_um: float | None = None,
    segmenter: "Segmenter | None" = None,
) -> Cell:
    """Take one nucleus out of an image file: read, resample, normalise, segment, crop.

    The crop is centred on the nucleus nearest to the centre of the field whose crop lies inside the field.
    Where no crop does, it is padded with background, with a warning. An image no larger than a crop is taken
    for a crop, and centred as it is.

    Parameters
    ----------
    path
        TIFF, OME-TIFF or PNG (see `read_field`).
    crop_px
        Edge of the crop in pixels of `pixel_size_um`.
    pixel_size_um
        The pixel size the model was trained at, in micrometres.
    channel
        Which channel is the nucleus, from 0; guessed where it is not given.
    image_pixel_size_um
        The image's own pixel size, where the file does not say or says it wrongly.
    segmenter
        Finds the nuclei; `OtsuWatershed` where it is not given.

    Returns
    -------
    A nucleus of (crop_px, crop_px) pixels, named after the file.

    Raises
    ------
    InputError
        If the image cannot be used (see `read_field`), or no nucleus is found in it.
    """
    field = read_field(path, channel=channel, pixel_size_um=image_pixel_size_um)
    pixels, notes = _prepared(field, pixel_size_um)
    crop, more = _central_crop(pixels, pixel_size_um, crop_px, segmenter, Path(path))
    return Cell(image_stem(path), crop, pixel_size_um, field.source, (*field.warnings, *notes, *more))


def fit_nucleus(nucleus: Cell, *, crop_px: int, pixel_size_um: float) -> Cell:
    """Bring a nucleus, one that ships, to the size and scale of a model's crops, its middle kept.

    Returns
    -------
    A nucleus of (crop_px, crop_px) pixels of `pixel_size_um`, padded with background where it is smaller; the
    same one where it fits as it is.
    """
    pixels = resample(nucleus.nucleus, nucleus.pixel_size_um, pixel_size_um)
    if pixels is nucleus.nucleus and pixels.shape == (crop_px, crop_px):
        return nucleus
    from deepgps.images.crop import cut

    height, width = pixels.shape
    return replace(
        nucleus, nucleus=cut(pixels, height // 2, width // 2, crop_px), pixel_size_um=pixel_size_um
    )


def image_stem(path: str | PathLike[str]) -> str:
    """Tell an image's name without folder and endings: ``a.b`` of ``x/a.b.ome.tif`` and of ``a.b.tif.gz``."""
    name = Path(path).name
    return re.sub(r"(\.ome)?\.(tiff?|btf|tf2|tf8|png|jpe?g)(\.gz)?$", "", name, flags=re.IGNORECASE) or name


def _prepared(field: Field, um: float) -> tuple[Floats, tuple[str, ...]]:
    name = Path(field.source).name
    notes: tuple[str, ...] = ()
    if field.pixel_size_um is None:
        notes = (
            f"Image '{name}' does not say its pixel size; {um:g} µm per pixel was assumed. "
            "Give it with --pixel-size-um.",
        )
    pixels = resample(field.pixels, field.pixel_size_um or um, um)
    if min(pixels.shape) < MIN_EDGE_PX:
        raise InputError(
            f"Image '{field.source}' is {min(pixels.shape) * um:.2g} µm wide at {field.pixel_size_um:g} µm "
            "per pixel, too small for a nucleus; check its pixel size."
        )
    return percentile_normalise(pixels), notes


def _central_crop(
    pixels: Floats, um: float, crop_px: int, segmenter: "Segmenter | None", path: Path
) -> tuple[Floats, tuple[str, ...]]:
    from deepgps.images.crop import cut, nucleus_crops
    from deepgps.images.segment import OtsuWatershed

    labels = (segmenter or OtsuWatershed())(pixels, um)
    height, width = pixels.shape
    if max(height, width) <= crop_px:
        notes = (
            [] if labels.any() else [f"No nucleus was found in '{path.name}'; the image was used as it is."]
        )
        if min(height, width) < crop_px:
            notes.append(
                f"Image '{path.name}' is smaller than a crop of {crop_px} px; its border was padded."
            )
        return cut(pixels, height // 2, width // 2, crop_px), tuple(notes)
    crops = nucleus_crops(pixels, labels, crop_px, padded=True)
    if not crops:
        raise InputError(
            f"No nucleus was found in image '{path}'; give an image of a nuclear stain, "
            "and check its channel (--channel) and pixel size (--pixel-size-um)."
        )
    best = min(
        crops,
        key=lambda c: (not c.complete, not c.whole_nucleus, np.hypot(c.row - height / 2, c.col - width / 2)),
    )
    if best.complete:
        return best.pixels, ()
    return best.pixels, (f"Every nucleus of '{path.name}' lies near its border; the crop was padded.",)
