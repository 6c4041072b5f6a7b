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
"""Width of the ring around a nucleus that it is compared with, and how far an outline may move outwards."""


class Segmenter(Protocol):
    """A function that finds nuclei."""

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
        LabelImage
            (H, W); 0 is background.
        """
        ...


@dataclass(frozen=True, slots=True)
class OtsuWatershed:
    """Thresholds at three scales, then a watershed of the distance transform to separate touching nuclei.

    A pixel is nuclear if it is above a share of the field's Otsu threshold (for dim nuclei beside bright
    ones), above the mean of its surroundings (for uneven background and narrow gaps), and above a share of
    the brightest nucleus near it (for the halo of a bright one).

    Attributes
    ----------
    smoothing_um
        Sigma of the Gaussian blur before thresholding.
    otsu_share
        Share of the Otsu threshold that nuclear pixels exceed.
    min_contrast
        Smallest mean difference between nuclear and other pixels after smoothing; a field with less is taken
        for noise.
    surroundings_um, surroundings_margin
        Edge of the square whose mean nuclear pixels exceed, about two nuclei, and by how much, as a share of
        the Otsu threshold.
    halo_um, halo_share
        Edge of the square that contains the brightest pixel, and the share of it that nuclear pixels exceed.
    outline_um
        Sigma of the blur that smooths the outline of the mask.
    distance_smoothing_um
        Sigma of the blur of the distance transform, so that bumps of an outline do not become seeds.
    seed_distance_um
        Edge of the square with at most one seed: about the short axis of a nucleus.
    outline_share, outline_reach_um
        The refined outline is where the brightness is this share of the way from the background to the nuclei
        around the pixel, averaged with a Gaussian of this sigma. With 0, the outline is not refined.
    min_own_contrast
        Smallest difference between a nucleus and the ring around it, as a share of its brightness; 0 keeps
        all.
    min_area_um2
        Smaller objects are removed; the paper removes those under 1,000 pixels of 0.206 µm.
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
        """Label the nuclei of a field; see `Segmenter`."""
        labels = self._separated(self._mask(pixels, pixel_size_um), pixel_size_um)
        labels = remove_small(labels, self.min_area_um2 / pixel_size_um**2)
        if self.min_own_contrast > 0 and labels.any():
            contrasts = _own_contrasts(labels, pixels, _RING_UM / pixel_size_um)
            labels = _keep_labels(labels, np.concatenate([[False], contrasts >= self.min_own_contrast]))
        return labels

    def _mask(self, pixels: Floats, um: float) -> Mask:
        # Below half a pixel a blur has no effect, and noise would be taken for nuclei.
        smooth = ndimage.gaussian_filter(pixels, max(self.smoothing_um / um, 0.5))
        if smooth.min() == smooth.max():
            return np.zeros(pixels.shape, bool)  # a constant image has no Otsu threshold
        halo = _edge(self.halo_um, um)
        brightest = ndimage.uniform_filter(ndimage.maximum_filter(smooth, halo), halo)
        surroundings = ndimage.uniform_filter(smooth, _edge(self.surroundings_um, um))
        otsu = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
        mask = smooth > self.otsu_share * otsu
        mask &= smooth > surroundings + self.surroundings_margin * otsu
        mask &= smooth > self.halo_share * brightest
        if mask.all() or not mask.any():
            return np.zeros(pixels.shape, bool)
        if smooth.mean(where=mask) - smooth.mean(where=~mask) < self.min_contrast:
            return np.zeros(pixels.shape, bool)
        if self.outline_share > 0:
            mask = self._refine_outline(mask, smooth, um)
        smooth_mask = ndimage.gaussian_filter(mask.astype(np.float32), self.outline_um / um) > 0.5
        return np.asarray(ndimage.binary_fill_holes(smooth_mask), bool)

    def _refine_outline(self, mask: Mask, smooth: Floats, um: float) -> Mask:
        nuclei = _mean_around(smooth, mask, self.outline_reach_um / um)
        background = _mean_around(smooth, ~mask, self.outline_reach_um / um)
        near = ndimage.gaussian_filter(mask.astype(np.float32), _RING_UM / um) > 0.02
        return np.asarray(near & (smooth > background + self.outline_share * (nuclei - background)), bool)

    def _separated(self, mask: Mask, um: float) -> LabelImage:
        depth = ndimage.distance_transform_edt(mask)
        depth = ndimage.gaussian_filter(depth.astype(np.float32), self.distance_smoothing_um / um)
        peaks = mask & (depth == ndimage.maximum_filter(depth, _edge(self.seed_distance_um, um)))
        seeds, _ = ndimage.label(peaks, np.ones((3, 3)))
        labels = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return np.asarray(labels, np.int32)


def refined_otsu(min_area_um2: float = 42.6) -> OtsuWatershed:
    """Return the `OtsuWatershed` for new data, with better outlines of dim and mottled nuclei.

    The defaults of `OtsuWatershed` are those that the bundled model was made with.

    Parameters
    ----------
    min_area_um2
        Smaller nuclei are removed.

    Returns
    -------
    OtsuWatershed
        The segmenter.
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
    """Return the edge of a centred window in pixels: odd, at least 3."""
    return max(int(length_um / um) | 1, 3)


def _mean_around(pixels: Floats, where: Mask, sigma: float) -> Floats:
    """Return the mean of the pixels of a mask around each pixel, weighted by a Gaussian."""
    weight = where.astype(np.float32)
    total = ndimage.gaussian_filter(weight * pixels, sigma)
    return np.asarray(total / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-3), np.float32)


def _own_contrasts(labels: LabelImage, pixels: Floats, ring: float) -> Doubles:
    """Return the difference of each nucleus and the ring around it over its brightness; 1 without a ring."""
    numbers = np.arange(1, labels.max() + 1)
    rings = np.where(labels == 0, expand_labels(labels, ring), 0)  # type: ignore[no-untyped-call]
    own = ndimage.mean(pixels, labels, numbers)
    sizes = np.bincount(rings.ravel(), minlength=len(numbers) + 1)[1:]
    sums = np.bincount(rings.ravel(), pixels.ravel(), len(numbers) + 1)[1:]
    return np.asarray(1 - sums / np.maximum(sizes, 1) / np.maximum(own, 1e-6), np.float64)


def remove_small(labels: LabelImage, min_pixels: float) -> LabelImage:
    """Remove labels of fewer pixels and renumber the others from 1, in order."""
    return _keep_labels(labels, np.bincount(labels.ravel()) >= min_pixels)


def _keep_labels(labels: LabelImage, keep: Mask) -> LabelImage:
    keep[0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[labels]


NETWORK_PIXEL_SIZE_UM = 0.5
"""Pixel size of the network's input in micrometres."""

_STEP, _TILE, _MARGIN = 16, 768, 64
"""In pixels of `NETWORK_PIXEL_SIZE_UM`: edges are padded to multiples of `_STEP`; larger fields are computed
in tiles of `_TILE`, each with `_MARGIN` around it."""


@dataclass(frozen=True, slots=True)
class NetworkWatershed:
    """A network that predicts two maps, then a watershed of the second.

    The maps are the probability of a nucleus, and the depth of a pixel inside its nucleus: from 0 at the
    outline to 1 halfway to the middle, for nuclei of any size.

    Attributes
    ----------
    nucleus_probability
        Smallest probability of a nuclear pixel.
    depth_smoothing_um
        Sigma of the blur of the depth.
    seed_depth, min_seed_um2
        Connected pixels deeper than this are the seed of one nucleus, if they cover at least this area.
    min_area_um2
        Smaller objects are removed; the paper removes those under 1,000 pixels of 0.206 µm.
    threads
        Threads of the network.
    """

    nucleus_probability: float = 0.5
    depth_smoothing_um: float = 0.4
    seed_depth: float = 0.8
    min_seed_um2: float = 1.0
    min_area_um2: float = 42.6
    threads: int = 1

    def __call__(self, pixels: Floats, pixel_size_um: float) -> LabelImage:
        """Label the nuclei of a field; see `Segmenter`."""
        probability, depth = self.maps(pixels, pixel_size_um)
        depth = ndimage.gaussian_filter(depth, self.depth_smoothing_um / pixel_size_um)
        seeds = np.asarray(ndimage.label(depth > self.seed_depth)[0], np.int32)
        seeds = remove_small(seeds, self.min_seed_um2 / pixel_size_um**2)
        mask = probability >= self.nucleus_probability
        labels = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return remove_small(np.asarray(labels, np.int32), self.min_area_um2 / pixel_size_um**2)

    def maps(self, pixels: Floats, pixel_size_um: float) -> Floats:
        """Predict both maps of a field (H, W) in [0, 1]: (2, H, W) in [0, 1]."""
        resampled = resample(pixels, pixel_size_um, NETWORK_PIXEL_SIZE_UM)
        height, width = resampled.shape
        padded = np.pad(resampled, [(0, -n % _STEP) for n in resampled.shape], "symmetric")
        logits = np.empty((2, *padded.shape), np.float32)
        session = _session(self.threads)
        for tile, window, inner in _tiles(padded.shape):
            (maps,) = session.run(["maps"], {"pixels": padded[window][None, None]})
            logits[:, *tile] = maps[0][:, *inner]
        zoom = [n / old for n, old in zip(pixels.shape, (height, width), strict=True)]
        zoomed = [
            ndimage.zoom(each, zoom, order=1, mode="nearest", grid_mode=True)
            for each in logits[:, :height, :width]
        ]
        return np.asarray(1 / (1 + np.exp(-np.stack(zoomed))), np.float32)


_Window = tuple[slice, ...]


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[_Window, _Window, _Window]]:
    """Yield each tile, the window with its margin, and the position of the tile in that window."""
    for corner in product(*(range(0, n, _TILE) for n in shape)):
        tile = tuple(slice(a, min(a + _TILE, n)) for a, n in zip(corner, shape, strict=True))
        window = tuple(
            slice(max(span.start - _MARGIN, 0), min(span.stop + _MARGIN, n))
            for span, n in zip(tile, shape, strict=True)
        )
        inner = tuple(
            slice(span.start - outer.start, span.stop - outer.start)
            for span, outer in zip(tile, window, strict=True)
        )
        yield tile, window, inner


@cache
def _session(threads: int) -> Graph:
    return open_graph((resources.files("deepgps.images") / "nuclei.onnx").read_bytes(), threads)


SEGMENTERS = ("otsu", "network")
"""Names of the segmenters; the first is the default."""


def get_segmenter(name: str = SEGMENTERS[0]) -> Segmenter:
    """Return a segmenter by name.

    Parameters
    ----------
    name
        ``otsu`` for `refined_otsu`, or ``network`` for `NetworkWatershed`.

    Returns
    -------
    Segmenter
        The segmenter for new data.

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
"""Suffix of a label image, after the name of its image."""


def read_labels(path: Path) -> LabelImage:
    """Read a label image and number its nuclei from 1.

    Parameters
    ----------
    path
        A TIFF file.

    Returns
    -------
    LabelImage
        (H, W), numbered 1 … n.

    Raises
    ------
    InputError
        If it is missing, damaged, not one plane, or not of integers from 0.
    """
    import tifffile

    try:
        found = np.squeeze(tifffile.imread(path))
    except FileNotFoundError:
        raise InputError(f"Label image '{path}' was not found; segment its image first.") from None
    except Exception as error:  # decoders raise exceptions of any type on damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"Label image '{path}' is truncated or damaged ({reason}); make it again.") from None
    if found.ndim != 2 or found.dtype.kind not in "ui" or (found.size and found.min() < 0):
        raise InputError(
            f"Label image '{path}' is {found.dtype} of shape {found.shape}; "
            "give one plane of integers, 0 for the background."
        )
    numbers, dense = np.unique(found, return_inverse=True)
    return (dense.reshape(found.shape) + (0 if numbers[:1] == 0 else 1)).astype(np.int32)


def write_labels(path: Path, labels: LabelImage) -> None:
    """Write a label image as a zlib-compressed TIFF of uint16, or of int32 if there are too many labels."""
    import tifffile

    small = labels.max(initial=0) <= np.iinfo(np.uint16).max
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, labels.astype(np.uint16 if small else np.int32), compression="zlib")


def segment_field(field: Field, segmenter: Segmenter, working_um: float) -> LabelImage:
    """Segment a field at another pixel size; the labels have the size of the image as stored.

    Parameters
    ----------
    field
        The nucleus image; its pixel size is known.
    segmenter
        Finds the nuclei.
    working_um
        Pixel size in micrometres at which the nuclei are found.

    Returns
    -------
    LabelImage
        (H, W), at the pixels of the file.
    """
    assert field.pixel_size_um is not None
    pixels = percentile_normalise(resample(field.pixels, field.pixel_size_um, working_um))
    return resample_labels(segmenter(pixels, working_um), field.stored_shape or field.pixels.shape)


def resample_labels(labels: LabelImage, shape: tuple[int, ...]) -> LabelImage:
    """Resample a label image (H, W) to another shape by nearest neighbours."""
    indices = [
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for old, new in zip(labels.shape, shape, strict=True)
    ]
    return labels[np.ix_(*indices)]
