"""Submitted images, read and cropped as for training; this runs in a process of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deepgps.datasets.crops.fields import FieldImages, FieldRow, read_field_images
from deepgps.datasets.crops.prepare import CropMethod, CropTask, FieldCrops, crop_field
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.errors import InputError
from deepgps.images.processing import resampled_shape
from deepgps.images.segmentation import SEGMENTERS
from opengps.settings import Settings
from opengps.submissions.schemas import ImageFields
from opengps.uploads import Upload, check_image

CROP_SETTINGS = PrepareSettings(border="mirror", empty_protein="drop")
"""The rules of the paper, except that a field as small as one cell also gives a crop."""
SOURCE = "openGPS"


def read_and_crop(
    fields: ImageFields, uploads: Mapping[Path, Upload], settings: Settings
) -> tuple[FieldImages, FieldCrops]:
    """Check, read and crop the images of both channels.

    Parameters
    ----------
    fields
        What their sender says about them.
    uploads
        One file, or that of the nucleus and that of the protein, by the path to write it to.
    settings
        The limits.

    Raises
    ------
    InputError
        If a file cannot be used, no cell is found, or the protein image shows nothing.
    """
    for path, upload in uploads.items():
        check_image(path, upload.content, settings)
        path.parent.mkdir()
        path.write_bytes(upload.content)
    return _crop(fields, list(uploads), settings.max_image_pixels)


def _crop(fields: ImageFields, paths: Sequence[Path], max_pixels: int) -> tuple[FieldImages, FieldCrops]:
    columns = {
        "field": "field",
        "source": SOURCE,
        "ensembl_gene_id": fields.protein,
        "cell_line": fields.cell_line,
        "nucleus": paths[0],
        "protein": paths[-1],
        "nucleus_channel": fields.nucleus_channel,
        "protein_channel": fields.protein_channel,
        "pixel_size_um": fields.pixel_size_um,
    }
    # As in a list of fields, where every cell is text.
    row = FieldRow.model_validate({name: str(value) for name, value in columns.items() if value is not None})
    channels = read_field_images(row)
    # Before it is resampled for cropping.
    resampled_shape(channels.nucleus.shape, channels.pixel_size_um, CROP_SETTINGS.pixel_size_um, max_pixels)
    protein = {"localizations": "|".join(fields.localizations)}
    settings = CROP_SETTINGS.model_copy(update={"image_checks": fields.image_checks})
    cropped = crop_field(CropTask("field", row, protein, CropMethod(settings, SEGMENTERS[0])))
    if cropped.problem is not None:
        raise InputError(cropped.problem)
    return channels, cropped
