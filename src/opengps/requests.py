"""Requests to predict: received as JSON or as a form, and checked against everything this site can do."""

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deepgps.bundle import Bundle
from deepgps.errors import InputError
from deepgps.files import safe_file_name
from deepgps.images.cell import DEFAULT_CELLS, Cell, with_unique_name
from deepgps.proteins.names import is_accession
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import SequenceRecord, check_records, read_protein_file
from opengps.errors import ErrorDetail, RequestError, request_error, validation_error
from opengps.jobs import JobRequest, check_quota, create_job
from opengps.models import check_model, default_cell, models
from opengps.schemas import PredictionRequest
from opengps.settings import Settings
from opengps.site import Site
from opengps.uploads import TooLargeError, Upload, load_uploaded_nucleus

TEXT_NAME = "the text"
"""What messages call a text that was pasted into the form."""
_MAX_SHOWN = 5
_MAX_FIELDS = 200
_MAX_NAME = 120
_LIST_FIELDS = ("nuclei", "nucleus_images")
_FILE_FIELDS = ("file", "nucleus_images")
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()-]{0,29}")
_RESIDUES = re.compile(r"[A-Za-z*]+")
_MIN_SEQUENCE = 10


# Receiving.


def client_address(request: Request) -> str:
    """Return the network address of the visitor."""
    return request.client.host if request.client else ""


def content_type(request: Request) -> str:
    """Return the media type of a request's body."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def receive_json(request: Request) -> PredictionRequest:
    """Read a request in JSON.

    Raises
    ------
    RequestError
        If it is not JSON, or does not match `PredictionRequest`.
    """
    try:
        return PredictionRequest.model_validate_json(await request.body(), strict=True)
    except ValidationError as error:
        raise validation_error(error.errors()) from None


async def receive_form(request: Request, settings: Settings, max_files: int) -> FormData:
    """Read a form, urlencoded or multipart.

    Raises
    ------
    RequestError
        If it cannot be read, or has too many parts or too large a field.
    """
    limit = settings.max_table_bytes
    try:
        return await request.form(max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=limit)
    except HTTPException as error:
        too_large = "exceeded" in error.detail
        message = f"The form cannot be read: {error.detail.rstrip('.')}."
        if too_large:
            raise request_error(413, "payload_too_large", message) from None
        raise request_error(422, "malformed_form", message) from None


async def parse_form(form: FormData) -> tuple[PredictionRequest, Upload | None, list[Upload]]:
    """Return the fields of a form, its protein file and its nucleus images.

    Raises
    ------
    RequestError
        If a field is unknown or invalid.
    """
    fields: dict[str, Any] = {}
    for name in form:
        values = [value for value in form.getlist(name) if isinstance(value, str) and value]
        if name not in _FILE_FIELDS and values:
            fields[name] = values if name in _LIST_FIELDS else values[-1]
        refuse_file_field(form, name, _FILE_FIELDS)
    try:
        request = PredictionRequest.model_validate(fields)
    except ValidationError as error:
        raise validation_error(error.errors()) from None
    files = await read_uploads(form, "file")
    return request, (files[0] if files else None), await read_uploads(form, "nucleus_images")


def refuse_file_field(form: FormData, name: str, allowed: Sequence[str]) -> None:
    """Refuse a file in a field that takes none.

    Raises
    ------
    RequestError
        If so.
    """
    if name in allowed or not any(
        isinstance(each, UploadFile) and each.filename for each in form.getlist(name)
    ):
        return
    message = f"Field '{name[:80]}' takes no file; send files as {' or '.join(allowed)}."
    raise request_error(422, "unknown_field", message, name[:80])


async def read_uploads(form: FormData, name: str) -> list[Upload]:
    """Read the files of one field of a form."""
    # A browser sends an empty file without a name for an empty field.
    files = [each for each in form.getlist(name) if isinstance(each, UploadFile) and each.filename]
    return [Upload(base_name(each.filename or "") or "unnamed", await each.read()) for each in files]


def base_name(path: str) -> str:
    """Return the name of a file without the folders that some browsers send, in printable characters."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return "".join(letter if letter.isprintable() else "_" for letter in name)[:_MAX_NAME]


async def submit_job(
    site: Site, address: str, request: PredictionRequest, file: Upload | None, images: Sequence[Upload]
) -> str:
    """Check a request, add a job to the queue, and return the job's id.

    Raises
    ------
    RequestError
        If the request cannot be used, or exceeds a quota.
    """

    def submit() -> str:
        check_quota(site, address, 0)
        checked = check_request(request, file, images, site.settings)
        check_quota(site, address, len(checked.records))
        return create_job(site, checked, address)

    return await run_in_threadpool(submit)


# Checking.


@dataclass(slots=True)
class _Errors:
    """Everything that is wrong with a request; the first error decides the status."""

    errors: list[ErrorDetail] = field(default_factory=list)
    status: int = 422

    def add(self, code: str, message: str, field: str, status: int = 422) -> None:
        if not self.errors:
            self.status = status
        self.errors.append(ErrorDetail(code=code, message=message, field=field))


def check_request(
    request: PredictionRequest, file: Upload | None, images: Sequence[Upload], settings: Settings
) -> JobRequest:
    """Check a request.

    Parameters
    ----------
    request
        Its fields.
    file
        The protein file, if any.
    images
        The uploaded nucleus images.
    settings
        The limits.

    Raises
    ------
    RequestError
        With everything that is wrong.
    """
    errors = _Errors()
    bundle = _check_model(request, errors)
    records = _read_records(request.proteins, file, settings, errors)
    cells = _load_cells(request, images, bundle, settings, errors)
    count = len(records) * len(cells)
    if count > settings.max_images:
        errors.add(
            "too_many_images",
            f"{len(records):,} proteins in {len(cells)} nuclei are {count:,} images; the limit is "
            f"{settings.max_images:,} per job. Send fewer proteins or choose fewer nuclei.",
            "nuclei",
        )
    if errors.errors or bundle is None:
        raise RequestError(errors.status, errors.errors)
    return JobRequest(request.model, bundle, records, cells, request.mean)


def _check_model(request: PredictionRequest, errors: _Errors) -> Bundle | None:
    if error := check_model(request.model):
        errors.errors.append(error)
    bundle = models().get(request.model)
    if bundle is not None and not (request.images or bundle.metadata.classes):
        message = f"Model '{request.model}' draws images and predicts no labels; request images."
        errors.add("model_without_classes", message, "images")
    return bundle


def _read_records(
    text: str, file: Upload | None, settings: Settings, errors: _Errors
) -> list[Protein | Rejection | str]:
    """Read proteins, rejected records and names to look up."""
    where = "proteins" if file is None else "file"
    if file is not None and text.strip():
        errors.add("conflicting_inputs", "There are proteins in a text and in a file; send one.", "proteins")
        return []
    upload = file or Upload(TEXT_NAME, text.encode())
    if not upload.content.strip():
        message = f"'{file.name}' is empty; use FASTA, CSV or TSV." if file else "Enter proteins to predict."
        errors.add("no_proteins", message, where)
        return []
    try:
        parsed = _parse(upload, text if file is None else "", settings)
        records = list(islice(parsed, settings.max_proteins + 1))
    except InputError as error:
        errors.add("unreadable_file", str(error), where)
        return []
    except TooLargeError as error:
        errors.add("payload_too_large", str(error), where, 413)
        return []
    _check_records(records, where, settings, errors)
    return records


def _check_records(
    records: Sequence[Protein | Rejection | str], where: str, settings: Settings, errors: _Errors
) -> None:
    rejected = [each for each in records if isinstance(each, Rejection)]
    if len(records) > settings.max_proteins:
        message = f"There are more than {settings.max_proteins:,} proteins, the limit per job; split them."
        errors.add("too_many_proteins", message, where)
    elif not records:
        errors.add("no_proteins", "No protein was found; use FASTA, CSV, TSV or accessions.", where)
    elif len(rejected) == len(records):
        for each in rejected[:_MAX_SHOWN]:
            errors.add("invalid_protein", each.reason, where)
    total = sum(len(each.sequence) for each in records if isinstance(each, Protein))
    if total > settings.max_total_residues:
        limit = settings.max_total_residues
        message = f"The proteins have {total:,} residues in all; the limit is {limit:,} per job. Split them."
        errors.add("too_many_residues", message, where)


def _parse(upload: Upload, text: str, settings: Settings) -> Iterator[Protein | Rejection | str]:
    header = {cell.strip(' "').lower() for cell in re.split(r"[,;\t]", text.strip().partition("\n")[0])}
    if text and text.lstrip()[:1] != ">" and not header & {"id", "sequence"}:
        yield from _parse_bare(text, settings)
        return
    content = _unpack(upload, settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / safe_file_name(upload.name)
        path.write_bytes(content)
        name = TEXT_NAME if text else upload.name
        try:
            for each in read_protein_file(path):
                if isinstance(each, Rejection):
                    yield Rejection(each.id, name, each.reason.replace(str(path), name))
                else:
                    yield _check_length(each, settings)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None


def _check_length(each: Protein | Rejection, settings: Settings) -> Protein | Rejection:
    if isinstance(each, Rejection) or len(each.sequence) <= settings.max_residues:
        return each
    length, limit = len(each.sequence), settings.max_residues
    reason = f"Sequence '{each.id}' has {length:,} residues; the limit is {limit:,}."
    return Rejection(each.id, TEXT_NAME, reason)


def _unpack(upload: Upload, settings: Settings) -> bytes:
    content, limit = upload.content, settings.max_table_bytes
    if content[:2] == b"\x1f\x8b":
        try:
            # No more than the limit is unpacked, whatever the file declares.
            content = gzip.GzipFile(fileobj=BytesIO(content)).read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"'{upload.name}' is a damaged gzip file ({error}); compress it again."
            ) from None
    if len(content) > limit:
        raise TooLargeError(f"'{upload.name}' has more than {limit:,} bytes, the limit; split it.")
    return content


def _parse_bare(text: str, settings: Settings) -> Iterator[Protein | Rejection | str]:
    """Parse a bare sequence, or names to look up."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if all(map(_RESIDUES.fullmatch, words)) and max(map(len, words)) >= _MIN_SEQUENCE:
        for each in check_records([SequenceRecord(1, "sequence", text)], TEXT_NAME, {}):
            yield _check_length(each, settings)
        return
    for word in dict.fromkeys(words):
        if not settings.lookups:
            reason = f"'{word}' cannot be looked up on this site; send its sequence."
            yield Rejection(word, TEXT_NAME, reason)
        elif is_accession(word) or _SYMBOL.fullmatch(word):
            yield word
        else:
            shown = word if len(word) <= 40 else f"{word[:40]}…"
            reason = f"'{shown}' is not a sequence, a UniProt accession or a gene symbol; check its spelling."
            yield Rejection(shown, TEXT_NAME, reason)


def _load_cells(
    request: PredictionRequest,
    images: Sequence[Upload],
    bundle: Bundle | None,
    settings: Settings,
    errors: _Errors,
) -> list[Cell]:
    if not request.images:
        if request.mean:
            message = "Mean images need images; leave out mean, or request images."
            errors.add("images_disabled", message, "mean")
        if images or request.nuclei:
            message = "Nuclei are only used for images; leave out the nuclei, or request images."
            errors.add("images_disabled", message, "nuclei")
        return []
    if not images and (request.pixel_size_um is not None or request.channel is not None):
        message = "A pixel size or channel needs a nucleus image; upload one, or leave it out."
        errors.add("missing_image", message, "nucleus_images")
    names = request.nuclei or ([] if images else [DEFAULT_CELLS[0]])
    for name in (name for name in names if name not in DEFAULT_CELLS):
        message = f"Nucleus '{name[:80]}' is unknown; choose from: {', '.join(DEFAULT_CELLS)}."
        errors.add("unknown_nucleus", message, "nuclei")
    count = len(names) + len(images)
    if count > settings.max_nuclei:
        message = f"There are {count} nuclei; the limit is {settings.max_nuclei} per job. Choose fewer."
        errors.add("too_many_nuclei", message, "nuclei")
    if errors.errors or bundle is None:
        return []
    cells = [default_cell(name, bundle.metadata.crop) for name in dict.fromkeys(names)]
    for upload in images:
        try:
            cell = load_uploaded_nucleus(upload, request, bundle.metadata.crop, settings)
        except TooLargeError as error:
            errors.add("payload_too_large", str(error), "nucleus_images", 413)
        except InputError as error:
            errors.add("invalid_image", str(error), "nucleus_images")
        else:
            cells.append(with_unique_name(cell, cells))
    return cells
