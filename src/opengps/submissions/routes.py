"""Pages and API of submissions, and submitted images as files."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from PIL import Image
from starlette.datastructures import FormData

from deepgps.arrays import Floats
from deepgps.localization import OPENCELL_CATEGORIES
from deepgps.results.labelled_images import overlay, stretch
from opengps.database import ImagePair, Submission, iso_time
from opengps.downloads import NOT_FOUND, file_route
from opengps.errors import ErrorResponse, RequestError, not_found
from opengps.jobs import SiteDep
from opengps.models import available_model, encode_png, grey_png, models
from opengps.rendering import form_errors, page
from opengps.requests import FORMS, content_type, receive_form, run_for_visitor
from opengps.schemas import API, MAX_INTEGER
from opengps.site import Site
from opengps.submissions.requests import TABLE_COLUMNS, parse_submission_form, submit
from opengps.submissions.schemas import (
    CONSENT,
    LICENCES,
    ImageComparison,
    ImageStatus,
    RejectedRow,
    SubmissionForm,
    SubmissionStatus,
)
from opengps.submissions.store import ImageFile, delete_image, delete_submission, get_images, read_array
from opengps.visitors import visitor_of

api_router = APIRouter(tags=["submissions"])
pages_router = APIRouter()
files_router = APIRouter(responses=NOT_FOUND, tags=["submissions"])

SUBMISSION_LAYERS = ("nucleus.png", "protein.png", "overlay.png", "drawn.png", "drawn-overlay.png")
_DELETED = "There is no such submission; it may be deleted."
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 408, 409, 413, 415, 422, 429, 503)
}
_BODY = {
    "requestBody": {"required": True, "content": {FORMS[0]: {"schema": SubmissionForm.model_json_schema()}}}
}


def get_submission(
    site: SiteDep, submission_id: Annotated[str, Path(description="Id of the submission")]
) -> Submission:
    """Return the submission of an address.

    Raises
    ------
    RequestError
        404 if it does not exist.
    """
    if "\0" not in submission_id:
        with site.sessions() as session:
            submission = session.get(Submission, submission_id)
        if submission is not None:
            return submission
    raise not_found(_DELETED, "submission_id")


SubmissionDep = Annotated[Submission, Depends(get_submission)]
ImageNumber = Annotated[int, Path(ge=1, le=MAX_INTEGER, description="Number of the image")]


def get_image(site: SiteDep, submission: SubmissionDep, number: ImageNumber) -> ImagePair:
    """Return the image of an address.

    Raises
    ------
    RequestError
        404 if it does not belong to the submission.
    """
    found = get_images(site, submission_id=submission.id, number=number)
    if not found:
        raise not_found(f"There is no image {number} in this submission.", "number")
    return found[0]


ImageDep = Annotated[ImagePair, Depends(get_image)]


def submission_status(site: Site, submission: Submission) -> SubmissionStatus:
    """Return what the API says of a submission."""
    root = site.settings.root_path
    return SubmissionStatus(
        id=submission.id,
        created_at=iso_time(submission.created_at),
        contributor=submission.contributor,
        licence=submission.licence,
        images=[image_status(site, each) for each in get_images(site, submission_id=submission.id)],
        rejected=[RejectedRow(**each) for each in submission.rejected],
        links={
            "self": f"{root}{API}/submissions/{submission.id}",
            "page": f"{root}/submissions/{submission.id}",
        },
    )


def image_status(site: Site, image: ImagePair) -> ImageStatus:
    """Return what the API says of an image."""
    return ImageStatus(
        number=image.number,
        status=image.status,
        reason=image.reason,
        protein=image.protein_id,
        localizations=image.localizations.split("|"),
        cell_line=image.cell_line,
        microscope=image.microscope,
        pixel_size_um=image.pixel_size_um,
        sha256=image.sha256,
        crops=len(image.crops),
        comparison=None if image.comparison is None else ImageComparison(**image.comparison),
        problem=image.problem,
        links=_links(image, site.settings.root_path),
    )


def _links(image: ImagePair, root: str) -> dict[str, str]:
    url = f"{root}{API}/submissions/{image.submission_id}/images/{image.number}"
    drawn = image.comparison is not None
    layers = [name for name in SUBMISSION_LAYERS if drawn or not name.startswith("drawn")]
    return {"self": url, **{name: f"{url}/{name}" for name in layers}}


async def _receive(request: Request, site: Site) -> FormData:
    # Two files per image, and the table.
    return await receive_form(request, site.settings, 2 * site.settings.max_submission_images + 1)


async def _submit(request: Request, site: Site, form: FormData) -> str:
    sent = await parse_submission_form(form)
    visitor = visitor_of(request)
    return await run_for_visitor(site, visitor, submit, site, visitor, sent)


@api_router.post(
    "/submissions",
    status_code=201,
    response_model=SubmissionStatus,
    responses=_REFUSED,
    openapi_extra=_BODY,
)
async def create_submission(request: Request, site: SiteDep) -> Response:
    """Submit images; whoever has the address in the response can see and delete them."""
    content_type(request, FORMS[:1])
    submission_id = await _submit(request, site, await _receive(request, site))
    status = submission_status(site, get_submission(site, submission_id))
    return JSONResponse(status.model_dump(), 201, {"Location": f"{API}/submissions/{submission_id}"})


@api_router.get("/submissions/{submission_id}", responses=NOT_FOUND)
def show_submission(site: SiteDep, submission: SubmissionDep) -> SubmissionStatus:
    """Show a submission."""
    return submission_status(site, submission)


@api_router.delete("/submissions/{submission_id}", status_code=204, responses=NOT_FOUND)
def remove_submission(site: SiteDep, submission: SubmissionDep) -> None:
    """Delete a submission, its images and their files."""
    delete_submission(site, submission.id)


@api_router.get("/submissions/{submission_id}/images/{number}", responses=NOT_FOUND)
def show_image(site: SiteDep, image: ImageDep) -> ImageStatus:
    """Show one image of a submission."""
    return image_status(site, image)


@api_router.delete("/submissions/{submission_id}/images/{number}", status_code=204, responses=NOT_FOUND)
def remove_image(site: SiteDep, image: ImageDep) -> None:
    """Delete one image of a submission."""
    delete_image(site, image)


@files_router.get("/submissions/{submission_id}/images/{number}/{layer}.png", **file_route("image/png"))
def image_layer(site: SiteDep, image: ImageDep, layer: str) -> Response:
    """Get the compared crop of an image, stretched for display: as sent, or as the model draws it."""
    name = f"{layer}.png"
    if name not in SUBMISSION_LAYERS:
        names = ", ".join(SUBMISSION_LAYERS)
        raise not_found(f"There is no layer '{layer[:80]}'; choose from: {names}.", "layer")
    try:
        if image.comparison is not None:
            stack = read_array(site, image, ImageFile.COMPARISON)
        elif not name.startswith("drawn"):
            stack = read_array(site, image, ImageFile.CROPS)[image.central_crop]
        else:
            raise not_found(f"Image {image.number} has not been compared yet.", "layer")
    except FileNotFoundError:
        raise not_found(_DELETED, "submission_id") from None
    content = _draw_layer(np.asarray(stack, np.float32) / np.float32(255), name)
    return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=60"})


def _draw_layer(stack: Floats, name: str) -> bytes:
    nucleus, protein = stack[0], stack[2 if name.startswith("drawn") else 1]
    if name.endswith("overlay.png"):
        return encode_png(Image.fromarray(overlay(stretch(nucleus), stretch(protein))))
    return grey_png(nucleus if name == "nucleus.png" else protein)


@pages_router.get("/submit")
def submission_form(request: Request) -> Response:
    """The form for one image."""
    return _form(request, batch=False)


@pages_router.get("/submit/batch")
def batch_form(request: Request) -> Response:
    """The form for several images."""
    return _form(request, batch=True)


@pages_router.get("/submissions")
def submissions() -> Response:
    """Redirect to the form: nobody can list submissions."""
    return RedirectResponse("/submit", 303)


@pages_router.post("/submissions")
async def create_submission_page(request: Request, site: SiteDep) -> Response:
    """Receive the form; show errors beside their fields."""
    form = FormData()
    try:
        form = await _receive(request, site)
        submission_id = await _submit(request, site, form)
    except RequestError as error:
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        chosen = [name for name in form.getlist("localizations") if isinstance(name, str)]
        return _form(request, values, chosen, error, batch="files" in form)
    return RedirectResponse(f"/submissions/{submission_id}", 303)


def _form(
    request: Request,
    values: Mapping[str, str] | None = None,
    localizations: Sequence[str] = (),
    error: RequestError | None = None,
    *,
    batch: bool,
) -> Response:
    values = values or {}
    response = page(
        request,
        "submit.html",
        error.status if error else 200,
        batch=batch,
        values=values,
        chosen_localizations=localizations,
        errors=form_errors(error),
        localizations=OPENCELL_CATEGORIES,
        licences=LICENCES,
        consent=CONSENT,
        models=models(),
        chosen_model=available_model(values.get("model") or ""),
        columns=TABLE_COLUMNS,
    )
    if error and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


@pages_router.get("/submissions/{submission_id}")
def show_submission_page(request: Request, site: SiteDep, submission: SubmissionDep) -> Response:
    """The page of a submission: each image beside what the model draws, and its status."""
    status = submission_status(site, submission)
    active = any(each.comparison is None and each.problem is None for each in status.images)
    return page(request, "submission.html", submission=submission, status=status, active=active)


@pages_router.post("/submissions/{submission_id}/delete")
def delete_submission_page(request: Request, site: SiteDep, submission: SubmissionDep) -> Response:
    """Delete a submission."""
    delete_submission(site, submission.id)
    return page(request, "submission_deleted.html")


@pages_router.post("/submissions/{submission_id}/images/{number}/delete")
def delete_image_page(site: SiteDep, submission: SubmissionDep, image: ImageDep) -> Response:
    """Delete one image."""
    delete_image(site, image)
    return RedirectResponse(f"/submissions/{submission.id}", 303)
