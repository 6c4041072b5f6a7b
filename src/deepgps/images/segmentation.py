"""Find nuclei: a classical and a neural segmenter, and label images as files."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import expand_labels, watershed

from deepgps.arrays import Doubles, Floats, LabelImage, Mask
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.images.processing import percentile_normalise, resample
from deepgps.images.read import Field
from deepgps.runtime import Graph, open_graph

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
        labels = remove_small(labels, self.min_area_um2 / pixel_size_um**2)
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


def remove_small(labels: LabelImage, min_pixels: float) -> LabelImage:
    """Drop the labels of fewer pixels and number the rest 1 … n, in their order."""
    return _kept(labels, np.bincount(labels.ravel()) >= min_pixels)


def _kept(labels: LabelImage, keep: Mask) -> LabelImage:
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[labels]


NETWORK_PIXEL_SIZE_UM = 0.5
"""Edge of a pixel of the images that the network sees."""

_STEP, _TILE, _MARGIN = 16, 768, 64
"""In pixels of `NETWORK_PIXEL_SIZE_UM`: edges are padded to multiples of `_STEP`; larger fields are computed
in tiles of `_TILE`, each with `_MARGIN` around it."""


@dataclass(frozen=True, slots=True)
class NetworkWatershed:
    """Two maps drawn by a network, then a watershed of the second.

    The maps tell nucleus from background, and how deep inside its nucleus a pixel lies: from 0 at the outline
    to 1 halfway to the middle, whatever the nucleus's size.

    Attributes
    ----------
    nucleus_probability
        A nuclear pixel has at least this.
    depth_smoothing_um
        Sigma of the blur of the depth.
    seed_depth, min_seed_um2
        Pixels deeper than this, where connected, are one nucleus, if they cover this area.
    min_area_um2
        Smaller objects are dropped; the paper drops those under 1,000 pixels of 0.206 µm.
    threads
        Threads that the network may use.
    """

    nucleus_probability: float = 0.5
    depth_smoothing_um: float = 0.4
    seed_depth: float = 0.8
    min_seed_um2: float = 1.0
    min_area_um2: float = 42.6
    threads: int = 1

    def __call__(self, pixels: Floats, pixel_size_um: float) -> LabelImage:
        """Label the nuclei of a field, as `Segmenter` asks."""
        probability, depth = self.maps(pixels, pixel_size_um)
        depth = ndimage.gaussian_filter(depth, self.depth_smoothing_um / pixel_size_um)
        seeds = np.asarray(ndimage.label(depth > self.seed_depth)[0], np.int32)
        seeds = remove_small(seeds, self.min_seed_um2 / pixel_size_um**2)
        mask = probability >= self.nucleus_probability
        labels = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return remove_small(np.asarray(labels, np.int32), self.min_area_um2 / pixel_size_um**2)

    def maps(self, pixels: Floats, pixel_size_um: float) -> Floats:
        """Draw both maps of a field (H, W) in [0, 1]: (2, H, W) in [0, 1]."""
        seen = resample(pixels, pixel_size_um, NETWORK_PIXEL_SIZE_UM)
        height, width = seen.shape
        padded = np.pad(seen, [(0, -n % _STEP) for n in seen.shape], "symmetric")
        logits = np.empty((2, *padded.shape), np.float32)
        session = _session(self.threads)
        for tile, around, inner in _tiles(padded.shape):
            (drawn,) = session.run(["maps"], {"pixels": padded[around][None, None]})
            logits[:, *tile] = drawn[0][:, *inner]
        zoom = [n / old for n, old in zip(pixels.shape, (height, width), strict=True)]
        wide = [
            ndimage.zoom(each, zoom, order=1, mode="nearest", grid_mode=True)
            for each in logits[:, :height, :width]
        ]
        return np.asarray(1 / (1 + np.exp(-np.stack(wide))), np.float32)


_Window = tuple[slice, ...]


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[_Window, _Window, _Window]]:
    """Every tile, the window with its surroundings, and the tile's place in that window."""
    for corner in product(*(range(0, n, _TILE) for n in shape)):
        tile = tuple(slice(a, min(a + _TILE, n)) for a, n in zip(corner, shape, strict=True))
        around = tuple(
            slice(max(span.start - _MARGIN, 0), min(span.stop + _MARGIN, n))
            for span, n in zip(tile, shape, strict=True)
        )
        inner = tuple(
            slice(span.start - wide.start, span.stop - wide.start)
            for span, wide in zip(tile, around, strict=True)
        )
        yield tile, around, inner


@cache
def _session(threads: int) -> Graph:
    return open_graph((resources.files("deepgps.images") / "nuclei.onnx").read_bytes(), threads)


SEGMENTERS = ("otsu", "network")
"""The names that `get_segmenter` knows; the first is the default."""


def get_segmenter(name: str = SEGMENTERS[0]) -> "Segmenter":
    """Make the segmenter of a name, as data for new models are prepared with it.

    Parameters
    ----------
    name
        One of `SEGMENTERS`: ``otsu`` is `deepgps.images.segmentation.refined_otsu`, ``network`` is
        `deepgps.images.segmentation.NetworkWatershed`.

    Raises
    ------
    InputError
        If there is no segmenter of that name.
    """
    if name not in SEGMENTERS:
        raise InputError(
            f"Segmenter '{name}' is unknown; use one of {', '.join(SEGMENTERS)}, "
            "or label images made elsewhere."
        )
    if name == "network":
        return NetworkWatershed()

    return refined_otsu()


LABELS_SUFFIX = "_labels.tif"
"""What follows the image's name without its ending."""


def read_labels(path: Path) -> LabelImage:
    """Read a label image and number its nuclei 1 … n.

    Raises
    ------
    InputError
        If it is not there, damaged, not one plane, or not of whole numbers from 0.
    """
    import tifffile

    try:
        found = np.squeeze(tifffile.imread(path))
    except FileNotFoundError:
        raise InputError(f"Label image '{path}' was not found; segment its image first.") from None
    except Exception as error:  # decoders raise anything on damaged bytes
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"Label image '{path}' is truncated or damaged ({reason}); make it anew.") from None
    if found.ndim != 2 or found.dtype.kind not in "ui" or (found.size and found.min() < 0):
        raise InputError(
            f"Label image '{path}' is {found.dtype} of shape {found.shape}; "
            "give one plane of whole numbers, 0 for the background."
        )
    numbers, dense = np.unique(found, return_inverse=True)
    return (dense.reshape(found.shape) + (0 if numbers[:1] == 0 else 1)).astype(np.int32)


def write_labels(path: Path, labels: LabelImage) -> None:
    """Write labels (H, W) as a zlib-compressed TIFF, whole or not at all; uint16, or int32 if it must be."""
    import tifffile

    small = labels.max(initial=0) <= np.iinfo(np.uint16).max
    with atomic_path(path) as draft:
        tifffile.imwrite(draft, labels.astype(np.uint16 if small else np.int32), compression="zlib")


def segment_field(field: Field, segmenter: Segmenter, working_um: float) -> LabelImage:
    """Find the nuclei of a field at one pixel size, and give their labels at its own, (H, W).

    Parameters
    ----------
    field
        The nucleus image; its pixel size is known.
    segmenter
        Finds them.
    working_um
        The pixel size in micrometres at which it does.
    """
    assert field.pixel_size_um is not None
    shown = percentile_normalise(resample(field.pixels, field.pixel_size_um, working_um))
    return resample_labels(segmenter(shown, working_um), field.pixels.shape)


def resample_labels(labels: LabelImage, shape: tuple[int, ...]) -> LabelImage:
    """Resample labels (H, W) to another shape; each pixel takes the label nearest to it."""
    places = [
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for old, new in zip(labels.shape, shape, strict=True)
    ]
    return labels[np.ix_(*places)]
