"""From a request's bytes to its fields and files."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from opengps.orders import Upload, read_order
from opengps.problems import Problem, RefusedError, refused
from opengps.queue import Site
from opengps.quotas import check_quota
from opengps.schemas import PredictionRequest
from opengps.settings import Settings
from opengps.store import create_job

_LISTS = ("nuclei", "nucleus_images")
_FILES = ("file", "nucleus_images")
_MAX_FIELDS = 200


async def receive_json(request: Request) -> PredictionRequest:
    """Read a request in JSON.

    Raises
    ------
    RefusedError
        If it is no JSON, or not of the form of `PredictionRequest`.
    """
    try:
        return PredictionRequest.model_validate_json(await request.body(), strict=True)
    except ValidationError as error:
        raise invalid(error.errors()) from None


async def receive_form(request: Request, settings: Settings, max_files: int) -> FormData:
    """Read a form, urlencoded or multipart, of at most so many files.

    Raises
    ------
    RefusedError
        If it cannot be read, or has too many parts or too large a field.
    """
    most = settings.max_table_bytes
    try:
        return await request.form(max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=most)
    except HTTPException as error:
        large = "exceeded" in error.detail
        said = f"The form cannot be read: {error.detail.rstrip('.')}."
        raise refused(413 if large else 422, "too_large" if large else "not_a_form", said) from None


async def read_form(form: FormData) -> tuple[PredictionRequest, Upload | None, list[Upload]]:
    """Take fields and files out of a form.

    Raises
    ------
    RefusedError
        If a field cannot be used, or is unknown.
    """
    fields: dict[str, Any] = {}
    for name in form:
        values = [value for value in form.getlist(name) if isinstance(value, str) and value]
        if name not in _FILES and values:
            fields[name] = values if name in _LISTS else values[-1]
    try:
        request = PredictionRequest.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors()) from None
    file = await uploads(form.getlist("file"))
    return request, (file[0] if file else None), await uploads(form.getlist("nucleus_images"))


async def uploads(values: Sequence[str | UploadFile]) -> list[Upload]:
    """Read the files of a form's field."""
    # A browser sends an empty, nameless file for a field that nobody filled in.
    files = [each for each in values if isinstance(each, UploadFile) and each.filename]
    return [Upload(_name(each.filename or ""), await each.read()) for each in files]


def _name(given: str) -> str:
    """Keep what a file is called, without the folders that some browsers send along."""
    name = given.replace("\\", "/").rpartition("/")[2]
    return "".join(letter if letter.isprintable() else "_" for letter in name)[:120] or "unnamed"


async def accept(
    site: Site, address: str, request: PredictionRequest, file: Upload | None, images: Sequence[Upload]
) -> str:
    """Make a job of a request and tell a worker.

    Returns
    -------
    str
        The job's id.

    Raises
    ------
    RefusedError
        If the request cannot be used, or is one too many.
    """

    def accepted() -> str:
        check_quota(site.sessions, site.settings, address, 0)
        order = read_order(request, file, images, site.settings)
        check_quota(site.sessions, site.settings, address, len(order.entries))
        return create_job(site.sessions, order, site.settings, address)

    job_id = await run_in_threadpool(accepted)
    await run_in_threadpool(site.wake)
    return job_id


def invalid(errors: Sequence[Mapping[str, Any]]) -> RefusedError:
    """Turn what pydantic says into our shape."""
    problems = [
        Problem(code="invalid", message=f"{_sentence(error['msg'])}", where=_where(error["loc"]))
        for error in errors
    ]
    return RefusedError(422, problems)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _where(place: Sequence[str | int]) -> str | None:
    parts = [str(part) for part in place if part not in ("body", "query", "path")]
    return ".".join(parts) or None
