"""Submissions in the REST API."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from opengps.downloads import MISSING
from opengps.problems import Problems, refused
from opengps.receiving import receive_form
from opengps.rendering import API
from opengps.submissions.receiving import accept_submission, read_submission_form
from opengps.submissions.schemas import ImageStatus, SubmissionForm, SubmissionStatus
from opengps.submissions.store import delete_image, delete_submission
from opengps.submissions.views import (
    ImageHere,
    SubmissionHere,
    image_status,
    status_of,
    submission_of,
)
from opengps.views import SiteHere

router = APIRouter(tags=["submissions"])

_FORM = "multipart/form-data"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problems} for status in (403, 408, 409, 413, 415, 422, 429)
}
_BODY = {
    "requestBody": {"required": True, "content": {_FORM: {"schema": SubmissionForm.model_json_schema()}}}
}


def most_files(request: Request) -> int:
    """Count the files that a submission may have: two an image, and the table."""
    most: int = request.app.state.site.settings.max_submission_images
    return 2 * most + 1


@router.post(
    "/submissions",
    status_code=201,
    response_model=SubmissionStatus,
    responses=_REFUSALS,
    openapi_extra=_BODY,
)
async def create_submission(request: Request, site: SiteHere) -> Response:
    """Submit images; the answer's address is the key to see and to delete them."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        said = f"'{kind[:80]}' is not taken; send {_FORM}."
        raise refused(415, "unsupported_media_type", said, "Content-Type")
    address = request.client.host if request.client else ""
    sent = await read_submission_form(await receive_form(request, site.settings, most_files(request)))
    submission_id = await run_in_threadpool(accept_submission, site, address, sent)
    status = status_of(site, submission_of(site, submission_id))
    return JSONResponse(status.model_dump(), 201, {"Location": f"{API}/submissions/{submission_id}"})


@router.get("/submissions/{submission_id}", responses=MISSING)
def show_submission(site: SiteHere, submission: SubmissionHere) -> SubmissionStatus:
    """Show a submission."""
    return status_of(site, submission)


@router.delete("/submissions/{submission_id}", status_code=204, responses=MISSING)
def delete_whole_submission(site: SiteHere, submission: SubmissionHere) -> None:
    """Delete a submission, its images and their files."""
    delete_submission(site.sessions, site.settings, submission.id)


@router.get("/submissions/{submission_id}/images/{number}", responses=MISSING)
def show_image(site: SiteHere, image_pair: ImageHere) -> ImageStatus:
    """Show one image of a submission."""
    return image_status(site, image_pair)


@router.delete("/submissions/{submission_id}/images/{number}", status_code=204, responses=MISSING)
def delete_one_image(site: SiteHere, image_pair: ImageHere) -> None:
    """Delete one image of a submission."""
    delete_image(site.sessions, site.settings, image_pair)
