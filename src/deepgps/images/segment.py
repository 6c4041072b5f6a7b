"""Where the nuclei are: labels from a normalised nucleus image.

Any callable of the `Segmenter` shape will do; `OtsuWatershed` is the one that needs nothing but SciPy and
scikit-image.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

Labels = NDArray[np.int32]
"""(H, W) int32: 0 is background, every nucleus has its own number, 1 … n without gaps."""


class Segmenter(Protocol):
    """Anything that finds nuclei."""

    def __call__(self, pixels: NDArray[np.float32], pixel_size_um: float) -> Labels:
        """Label the nuclei of a field.

        Parameters
        ----------
        pixels
            (H, W) float32 nucleus image in [0, 1].
        pixel_size_um
            Edge of a pixel in micrometres.

        Returns
        -------
        (H, W) int32; 0 is background.
        """
        ...


@dataclass(frozen=True, slots=True)
class OtsuWatershed:
    """Thresholds at three scales, then a watershed of the distance transform to part touching nuclei.

    A pixel is nuclear when it is above a share of the field's Otsu threshold (dim nuclei beside bright ones),
    above the mean of its surroundings (uneven background, narrow gaps), and above a share of the brightest
    nucleus near it (the halo of a bright one).

    Attributes
    ----------
    smoothing_um
        Sigma of the Gaussian blur before thresholding.
    otsu_share
        Share of the Otsu threshold that every nuclear pixel exceeds.
    min_contrast
        How much brighter than the rest nuclear pixels are on average, after smoothing; a field with less is
        noise, without nuclei.
    surroundings_um, surroundings_margin
        Edge of the square whose mean a nuclear pixel exceeds, about two nuclei, and by how much, as a share
        of the Otsu threshold.
    halo_um, halo_share
        Edge of the square in which the brightest pixel is sought, and the share of it to be exceeded.
    outline_um
        Sigma of the blur that smooths the outline of the mask.
    distance_smoothing_um
        Sigma of the blur of the distance transform, against a seed for every bump of an outline.
    seed_distance_um
        Edge of the square in which there is one seed at most: about the short axis of a nucleus.
    min_area_um2
        Smaller objects are dropped; the paper drops those under 1,000 pixels of 0.206 µm.
    """

    smoothing_um: float = 0.4
    otsu_share: float = 0.5
    min_contrast: float = 0.1
    surroundings_um: float = 25.0
    surroundings_margin: float = 0.1
    halo_um: float = 10.0
    halo_share: float = 0.35
    outline_um: float = 0.5
    distance_smoothing_um: float = 1.5
    seed_distance_um: float = 7.0
    min_area_um2: float = 42.6

    def __call__(self, pixels: NDArray[np.float32], pixel_size_um: float) -> Labels:
        """Label the nuclei of a field, as `Segmenter` asks."""
        mask = self._mask(pixels, pixel_size_um)
        return _without_small(self._parted(mask, pixel_size_um), self.min_area_um2 / pixel_size_um**2)

    def _mask(self, pixels: NDArray[np.float32], um: float) -> NDArray[np.bool_]:
        # Below half a pixel a blur does nothing and single-pixel noise would pass for nuclei.
        smooth = ndimage.gaussian_filter(pixels, max(self.smoothing_um / um, 0.5))
        if smooth.min() == smooth.max():
            return np.zeros(pixels.shape, bool)  # Otsu has no threshold for it
        halo = _edge(self.halo_um, um)
        brightest = ndimage.uniform_filter(ndimage.maximum_filter(smooth, halo), halo)
        surroundings = ndimage.uniform_filter(smooth, _edge(self.surroundings_um, um))
        otsu = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
        mask = smooth > self.otsu_share * otsu
        mask &= smooth > surroundings + self.surroundings_margin * otsu
        mask &= smooth > self.halo_share * brightest
        if smooth.mean(where=mask) - smooth.mean(where=~mask) < self.min_contrast:
            return np.zeros(pixels.shape, bool)
        outlined = ndimage.gaussian_filter(mask.astype(np.float32), self.outline_um / um) > 0.5
        return np.asarray(ndimage.binary_fill_holes(outlined), bool)

    def _parted(self, mask: NDArray[np.bool_], um: float) -> Labels:
        depth = ndimage.distance_transform_edt(mask)
        depth = ndimage.gaussian_filter(depth.astype(np.float32), self.distance_smoothing_um / um)
        peaks = mask & (depth == ndimage.maximum_filter(depth, _edge(self.seed_distance_um, um)))
        seeds, _ = ndimage.label(peaks, np.ones((3, 3)))
        parted = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return np.asarray(parted, np.int32)


def _edge(length_um: float, um: float) -> int:
    """Edge of a centred window in pixels: odd, 3 at least."""
    return max(int(length_um / um) | 1, 3)


def _without_small(labels: Labels, min_pixels: float) -> Labels:
    keep = np.bincount(labels.ravel()) >= min_pixels
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[labels]
