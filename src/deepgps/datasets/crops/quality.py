"""How good the images of one field are: figures for the index, for a lab to sort and filter by."""

from typing import TypedDict

import numpy as np
from scipy import ndimage

from deepgps.arrays import Floats
from deepgps.datasets.crops.cut import ReadyField

_DETAIL_UM = 0.5
_FAR_FROM_NUCLEUS_UM = 1.5
_LEAST_PIXELS = 500


class Quality(TypedDict):
    """Figures of one field, the same for all its crops."""

    nucleus_saturation: float
    protein_saturation: float
    nucleus_focus: float
    protein_contrast: float
    jpeg_blocks: float
    leak: float | None


def field_quality(nucleus: Floats, protein: Floats, ready: ReadyField, pixel_size_um: float) -> Quality:
    """Measure a field.

    Parameters
    ----------
    nucleus, protein
        (H, W) raw intensities.
    ready
        The same, ready to be cut, with one protein image.
    pixel_size_um
        Edge of a pixel of `ready` in micrometres.
    """
    return Quality(
        nucleus_saturation=saturation(nucleus),
        protein_saturation=saturation(protein),
        nucleus_focus=focus(ready.nucleus, pixel_size_um),
        protein_contrast=contrast(protein),
        jpeg_blocks=max(jpeg_blocks(nucleus), jpeg_blocks(protein)),
        leak=leak(ready, pixel_size_um),
    )


def saturation(pixels: Floats) -> float:
    """Tell the share, 0 to 1, of the pixels (H, W) that have the brightest value; one pixel alone is 0.

    A camera cuts everything brighter to the same value, whatever that is (255, 4,095, 65,535).
    """
    at_top = int((pixels == pixels.max()).sum())
    return at_top / pixels.size if at_top > 1 else 0.0


def focus(nucleus: Floats, pixel_size_um: float) -> float:
    """Tell how sharp a normalised nucleus image (H, W) is: 99th percentile of its gradient, per micrometre.

    The steepest edges of an image in focus rise from dark to bright within half a micrometre.
    """
    gradient = ndimage.gaussian_gradient_magnitude(nucleus, max(0.2 / pixel_size_um, 0.7))
    return float(np.percentile(gradient, 99) / pixel_size_um)


def contrast(pixels: Floats) -> float:
    """Tell how far the brightest structures of a raw image (H, W) rise above its background.

    The 99.8th less the 3rd percentile after a blur of one pixel, in units of the noise (the median response
    to a mask that is blind to planes and slopes; Immerkær 1996). An image of noise alone has about 1.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = 1.4826 * np.median(np.abs(ndimage.convolve(pixels, mask))) / 6
    low, high = np.percentile(ndimage.gaussian_filter(pixels, 1), (3, 99.8))
    # Rounded to whole numbers, even a perfect image is unsure by 0.3.
    return float((high - low) / max(noise, 0.3))


def jpeg_blocks(pixels: Floats) -> float:
    """Tell by how much larger the steps between 8-px blocks of an image (H, W) are than those inside them.

    0 is none, 0.1 a tenth larger; the larger figure of both directions.
    """
    return max(_blocks_along(pixels), _blocks_along(pixels.T))


def leak(ready: ReadyField, pixel_size_um: float) -> float | None:
    """Correlate the fine structure of nucleus and protein image where there is no nucleus.

    There the nucleus image shows background, which knows nothing of the protein: a correlation is protein
    signal in the nucleus channel, as in colour composites. None where nuclei leave too little room.
    """
    distance = int(np.ceil(_FAR_FROM_NUCLEUS_UM / pixel_size_um))
    far = ndimage.maximum_filter(ready.labels, 2 * distance + 1) == 0
    if far.sum() < _LEAST_PIXELS:
        return None
    sigma = _DETAIL_UM / pixel_size_um
    first, second = (
        (pixels - ndimage.gaussian_filter(pixels, sigma))[far]
        for pixels in (ready.nucleus, ready.proteins[0])
    )
    if not (first.std() and second.std()):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _blocks_along(pixels: Floats) -> float:
    """The same, between columns."""
    steps = np.abs(np.diff(pixels, axis=1)).mean(0)
    between = np.arange(1, len(steps) + 1) % 8 == 0
    inside = steps[~between].mean()
    return float(max(0.0, steps[between].mean() / inside - 1)) if inside > 0 and between.any() else 0.0
