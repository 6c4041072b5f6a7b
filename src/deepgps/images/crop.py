"""Square crops, each with one nucleus in its centre."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from deepgps.arrays import Floats, LabelImage


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square cut out of a field around one nucleus.

    Attributes
    ----------
    row, col
        The pixel of the field that lies at ``[size // 2, size // 2]`` of the crop.
    label
        The nucleus's number in the field's labels.
    pixels
        (size, size) float32, as the field's.
    complete
        Whether the crop lies inside the field, so that nothing is padded.
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
    """Cut one crop around the centroid of each nucleus, in the order of the labels.

    The paper's border rule is the default: a nucleus whose crop would reach over the border of the field
    gives none. With `padded` it gives one whose missing part is background, and ``complete=False``.

    Parameters
    ----------
    pixels
        (H, W) float32 field.
    labels
        (H, W) int32; 0 is background.
    size_px
        Edge of a crop.
    padded
        Whether nuclei near the border count, too.
    """
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    places = [(label, box, _centre(labels, label, box)) for label, box in boxes if box is not None]
    crops = (_crop(pixels, label, box, at, size_px, padded) for label, box, at in places)
    return [crop for crop in crops if crop is not None]


def cut(pixels: Floats, row: int, col: int, size_px: int) -> Floats:
    """Cut the square with `row`, `col` at ``[size_px // 2, size_px // 2]``.

    What lies outside the field is filled with its background (see `background`).

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
    (size_px, size_px) float32.
    """
    top, left = row - size_px // 2, col - size_px // 2
    if top >= 0 and left >= 0 and top + size_px <= pixels.shape[0] and left + size_px <= pixels.shape[1]:
        return pixels[top : top + size_px, left : left + size_px].copy()
    square = np.full((size_px, size_px), background(pixels), np.float32)
    rows, cols = _inside(top, size_px, pixels.shape[0]), _inside(left, size_px, pixels.shape[1])
    square[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left] = pixels[rows, cols]
    return square


def background(pixels: Floats) -> float:
    """Tell the grey of empty space: the median of the darkest tenth of a field's pixels."""
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
