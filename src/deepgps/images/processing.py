"""Normalise, resample and crop images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Floats, LabelImage
from deepgps.errors import InputError
from deepgps.images.decode import MAX_PIXELS

LOW, HIGH = 3.0, 99.8
"""The percentiles that become 0 and 1, as in CSBDeep and the paper."""


def percentile_normalise(
    pixels: NDArray[np.integer | np.floating],
    low: float = LOW,
    high: float = HIGH,
    *,
    clip: bool = True,
    eps: float = 1e-20,
) -> Floats:
    """Map two percentiles of a field to 0 and 1.

    Equal to ``csbdeep.utils.normalize(x, pmin, pmax, clip=...)``, which the paper uses:
    ``(x - p_low) / (p_high - p_low + eps)`` in float32, with linearly interpolated percentiles of all pixels.
    Only the default of `clip` differs, because images of deepGPS are in [0, 1].

    Parameters
    ----------
    pixels
        (H, W) intensities of any numeric type, finite.
    low, high
        The percentiles, 0 … 100.
    clip
        Whether to cut the result to [0, 1].
    eps
        Avoids a division by zero for a constant image.

    Returns
    -------
    Floats
        (H, W).
    """
    p_low, p_high = np.asarray(np.percentile(pixels, (low, high)), np.float32)
    scaled = (pixels.astype(np.float32) - p_low) / (p_high - p_low + np.float32(eps))
    return np.asarray(np.clip(scaled, 0, 1) if clip else scaled, np.float32)


SAME_SIZE = 0.01
"""Largest relative difference of equal pixel sizes: two pixels over a crop of 208 px."""


def same_pixel_size(first_um: float, second_um: float) -> bool:
    """Whether two pixel sizes differ by no more than `SAME_SIZE`, so that nothing needs to be resampled."""
    return abs(first_um / second_um - 1) <= SAME_SIZE


def resampled_shape(
    shape: tuple[int, ...],
    from_um: float | tuple[float, float],
    to_um: float,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, ...]:
    """Return the shape that an image has at another pixel size.

    Parameters
    ----------
    shape
        (H, W).
    from_um, to_um
        Its pixel size, one or the height and the width of a pixel, and the other one, in micrometres.
    max_pixels
        Most pixels of the result.

    Returns
    -------
    tuple of int
        (H', W') with ``H' = round(H * from_um / to_um)``, at least 1; `shape` if the two sizes differ by no
        more than `SAME_SIZE`.

    Raises
    ------
    InputError
        If a pixel size is not a positive number, or the result would have more than `max_pixels` pixels.
    """
    sizes = from_um if isinstance(from_um, tuple) else (from_um, from_um)
    for size in (*sizes, to_um):
        if not (math.isfinite(size) and size > 0):
            raise InputError(f"Pixel size {size} is not a positive number; give micrometres per pixel.")
    if not all(same_pixel_size(size, to_um) for size in sizes):
        shape = tuple(max(1, round(n * size / to_um)) for n, size in zip(shape, sizes, strict=True))
    if math.prod(shape) > max_pixels:
        stated = " × ".join(f"{size:g}" for size in sorted(set(sizes)))
        raise InputError(
            f"At {stated} µm per pixel the image would have {shape[1]:,} × {shape[0]:,} pixels of "
            f"{to_um:g} µm; at most {max_pixels:,} are possible. Check its pixel size, or crop it."
        )
    return shape


def resample(pixels: Floats, from_um: float | tuple[float, float], to_um: float) -> Floats:
    """Resample an image to another pixel size with linear interpolation, blurred first if it shrinks.

    Parameters
    ----------
    pixels
        (H, W) float32 of any range.
    from_um
        Pixel size of `pixels` in micrometres; height and width where they differ.
    to_um
        Pixel size of the result in micrometres.

    Returns
    -------
    Floats
        (H', W'), see `resampled_shape`; `pixels` itself if the two sizes differ by no more than `SAME_SIZE`.

    Raises
    ------
    InputError
        If a pixel size is not a positive number, or the result would have more than `MAX_PIXELS` pixels.
    """
    shape = resampled_shape(pixels.shape, from_um, to_um)
    sizes = from_um if isinstance(from_um, tuple) else (from_um, from_um)
    if all(same_pixel_size(size, to_um) for size in sizes):
        return pixels
    from scipy import ndimage  # takes 0.2 s, which predictions in default cells do not need

    sigmas = [max(0.0, (to_um / size - 1) / 2) for size in sizes]  # as in skimage.transform.resize
    blurred = ndimage.gaussian_filter(pixels, sigmas, mode="nearest") if any(sigmas) else pixels
    zoom = [new / old for new, old in zip(shape, pixels.shape, strict=True)]
    resized = ndimage.zoom(blurred, zoom, order=1, mode="nearest", grid_mode=True)
    return np.asarray(resized, np.float32)


def halved(images: Floats) -> Floats:
    """Return the means of squares of two by two pixels of images (..., H, W), without an odd last line."""
    height, width = (n // 2 for n in images.shape[-2:])
    squares = images[..., : 2 * height, : 2 * width].reshape(*images.shape[:-2], height, 2, width, 2)
    return np.asarray(squares.mean((-3, -1)), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square crop of a field around one nucleus.

    Attributes
    ----------
    row, col
        The pixel of the field at ``[size // 2, size // 2]`` of the crop.
    label
        The nucleus's number in the label image.
    pixels
        (size, size) float32.
    complete
        Whether the crop is inside the field, without padding.
    whole_nucleus
        Whether the nucleus touches no border of the field.
    """

    row: int
    col: int
    label: int
    pixels: Floats
    complete: bool
    whole_nucleus: bool


def nucleus_crops(
    pixels: Floats, labels: LabelImage, size_px: int = 208, *, padded: bool = False
) -> list[Crop]:
    """Crop a field around the centroid of each nucleus, in the order of the labels.

    By default, as in the paper, a nucleus whose crop would extend beyond the field has none. With `padded`,
    the missing part is background, and the crop has ``complete=False``.

    Parameters
    ----------
    pixels
        (H, W) float32 field.
    labels
        (H, W) int32; 0 is background.
    size_px
        Edge of a crop.
    padded
        Whether to crop around nuclei near the border, too.

    Returns
    -------
    list of Crop
        In the order of the labels.
    """
    from scipy import ndimage  # takes 0.2 s, which predictions in default cells do not need

    boxes = enumerate(ndimage.find_objects(labels), start=1)
    places = [(label, box, _centre(labels, label, box)) for label, box in boxes if box is not None]
    crops = (_crop(pixels, label, box, at, size_px, padded) for label, box, at in places)
    return [crop for crop in crops if crop is not None]


def cut(pixels: Floats, row: int, col: int, size_px: int) -> Floats:
    """Cut the square with `row`, `col` at ``[size_px // 2, size_px // 2]``.

    Pixels outside the field are filled with its `background_level`.

    Parameters
    ----------
    pixels
        (H, W) float32 field.
    row, col
        A pixel of the field.
    size_px
        Edge of the square.

    Returns
    -------
    Floats
        (size_px, size_px).
    """
    top, left = row - size_px // 2, col - size_px // 2
    if top >= 0 and left >= 0 and top + size_px <= pixels.shape[0] and left + size_px <= pixels.shape[1]:
        return pixels[top : top + size_px, left : left + size_px].copy()
    square = np.full((size_px, size_px), background_level(pixels), np.float32)
    rows, cols = _inside(top, size_px, pixels.shape[0]), _inside(left, size_px, pixels.shape[1])
    square[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = pixels[rows, cols]
    return square


def background_level(pixels: Floats) -> float:
    """Return the intensity of the background: the median of the darkest tenth of a field's pixels."""
    return float(np.percentile(pixels, 5))


def _centre(labels: LabelImage, label: int, box: tuple[slice, slice]) -> tuple[int, int]:
    row, col = (round(at.mean()) for at in np.nonzero(labels[box] == label))
    return box[0].start + row, box[1].start + col


def _crop(
    pixels: Floats,
    label: int,
    box: tuple[slice, slice],
    centre: tuple[int, int],
    size: int,
    padded: bool,
) -> Crop | None:
    half = size // 2
    complete = all(at >= half and at - half + size <= n for at, n in zip(centre, pixels.shape, strict=True))
    if not (complete or padded):
        return None
    return Crop(
        row=centre[0],
        col=centre[1],
        label=label,
        pixels=cut(pixels, *centre, size),
        complete=complete,
        whole_nucleus=all(
            span.start > 0 and span.stop < n for span, n in zip(box, pixels.shape, strict=True)
        ),
    )


def _inside(start: int, size: int, limit: int) -> slice:
    return slice(max(start, 0), min(start + size, limit))
