"""Read the list of fields, ``fields.csv``, and the two images of a field."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, ValidationError, field_validator
from skimage.filters import threshold_otsu

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.decode import Decoded, decode_image
from deepgps.images.read import Field, dominant_colour, nucleus_score, select_channel
from deepgps.tables import read_table

_DECIMAL_COMMA = re.compile(r"\d*,\d+")
REQUIRED = ("field", "ensembl_gene_id", "nucleus", "protein")


class FieldRow(BaseModel):
    """One row of ``fields.csv``: a nucleus image and a protein image of the same cells."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)

    field: str
    """Name of the field; unique in the list."""
    source: str = ""
    """Source of the images, such as ``opencell``."""
    ensembl_gene_id: str
    """Ensembl gene id of the protein: ``protein_id`` in the table of proteins."""
    gene_symbol: str = ""
    """Gene symbol of the protein."""
    accession: str = ""
    """UniProt accession of the protein."""
    cell_line: str = ""
    """Cell line."""
    nucleus: Path
    """File of the nucleus image."""
    nucleus_channel: NonNegativeInt | None = None
    """Channel of the nucleus, from 0; required if the file has several."""
    protein: Path
    """File of the protein image; the same file if it has both channels."""
    protein_channel: NonNegativeInt | None = None
    """Channel of the protein, from 0; required if the file has several."""
    pixel_size_um: PositiveFloat | None = None
    """Pixel size in micrometres; by default, the one stored in the file."""

    @field_validator("nucleus_channel", "protein_channel", "pixel_size_um", mode="before")
    @classmethod
    def _number(cls, value: str | None) -> str | None:
        text = (value or "").strip()
        return (text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text) or None

    @field_validator("field", "nucleus", "protein", mode="before")
    @classmethod
    def _not_empty(cls, value: str | None) -> str:
        if not (value or "").strip():
            raise ValueError("it is empty")
        return str(value).strip()


class InvalidRow(BaseModel):
    """A row of the list that cannot be used."""

    field: str
    """Name of the field, or the line number in the file."""
    problem: str
    """Why the row cannot be used."""


def read_fields(path: Path) -> Iterator[FieldRow | InvalidRow]:
    """Read ``fields.csv``; paths of images are relative to its folder.

    Parameters
    ----------
    path
        A table with the columns of `FieldRow`, at least `REQUIRED`; other columns are ignored. With
        semicolons, numbers may have decimal commas.

    Yields
    ------
    FieldRow or InvalidRow
        A row of the list, or why it cannot be used.

    Raises
    ------
    InputError
        If the file does not exist, is not text, or lacks a required column.
    """
    if not path.exists():
        raise InputError(f"List of fields '{path}' was not found; check its name and folder.")
    try:
        table = read_table(path, required=REQUIRED)
    except InputError as error:
        raise InputError(f"List of fields {error}") from None
    seen: set[str] = set()
    for row in table.rows:
        parsed = (
            InvalidRow(field=row.cells.get("field") or f"line {row.line}", problem=row.problem)
            if row.problem
            else _parse_row(row.cells, row.line, path.parent)
        )
        if parsed.field in seen:
            problem = f"Field '{parsed.field}' is listed twice; the first row is used."
            parsed = InvalidRow(field=parsed.field, problem=problem)
        seen.add(parsed.field)
        yield parsed


def _parse_row(row: dict[str, str], number: int, folder: Path) -> FieldRow | InvalidRow:
    try:
        parsed = FieldRow.model_validate({key: value for key, value in row.items() if key})
    except ValidationError as error:
        first = error.errors()[0]
        name = row.get("field") or f"line {number}"
        column, reason = first["loc"][0], first["msg"].removeprefix("Value error, ")
        return InvalidRow(
            field=name,
            problem=f"Line {number} of the list: '{column}' cannot be used ({reason}); correct it.",
        )
    images = {"nucleus": folder / parsed.nucleus, "protein": folder / parsed.protein}
    return parsed.model_copy(update=images)


SWAPPED_SCORE_DIFFERENCE = 0.5
"""Difference of the nucleus scores above which the channels count as swapped."""

SMALLEST_NUCLEUS_UM2 = 40.0
"""Objects of a smaller area are not nuclei."""


class FieldImages(NamedTuple):
    """Raw images (H, W) of the same cells, their pixel size in micrometres, and how they were read.

    Pixels are square; `stored_shape` is height and width as stored, `warnings` are sentences for the user.
    """

    nucleus: Floats
    protein: Floats
    pixel_size_um: float
    stored_shape: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def read_field_images(row: FieldRow, *, check_order: bool = True) -> FieldImages:
    """Read both images of a field.

    Parameters
    ----------
    row
        The field; its paths can be opened from the current folder.
    check_order
        Whether to refuse a field whose protein image looks far more like nuclei than its nucleus image.

    Returns
    -------
    FieldImages
        Both images (H, W), raw, and their pixel size.

    Raises
    ------
    InputError
        If an image cannot be read, its channel or pixel size is unknown, the two images differ in shape, or
        they look swapped.
    """
    first = decode_image(row.nucleus)
    second = first if row.protein == row.nucleus else decode_image(row.protein)
    if second is first and row.nucleus_channel == row.protein_channel:
        raise InputError(
            f"Nucleus and protein are the same channel of '{row.nucleus.name}'; "
            "give nucleus_channel and protein_channel."
        )
    nucleus = _channel(first, row.nucleus, row.nucleus_channel, row.pixel_size_um, "nucleus")
    protein = _channel(second, row.protein, row.protein_channel, row.pixel_size_um, "protein")
    if nucleus.pixels.shape != protein.pixels.shape:
        sizes = [" × ".join(map(str, image.pixels.shape[::-1])) for image in (nucleus, protein)]
        raise InputError(
            f"Its nucleus image has {sizes[0]} pixels and its protein image {sizes[1]}; give images of the "
            "same field."
        )
    if nucleus.pixel_size_um is None:
        raise InputError("Neither the list nor the image gives the pixel size; give pixel_size_um.")
    if check_order:
        _check_order(nucleus.pixels, protein.pixels, nucleus.pixel_size_um)
    notes = tuple(dict.fromkeys((*nucleus.warnings, *protein.warnings)))
    return FieldImages(nucleus.pixels, protein.pixels, nucleus.pixel_size_um, nucleus.stored_shape, notes)


def _channel(decoded: Decoded, path: Path, channel: int | None, um: float | None, kind: str) -> Field:
    count = len(decoded.channels)
    if channel is not None:
        return select_channel(decoded, decoded.place(channel, path.name), path, um)
    index = dominant_colour(decoded.channels) if decoded.colour else 0 if count == 1 else None
    if index is None:
        raise InputError(
            f"Image '{path.name}' has {count} channels, but the list does not name the one of the {kind}; "
            f"give {kind}_channel, from 0."
        )
    return select_channel(decoded, index, path, um)


def _check_order(nucleus: Floats, protein: Floats, um: float) -> None:
    # In a dense field nuclei merge, but nucleoli, also round, stay separate: only their size differs.
    smallest = SMALLEST_NUCLEUS_UM2 / (um**2 * nucleus.size)
    # A dividing or dying cell can outshine all others: clip it, so that they count, too.
    dimmed = np.minimum(nucleus, threshold_otsu(nucleus))  # type: ignore[no-untyped-call]
    nucleus_image_score = max(nucleus_score(pixels, smallest) for pixels in (nucleus, dimmed))
    threshold = nucleus_image_score + SWAPPED_SCORE_DIFFERENCE
    # A score is at most 1.
    if threshold < 1 and (protein_image_score := nucleus_score(protein, smallest)) > threshold:
        raise InputError(
            "Its protein image looks far more like nuclei than its nucleus image "
            f"({protein_image_score:.2f} against {nucleus_image_score:.2f}); are the channels swapped? "
            "If not, use --channel-order trust."
        )
