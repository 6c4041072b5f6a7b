"""The pages of Submit."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from deepgps.localization import OPENCELL_CATEGORIES
from opengps.catalogue import models, preferred
from opengps.problems import Problem, RefusedError
from opengps.receiving import receive_form
from opengps.rendering import page
from opengps.submissions.api import most_files
from opengps.submissions.receiving import TABLE_COLUMNS, accept_submission, read_submission_form
from opengps.submissions.schemas import CONSENT, LICENCES
from opengps.submissions.store import delete_image, delete_submission
from opengps.submissions.views import ImageHere, SubmissionHere, status_of
from opengps.views import SiteHere

router = APIRouter(include_in_schema=False)


@router.get("/submit")
def submit_form(request: Request) -> Response:
    """The form for one image."""
    return _form(request, {}, [], [], batch=False)


@router.get("/submit/batch")
def batch_form(request: Request) -> Response:
    """The form for many."""
    return _form(request, {}, [], [], batch=True)


@router.get("/submissions")
def submissions() -> Response:
    """Lead who cuts an address short back to the form: submissions are nobody's to list."""
    return RedirectResponse("/submit", 303)


@router.post("/submissions")
async def create(request: Request, site: SiteHere) -> Response:
    """Send the form; errors stand beside their fields."""
    form = FormData()
    try:
        form = await receive_form(request, site.settings, most_files(request))
        sent = await read_submission_form(form)
        address = request.client.host if request.client else ""
        submission_id = await run_in_threadpool(accept_submission, site, address, sent)
    except RefusedError as error:
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        chosen = [name for name in form.getlist("localizations") if isinstance(name, str)]
        answer = _form(request, values, chosen, error.problems, error.status, batch="files" in form)
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    return RedirectResponse(f"/submissions/{submission_id}", 303)


def _form(
    request: Request,
    values: Mapping[str, Any],
    chosen: Sequence[str],
    problems: Sequence[Problem],
    status: int = 200,
    *,
    batch: bool,
) -> Response:
    beside: dict[str, list[str]] = {}
    for problem in problems:
        beside.setdefault((problem.where or "").partition(".")[0], []).append(problem.message)
    return page(
        request,
        "submit.html",
        status,
        batch=batch,
        values=values,
        chosen=chosen,
        errors=beside,
        beside_fields=any(beside),
        localizations=OPENCELL_CATEGORIES,
        licences=LICENCES,
        consent=CONSENT,
        models=models(),
        wanted=preferred(values.get("model") or ""),
        columns=TABLE_COLUMNS,
        base=str(request.base_url).rstrip("/"),
    )


@router.get("/submissions/{submission_id}")
def show(request: Request, site: SiteHere, submission: SubmissionHere) -> Response:
    """A submission: each image beside what the model draws, and what became of it."""
    status = status_of(site, submission)
    waits = any(each.comparison is None and each.problem is None for each in status.image_pairs)
    return page(request, "submission.html", submission=submission, status=status, active=waits)


@router.post("/submissions/{submission_id}/delete")
def delete(request: Request, site: SiteHere, submission: SubmissionHere) -> Response:
    """Delete a submission."""
    delete_submission(site.sessions, site.settings, submission.id)
    return page(request, "submission_deleted.html")


@router.post("/submissions/{submission_id}/images/{number}/delete")
def delete_one(site: SiteHere, submission: SubmissionHere, image_pair: ImageHere) -> Response:
    """Delete one image."""
    delete_image(site.sessions, site.settings, image_pair)
    return RedirectResponse(f"/submissions/{submission.id}", 303)
