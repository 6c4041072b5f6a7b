"""The list of fields, ``fields.csv``, and reading both images of a field."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, ValidationError, field_validator
from skimage.filters import threshold_otsu

from deepgps.arrays import Floats
from deepgps.errors import InputError
from deepgps.images.decode import Decoded, decode
from deepgps.images.read import Field, check_channel, dominant_colour, nucleus_score, select_channel

REQUIRED = ("field", "ensembl_gene_id", "nucleus", "protein")


class FieldRow(BaseModel):
    """One row of ``fields.csv``: a nucleus image and a protein image of the same cells."""

    model_config = ConfigDict(extra="ignore", frozen=True, str_strip_whitespace=True)

    field: str
    """Its name, used once."""
    source: str = ""
    """Where it is from, such as ``opencell``."""
    ensembl_gene_id: str
    """The protein shown, as the table of proteins calls it in ``protein_id``."""
    gene_symbol: str = ""
    """Its gene symbol."""
    accession: str = ""
    """Its UniProt accession."""
    cell_line: str = ""
    """The cells."""
    nucleus: Path
    """Its nucleus image."""
    nucleus_channel: NonNegativeInt | None = None
    """Which channel of the file, from 0; needed where it has several."""
    protein: Path
    """Its protein image; the same file where that has both channels."""
    protein_channel: NonNegativeInt | None = None
    """Which channel of the file."""
    pixel_size_um: PositiveFloat | None = None
    """Edge of a pixel in micrometres; that of the file where it is not given."""

    @field_validator("nucleus_channel", "protein_channel", "pixel_size_um", mode="before")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return (value or "").strip() or None

    @field_validator("field", "nucleus", "protein", mode="before")
    @classmethod
    def _not_empty(cls, value: str | None) -> str:
        if not (value or "").strip():
            raise ValueError("it is empty")
        return str(value).strip()


class InvalidRow(BaseModel):
    """A row that names no field that could be read."""

    field: str
    """Its name, or its place in the file."""
    problem: str
    """Why."""


def read_fields(path: Path) -> Iterator[FieldRow | InvalidRow]:
    """Read ``fields.csv``; images are looked for beside it.

    Parameters
    ----------
    path
        A CSV file with the columns of `FieldRow`, at least `REQUIRED`; other columns are passed over.

    Raises
    ------
    InputError
        If it is not there, is no UTF-8 text, or lacks a required column.
    """
    seen: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            _check_columns(path, rows.fieldnames or ())
            for number, row in enumerate(rows, start=2):
                parsed = _parsed(row, number, path.parent)
                if parsed.field in seen:
                    problem = f"Field '{parsed.field}' is listed twice; the first is taken."
                    parsed = InvalidRow(field=parsed.field, problem=problem)
                seen.add(parsed.field)
                yield parsed
    except FileNotFoundError:
        raise InputError(f"List of fields '{path}' was not found; check its name and folder.") from None
    except (IsADirectoryError, UnicodeDecodeError, csv.Error):
        raise InputError(f"List of fields '{path}' is not a CSV file in UTF-8; save it as one.") from None


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if missing := [name for name in REQUIRED if name not in columns]:
        raise InputError(
            f"List of fields '{path}' has no column '{missing[0]}'; it needs {', '.join(REQUIRED)}."
        )


def _parsed(row: dict[str, str | None], number: int, folder: Path) -> FieldRow | InvalidRow:
    try:
        parsed = FieldRow.model_validate({key: value or "" for key, value in row.items() if key})
    except ValidationError as error:
        first = error.errors()[0]
        name = (row.get("field") or "").strip() or f"line {number}"
        column, reason = first["loc"][0], first["msg"].removeprefix("Value error, ")
        return InvalidRow(
            field=name,
            problem=f"Line {number} of the list: '{column}' cannot be used ({reason}); correct it.",
        )
    images = {"nucleus": folder / parsed.nucleus, "protein": folder / parsed.protein}
    return parsed.model_copy(update=images)


SWAPPED = 0.5
"""By how much more nucleus-like the protein image must be for the channels to be taken as swapped."""


SMALLEST_UM2 = 40.0
"""What is smaller is no nucleus."""


class FieldImages(NamedTuple):
    """Raw images (H, W) of the same cells, and their pixel size in micrometres."""

    nucleus: Floats
    protein: Floats
    pixel_size_um: float


def read_field_images(row: FieldRow, *, check_order: bool = True) -> FieldImages:
    """Read both images of a field.

    Parameters
    ----------
    row
        The field; its paths as they are to be opened.
    check_order
        Whether to refuse a field whose protein image looks far more like nuclei than its nucleus image.

    Raises
    ------
    InputError
        If an image cannot be read, its channel is not named, its pixel size is not known, the two do not have
        one shape, or they look swapped.
    """
    first = decode(row.nucleus)
    second = first if row.protein == row.nucleus else decode(row.protein)
    if second is first and row.nucleus_channel == row.protein_channel:
        raise InputError(
            f"Nucleus and protein are the same channel of '{row.nucleus.name}'; "
            "give nucleus_channel and protein_channel."
        )
    nucleus = _channel(first, row.nucleus, row.nucleus_channel, row.pixel_size_um, "nucleus")
    protein = _channel(second, row.protein, row.protein_channel, row.pixel_size_um, "protein")
    if nucleus.pixels.shape != protein.pixels.shape:
        sizes = [" × ".join(map(str, image.pixels.shape[::-1])) for image in (nucleus, protein)]
        raise InputError(f"Its nucleus image has {sizes[0]} pixels, its protein image {sizes[1]}.")
    if nucleus.pixel_size_um is None:
        raise InputError("Neither the list nor the image says its pixel size; give pixel_size_um.")
    if check_order:
        _check_order(nucleus.pixels, protein.pixels, nucleus.pixel_size_um)
    return FieldImages(nucleus.pixels, protein.pixels, nucleus.pixel_size_um)


def _channel(decoded: Decoded, path: Path, channel: int | None, um: float | None, kind: str) -> Field:
    count = len(decoded.channels)
    if channel is not None:
        return select_channel(decoded, check_channel(channel, count, path.name), path, um)
    index = dominant_colour(decoded.channels) if decoded.colour else 0 if count == 1 else None
    if index is None:
        raise InputError(
            f"Image '{path.name}' has {count} channels, and the list does not say which is the {kind}; "
            f"give {kind}_channel, from 0."
        )
    return select_channel(decoded, index, path, um)


def _check_order(nucleus: Floats, protein: Floats, um: float) -> None:
    # In a dense field nuclei merge, while nucleoli, round as they are, stay apart: size tells them.
    smallest = SMALLEST_UM2 / (um**2 * nucleus.size)
    # One dividing or dying cell outshines all others: without its excess they are seen, too.
    dimmed = np.minimum(nucleus, threshold_otsu(nucleus))  # type: ignore[no-untyped-call]
    its = max(nucleus_score(pixels, smallest) for pixels in (nucleus, dimmed))
    # The other can be 1 at most.
    if its < 1 - SWAPPED and (other := nucleus_score(protein, smallest)) > its + SWAPPED:
        raise InputError(
            f"Its protein image looks far more like nuclei than its nucleus image ({other:.2f} against "
            f"{its:.2f}); are the channels swapped? If not, use --channel-order trust."
        )
