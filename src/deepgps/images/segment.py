"""Where the nuclei are: labels from a normalised nucleus image.

Any callable of the `Segmenter` shape will do; `OtsuWatershed` is the one that needs nothing but SciPy and
scikit-image.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import expand_labels, watershed

from deepgps.arrays import Doubles, Floats, LabelImage, Mask

_RING_UM = 1.5
"""Width of the ring around a nucleus to which it is compared, and how far an outline may move outwards."""


class Segmenter(Protocol):
    """Anything that finds nuclei."""

    def __call__(self, pixels: Floats, pixel_size_um: float) -> LabelImage:
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
    outline_share, outline_reach_um
        Where the outline is drawn anew: where the brightness is this share of the way from the ground to the
        nuclei around the pixel, within that (sigma of a Gaussian). 0: it stays where the thresholds put it.
    min_own_contrast
        How much brighter than the ring around it a nucleus is at least, as a share of its own brightness; 0
        keeps all.
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
    outline_share: float = 0.0
    outline_reach_um: float = 4.0
    min_own_contrast: float = 0.0
    min_area_um2: float = 42.6

    def __call__(self, pixels: Floats, pixel_size_um: float) -> LabelImage:
        """Label the nuclei of a field, as `Segmenter` asks."""
        labels = self._parted(self._mask(pixels, pixel_size_um), pixel_size_um)
        labels = without_small(labels, self.min_area_um2 / pixel_size_um**2)
        if self.min_own_contrast > 0 and labels.any():
            contrasts = _own_contrasts(labels, pixels, _RING_UM / pixel_size_um)
            labels = _kept(labels, np.concatenate([[False], contrasts >= self.min_own_contrast]))
        return labels

    def _mask(self, pixels: Floats, um: float) -> Mask:
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
        if self.outline_share > 0:
            mask = self._outlined(mask, smooth, um)
        outlined = ndimage.gaussian_filter(mask.astype(np.float32), self.outline_um / um) > 0.5
        return np.asarray(ndimage.binary_fill_holes(outlined), bool)

    def _outlined(self, mask: Mask, smooth: Floats, um: float) -> Mask:
        nuclei = _mean_around(smooth, mask, self.outline_reach_um / um)
        ground = _mean_around(smooth, ~mask, self.outline_reach_um / um)
        near = ndimage.gaussian_filter(mask.astype(np.float32), _RING_UM / um) > 0.02
        return np.asarray(near & (smooth > ground + self.outline_share * (nuclei - ground)), bool)

    def _parted(self, mask: Mask, um: float) -> LabelImage:
        depth = ndimage.distance_transform_edt(mask)
        depth = ndimage.gaussian_filter(depth.astype(np.float32), self.distance_smoothing_um / um)
        peaks = mask & (depth == ndimage.maximum_filter(depth, _edge(self.seed_distance_um, um)))
        seeds, _ = ndimage.label(peaks, np.ones((3, 3)))
        parted = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return np.asarray(parted, np.int32)


def refined_otsu(min_area_um2: float = 42.6) -> OtsuWatershed:
    """`OtsuWatershed` as new data are prepared with it: whole outlines of dim and mottled nuclei, no haze.

    Its defaults stay what the bundled models were made with, so that they can be made again.
    """
    return OtsuWatershed(
        otsu_share=0.4,
        outline_share=0.4,
        distance_smoothing_um=1.2,
        seed_distance_um=6.0,
        min_own_contrast=0.25,
        min_area_um2=min_area_um2,
    )


def _edge(length_um: float, um: float) -> int:
    """Edge of a centred window in pixels: odd, 3 at least."""
    return max(int(length_um / um) | 1, 3)


def _mean_around(pixels: Floats, where: Mask, sigma: float) -> Floats:
    """Mean of the pixels of a mask around each pixel, weighted by a Gaussian."""
    weight = where.astype(np.float32)
    total = ndimage.gaussian_filter(weight * pixels, sigma)
    return np.asarray(total / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3), np.float32)


def _own_contrasts(labels: LabelImage, pixels: Floats, ring: float) -> Doubles:
    """How much brighter each nucleus is than the ring around it, over its brightness; 1 without a ring."""
    numbers = np.arange(1, labels.max() + 1)
    rings = np.where(labels == 0, expand_labels(labels, ring), 0)  # type: ignore[no-untyped-call]
    own = ndimage.mean(pixels, labels, numbers)
    sizes = np.bincount(rings.ravel(), minlength=len(numbers) + 1)[1:]
    sums = np.bincount(rings.ravel(), pixels.ravel(), len(numbers) + 1)[1:]
    return np.asarray(1 - sums / np.maximum(sizes, 1) / np.maximum(own, 1e-6), np.float64)


def without_small(labels: LabelImage, min_pixels: float) -> LabelImage:
    """Drop the labels of fewer pixels and number the rest 1 … n, in their order."""
    return _kept(labels, np.bincount(labels.ravel()) >= min_pixels)


def _kept(labels: LabelImage, keep: Mask) -> LabelImage:
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[labels]
