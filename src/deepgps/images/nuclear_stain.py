"""Does an image show a nuclear stain, and at a plausible scale? Checks that need no pixel size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from deepgps.arrays import Floats, Mask
from deepgps.errors import InputError
from deepgps.images.read import Field

NUCLEUS_UM = (4.0, 40.0)
"""Range of the widths of nuclei in micrometres."""

TYPICAL_NUCLEUS_UM = 13.0
"""Width of the median nucleus of the cell lines of OpenCell and the Human Protein Atlas in micrometres."""

# A field of crowded nuclei is bright in at most 0.61 of its area and 0.59 of its border, over the fields and
# crops of OpenCell, the Human Protein Atlas and the 2018 Data Science Bowl.
_MOST_OF_THE_FIELD = 0.65
_SMOOTH = 0.95

# A threshold explains 0.64 of the variance of Gaussian noise, which has no objects.
_NOISE = 0.68

# Larger images are judged at about this edge.
_EDGE_PX = 256
_MIN_OBJECT_PX = 20

_BAR_ASPECT, _BAR_FILLING, _BAR_LENGTH = 3.0, 0.95, 1 / 50


MAX_DOUBTFUL_PIXELS = 25_000_000
"""Largest height × width to which an image is resampled whose pixel size is not plausible."""


def check_nuclear_stain(
    field: Field, pixel_size_um: float, target_um: float
) -> tuple[Floats, tuple[str, ...]]:
    """Check that a field shows bright nuclei on dark ground, of plausible size, and remove its scale bars.

    Parameters
    ----------
    field
        The nucleus image.
    pixel_size_um
        Its pixel size in micrometres, as stated or assumed.
    target_um
        The pixel size that it will be resampled to.

    Returns
    -------
    pixels : Floats
        (H, W), the intensities of the field; those of burned-in scale bars are set to the background.
    warnings : tuple of str
        What the user should know.

    Raises
    ------
    InputError
        If the field is mostly bright (transmitted light, or inverted), is a smooth gradient, has nothing
        bright but a scale bar, or would grow beyond `MAX_DOUBTFUL_PIXELS` because of a pixel size at which
        its nuclei would be too large.
    """
    name = field.source
    overrule = "If it is one, use --no-image-checks."
    seen = find_objects(field.pixels)
    if seen.smoothness > _SMOOTH:
        raise InputError(
            f"Image '{name}' is a smooth gradient without objects; give an image of a nuclear "
            f"stain. {overrule}"
        )
    pixels, notes = _without_scale_bars(field.pixels, name)
    if notes:
        seen = find_objects(pixels)
    if min(seen.bright_share, seen.bright_border_share) > _MOST_OF_THE_FIELD:
        raise InputError(
            f"Image '{name}' is bright in {seen.bright_share:.0%} of its area, as in transmitted light or an "
            f"inverted image; give a fluorescence image of a nuclear stain, bright on dark. {overrule}"
        )
    doubts = _scale_doubts(seen, pixel_size_um, Path(name).name)
    grown = pixels.size * (pixel_size_um / target_um) ** 2
    if doubts and grown > max(MAX_DOUBTFUL_PIXELS, pixels.size):
        raise InputError(f"Image '{name}' would be resampled to {grown:,.0f} pixels. {doubts[0]}")
    return pixels, (*notes, *doubts)


def pixel_size_from_nuclei(pixels: Floats, name: str) -> float:
    """Estimate the pixel size from the nuclei, as if the median one were `TYPICAL_NUCLEUS_UM` wide.

    Parameters
    ----------
    pixels
        (H, W) intensities.
    name
        Name of the image, for the error.

    Returns
    -------
    float
        Micrometres per pixel; within a factor of two for most cells.

    Raises
    ------
    InputError
        If nothing in the image looks like nuclei.
    """
    width = find_objects(pixels).width_px
    if width is None:
        raise InputError(
            f"The pixel size of image '{name}' cannot be estimated: it shows no nuclei; "
            "give micrometres per pixel with --pixel-size-um."
        )
    return TYPICAL_NUCLEUS_UM / width


def _scale_doubts(seen: "Objects", um: float, name: str) -> tuple[str, ...]:
    low, high = NUCLEUS_UM
    if seen.width_px is None or low <= (width := seen.width_px * um) <= high:
        return ()
    digits = 0 if width >= 10 else 1
    return (
        f"The nuclei of '{name}' would be {width:.{digits}f} µm wide at {um:.3g} µm per pixel, and nuclei "
        f"measure {low:g} to {high:g} µm; about "
        f"{TYPICAL_NUCLEUS_UM / seen.width_px:.2g} µm per pixel would fit. "
        "Check the pixel size and give it with --pixel-size-um, or use --pixel-size-um auto.",
    )


@dataclass(frozen=True, slots=True)
class Objects:
    """What is bright in an image.

    Attributes
    ----------
    width_px
        Width of the median object, weighted by area, in pixels of the image: the diameter of the largest
        circle inside. None without objects.
    bright_share
        Share of the field above Otsu's threshold.
    bright_border_share
        The same of the field's border.
    smoothness
        Share of the variance that a plane or a bowl explains.
    """

    width_px: float | None
    bright_share: float
    bright_border_share: float
    smoothness: float


def find_objects(pixels: Floats) -> Objects:
    """Measure what is bright in an image (H, W) of any intensities, at any scale."""
    small, step = _reduced(pixels)
    low, high = np.percentile(small, (0.5, 99.5))
    if low == high:  # a few bright pixels on a constant ground
        low, high = small.min(), small.max()
    smooth = ndimage.gaussian_filter(np.clip(small, low, high), 1)
    if smooth.min() == smooth.max():
        return Objects(None, 0.0, 0.0, 0.0)
    bright = smooth > threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    if _explained(smooth, bright) < _NOISE:
        return Objects(None, float(bright.mean()), float(border.mean()), _smoothness(smooth))
    above = bright & (smooth > ndimage.uniform_filter(smooth, min(small.shape) // 2 | 1))
    return Objects(_width(above, step), float(bright.mean()), float(border.mean()), _smoothness(smooth))


def _explained(smooth: Floats, bright: Mask) -> float:
    """Return the share of the variance that the threshold explains."""
    share = bright.mean()
    between = share * (1 - share) * (smooth[bright].mean() - smooth[~bright].mean()) ** 2
    return float(between / smooth.var())


def _reduced(pixels: Floats) -> tuple[Floats, int]:
    step = -(-max(pixels.shape) // _EDGE_PX)
    if min(pixels.shape) < 2 * step:
        return pixels, 1
    height, width = (n // step * step for n in pixels.shape)
    # Sums of rows, then of columns: several times as fast as the mean over two axes of blocks.
    rows = pixels[:height, :width].reshape(height // step, step, width).sum(1, dtype=np.float32)
    blocks = sum(rows[:, column::step] for column in range(step))
    return np.asarray(blocks / np.float32(step**2)), step


def _width(mask: Mask, step: int) -> float | None:
    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())[1:]
    numbers = np.flatnonzero(areas >= _MIN_OBJECT_PX) + 1
    if not numbers.size:
        return None
    # Along the axes: as good for round objects as Euclid's distance, and ten times as fast.
    distances = ndimage.distance_transform_cdt(mask, "taxicab")
    largest = np.zeros(len(areas) + 1, distances.dtype)
    np.maximum.at(largest, labels[mask], distances[mask])
    depths = largest[numbers]
    order = np.argsort(depths)
    total = np.cumsum(areas[numbers - 1][order])
    return float(2 * depths[order][np.searchsorted(total, total[-1] / 2)] * step)


def _smoothness(smooth: Floats) -> float:
    smooth = smooth[::4, ::4]
    y, x = np.mgrid[-1 : 1 : smooth.shape[0] * 1j, -1 : 1 : smooth.shape[1] * 1j].reshape(2, -1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).astype(np.float32)
    values = (smooth - smooth.mean()).ravel()
    coefficients = np.linalg.solve(terms @ terms.T, terms @ values)
    return float(1 - (values - coefficients @ terms).var() / values.var())


def _without_scale_bars(pixels: Floats, name: str) -> tuple[Floats, tuple[str, ...]]:
    """Set burned-in scale bars to the background: a segmenter takes them for nuclei."""
    low, high = float(pixels.min()), float(pixels.max())
    saturated = pixels >= low + 0.98 * (high - low)
    shortest = max(_BAR_LENGTH * max(pixels.shape), _BAR_ASPECT)
    longest = max(np.count_nonzero(saturated, axis=axis).max() for axis in (0, 1))
    if longest < shortest or np.count_nonzero(saturated) > 0.05 * saturated.size:
        return pixels, ()
    labels, _ = ndimage.label(saturated)
    middle = (low + high) / 2
    bars = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        if max(rows.stop - rows.start, columns.stop - columns.start) < shortest:
            continue  # saturated pixels of nuclei are many, and small
        inside = labels[rows, columns] == number
        around = (_wider(rows), _wider(columns))
        # Its edge is sharp: a few pixels away, most of its surroundings are dark.
        ring = pixels[around].sum() - pixels[rows, columns].sum()
        size = pixels[around].size - inside.size
        if _is_bar(inside, shortest) and size and ring / size < middle:
            bars.append(around)
    if not bars:
        return pixels, ()
    cleaned = pixels.copy()
    for around in bars:
        cleaned[around] = np.float32(np.percentile(pixels, 5))
    if cleaned.min() == cleaned.max() or find_objects(cleaned).width_px is None:
        raise InputError(
            f"Image '{name}' shows nothing but a scale bar; give an image of a nuclear stain without one. "
            "If it shows nuclei, use --no-image-checks."
        )
    return cleaned, (f"Image '{Path(name).name}' has a scale bar burned in; it was blacked out.",)


def _wider(span: slice) -> slice:
    return slice(max(span.start - 3, 0), span.stop + 3)


def _is_bar(inside: Mask, shortest: float) -> bool:
    short, long = sorted(inside.shape)
    return bool(
        long >= max(shortest, _BAR_ASPECT * short) and inside.mean() >= _BAR_FILLING and inside.sum() > 8
    )
