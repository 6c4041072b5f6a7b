"""Structure of an image: profile around the nucleus, power by size of structure, granularity.

All features but the mean are relative to the image's own mean, so that brightness counts once.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import fft, ndimage

from deepgps.arrays import Doubles, Floats, Indices, Ints, Mask
from deepgps.evaluation.dataset import EvaluationDataset
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import pearson

PROFILE_EDGES_UM = np.arange(-6.0, 18.1, 1.5)
"""Edges of the zones of the profile: distance from the outline of the nearest nucleus, negative inside."""
SPECTRUM_EDGES = np.geomspace(1 / 20, 2.4, 13)
"""Edges of the bands of the spectrum in periods per micrometre, from 20 µm to 0.42 µm."""
FINE_STRUCTURE_UM = 2.0
"""Structures below this size are fine detail."""

PROFILE, BANDS = len(PROFILE_EDGES_UM) - 1, len(SPECTRUM_EDGES) - 1
_GROUP_EDGES_UM = (0.0, 3.0, 9.0)
_WINDOWS = (3, 7, 15)
_PERCENTILES = (5, 25, 50, 75, 95, 99)
FEATURES = PROFILE + BANDS + 12 + 4 + len(_PERCENTILES) + 3
"""Length F of `structure_features`."""


@dataclass(frozen=True, slots=True, eq=False)
class CellGeometry:
    """Position of the pixels of some cells to their nuclei, computed once for all images of these cells.

    Attributes
    ----------
    nuclei, masks
        (N, H, W) nucleus images and where the nuclei are.
    zones
        (N, H, W) zone of the profile of each pixel; `PROFILE` for those too far out, or without a nucleus.
    groups
        (N, H, W) inside, near (3 µm), around (9 µm), far.
    pixel_size_um
        Edge of a pixel in micrometres.
    """

    nuclei: Floats
    masks: Mask
    zones: Indices
    groups: Indices
    pixel_size_um: float

    @classmethod
    def of(cls, nuclei: Floats, masks: Mask, pixel_size_um: float) -> "CellGeometry":
        """Measure the distance of each pixel (N, H, W) from the outline of the nearest nucleus."""
        distances = np.stack([_signed_distance(mask) for mask in masks]) * pixel_size_um
        zones = np.digitize(np.maximum(distances, PROFILE_EDGES_UM[0]), PROFILE_EDGES_UM) - 1
        groups = np.digitize(distances, _GROUP_EDGES_UM)
        zones[~np.isfinite(distances)] = PROFILE
        return cls(nuclei, masks, np.minimum(zones, PROFILE), groups, pixel_size_um)


def load_cells(dataset: EvaluationDataset, rows: Ints, pixel_size_um: float) -> tuple[Floats, CellGeometry]:
    """Read the real images (n, H, W) of some rows of the store, and the geometry of their cells."""
    assert dataset.store is not None
    pairs = dataset.store.images(rows)
    masks = np.stack([nuclear_mask(nucleus, pixel_size_um) for nucleus in pairs[:, 0]])
    return pairs[:, 1], CellGeometry.of(pairs[:, 0], masks, pixel_size_um)


def nuclear_mask(nucleus: Floats, pixel_size_um: float) -> Mask:
    """Find the nuclei (H, W) as `Predictor` does for its read-out."""
    return OtsuWatershed()(nucleus, pixel_size_um) > 0


def _signed_distance(mask: Mask) -> Doubles:
    """Distance in pixels from the outline (H, W), negative inside; infinite without an outline."""
    if mask.all() or not mask.any():
        return np.where(mask, -np.inf, np.inf)
    outside, inside = ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)
    return np.asarray(np.where(mask, 0.5 - inside, outside - 0.5), np.float64)


def profiles(images: Floats, cells: CellGeometry) -> Doubles:
    """Mean intensity by distance from the nucleus over the image's mean: (N, `PROFILE`).

    NaN where no pixel is at that distance, and for a black image.

    Returns
    -------
    Doubles
        (N, `PROFILE`), nearest first; 1 where the intensity is the mean.
    """
    means = _zone_means(images, cells.zones, PROFILE + 1)[:, :PROFILE]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(means / np.where(_means(images) > 0, _means(images), np.nan)[:, None])


def spectra(images: Floats, pixel_size_um: float) -> Doubles:
    """Share of each image's variance by size of structure: (N, `BANDS`), largest first.

    The mean power of a ring of frequencies times its number of frequencies, over that of all rings, under a
    Hann window. NaN for a constant image.

    Returns
    -------
    Doubles
        (N, `BANDS`); each row sums to 1.
    """
    ring, weight, window = _rings(images.shape[1], images.shape[2], pixel_size_um)
    power = np.abs(fft.rfft2(_flat(images) * window)) ** 2 * weight
    rows = np.arange(len(images))[:, None] * (BANDS + 1) + ring.ravel()
    sums = np.bincount(rows.ravel(), power.ravel(), len(images) * (BANDS + 1))
    bands = sums.reshape(len(images), -1)[:, :BANDS]
    varied = np.ptp(images, axis=(1, 2)) > 1e-6
    total = np.where(varied, bands.sum(1), np.nan)
    return np.asarray(bands / total[:, None])


def _rings(height: int, width: int, um: float) -> tuple[Indices, Doubles, Doubles]:
    """Band of each frequency of a real FFT, how often it counts, and the window."""
    radius = np.hypot(np.fft.fftfreq(height, um)[:, None], np.fft.rfftfreq(width, um))
    ring = np.digitize(radius, SPECTRUM_EDGES) - 1
    ring[(ring < 0) | (ring >= BANDS)] = BANDS
    weight = np.full(radius.shape, 2.0)
    weight[:, 0] = 1
    if width % 2 == 0:
        weight[:, -1] = 1
    return ring, weight, np.outer(np.hanning(height), np.hanning(width))


def fine_detail(spectrum: Doubles) -> Doubles:
    """Share of the variance in structures below `FINE_STRUCTURE_UM`, (N,), of spectra (N, `BANDS`)."""
    return np.asarray(
        spectrum[:, np.sqrt(SPECTRUM_EDGES[:-1] * SPECTRUM_EDGES[1:]) > 1 / FINE_STRUCTURE_UM].sum(1)
    )


def structure_features(images: Floats, cells: CellGeometry) -> Doubles:
    """Compute the features (N, F) of images (N, H, W) that a classifier of localizations uses.

    The profile around the nucleus, the log10 of the spectrum, granularity at three scales in four zones and
    its skewness, percentiles, mean, and correlation with the nucleus image, in the nuclei and everywhere.
    Undefined features are NaN: see `filled`.

    Returns
    -------
    Doubles
        (N, F).
    """
    mean = np.maximum(_means(images), 1e-6)[:, None]
    details = _details(images)
    rest = [
        profiles(images, cells),
        np.log10(np.maximum(spectra(images, cells.pixel_size_um), 1e-8)),
        _granularity(details, cells) / mean,
        _skewness(details, cells),
        np.percentile(images, _PERCENTILES, axis=(1, 2)).T / mean,
        np.log(mean),
        _nucleus_correlation(images, cells),
    ]
    return np.concatenate(rest, axis=1)


def filled(features: Doubles) -> Doubles:
    """Give features (N, F) that are undefined the value of a flat image."""
    flat = np.zeros(FEATURES)
    flat[:PROFILE], flat[PROFILE : PROFILE + BANDS] = 1, -8
    return np.where(np.isnan(features), flat, features)


def _details(images: Floats) -> list[Floats]:
    """Differences between the image and itself blurred more and more."""
    blurred = [images, *(ndimage.uniform_filter(images, (0, edge, edge)) for edge in _WINDOWS)]
    return [fine - coarse for fine, coarse in pairwise(blurred)]


def _granularity(details: list[Floats], cells: CellGeometry) -> Doubles:
    energies = [_zone_means(detail * detail, cells.groups, 4) for detail in details]
    return np.sqrt(np.nan_to_num(np.concatenate(energies, axis=1)))


def _skewness(details: list[Floats], cells: CellGeometry) -> Doubles:
    """Whether there are bright spots (above 0) or dark holes, inside nuclei and outside, at two scales."""
    columns, outside = [], (~cells.masks).astype(np.intp)
    for detail in details[1:]:
        powers = detail * detail, detail * detail * detail
        squares, cubes = (_zone_means(power, outside, 2) for power in powers)
        columns.append(np.nan_to_num(cubes / np.maximum(squares, 1e-10) ** 1.5))
    return np.clip(np.concatenate(columns, axis=1), -20, 20)


def _nucleus_correlation(images: Floats, cells: CellGeometry) -> Doubles:
    inside = cells.masks
    parts = [np.where(inside, each, _masked_mean(each, inside)) for each in (images, cells.nuclei)]
    columns = [pearson(images, cells.nuclei), pearson(*(part.astype(np.float32) for part in parts))]
    return np.nan_to_num(np.stack(columns, axis=1))


def _masked_mean(images: Floats, masks: Mask) -> Doubles:
    return np.asarray((images * masks).sum((1, 2)) / np.maximum(masks.sum((1, 2)), 1))[:, None, None]


def _zone_means(values: Floats, zones: Indices, count: int) -> Doubles:
    """Mean of the pixels of each zone: (N, count); NaN where there are none."""
    rows = (np.arange(len(values))[:, None, None] * count + zones).ravel()
    sums = np.bincount(rows, values.ravel(), len(values) * count)
    counts = np.bincount(rows, minlength=len(values) * count)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(len(values), count)


def _means(images: Floats) -> Doubles:
    return np.asarray(images.mean((1, 2), dtype=np.float64))


def _flat(images: Floats) -> Doubles:
    return np.asarray(images - _means(images)[:, None, None], np.float64)
