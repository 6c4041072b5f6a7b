"""REST API v1; every page has its twin here, at the same path."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from deepgps import __version__
from deepgps.bundle import CropSpec
from deepgps.images.cell import DEFAULT_CELLS
from opengps.downloads import NOT_FOUND, ResultNumber
from opengps.errors import ErrorResponse, not_found, request_error
from opengps.jobs import (
    SORT_COLUMNS,
    JobDep,
    ResultQuery,
    SiteDep,
    cancel_job,
    delete_job,
    get_job,
    get_result,
    job_status,
    list_results,
    prediction_result,
)
from opengps.models import crop_of, default_cell, default_cell_png, get_model, model_info, models
from opengps.rendering import nucleus_image_url
from opengps.requests import (
    FORMS,
    JSON,
    content_type,
    max_files,
    parse_form,
    receive_form,
    receive_json,
    submit_job,
)
from opengps.schemas import (
    API,
    MAX_INTEGER,
    JobStatus,
    ModelInfo,
    NucleusInfo,
    PredictionForm,
    PredictionRequest,
    PredictionResult,
    ResultPage,
    SiteInfo,
    limits_of,
)
from opengps.site import Site
from opengps.visitors import visitor_of

router = APIRouter()

REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 408, 413, 415, 422, 429, 503)
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": PredictionRequest.model_json_schema()},
            FORMS[0]: {"schema": PredictionForm.model_json_schema()},
        },
    }
}


@router.get("", tags=["site"])
def show_site(site: SiteDep) -> SiteInfo:
    """Show the version and the limits of this site."""
    names = ("models", "nuclei", "predictions", "submissions", "openapi.json")
    links = {name: f"{site.settings.root_path}{API}/{name}" for name in names}
    return SiteInfo(name="openGPS", version=__version__, limits=limits_of(site.settings), links=links)


@router.get("/models", tags=["site"])
def list_models() -> list[ModelInfo]:
    """List the models: each installed one, and each of its class sets."""
    return [model_info(name, bundle) for name, bundle in models().items()]


@router.get("/models/{name}", tags=["site"], responses=NOT_FOUND)
def show_model(name: str) -> ModelInfo:
    """Show one model: classes, quality, training data, licence."""
    return model_info(name, get_model(name, "name"))


ModelQuery = Annotated[
    str, Query(max_length=200, description="Fit the nuclei to the crops of this model; unchanged if empty")
]


@router.get("/nuclei", tags=["site"], responses=NOT_FOUND)
def list_nuclei(site: SiteDep, model: ModelQuery = "") -> list[NucleusInfo]:
    """List the default nuclei."""
    crop = crop_of(model)
    return [_nucleus_info(site, name, model, crop) for name in DEFAULT_CELLS]


@router.get("/nuclei/{name}", tags=["site"], responses=NOT_FOUND)
def show_nucleus(site: SiteDep, name: str, model: ModelQuery = "") -> NucleusInfo:
    """Show one default nucleus."""
    return _nucleus_info(site, _checked_name(name), model, crop_of(model))


@router.get(
    "/nuclei/{name}/image.png",
    tags=["site"],
    response_class=Response,
    responses={200: {"content": {"image/png": {"schema": {"type": "string"}}}}, **NOT_FOUND},
)
def show_nucleus_image(name: str, model: ModelQuery = "") -> Response:
    """Get the image of a default nucleus, stretched for display."""
    content = default_cell_png(_checked_name(name), crop_of(model))
    return Response(content, media_type="image/png", headers={"Cache-Control": "public, max-age=86400"})


def _checked_name(name: str) -> str:
    if name not in DEFAULT_CELLS:
        names = ", ".join(DEFAULT_CELLS)
        raise not_found(f"Nucleus '{name[:80]}' is unknown; choose from: {names}.", "name")
    return name


def _nucleus_info(site: Site, name: str, model: str, crop: CropSpec | None) -> NucleusInfo:
    cell = default_cell(name, crop)
    return NucleusInfo(
        name=name,
        size_px=cell.nucleus.shape[0],
        pixel_size_um=cell.pixel_size_um,
        image=nucleus_image_url(name, model, site.settings.root_path),
    )


@router.post(
    "/predictions",
    tags=["predictions"],
    status_code=202,
    response_model=JobStatus,
    responses=REFUSED,
    openapi_extra=_BODY,
)
async def create_prediction(request: Request, site: SiteDep) -> Response:
    """Send proteins to predict; the response says where to find the results."""
    if content_type(request, (JSON, *FORMS)) == JSON:
        sent = await receive_json(request, site.settings, PredictionRequest)
        job_id = await submit_job(site, visitor_of(request), sent)
    else:
        form = await receive_form(request, site.settings, max_files(site.settings))
        job_id = await submit_job(site, visitor_of(request), *await parse_form(form))
    status = job_status(site, get_job(site, job_id))
    return JSONResponse(status.model_dump(), 202, {"Location": f"{API}/predictions/{job_id}"})


@router.get("/predictions/{job_id}", tags=["predictions"], responses=NOT_FOUND)
def show_prediction(site: SiteDep, job: JobDep) -> JobStatus:
    """Show the progress of a prediction."""
    return job_status(site, job)


@router.delete("/predictions/{job_id}", tags=["predictions"], status_code=204, responses=NOT_FOUND)
def delete_prediction(site: SiteDep, job: JobDep) -> None:
    """Delete a prediction and all its results."""
    delete_job(site, job.id)


@router.post(
    "/predictions/{job_id}/cancel",
    tags=["predictions"],
    responses={**NOT_FOUND, 403: {"model": ErrorResponse}, 409: {"model": ErrorResponse}},
)
def cancel_prediction(site: SiteDep, job: JobDep) -> JobStatus:
    """Cancel a prediction and keep its results."""
    if not cancel_job(site, job.id):
        message = f"This prediction is already {job.status}; it cannot be cancelled."
        raise request_error(409, "already_finished", message, "job_id")
    return job_status(site, get_job(site, job.id))


@router.get("/predictions/{job_id}/results", tags=["predictions"], responses=NOT_FOUND)
def list_prediction_results(
    site: SiteDep,
    job: JobDep,
    q: Annotated[str, Query(max_length=200, description="Only results that contain this text")] = "",
    localization: Annotated[str, Query(max_length=80, description="Only results with this class")] = "",
    confidence: Annotated[float, Query(ge=0, le=1, description="Only results at least this confident")] = 0.0,
    sort: Annotated[Literal[tuple(SORT_COLUMNS)], Query(description="Column to sort by")] = "input",  # type: ignore[valid-type]
    order: Annotated[Literal["asc", "desc"], Query(description="Direction")] = "asc",
    offset: Annotated[int, Query(ge=0, le=MAX_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> ResultPage:
    """List the results, also while the prediction runs."""
    # PostgreSQL refuses NUL in text; no result contains it.
    text, localization = (value.replace("\0", "\ufffd") for value in (q, localization))
    query = ResultQuery(text, localization, confidence, sort, order == "desc", offset, limit)
    results, total = list_results(site, job.id, query)
    return ResultPage(
        total=total, offset=offset, results=[prediction_result(site, job, each) for each in results]
    )


@router.get("/predictions/{job_id}/results/{number}", tags=["predictions"], responses=NOT_FOUND)
def show_prediction_result(site: SiteDep, job: JobDep, number: ResultNumber) -> PredictionResult:
    """Show one result."""
    return prediction_result(site, job, get_result(site, job.id, number))
