"""From one field to its crops: resample, normalise, find the nuclei, cut around each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.arrays import Bytes, Floats, LabelImage
from deepgps.datasets.crops.settings import EMPTY_CROP_MEAN, PrepareSettings
from deepgps.errors import InputError
from deepgps.images.processing import Crop, cut, nucleus_crops, percentile_normalise, resample
from deepgps.images.segmentation import Segmenter, resample_labels


@dataclass(frozen=True, slots=True, eq=False)
class ReadyField:
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
class Pair:
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


def ready_field(
    nucleus: Floats,
    proteins: Sequence[Floats],
    pixel_size_um: float,
    settings: PrepareSettings,
    segmenter: Segmenter | LabelImage,
) -> ReadyField:
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
    return ReadyField(shown, tuple(ready(protein) for protein in proteins), labels, margin)


def cut_field(field: ReadyField, settings: PrepareSettings) -> Iterator[Pair]:
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
            yield Pair(pixels, number, which, *place, int(areas[crop.label]))


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


def _touches_mirror(field: ReadyField, label: int) -> bool:
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
