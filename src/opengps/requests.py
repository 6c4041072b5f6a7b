"""Requests to predict: received as JSON or as a form, and checked against everything this site can do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

from anyio import to_thread
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from deepgps.bundle import Bundle
from deepgps.errors import InputError
from deepgps.images.cell import DEFAULT_CELLS, LANDMARKS, Cell, with_unique_name
from deepgps.proteins.protein import Protein, Rejection
from opengps.errors import ErrorDetail, RequestError, TooLargeError, request_error, validation_error
from opengps.jobs import JobRequest, create_job
from opengps.models import check_model, default_cell, models
from opengps.protein_input import LONG_TEXT_BYTES, TEXT_NAME, read_records
from opengps.quotas import check_disk, check_job_quota
from opengps.schemas import PredictionRequest, StrictModel
from opengps.settings import Settings
from opengps.site import Site
from opengps.uploads import Upload, UploadError, check_size, load_uploaded_cell

JSON, FORMS = "application/json", ("multipart/form-data", "application/x-www-form-urlencoded")
"""Media types of the requests of the API."""

P = ParamSpec("P")
T = TypeVar("T")
AnyRequest = TypeVar("AnyRequest", bound=StrictModel)

_MAX_SHOWN = 5
_MAX_FIELDS = 200
_MAX_NAME = 120
# What a request has beside its proteins.
_JSON_BYTES = 100_000
_LIST_FIELDS = ("nuclei", "nucleus_images")
_LANDMARK_FIELDS = {"microtubules": "microtubules_image", "er": "er_image"}
_FILE_FIELDS = ("file", "nucleus_images", *_LANDMARK_FIELDS.values())


# Receiving.


def content_type(request: Request, supported: Sequence[str]) -> str:
    """Return the media type of a request's body.

    Raises
    ------
    RequestError
        415 if it is not one of those that are supported.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in supported:
        message = f"'{kind[:80]}' is not supported; send {' or '.join(supported)}."
        raise request_error(415, "unsupported_media_type", message, "Content-Type")
    return kind


async def receive_json(
    request: Request, settings: Settings, kind: type[AnyRequest], what: str = "proteins"
) -> AnyRequest:
    """Read a request in JSON.

    Parameters
    ----------
    request, settings
        The request, and the limits.
    kind
        The class of its fields.
    what
        The longest of its fields.

    Raises
    ------
    RequestError
        If it has more bytes than a file of proteins may have, is not JSON, or does not match `kind`.
    """
    body, limit = bytearray(), settings.max_table_bytes
    async for part in request.stream():
        body += part
        # JSON writes a line break and a tab in two characters.
        if len(body) > 2 * limit + _JSON_BYTES:
            message = f"The request has too many bytes; the {what} may have {limit:,}. Split them."
            raise request_error(413, "payload_too_large", message, what)
    try:
        return kind.model_validate_json(bytes(body), strict=True)
    except ValidationError as error:
        raise validation_error(error.errors()) from None


@dataclass(frozen=True, slots=True)
class RequestFiles:
    """The files of a request to predict.

    Attributes
    ----------
    proteins
        The protein file, if any.
    nuclei
        Nucleus images.
    landmarks
        Images of each landmark, one for each nucleus image, in that order; empty if none were sent.
    """

    proteins: Upload | None = None
    nuclei: Sequence[Upload] = ()
    landmarks: Mapping[str, Sequence[Upload]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.proteins or self.nuclei or any(self.landmarks.values()))


def max_files(settings: Settings) -> int:
    """Return how many files a form to predict may have."""
    return 1 + settings.max_nuclei * (1 + len(LANDMARKS))


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


async def parse_form(form: FormData) -> tuple[PredictionRequest, RequestFiles]:
    """Return the fields of a form, and its files.

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
    landmarks = {name: await read_uploads(form, each) for name, each in _LANDMARK_FIELDS.items()}
    nuclei = await read_uploads(form, "nucleus_images")
    return request, RequestFiles(files[0] if files else None, nuclei, landmarks)


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


async def run_for_visitor(
    site: Site, visitor: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function that reads uploads in a thread: one of a visitor, and a few at all, at a time.

    The others wait without a thread, so that pages are answered in the meantime.

    Parameters
    ----------
    site
        The site.
    visitor
        Who sent the uploads.
    function, *args, **kwargs
        The function, and its arguments.
    """
    limits = site.upload_limits
    async with limits.of(visitor):
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=limits.limiter)


async def submit_job(
    site: Site, visitor: str, request: PredictionRequest, files: RequestFiles = RequestFiles()
) -> str:
    """Check a request, add a job to the queue, and return the job's id.

    Raises
    ------
    RequestError
        If the request cannot be used, or exceeds a quota.
    """

    def submit() -> str:
        with site.sessions() as session:
            check_job_quota(session, site.settings, visitor, jobs=1)
            check_disk(session, site, visitor)
        return create_job(site, check_request(request, files, site.settings), visitor)

    if files or len(request.proteins) > LONG_TEXT_BYTES:
        return await run_for_visitor(site, visitor, submit)
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


def check_request(request: PredictionRequest, files: RequestFiles, settings: Settings) -> JobRequest:
    """Check a request.

    Parameters
    ----------
    request
        Its fields.
    files
        Its files.
    settings
        The limits.

    Raises
    ------
    RequestError
        With everything that is wrong.
    """
    errors = _Errors()
    bundle = _check_model(request, errors)
    records = _read_records(request.proteins, files.proteins, settings, errors)
    cells = _load_cells(request, files, bundle, settings, errors)
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
    return JobRequest(request.model, bundle, records, cells, request.mean, request.seed)


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
        records = read_records(upload, settings, is_file=file is not None)
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


def _load_cells(
    request: PredictionRequest,
    files: RequestFiles,
    bundle: Bundle | None,
    settings: Settings,
    errors: _Errors,
) -> list[Cell]:
    images = files.nuclei
    if not request.images:
        if request.mean:
            message = "Mean images need images; leave out mean, or request images."
            errors.add("images_disabled", message, "mean")
        if request.seed:
            message = "A seed chooses an image; leave it out, or request images."
            errors.add("images_disabled", message, "seed")
        if images or request.nuclei or any(files.landmarks.values()):
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
    _check_landmarks(files, bundle, settings, errors)
    if errors.errors or bundle is None:
        return []
    cells = [default_cell(name, bundle.metadata.crop) for name in dict.fromkeys(names)]
    for number, upload in enumerate(images):
        landmarks = {name: sent[number] for name, sent in files.landmarks.items() if sent}
        try:
            cell = load_uploaded_cell(upload, landmarks, request, bundle.metadata.crop, settings)
        except TooLargeError as error:
            errors.add("payload_too_large", str(error), "nucleus_images", 413)
        except UploadError as error:
            where = _LANDMARK_FIELDS[error.landmark] if error.landmark else "nucleus_images"
            errors.add("invalid_image", str(error), where)
        else:
            cells.append(with_unique_name(cell, cells))
    return cells


def _check_landmarks(files: RequestFiles, bundle: Bundle | None, settings: Settings, errors: _Errors) -> None:
    flow = bundle.metadata.flow_matching if bundle else None
    nuclei = len(files.nuclei)
    for name, sent in ((name, sent) for name, sent in files.landmarks.items() if sent):
        if bundle is not None and name not in (flow.landmarks if flow else ()):
            message = (
                f"Model '{bundle.metadata.name}' does not use the image '{sent[0].name}' ({name}); "
                "leave it out."
            )
            errors.add("unused_landmark", message, _LANDMARK_FIELDS[name])
        if len(sent) != nuclei:
            message = (
                f"There are {len(sent)} images of {name} and {nuclei} nucleus images; send one for each "
                "nucleus image, in the same order."
            )
            errors.add("unmatched_landmarks", message, _LANDMARK_FIELDS[name])
        for upload in sent:
            try:
                check_size(upload, settings)
            except TooLargeError as error:
                errors.add("payload_too_large", str(error), _LANDMARK_FIELDS[name], 413)
