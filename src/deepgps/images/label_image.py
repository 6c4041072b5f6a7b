"""Label images: where the nuclei are, as a TIFF that any segmenter can write. 0 is background."""

from pathlib import Path

import numpy as np

from deepgps.arrays import LabelImage
from deepgps.errors import InputError
from deepgps.files.atomic import replacing
from deepgps.images.normalise import percentile_normalise
from deepgps.images.read import Field
from deepgps.images.resample import resample
from deepgps.images.segment import Segmenter

SUFFIX = "_labels.tif"
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
    with replacing(path) as draft:
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
    return labels_like(segmenter(shown, working_um), field.pixels.shape)


def labels_like(labels: LabelImage, shape: tuple[int, ...]) -> LabelImage:
    """Resample labels (H, W) to another shape; each pixel takes the label nearest to it."""
    places = [
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for old, new in zip(labels.shape, shape, strict=True)
    ]
    return labels[np.ix_(*places)]
