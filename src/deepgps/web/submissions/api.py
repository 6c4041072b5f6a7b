"""Submissions in the REST API."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from deepgps.web.downloads import MISSING
from deepgps.web.problems import Problems, refused
from deepgps.web.receiving import receive_form
from deepgps.web.rendering import API
from deepgps.web.submissions.receiving import accept_submission, read_submission_form
from deepgps.web.submissions.schemas import PictureStatus, SubmissionForm, SubmissionStatus
from deepgps.web.submissions.store import delete_picture, delete_submission
from deepgps.web.submissions.views import (
    PictureHere,
    SubmissionHere,
    picture_status,
    status_of,
    submission_of,
)
from deepgps.web.views import SiteHere

router = APIRouter(tags=["submissions"])

_FORM = "multipart/form-data"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problems} for status in (403, 408, 409, 413, 415, 422, 429)
}
_BODY = {
    "requestBody": {"required": True, "content": {_FORM: {"schema": SubmissionForm.model_json_schema()}}}
}


def most_files(request: Request) -> int:
    """Count the files that a submission may have: two a picture, and the table."""
    most: int = request.app.state.site.settings.max_submission_pictures
    return 2 * most + 1


@router.post(
    "/submissions",
    status_code=201,
    response_model=SubmissionStatus,
    responses=_REFUSALS,
    openapi_extra=_BODY,
)
async def create_submission(request: Request, site: SiteHere) -> Response:
    """Submit pictures; the answer's address is the key to see and to delete them."""
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
    """Delete a submission, its pictures and their files."""
    delete_submission(site.sessions, site.settings, submission.id)


@router.get("/submissions/{submission_id}/pictures/{number}", responses=MISSING)
def show_picture(site: SiteHere, picture: PictureHere) -> PictureStatus:
    """Show one picture of a submission."""
    return picture_status(site, picture)


@router.delete("/submissions/{submission_id}/pictures/{number}", status_code=204, responses=MISSING)
def delete_one_picture(site: SiteHere, picture: PictureHere) -> None:
    """Delete one picture of a submission."""
    delete_picture(site.sessions, site.settings, picture)
