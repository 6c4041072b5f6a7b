"""From a form to a submission: each image is read, checked, cropped as for training, and stored."""

import hashlib
import io
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from starlette.datastructures import FormData

import deepgps
from deepgps.datasets.crops.fields import FieldImages
from deepgps.errors import InputError
from deepgps.files import safe_file_name
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.names import is_accession
from deepgps.tables import Table, read_table, strict_rows, text_lines
from opengps.database import ImagePair
from opengps.errors import ErrorDetail, RequestError, TooLargeError, request_error, validation_error
from opengps.isolation import run_isolated
from opengps.models import check_model
from opengps.quotas import check_disk, check_submission_quota
from opengps.requests import base_name, read_uploads, refuse_file_field
from opengps.settings import Settings
from opengps.site import Site
from opengps.storage import submission_key
from opengps.submissions.cropping import CROP_SETTINGS, SOURCE, read_and_crop
from opengps.submissions.schemas import ImageFields, SubmissionFields
from opengps.submissions.store import (
    ImageFile,
    add_submission,
    image_key,
    is_duplicate,
    new_submission_id,
    write_array,
)
from opengps.uploads import Upload, check_size, form_message

TABLE_COLUMNS = ("nucleus_image", "protein_image", *ImageFields.model_fields)
"""Columns of the table of a batch: two file names, and the fields of the form."""
FILE_FIELDS = ("nucleus_image", "protein_image", "files")
_TABLE_EXTENSIONS = (".csv", ".tsv", ".txt")
_MAX_SHOWN = 5
# What is stored, losslessly and as crops, beside what is sent; measured afterwards.
_STORED_PER_SENT = 2
# Rows of a table, empty ones included, beside its images.
_MAX_ROWS = 10_000
_MAX_ZIP_DIRECTORY_BYTES = 1_000_000
_DUPLICATE = "These images were submitted before; they are not stored twice."
# Messages about a list of fields, in the words of a form.
_FORM_WORDS: Mapping[str, str] = {
    "Neither the list nor": "Neither the form nor",
    "and the list does not say": "and the form does not say",
    "If not, use --channel-order trust": "Exchange them",
}

_ZIP = b"PK\x03\x04"
_ZIP_END = b"PK\x05\x06"
_UNIX = 3
_ENCRYPTED = 1
_SYSTEM_FOLDER, _SYSTEM_FILES = "__macosx", ("thumbs.db", "desktop.ini")

ReadFile = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class SubmissionRequest:
    """A form as it was sent: its text fields, and its files by field."""

    fields: Mapping[str, Any]
    files: Mapping[str, Sequence[Upload]]


@dataclass(frozen=True, slots=True)
class _ImageRequest:
    """One image of a form.

    Attributes
    ----------
    row
        What messages call its row in the table; empty for a single image.
    fields
        Its text fields.
    nucleus, protein
        Its files; None if they are missing.
    names
        The names of the two files; the second is empty if one file has both channels.
    """

    row: str
    fields: Mapping[str, Any]
    nucleus: ReadFile | None
    protein: ReadFile | None
    names: tuple[str, str]


async def parse_submission_form(form: FormData) -> SubmissionRequest:
    """Return the fields and files of a form."""
    fields: dict[str, Any] = {}
    for name in form:
        values = [value for value in form.getlist(name) if isinstance(value, str) and value.strip()]
        if name not in FILE_FIELDS and values:
            fields[name] = values if name == "localizations" and len(values) > 1 else values[-1]
        refuse_file_field(form, name, FILE_FIELDS)
    return SubmissionRequest(fields, {name: await read_uploads(form, name) for name in FILE_FIELDS})


def submit(site: Site, visitor: str, request: SubmissionRequest) -> str:
    """Check and store a submission; return its id.

    Raises
    ------
    RequestError
        If none of its images can be used, or it exceeds a quota.
    """
    fields = _check_fields(request.fields)
    requested = _requested_images(request, site.settings)
    sent = sum(len(each.content) for uploads in request.files.values() for each in uploads)
    with site.sessions() as session:
        check_submission_quota(session, site.settings, visitor, submissions=1, images=len(requested))
        check_disk(session, site, visitor, _STORED_PER_SENT * sent)
    submission_id = new_submission_id()
    try:
        images, rejected = _store_images(site, requested, submission_id)
        add_submission(site, submission_id, fields, visitor, images, rejected)
    except IntegrityError:
        # Another request has sent the same images at the same time.
        site.storage.remove(submission_key(submission_id))
        raise request_error(409, "duplicate", _DUPLICATE, "nucleus_image") from None
    except BaseException:
        site.storage.remove(submission_key(submission_id))
        raise
    return submission_id


def _check_fields(fields: Mapping[str, Any]) -> SubmissionFields:
    errors, agreed = list[ErrorDetail](), bool(str(fields.get("consent", "")).strip())
    try:
        known = {name: fields[name] for name in SubmissionFields.model_fields if name in fields}
        checked = SubmissionFields.model_validate(known)
    except ValidationError as error:
        errors += validation_error(error.errors()).errors
    else:
        agreed = checked.consent
        if checked.model and (model_error := check_model(checked.model)):
            errors.append(model_error)
    if not agreed:
        message = "Images are stored only with your consent; read the text and tick the box."
        errors.append(ErrorDetail(code="consent_required", message=message, field="consent"))
    if errors:
        raise RequestError(422, errors)
    return checked


def _requested_images(request: SubmissionRequest, settings: Settings) -> list[_ImageRequest]:
    fields = {
        name: value for name, value in request.fields.items() if name not in SubmissionFields.model_fields
    }
    if unknown := sorted(set(fields) - set(ImageFields.model_fields)):
        raise request_error(422, "validation_error", "Extra inputs are not permitted.", unknown[0])
    nucleus, protein, files = (request.files[name] for name in FILE_FIELDS)
    if files and (nucleus or protein):
        message = "There are files of a single image and of a batch; send one of them."
        raise request_error(422, "conflicting_inputs", message, "files")
    if files:
        return _batch(fields, files, settings)
    if not nucleus:
        message = "Choose a nucleus image, and a protein image of the same cells."
        raise request_error(422, "missing_image", message, "nucleus_image")
    readers = [(lambda each=each: each[0].content) if each else None for each in (nucleus, protein)]
    names = (nucleus[0].name, protein[0].name if protein else "")
    return [_ImageRequest("", fields, readers[0], readers[1], names)]


# Batches: a table, and the images that it lists.


def _batch(fields: Mapping[str, Any], uploads: Sequence[Upload], settings: Settings) -> list[_ImageRequest]:
    try:
        files = unpack_files(uploads, settings)
        rows = _table_rows(*_read_table(files, settings), fields, files)
        images = list(islice(rows, settings.max_submission_images + 1))
    except InputError as error:
        raise request_error(422, "unreadable_file", str(error), "files") from None
    except TooLargeError as error:
        raise request_error(413, "payload_too_large", str(error), "files") from None
    if not images:
        raise request_error(422, "missing_image", "The table has no rows; list one image per row.", "files")
    if len(images) > settings.max_submission_images:
        limit = settings.max_submission_images
        message = f"There are more than {limit:,} images, the limit per submission. Split them."
        raise request_error(422, "too_many_images", message, "files")
    return images


def _read_table(files: Mapping[str, ReadFile], settings: Settings) -> tuple[str, Table]:
    """Return the name of the table of a batch, and the table, read row by row."""
    tables = [name for name in files if name.lower().endswith(_TABLE_EXTENSIONS)]
    if len(tables) != 1:
        raise InputError(
            f"There are {len(tables)} tables among {len(files):,} files; add one CSV that lists the images."
        )
    (name,) = tables
    content = files[name]()
    if len(content) > settings.max_table_bytes:
        limit = settings.max_table_bytes
        raise TooLargeError(f"'{name}' has more than {limit:,} bytes, the limit; split it.")
    table = read_table(_lines(content, name), name=name, required=("nucleus_image",))
    if unknown := [each for each in table.columns if each not in TABLE_COLUMNS]:
        known = ", ".join(TABLE_COLUMNS)
        raise InputError(f"'{name}' has an unknown column '{unknown[0][:80]}'; use {known}.")
    return name, table


def _lines(content: bytes, name: str) -> Iterator[str]:
    # Empty rows count: a table of nothing else would never end.
    for number, line in enumerate(text_lines("-", io.BytesIO(content), name=name)):
        if number > _MAX_ROWS:
            raise InputError(f"The table has more than {_MAX_ROWS:,} rows; leave out the empty ones.")
        yield line


def _table_rows(
    name: str, table: Table, shared: Mapping[str, Any], files: Mapping[str, ReadFile]
) -> Iterator[_ImageRequest]:
    for row in strict_rows(table, name):
        cells = {column: cell for column, cell in row.cells.items() if cell}
        if table.decimal_comma and "pixel_size_um" in cells:
            cells["pixel_size_um"] = cells["pixel_size_um"].replace(",", ".")
        nucleus, protein = (base_name(cells.pop(column, "")) for column in FILE_FIELDS[:2])
        yield _ImageRequest(
            f"{row.line}: {nucleus}",
            {**shared, **cells},
            files.get(nucleus),
            files.get(protein),
            (nucleus, protein),
        )


def unpack_files(uploads: Sequence[Upload], settings: Settings) -> Mapping[str, ReadFile]:
    """Return the files of a batch by their names without folders; each is read when it is needed.

    Nothing is written and no name becomes a path, so none leads out of a folder. No more than the limits is
    unpacked, whatever a ZIP declares.

    Raises
    ------
    InputError
        If two files have the same name, or a ZIP is damaged, encrypted or contains a link.
    TooLargeError
        When a ZIP is opened or read, if it contains too many files or bytes.
    """
    found: dict[str, ReadFile] = {}
    remaining = settings.max_unpacked_bytes

    def count_bytes(count: int) -> None:
        nonlocal remaining
        remaining -= count
        if remaining < 0:
            limit = settings.max_unpacked_bytes
            raise TooLargeError(
                f"The files have more than {limit:,} bytes unpacked, the limit; send fewer at a time."
            )

    def add(name: str, read: ReadFile) -> None:
        if name in found:
            raise InputError(f"Two files are called '{name}'; rename one.")
        found[name] = read

    for upload in uploads:
        if not upload.content.startswith(_ZIP):
            add(upload.name, lambda content=upload.content: content)  # type: ignore[misc]
            continue
        for name, read in _zip_members(upload, settings, count_bytes):
            add(name, read)
    return found


def _zip_members(
    upload: Upload, settings: Settings, count_bytes: Callable[[int], None]
) -> list[tuple[str, ReadFile]]:
    # A directory of millions of files takes longer to read than they do.
    end = upload.content.rfind(_ZIP_END)
    directory = int.from_bytes(upload.content[end + 12 : end + 16], "little") if end >= 0 else 0
    if directory > _MAX_ZIP_DIRECTORY_BYTES:
        raise TooLargeError(f"'{upload.name}' contains too many files; split it.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(upload.content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _damaged_zip(upload, error) from None
    members = [each for each in archive.infolist() if not each.is_dir() and not _is_hidden(each.filename)]
    limit = 2 * settings.max_submission_images + 1
    if len(members) > limit:
        raise TooLargeError(
            f"'{upload.name}' contains {len(members):,} files; the limit is {limit:,}. Split it."
        )
    readers = (_zip_reader(upload, archive, each, settings, count_bytes) for each in members)
    return [(base_name(each.filename), read) for each, read in zip(members, readers, strict=True)]


def _zip_reader(
    upload: Upload,
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    settings: Settings,
    count_bytes: Callable[[int], None],
) -> ReadFile:
    name, mode = base_name(member.filename), member.external_attr >> 16
    if member.flag_bits & _ENCRYPTED:
        raise InputError(f"'{name}' in '{upload.name}' is encrypted; pack it without a password.")
    if member.create_system == _UNIX and stat.S_ISLNK(mode):
        raise InputError(f"'{name}' in '{upload.name}' is a link; pack the file itself.")

    def read() -> bytes:
        try:
            with archive.open(member) as file:
                content = file.read(settings.max_image_bytes + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
            raise _damaged_zip(upload, error) from None
        count_bytes(len(content))
        return content

    return read


def _damaged_zip(upload: Upload, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(f"'{upload.name}' is a damaged ZIP ({reason}); make it again.")


def _is_hidden(path: str) -> bool:
    """Return whether a file was added by the operating system that made the ZIP."""
    parts = path.replace("\\", "/").lower().split("/")
    return parts[0] == _SYSTEM_FOLDER or parts[-1].startswith(".") or parts[-1] in _SYSTEM_FILES


# Single images.


class _UnusableImageError(Exception):
    """An image that cannot be used."""

    def __init__(self, errors: Sequence[ErrorDetail], status: int) -> None:
        super().__init__()
        self.errors, self.status = errors, status


def _store_images(
    site: Site, requested: Sequence[_ImageRequest], submission_id: str
) -> tuple[list[ImagePair], list[dict[str, str]]]:
    """Store the files of all images that can be used; return these, and the rows that cannot."""
    images: dict[str, ImagePair] = {}
    rejected, errors, status = list[dict[str, str]](), list[ErrorDetail](), 422
    for each in requested:
        try:
            image = _store_image(site, each, submission_id, images)
            images[image.sha256] = image
        except _UnusableImageError as error:
            status = error.status
            errors += error.errors
            reason = " ".join(detail.message for detail in error.errors)
            rejected.append({"row": each.row, "reason": reason})
    if not images:
        raise RequestError(status, errors[:_MAX_SHOWN])
    return list(images.values()), rejected


def _store_image(
    site: Site, requested: _ImageRequest, submission_id: str, stored: Mapping[str, ImagePair]
) -> ImagePair:
    single = not requested.row

    def unusable(code: str, text: str, field: str, status: int = 422) -> _UnusableImageError:
        message = text if single else f"Row {requested.row}: {text}"
        detail = ErrorDetail(code=code, message=message, field=field if single else "files")
        return _UnusableImageError([detail], status)

    try:
        fields = ImageFields.model_validate(requested.fields)
    except ValidationError as error:
        found = validation_error(error.errors()).errors
        if single:
            raise _UnusableImageError(found, 422) from None
        text = " ".join(f"{each.field}: {each.message}" for each in found)
        raise unusable("validation_error", text, "files") from None
    nucleus_name, protein_name = requested.names
    if requested.nucleus is None or (protein_name and requested.protein is None):
        missing = nucleus_name if requested.nucleus is None else protein_name
        raise unusable("missing_image", f"'{missing}' is not among the files; add it.", "files")
    try:
        nucleus = Upload(nucleus_name, requested.nucleus())
        protein = None
        if requested.protein is not None and protein_name != nucleus_name:
            protein = Upload(protein_name, requested.protein())
        prepared = prepare_image(fields, nucleus, protein, site.settings)
    except InputError as error:
        raise unusable("invalid_image", str(error), "nucleus_image") from None
    except TooLargeError as error:
        raise unusable("payload_too_large", str(error), "nucleus_image", 413) from None
    image = prepared.image
    if image.sha256 in stored or is_duplicate(site, image.sha256):
        raise unusable("duplicate", _DUPLICATE, "nucleus_image", 409)
    image.submission_id = submission_id
    site.storage.write({image_key(image, ImageFile.FIELD): _ome_tiff(prepared.channels)})
    write_array(site, image, ImageFile.CROPS, prepared.crops)
    return image


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """An image that can be used.

    Attributes
    ----------
    image
        Its row of the database, without a submission.
    channels
        Intensities as sent.
    crops
        (n, 2, S, S) uint8, nucleus and protein; 255 stands for 1.
    """

    image: ImagePair
    channels: FieldImages
    crops: NDArray[np.uint8]


def prepare_image(
    fields: ImageFields, nucleus: Upload, protein: Upload | None, settings: Settings
) -> PreparedImage:
    """Read, check and crop one image.

    Parameters
    ----------
    fields
        What its sender says about it.
    nucleus, protein
        The files; one file may have both channels.
    settings
        The limits.

    Raises
    ------
    InputError
        If the sequence or a file cannot be used, no cell is found, or the protein image shows nothing.
    TooLargeError
        If a file has too many bytes.
    """
    sequence = _check_sequence(fields, settings)
    named = {"nucleus": nucleus} if protein is None else {"nucleus": nucleus, "protein": protein}
    for each in named.values():
        check_size(each, settings)
    # Made here, so that it is removed however the other process ends.
    with tempfile.TemporaryDirectory() as folder:
        uploads = {Path(folder) / kind / safe_file_name(each.name): each for kind, each in named.items()}
        try:
            channels, cropped = run_isolated(settings, Path(folder), read_and_crop, fields, uploads, settings)
        except InputError as error:
            raise InputError(_rewrite_message(str(error), uploads)) from None
    checksum = _checksum(channels)
    crops = [
        {**row, "field": checksum[:16], "cell": f"{SOURCE}/{checksum[:16]}/{number}"}
        for number, row in enumerate(cropped.rows)
    ]
    image = ImagePair(
        sha256=checksum,
        protein_id=fields.protein,
        sequence=sequence,
        accession=fields.protein.upper() if is_accession(fields.protein) else None,
        localizations="|".join(fields.localizations),
        cell_line=fields.cell_line,
        microscope=fields.microscope,
        pixel_size_um=channels.pixel_size_um,
        provenance={
            **_provenance(fields, list(uploads.values())),
            "warnings": [_rewrite_message(each, uploads) for each in cropped.warnings],
        },
        crops=crops,
        central_crop=_central_crop(crops, channels),
    )
    return PreparedImage(image, channels, cropped.crops)


def _check_sequence(fields: ImageFields, settings: Settings) -> str | None:
    """Return the clean sequence; None if it is to be looked up."""
    name, sequence = fields.protein, clean_sequence(fields.sequence)
    if not sequence:
        if not settings.lookups:
            raise InputError(f"'{name}' cannot be looked up on this site; send its sequence.")
        return None
    if len(sequence) > settings.max_residues:
        limit = settings.max_residues
        raise InputError(f"Sequence '{name}' has {len(sequence):,} residues; the limit is {limit:,}.")
    if reason := check_sequence(name, sequence):
        raise InputError(reason)
    return sequence


def _rewrite_message(message: str, uploads: Mapping[Path, Upload]) -> str:
    """Use the sender's file names and the words of a form."""
    for path, upload in uploads.items():
        message = message.replace(str(path), upload.name).replace(f"'{path.name}'", f"'{upload.name}'")
    for list_words, form_words in _FORM_WORDS.items():
        message = message.replace(list_words, form_words)
    return form_message(message)


def _checksum(channels: FieldImages) -> str:
    """Return the checksum of the pixels: the same image in another file is the same image."""
    digest = hashlib.sha256(str(channels.nucleus.shape).encode())
    for pixels in (channels.nucleus, channels.protein):
        digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _provenance(fields: ImageFields, uploads: Sequence[Upload]) -> dict[str, Any]:
    files = [{"name": each.name, "sha256": hashlib.sha256(each.content).hexdigest()} for each in uploads]
    return {
        "files": files,
        "nucleus_channel": fields.nucleus_channel,
        "protein_channel": fields.protein_channel,
        "image_checks": fields.image_checks,
        "deepgps": deepgps.__version__,
    }


def _central_crop(crops: Sequence[Mapping[str, Any]], channels: FieldImages) -> int:
    """Return the number of the crop whose nucleus is closest to the centre of the field."""
    scale = channels.pixel_size_um / CROP_SETTINGS.pixel_size_um
    centre = [edge * scale / 2 for edge in channels.nucleus.shape]
    return int(np.argmin([np.hypot(crop["row"] - centre[0], crop["col"] - centre[1]) for crop in crops]))


def _ome_tiff(channels: FieldImages) -> bytes:
    import tifffile

    content, um = io.BytesIO(), channels.pixel_size_um
    tifffile.imwrite(
        content,
        np.stack([channels.nucleus, channels.protein]),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["nucleus", "protein"]},
            "PhysicalSizeX": um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": um,
            "PhysicalSizeYUnit": "µm",
        },
    )
    return content.getvalue()
