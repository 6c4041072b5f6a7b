"""Measures of one predicted image beside the true one, of any model.

Images are (H, W) float32 in [0, 1]. Each measure is a number; NaN where it is undefined, as for an image
without contrast.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import fft, ndimage
from scipy.stats import spearmanr
from skimage.feature import graycomatrix, graycoprops
from skimage.filters import threshold_otsu
from skimage.metrics import normalized_mutual_information

from deepgps.arrays import Doubles, Floats, Mask
from deepgps.images.similarity import pearson, psnr, ssim

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales of MS-SSIM, the finest first (Wang et al. 2003)."""
_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
FRC_THRESHOLD = 1 / 7
"""Correlation of two images below which a ring of frequencies carries no shared detail."""
GREY_LEVELS, TEXTURE_PX = 32, (1, 2, 4)
"""Grey levels and distances in pixels of the co-occurrence matrices of `texture`."""
TEXTURES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
_INFORMATION_BINS = 64
_FLAT = 1e-6


def ms_ssim(true: Floats, predicted: Floats) -> float:
    """Multi-scale structural similarity (Wang et al. 2003), with Gaussian windows of 11 x 11 pixels.

    Scales at which the image is smaller than a window are left out, and the weights of the others scaled to
    sum to 1: five scales need 176 pixels. A negative contrast term counts as 0.

    Returns
    -------
    float
        In [0, 1]; NaN for images smaller than a window.
    """
    a, b = true.astype(np.float64), predicted.astype(np.float64)
    terms: list[float] = []
    for scale in range(len(MS_SSIM_WEIGHTS)):
        if min(a.shape) <= 2 * _SSIM_RADIUS:
            break
        luminance, contrast = _ssim_terms(a, b)
        last = scale == len(MS_SSIM_WEIGHTS) - 1 or min(a.shape) // 2 <= 2 * _SSIM_RADIUS
        terms.append(max(float((luminance * contrast if last else contrast).mean()), 0.0))
        a, b = (each[: n // 2 * 2, : m // 2 * 2] for each, (n, m) in ((a, a.shape), (b, b.shape)))
        a, b = (each.reshape(each.shape[0] // 2, 2, -1, 2).mean((1, 3)) for each in (a, b))
    if not terms:
        return float("nan")
    weights = np.array(MS_SSIM_WEIGHTS[: len(terms)])
    return float(np.prod(np.array(terms) ** (weights / weights.sum())))


def _ssim_terms(a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """Luminance and contrast-structure of each window inside two images (H, W)."""

    def blurred(image: Doubles) -> Doubles:
        whole = ndimage.gaussian_filter(image, _SSIM_SIGMA, radius=_SSIM_RADIUS)
        return np.asarray(whole[_SSIM_RADIUS:-_SSIM_RADIUS, _SSIM_RADIUS:-_SSIM_RADIUS])

    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def spearman(true: Floats, predicted: Floats) -> float:
    """Rank correlation of the pixels; NaN if either image is flat."""
    if min(np.ptp(true), np.ptp(predicted)) < _FLAT:
        return float("nan")
    return float(spearmanr(true.ravel(), predicted.ravel()).statistic)


def mutual_information(true: Floats, predicted: Floats) -> float:
    """Normalised mutual information of the intensities, in 64 bins: 0 for independent, 1 for one-to-one.

    That of Studholme et al. 1999 less 1. NaN if either image is flat.

    Returns
    -------
    float
        In [0, 1].
    """
    if min(np.ptp(true), np.ptp(predicted)) < _FLAT:
        return float("nan")
    found = normalized_mutual_information(true, predicted, bins=_INFORMATION_BINS)  # type: ignore[no-untyped-call]
    return float(found) - 1


def iou(true: Floats, predicted: Floats, threshold: Callable[[Floats], float]) -> float:
    """Intersection over union of the pixels above each image's own threshold; NaN where there are none."""
    a, b = (image > threshold(image) for image in (true, predicted))
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else float("nan")


def _median(image: Floats) -> float:
    return float(np.median(image))


def _otsu(image: Floats) -> float:
    # A flat image has no threshold, and no pixel above it.
    return float(threshold_otsu(image)) if np.ptp(image) > _FLAT else 1.0  # type: ignore[no-untyped-call]


def shared_resolution(true: Floats, predicted: Floats, pixel_size_um: float) -> float:
    """Size of the finest detail that two images share, in micrometres: the smaller, the better.

    The period at which their Fourier ring correlation first falls below 1/7; that of two pixels if it never
    does, and the edge of the image if it is below from the start. NaN if either image is flat.

    Returns
    -------
    float
        At least 2 pixels.
    """
    if min(np.ptp(true), np.ptp(predicted)) < _FLAT:
        return float("nan")
    height, width = true.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    a, b = (fft.fft2((image - image.mean()) * window) for image in (true, predicted))
    radius = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width))
    edge = min(height, width)
    rings = np.minimum((radius * edge).astype(int), edge // 2 + 1).ravel()
    cross, power_a, power_b = (
        np.bincount(rings, values.ravel())[: edge // 2 + 1]
        for values in ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    )
    correlation = cross / np.maximum(np.sqrt(power_a * power_b), 1e-12)
    # Over three rings, since a single one of the lowest has few frequencies.
    smooth = ndimage.uniform_filter1d(correlation[1:], 3, mode="nearest")
    below = np.flatnonzero(smooth < FRC_THRESHOLD)
    ring = below[0] + 1 if len(below) else edge // 2
    return float(edge / ring * pixel_size_um)


def texture(image: Floats) -> Doubles:
    """Texture (18,) by grey-level co-occurrence, after Haralick et al. 1973.

    The six measures in `TEXTURES` at distances of 1, 2 and 4 pixels, each the mean of four directions, on 32
    grey levels.

    Returns
    -------
    Doubles
        By distance, then measure.
    """
    levels = np.minimum(np.clip(image, 0, 1) * GREY_LEVELS, GREY_LEVELS - 1).astype(np.uint8)
    angles = np.arange(4) * np.pi / 4
    matrices = graycomatrix(  # type: ignore[no-untyped-call]
        levels, TEXTURE_PX, angles, GREY_LEVELS, symmetric=True, normed=True
    )
    found = [graycoprops(matrices, name).mean(1) for name in TEXTURES]  # type: ignore[no-untyped-call]
    return np.stack(found, axis=1).ravel()


SIMILARITIES: Mapping[str, Callable[[Floats, Floats], float]] = {
    "psnr": lambda true, predicted: float(psnr(true[None], predicted[None])[0]),
    "ssim": lambda true, predicted: float(ssim(true[None], predicted[None])[0]),
    "ms_ssim": ms_ssim,
    "pearson": lambda true, predicted: float(pearson(true[None], predicted[None])[0]),
    "spearman": spearman,
    "mutual_information": mutual_information,
    "iou_median": lambda true, predicted: iou(true, predicted, _median),
    "iou_otsu": lambda true, predicted: iou(true, predicted, _otsu),
}
"""Similarities of a predicted image to the true one; more is better."""


def nuclear_mask_of(nucleus: Floats, pixel_size_um: float) -> Mask:
    """Find the nuclei (H, W) of a normalised nucleus image."""
    from deepgps.images.segmentation import OtsuWatershed

    return OtsuWatershed()(nucleus, pixel_size_um) > 0
