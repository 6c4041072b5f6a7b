"""Cut a field into crops: resample, normalise, segment, cut around each nucleus; measure image quality."""

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
    """A field at the crops' pixel size, normalised, with its nuclei found.

    Attributes
    ----------
    nucleus
        (H, W) float32 in [0, 1].
    proteins
        Protein images of the same cells, each (H, W) float32 in [0, 1].
    labels
        (H, W) int32, the nuclei; 0 is background.
    margin
        Pixels on each side that are a mirror image of the field.
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
        (2, S, S) uint8, nucleus and protein; 255 stands for 1.
    cell
        The nucleus's number among those of the field, from 0.
    protein
        Which of the field's protein images it is.
    row, col
        The centre of the nucleus in the field, in pixels of the crop.
    area_px
        Area of the nucleus in such pixels.
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
    """Resample, normalise and widen a field, and find its nuclei.

    Parameters
    ----------
    nucleus
        (H, W) raw intensities.
    proteins
        Protein images of the same cells, each (H, W), raw.
    pixel_size_um
        Edge of a pixel of them in micrometres.
    settings
        The rules.
    segmenter
        Finds the nuclei; or their labels, (H, W) like `nucleus`.

    Raises
    ------
    InputError
        If labels have another shape than the nucleus image.
    """
    um = settings.pixel_size_um
    margin = settings.size_px // 2 if settings.border == "mirror" else 0

    def ready(pixels: Floats) -> Floats:
        normalised = percentile_normalise(resample(pixels, pixel_size_um, um), settings.low, settings.high)
        return np.pad(normalised, margin, "reflect") if margin else normalised

    shown = ready(nucleus)
    if isinstance(segmenter, np.ndarray):
        labels = np.pad(_labels_like(segmenter, nucleus, shown, margin), margin)
    else:
        labels = segmenter(shown, um)
    labels = _without_small(labels, settings.min_area_um2 / um**2)
    return NormalisedField(shown, tuple(ready(protein) for protein in proteins), labels, margin)


def cut_field(field: NormalisedField, settings: PrepareSettings) -> Iterator[CropPair]:
    """Cut a pair for each nucleus and protein image that the rules keep, in the order of the labels."""
    areas = np.bincount(field.labels.ravel())
    crops = nucleus_crops(field.nucleus, field.labels, settings.size_px, padded=settings.border == "pad")
    kept: list[Crop] = []
    for number, crop in enumerate(crops):
        if _touches_mirror(field, crop.label) or _overlaps(crop, kept, settings):
            continue
        kept.append(crop)
        for which, protein in enumerate(field.proteins):
            shown = cut(protein, crop.row, crop.col, settings.size_px)
            if settings.empty_protein == "drop" and shown.mean() < EMPTY_CROP_MEAN:
                continue
            pixels = np.round(np.stack([crop.pixels, shown]) * 255).astype(np.uint8)
            place = crop.row - field.margin, crop.col - field.margin
            yield CropPair(pixels, number, which, *place, int(areas[crop.label]))


def _labels_like(labels: LabelImage, nucleus: Floats, shown: Floats, margin: int) -> LabelImage:
    """Bring labels of a nucleus image to the shape in which it is shown, less the margin.

    With a margin, nuclei at the border are left out: they would meet their mirror image.
    """
    if labels.shape != nucleus.shape:
        theirs, its = (" × ".join(map(str, shape[::-1])) for shape in (labels.shape, nucleus.shape))
        raise InputError(f"Its labels have {theirs} pixels, its nucleus image {its}; segment it anew.")
    if margin:
        edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        labels = np.where(np.isin(labels, edges), 0, labels)
    return resample_labels(labels, tuple(n - 2 * margin for n in shown.shape))


def _without_small(labels: LabelImage, min_px: float) -> LabelImage:
    """Drop small nuclei and number the others without gaps."""
    numbers, dense = np.unique(labels, return_inverse=True)
    keep = np.bincount(dense.ravel()) >= min_px
    keep[numbers == 0] = False
    return (np.cumsum(keep) * keep).astype(np.int32)[dense.reshape(labels.shape)]


def _touches_mirror(field: NormalisedField, label: int) -> bool:
    """Whether a nucleus reaches into the mirror image, where it would meet itself."""
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
_LEAST_PIXELS = 500


class Quality(TypedDict):
    """Figures of one field, the same for all its crops."""

    nucleus_saturation: float
    protein_saturation: float
    nucleus_focus: float
    protein_contrast: float
    jpeg_blocks: float
    leak: float | None


def field_quality(nucleus: Floats, protein: Floats, ready: NormalisedField, pixel_size_um: float) -> Quality:
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


def leak(ready: NormalisedField, pixel_size_um: float) -> float | None:
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
    r = float(pearson(first[None], second[None])[0])
    return 0.0 if np.isnan(r) else r


def _blocks_along(pixels: Floats) -> float:
    """The same, between columns."""
    steps = np.abs(np.diff(pixels, axis=1)).mean(0)
    between = np.arange(1, len(steps) + 1) % 8 == 0
    inside = steps[~between].mean()
    return float(max(0.0, steps[between].mean() / inside - 1)) if inside > 0 and between.any() else 0.0
