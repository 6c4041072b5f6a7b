"""Cut a field into crops (resample, normalise, segment, crop each nucleus) and measure its image quality."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from scipy import ndimage

from deepgps.arrays import Bytes, Floats, LabelImage
from deepgps.datasets.crops.settings import EMPTY_CROP_MEAN, PrepareSettings
from deepgps.errors import InputError
from deepgps.images.processing import Crop, cut, nucleus_crops, percentile_normalise, resample
from deepgps.images.segmentation import Segmenter, resample_labels
from deepgps.images.similarity import pearson


@dataclass(frozen=True, slots=True, eq=False)
class NormalisedField:
    """A field at the pixel size of the crops, normalised and segmented.

    Attributes
    ----------
    nucleus
        (H, W) float32 in [0, 1].
    proteins
        Protein images of the same cells, each (H, W) float32 in [0, 1].
    labels
        (H, W) int32, one number per nucleus; 0 is background.
    margin
        Width in pixels of the mirror image on each side.
    """

    nucleus: Floats
    proteins: tuple[Floats, ...]
    labels: LabelImage
    margin: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class CropPair:
    """A nucleus crop and a protein crop.

    Attributes
    ----------
    pixels
        (2, S, S) uint8, nucleus and protein; 255 is 1.
    cell
        Number of the nucleus in the field, from 0.
    protein
        Number of the protein image of the field, from 0.
    row, col
        Centre of the nucleus in the field, in pixels of the crop.
    area_px
        Area of the nucleus in the same pixels.
    """

    pixels: Bytes
    cell: int
    protein: int
    row: int
    col: int
    area_px: int


def normalise_field(
    nucleus: Floats,
    proteins: Sequence[Floats],
    pixel_size_um: float,
    settings: PrepareSettings,
    segmenter: Segmenter | LabelImage,
) -> NormalisedField:
    """Resample, normalise, mirror and segment a field.

    Parameters
    ----------
    nucleus
        (H, W) raw intensities.
    proteins
        Protein images of the same cells, each (H, W), raw.
    pixel_size_um
        Pixel size of these images in micrometres.
    settings
        Size and pixel size of the crops, percentiles, border and smallest nucleus.
    segmenter
        A segmenter, or the labels of the nuclei, (H, W) as `nucleus`.

    Returns
    -------
    NormalisedField
        Images of one scale in [0, 1], with mirrored margins, and the labels of the nuclei.

    Raises
    ------
    InputError
        If the labels differ in shape from the nucleus image.
    """
    um = settings.pixel_size_um
    margin = settings.size_px // 2 if settings.border == "mirror" else 0

    def normalise(pixels: Floats) -> Floats:
        scaled = percentile_normalise(resample(pixels, pixel_size_um, um), settings.low, settings.high)
        return np.pad(scaled, margin, "reflect") if margin else scaled

    normalised = normalise(nucleus)
    if isinstance(segmenter, np.ndarray):
        labels = np.pad(_resample_labels_to(normalised, segmenter, nucleus, margin), margin)
    else:
        labels = segmenter(normalised, um)
    labels = _without_small(labels, settings.min_area_um2 / um**2)
    return NormalisedField(normalised, tuple(map(normalise, proteins)), labels, margin)


def cut_field(field: NormalisedField, settings: PrepareSettings) -> Iterator[CropPair]:
    """Yield the pairs of each nucleus and protein image that the settings keep, in order of the labels."""
    areas = np.bincount(field.labels.ravel())
    crops = nucleus_crops(field.nucleus, field.labels, settings.size_px, padded=settings.border == "pad")
    kept: list[Crop] = []
    for number, crop in enumerate(crops):
        if _touches_mirror(field, crop.label) or _overlaps(crop, kept, settings):
            continue
        kept.append(crop)
        for protein_number, protein in enumerate(field.proteins):
            protein_crop = cut(protein, crop.row, crop.col, settings.size_px)
            if settings.empty_protein == "drop" and protein_crop.mean() < EMPTY_CROP_MEAN:
                continue
            pixels = np.round(np.stack([crop.pixels, protein_crop]) * 255).astype(np.uint8)
            row, col = crop.row - field.margin, crop.col - field.margin
            yield CropPair(pixels, number, protein_number, row, col, int(areas[crop.label]))


def _resample_labels_to(normalised: Floats, labels: LabelImage, nucleus: Floats, margin: int) -> LabelImage:
    """Resample labels of the raw nucleus image to the normalised one without its margin."""
    if labels.shape != nucleus.shape:
        labels_size, image_size = (
            " × ".join(map(str, shape[::-1])) for shape in (labels.shape, nucleus.shape)
        )
        raise InputError(
            f"Its labels have {labels_size} pixels, its nucleus image {image_size}; segment it again."
        )
    if margin:
        # A nucleus at the border would merge with its mirror image.
        edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        labels = np.where(np.isin(labels, edges), 0, labels)
    return resample_labels(labels, tuple(n - 2 * margin for n in normalised.shape))


def _without_small(labels: LabelImage, min_px: float) -> LabelImage:
    """Drop small nuclei and renumber the others without gaps."""
    numbers, dense = np.unique(labels, return_inverse=True)
    keep = np.bincount(dense.ravel()) >= min_px
    keep[numbers == 0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[dense.reshape(labels.shape)]


def _touches_mirror(field: NormalisedField, label: int) -> bool:
    """Return whether a nucleus extends into the mirror image, where it merges with its own."""
    if not field.margin:
        return False
    nucleus, inner = field.labels == label, slice(field.margin, -field.margin)
    return bool(nucleus[inner, inner].sum() < nucleus.sum())


def _overlaps(crop: Crop, kept: Sequence[Crop], settings: PrepareSettings) -> bool:
    size = settings.size_px
    shared = (
        max(0, size - abs(crop.row - other.row)) * max(0, size - abs(crop.col - other.col)) for other in kept
    )
    return any(area > settings.max_overlap * size**2 for area in shared)


_DETAIL_UM = 0.5
_FAR_FROM_NUCLEUS_UM = 1.5
_MIN_PIXELS = 500


class Quality(TypedDict):
    """Quality measures of a field, the same for all its crops."""

    nucleus_saturation: float
    protein_saturation: float
    nucleus_focus: float
    protein_contrast: float
    jpeg_blocks: float
    leak: float | None


def field_quality(
    nucleus: Floats, protein: Floats, normalised: NormalisedField, pixel_size_um: float
) -> Quality:
    """Measure the image quality of a field.

    Parameters
    ----------
    nucleus, protein
        (H, W) raw intensities.
    normalised
        The same field, normalised, with one protein image.
    pixel_size_um
        Pixel size of `normalised` in micrometres.

    Returns
    -------
    Quality
        The measures by which fields are left out.
    """
    return Quality(
        nucleus_saturation=saturation(nucleus),
        protein_saturation=saturation(protein),
        nucleus_focus=focus(normalised.nucleus, pixel_size_um),
        protein_contrast=contrast(protein),
        jpeg_blocks=max(jpeg_blocks(nucleus), jpeg_blocks(protein)),
        leak=leak(normalised, pixel_size_um),
    )


def saturation(pixels: Floats) -> float:
    """Return the fraction of the pixels (H, W) that have the maximum value; a single such pixel counts as 0.

    A camera clips brighter pixels to one value, which differs between cameras (255, 4,095, 65,535).

    Returns
    -------
    float
        In [0, 1].
    """
    at_top = int((pixels == pixels.max()).sum())
    return at_top / pixels.size if at_top > 1 else 0.0


def focus(nucleus: Floats, pixel_size_um: float) -> float:
    """Return the sharpness of a normalised nucleus image (H, W): the 99th percentile of its gradient per µm.

    In an image in focus, the steepest edges rise from dark to bright within half a micrometre.

    Returns
    -------
    float
        Change of the normalised intensity per micrometre.
    """
    gradient = ndimage.gaussian_gradient_magnitude(nucleus, max(0.2 / pixel_size_um, 0.7))
    return float(np.percentile(gradient, 99) / pixel_size_um)


def contrast(pixels: Floats) -> float:
    """Return the contrast of a raw image (H, W): brightest structures above background, over the noise.

    The difference of the 99.8th and 3rd percentiles after a blur of one pixel, divided by the noise: the
    median response to a mask that ignores planes and slopes (Immerkær 1996). Pure noise has about 1.

    Returns
    -------
    float
        In units of the noise.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = 1.4826 * np.median(np.abs(ndimage.convolve(pixels, mask))) / 6
    low, high = np.percentile(ndimage.gaussian_filter(pixels, 1), (3, 99.8))
    # Rounding to integers alone causes a noise of 0.3.
    return float((high - low) / max(noise, 0.3))


def jpeg_blocks(pixels: Floats) -> float:
    """Return how much larger the steps between 8-px blocks of an image (H, W) are than those within blocks.

    0 is no difference, 0.1 is 10 % larger; the larger value of both directions.

    Returns
    -------
    float
        Relative excess of the steps between blocks.
    """
    return max(_column_blocks(pixels), _column_blocks(pixels.T))


def leak(normalised: NormalisedField, pixel_size_um: float) -> float | None:
    """Return the correlation of the fine structure of nucleus and protein image away from the nuclei.

    There the nucleus image should show background only: a correlation means protein signal in the nucleus
    channel, as in colour composites. None if the nuclei leave too little background.

    Returns
    -------
    float or None
        Pearson correlation, in [-1, 1].
    """
    distance = int(np.ceil(_FAR_FROM_NUCLEUS_UM / pixel_size_um))
    far = ndimage.maximum_filter(normalised.labels, 2 * distance + 1) == 0
    if far.sum() < _MIN_PIXELS:
        return None
    sigma = _DETAIL_UM / pixel_size_um
    first, second = (
        (pixels - ndimage.gaussian_filter(pixels, sigma))[far]
        for pixels in (normalised.nucleus, normalised.proteins[0])
    )
    r = float(pearson(first[None], second[None])[0])
    return 0.0 if np.isnan(r) else r


def _column_blocks(pixels: Floats) -> float:
    """Return the same for steps between columns."""
    steps = np.abs(np.diff(pixels, axis=1)).mean(0)
    between = np.arange(1, len(steps) + 1) % 8 == 0
    inside = steps[~between].mean()
    return float(max(0.0, steps[between].mean() / inside - 1)) if inside > 0 and between.any() else 0.0
