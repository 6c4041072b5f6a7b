"""Similarity of predicted and real images: PSNR, SSIM, Pearson correlation, intranuclear fraction.

Images are (N, H, W) float32 in [0, 1]; the data range is 1. Undefined values, such as the correlation with a
constant image, are NaN.
"""

import numpy as np
from scipy import ndimage

from deepgps.arrays import Doubles, Floats, Mask

SSIM_WINDOW = 7
"""Edge of the square window of `ssim` in pixels."""


def psnr(real: Floats, drawn: Floats) -> Doubles:
    """Compute the peak signal-to-noise ratio of each image, (N,) in dB; infinite for equal images."""
    error = ((real.astype(np.float64) - drawn) ** 2).mean((1, 2))
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(error))


def ssim(real: Floats, drawn: Floats) -> Doubles:
    """Compute the structural similarity of each image, (N,), with uniform windows of 7 x 7 pixels.

    Wang et al. 2004, with K1 = 0.01, K2 = 0.03 and sample covariances; equal to scikit-image's
    ``structural_similarity``, but for a batch of images.

    Parameters
    ----------
    real, drawn
        (N, H, W) in [0, 1].

    Returns
    -------
    Doubles
        (N,) in [-1, 1].
    """
    a, b = real.astype(np.float64), drawn.astype(np.float64)
    n = SSIM_WINDOW**2
    mean_a, mean_b = _window_means(a), _window_means(b)
    var_a, var_b, cov = (
        (_window_means(x * y) - mean_x * mean_y) * n / (n - 1)
        for x, y, mean_x, mean_y in (
            (a, a, mean_a, mean_a),
            (b, b, mean_b, mean_b),
            (a, b, mean_a, mean_b),
        )
    )
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return np.asarray(similarity.mean((1, 2)))


def _window_means(images: Doubles) -> Doubles:
    """Return the mean of each window inside the image."""
    edge = SSIM_WINDOW // 2
    means = ndimage.uniform_filter(images, (0, SSIM_WINDOW, SSIM_WINDOW))
    return np.asarray(means[:, edge:-edge, edge:-edge])


def pearson(real: Floats, drawn: Floats) -> Doubles:
    """Compute the Pearson correlation of the pixels of each image pair, (N,); NaN if either is constant.

    Parameters
    ----------
    real, drawn
        (N, ...) arrays of the same shape, such as images or vectors.

    Returns
    -------
    Doubles
        (N,) in [-1, 1].
    """
    a = real.reshape(len(real), -1).astype(np.float64)
    b = drawn.reshape(len(drawn), -1).astype(np.float64)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    norms = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    # An image whose pixels differ only by rounding is constant: its correlation would be noise.
    spread = np.minimum(np.abs(a).max(1, initial=0), np.abs(b).max(1, initial=0)) > 1e-6
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread, (a * b).sum(1) / norms, np.nan))


def intranuclear(images: Floats, masks: Mask) -> Doubles:
    """Compute the share of each image's intensity inside the nuclei, (N,); NaN if black or without nuclei."""
    inside = (images * masks).sum((1, 2), dtype=np.float64)
    total = images.sum((1, 2), dtype=np.float64)
    known = (total > 0) & masks.any((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, inside / total, np.nan))
