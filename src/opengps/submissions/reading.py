"""From the bytes of two images to an image: judged, read, normalised and cut as training would see it."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import deepgps
from deepgps.arrays import Bytes
from deepgps.datasets.crops.fields import FieldImages, FieldRow, read_field_images
from deepgps.datasets.crops.prepare import CropMethod, CropTask, FieldCrops, crop_field
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.errors import InputError
from deepgps.images.segmentation import SEGMENTERS
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.uniprot import is_accession
from deepgps.results.names import safe_stem
from opengps.nucleus_images import check_claims, for_a_form
from opengps.orders import TooLargeError, Upload
from opengps.settings import Settings
from opengps.submissions.schemas import ImageFields
from opengps.submissions.tables import ImagePair

CROPPED = PrepareSettings(border="mirror", empty_protein="drop")
"""The rules: those of the paper, but that a field as small as one cell gives a crop, too."""
SOURCE = "openGPS"

# What is said of a list of fields, said of a form.
_REMEDIES: Mapping[str, str] = {
    "Neither the list nor": "Neither the form nor",
    "and the list does not say": "and the form does not say",
    "If not, use --channel-order trust": "Exchange them",
}


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """An image that can be used.

    Attributes
    ----------
    image
        What is kept of it in the database; it belongs to no submission yet.
    images
        Raw intensities, as sent.
    crops
        (n, 2, S, S) uint8, nucleus and protein; 255 stands for 1.
    """

    image_pair: ImagePair
    images: FieldImages
    crops: Bytes


def read_image(fields: ImageFields, nucleus: Upload, protein: Upload | None, settings: Settings) -> Read:
    """Read one image.

    Parameters
    ----------
    fields
        What its sender says of it.
    nucleus, protein
        The images as sent; one of them alone has both channels.
    settings
        The limits.

    Raises
    ------
    InputError
        If the sequence or an image cannot be used, no cell can be cut from it, or the protein image shows
        nothing.
    TooLargeError
        If an image has too many bytes.
    """
    sequence = _sequence(fields, settings)
    with tempfile.TemporaryDirectory() as folder:
        uploads = {
            Path(folder) / kind / safe_stem(each.name): each for kind, each in _kinds(nucleus, protein)
        }
        try:
            for path, upload in uploads.items():
                _write(path, upload, settings)
            images, cut = _cut(fields, list(uploads))
        except InputError as error:
            raise InputError(_said(str(error), uploads)) from None
    checksum = _checksum(images)
    rows = [
        {**row, "field": checksum[:16], "cell": f"{SOURCE}/{checksum[:16]}/{number}"}
        for number, row in enumerate(cut.rows)
    ]
    name = fields.protein
    image_pair = ImagePair(
        sha256=checksum,
        protein_id=name,
        sequence=sequence,
        accession=name.upper() if is_accession(name) else None,
        localizations="|".join(fields.localizations),
        cell_line=fields.cell_line,
        microscope=fields.microscope,
        pixel_size_um=images.pixel_size_um,
        provenance=_provenance(fields, uploads),
        rows=rows,
        shown=_central(rows, images),
    )
    return Read(image_pair, images, cut.crops)


def _sequence(fields: ImageFields, settings: Settings) -> str | None:
    """Clean the sequence; None where it is to be looked up."""
    name, sequence = fields.protein, clean_sequence(fields.sequence)
    if not sequence:
        if not settings.lookups:
            raise InputError(f"'{name}' cannot be looked up on this site; give its sequence.")
        return None
    if len(sequence) > settings.max_residues:
        most = settings.max_residues
        raise InputError(f"Sequence '{name}' has {len(sequence):,} residues; {most:,} are taken here.")
    if reason := check_sequence(name, sequence):
        raise InputError(reason)
    return sequence


def _kinds(nucleus: Upload, protein: Upload | None) -> Iterator[tuple[str, Upload]]:
    yield "nucleus", nucleus
    if protein is not None:
        yield "protein", protein


def _write(path: Path, upload: Upload, settings: Settings) -> None:
    if len(upload.content) > settings.max_image_bytes:
        most = settings.max_image_bytes
        raise TooLargeError(f"'{upload.name}' has more than {most:,} bytes, the most of an image; crop it.")
    check_claims(path, upload.content, settings)
    path.parent.mkdir()
    path.write_bytes(upload.content)


def _cut(fields: ImageFields, paths: list[Path]) -> tuple[FieldImages, FieldCrops]:
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
    # As of a list of fields, where every cell is a text.
    texts = {name: str(value) for name, value in columns.items() if value is not None}
    row = FieldRow.model_validate(texts)
    images = read_field_images(row)
    protein = {"localizations": "|".join(fields.localizations)}
    cut = crop_field(CropTask("field", row, protein, CropMethod(CROPPED, SEGMENTERS[0])))
    if cut.problem is not None:
        raise InputError(cut.problem)
    return images, cut


def _said(sentence: str, uploads: Mapping[Path, Upload]) -> str:
    """Say the sender's names for files in place of ours, and a form's remedies."""
    for path, upload in uploads.items():
        sentence = sentence.replace(str(path), upload.name).replace(f"'{path.name}'", f"'{upload.name}'")
    for theirs, ours in _REMEDIES.items():
        sentence = sentence.replace(theirs, ours)
    return for_a_form(sentence)


def _checksum(images: FieldImages) -> str:
    """Sha256 of the pixels: the same images in another file are the same."""
    digest = hashlib.sha256(str(images.nucleus.shape).encode())
    for pixels in (images.nucleus, images.protein):
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _provenance(fields: ImageFields, uploads: Mapping[Path, Upload]) -> dict[str, Any]:
    files = [
        {"name": each.name, "sha256": hashlib.sha256(each.content).hexdigest()} for each in uploads.values()
    ]
    return {
        "files": files,
        "nucleus_channel": fields.nucleus_channel,
        "protein_channel": fields.protein_channel,
        "deepgps": deepgps.__version__,
    }


def _central(rows: list[dict[str, Any]], images: FieldImages) -> int:
    """Number of the crop whose nucleus is nearest to the middle of the field."""
    scale = images.pixel_size_um / CROPPED.pixel_size_um
    middle = [edge * scale / 2 for edge in images.nucleus.shape]
    return int(np.argmin([np.hypot(row["row"] - middle[0], row["col"] - middle[1]) for row in rows]))
