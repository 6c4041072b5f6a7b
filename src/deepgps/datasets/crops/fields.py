"""The list of fields, ``fields.csv``, and the proteins that they show."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, ValidationError, field_validator

from deepgps.errors import InputError

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


class BadRow(BaseModel):
    """A row that names no field that could be read."""

    field: str
    """Its name, or its place in the file."""
    problem: str
    """Why."""


def read_fields(path: Path) -> Iterator[FieldRow | BadRow]:
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
                    parsed = BadRow(field=parsed.field, problem=problem)
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


def _parsed(row: dict[str, str | None], number: int, folder: Path) -> FieldRow | BadRow:
    try:
        parsed = FieldRow.model_validate({key: value or "" for key, value in row.items() if key})
    except ValidationError as error:
        first = error.errors()[0]
        name = (row.get("field") or "").strip() or f"line {number}"
        column, reason = first["loc"][0], first["msg"].removeprefix("Value error, ")
        return BadRow(
            field=name,
            problem=f"Line {number} of the list: '{column}' cannot be used ({reason}); correct it.",
        )
    images = {"nucleus": folder / parsed.nucleus, "protein": folder / parsed.protein}
    return parsed.model_copy(update=images)
