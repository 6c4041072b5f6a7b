"""REST API v1; every page has its twin here, under the same name."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from deepgps import __version__
from deepgps.bundle import CropSpec
from deepgps.images.cell import DEFAULT_CELLS
from opengps.catalogue import crop_of, find_model, models, nucleus_for, nucleus_png
from opengps.downloads import MISSING, RowNumber
from opengps.problems import Problems, not_found, refused
from opengps.receiving import accept, read_form, receive_form, receive_json
from opengps.rendering import API, nucleus_image
from opengps.schemas import (
    DefaultNucleus,
    JobStatus,
    Model,
    PredictionForm,
    PredictionRequest,
    ResultPage,
    ResultRow,
    Service,
    limits_of,
)
from opengps.store import SORTS, View, cancel_job, delete_job, find_row, find_rows
from opengps.views import JobHere, SiteHere, job_of, model_of, row_of, status_of

router = APIRouter()

_MOST = 2**31 - 1
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problems} for status in (403, 408, 413, 415, 422, 429)
}
_JSON, _FORMS = "application/json", ("multipart/form-data", "application/x-www-form-urlencoded")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            _JSON: {"schema": PredictionRequest.model_json_schema()},
            _FORMS[0]: {"schema": PredictionForm.model_json_schema()},
        },
    }
}


@router.get("", tags=["site"])
def service(site: SiteHere) -> Service:
    """What this site is, and its limits."""
    names = ("models", "nuclei", "predictions", "submissions", "openapi.json")
    links = {name: f"{API}/{name}" for name in names}
    return Service(name="openGPS", version=__version__, limits=limits_of(site.settings), links=links)


@router.get("/models", tags=["site"])
def list_models() -> list[Model]:
    """List the choices of model: each installed one, and each of its class sets."""
    return [model_of(name, bundle) for name, bundle in models().items()]


@router.get("/models/{name}", tags=["site"], responses=MISSING)
def show_model(name: str) -> Model:
    """Show one model: classes, quality, training data, licence."""
    return model_of(name, find_model(name, "name"))


SeenBy = Annotated[
    str, Query(max_length=200, description="The model whose crops they are fitted to; as they ship if empty")
]


@router.get("/nuclei", tags=["site"], responses=MISSING)
def list_nuclei(model: SeenBy = "") -> list[DefaultNucleus]:
    """List the default nuclei, as a model sees them."""
    crop = crop_of(model)
    return [_nucleus(name, model, crop) for name in DEFAULT_CELLS]


@router.get("/nuclei/{name}", tags=["site"], responses=MISSING)
def show_nucleus(name: str, model: SeenBy = "") -> DefaultNucleus:
    """Show one default nucleus, as a model sees it."""
    return _nucleus(_known(name), model, crop_of(model))


@router.get(
    "/nuclei/{name}/image.png",
    tags=["site"],
    response_class=Response,
    responses={200: {"content": {"image/png": {"schema": {"type": "string"}}}}, **MISSING},
)
def show_nucleus_png(name: str, model: SeenBy = "") -> Response:
    """Get the image of a default nucleus as a model sees it, stretched for display."""
    content = nucleus_png(_known(name), crop_of(model))
    return Response(content, media_type="image/png", headers={"Cache-Control": "public, max-age=86400"})


def _known(name: str) -> str:
    if name not in DEFAULT_CELLS:
        raise not_found(f"Nucleus '{name[:80]}' is unknown; there is: {', '.join(DEFAULT_CELLS)}.", "name")
    return name


def _nucleus(name: str, model: str, crop: CropSpec | None) -> DefaultNucleus:
    cell = nucleus_for(name, crop)
    return DefaultNucleus(
        name=name,
        size_px=cell.nucleus.shape[0],
        pixel_size_um=cell.pixel_size_um,
        image=nucleus_image(name, model),
    )


@router.post(
    "/predictions",
    tags=["predictions"],
    status_code=202,
    response_model=JobStatus,
    responses=_REFUSALS,
    openapi_extra=_BODY,
)
async def create_prediction(request: Request, site: SiteHere) -> Response:
    """Send proteins to predict; the answer says where to look for the results."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    address = request.client.host if request.client else ""
    if kind == _JSON:
        job_id = await accept(site, address, await receive_json(request), None, [])
    elif kind in _FORMS:
        form = await read_form(await receive_form(request, site.settings, site.settings.max_nuclei + 1))
        job_id = await accept(site, address, *form)
    else:
        said = f"'{kind[:80]}' is not taken; send {_JSON} or {_FORMS[0]}."
        raise refused(415, "unsupported_media_type", said, "Content-Type")
    status = status_of(site, job_of(site, job_id))
    return JSONResponse(status.model_dump(), 202, {"Location": f"{API}/predictions/{job_id}"})


@router.get("/predictions/{job_id}", tags=["predictions"], responses=MISSING)
def show_prediction(site: SiteHere, job: JobHere) -> JobStatus:
    """Show how far a prediction is."""
    return status_of(site, job)


@router.delete("/predictions/{job_id}", tags=["predictions"], status_code=204, responses=MISSING)
def delete_prediction(site: SiteHere, job: JobHere) -> None:
    """Delete a prediction and all its results."""
    delete_job(site.sessions, site.settings, job.id)


@router.post(
    "/predictions/{job_id}/cancel",
    tags=["predictions"],
    responses={**MISSING, 403: {"model": Problems}, 409: {"model": Problems}},
)
def cancel_prediction(site: SiteHere, job: JobHere) -> JobStatus:
    """Stop a prediction; the results it has stay."""
    if not cancel_job(site.sessions, job.id):
        raise refused(409, "over", f"This prediction is {job.status}; there is nothing to cancel.", "job_id")
    return status_of(site, job_of(site, job.id))


@router.get("/predictions/{job_id}/results", tags=["predictions"], responses=MISSING)
def list_results(
    site: SiteHere,
    job: JobHere,
    q: Annotated[str, Query(max_length=200, description="Only rows that hold this text")] = "",
    localization: Annotated[str, Query(max_length=80, description="Only rows that name this class")] = "",
    confidence: Annotated[float, Query(ge=0, le=1, description="Only rows at least this sure")] = 0.0,
    sort: Annotated[Literal[tuple(SORTS)], Query(description="What to sort by")] = "input",  # type: ignore[valid-type]
    order: Annotated[Literal["asc", "desc"], Query(description="The direction")] = "asc",
    offset: Annotated[int, Query(ge=0, le=_MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> ResultPage:
    """List the results that are there, also while the prediction runs."""
    view = View(_text(q), _text(localization), confidence, sort, order == "desc", offset, limit)
    rows, total = find_rows(site.sessions, job.id, view)
    return ResultPage(total=total, offset=offset, results=[row_of(job, row) for row in rows])


def _text(given: str) -> str:
    # PostgreSQL refuses NUL in a text; nothing stored holds one.
    return given.replace("\0", "\ufffd")


@router.get("/predictions/{job_id}/results/{number}", tags=["predictions"], responses=MISSING)
def show_result(site: SiteHere, job: JobHere, number: RowNumber) -> ResultRow:
    """Show one row of the results."""
    row = find_row(site.sessions, job.id, number)
    if row is None:
        raise not_found(f"There is no row {number} in this prediction.", "number")
    return row_of(job, row)
