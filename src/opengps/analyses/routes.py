"""Pages, API and files of explanations and comparisons of variants."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from opengps.analyses.requests import request_explanation, request_variants
from opengps.analyses.schemas import AnalysisStatus, ComparisonStatus, ExplanationStatus, VariantsRequest
from opengps.analyses.store import (
    HEAT_MAP,
    PICTURE,
    TABLE,
    UNCHANGED,
    VARIANTS,
    analysis_key,
    comparison_path,
    comparison_status,
    comparison_summary,
    explanation_status,
    find_analyses,
    get_comparison,
    get_explanation,
)
from opengps.api import REFUSED
from opengps.database import OPEN_STATUSES, Analysis, Job
from opengps.downloads import NOT_FOUND, ResultNumber, file_route
from opengps.errors import RequestError, not_found, validation_error
from opengps.jobs import JobDep, SiteDep, get_result
from opengps.rendering import form_errors, page
from opengps.requests import FORMS, JSON, content_type, receive_form, receive_json, refuse_file_field
from opengps.schemas import MAX_INTEGER
from opengps.site import Site
from opengps.visitors import visitor_of

api_router = APIRouter(tags=["why there"])
pages_router = APIRouter()
files_router = APIRouter(responses=NOT_FOUND, tags=["why there"])

ComparisonNumber = Annotated[int, PathParameter(ge=0, le=MAX_INTEGER, description="Number of the comparison")]
_RESULT = "/predictions/{job_id}/results/{number}"
_MAX_SHOWN = 50
_CACHE = {"Cache-Control": "private, max-age=3600"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": VariantsRequest.model_json_schema()} for kind in (JSON, *FORMS)},
    }
}


# API.


@api_router.post(f"{_RESULT}/explanation", status_code=202, responses={**REFUSED, **NOT_FOUND})
def create_explanation(
    request: Request, site: SiteDep, job: JobDep, number: ResultNumber
) -> ExplanationStatus:
    """Ask why a protein was predicted there; the response says where to find the explanation."""
    analysis = request_explanation(site, visitor_of(request), job, get_result(site, job.id, number))
    return explanation_status(site, analysis)


@api_router.get(f"{_RESULT}/explanation", responses=NOT_FOUND)
def show_explanation(site: SiteDep, job: JobDep, number: ResultNumber) -> ExplanationStatus:
    """Show an explanation: important residues and sorting signals."""
    return explanation_status(site, get_explanation(site, job, number))


@api_router.post(
    f"{_RESULT}/variants", status_code=202, responses={**REFUSED, **NOT_FOUND}, openapi_extra=_BODY
)
async def create_comparison(
    request: Request, site: SiteDep, job: JobDep, number: ResultNumber
) -> ComparisonStatus:
    """Compare variants of a protein; the response says where to find the comparison."""
    if content_type(request, (JSON, *FORMS)) == JSON:
        sent = await receive_json(request, site.settings, VariantsRequest, "changes")
    else:
        sent = parse_variants_form(await receive_form(request, site.settings, 0))
    analysis = await run_in_threadpool(_request_variants, site, visitor_of(request), job, number, sent)
    return await run_in_threadpool(comparison_status, site, analysis)


@api_router.get(f"{_RESULT}/variants", responses=NOT_FOUND)
def list_comparisons(site: SiteDep, job: JobDep, number: ResultNumber) -> list[AnalysisStatus]:
    """List the comparisons of variants of a protein, the newest first."""
    get_result(site, job.id, number)
    return [comparison_summary(site, each) for each in find_analyses(site, job.id, number, VARIANTS)]


@api_router.get(f"{_RESULT}/variants/{{comparison}}", responses=NOT_FOUND)
def show_comparison(
    site: SiteDep, job: JobDep, number: ResultNumber, comparison: ComparisonNumber
) -> ComparisonStatus:
    """Show a comparison: what each variant changes, the strongest first."""
    return comparison_status(site, get_comparison(site, job, number, comparison))


def parse_variants_form(form: FormData) -> VariantsRequest:
    """Return the fields of a form; changes are separated by spaces or lines.

    Raises
    ------
    RequestError
        If a field is unknown or invalid.
    """
    fields: dict[str, Any] = {}
    for name in form:
        refuse_file_field(form, name, ())
        values = [value for value in form.getlist(name) if isinstance(value, str) and value.strip()]
        if values:
            fields[name] = " ".join(values).split() if name == "changes" else values[-1]
    try:
        return VariantsRequest.model_validate(fields)
    except ValidationError as error:
        raise validation_error(error.errors()) from None


def _request_variants(site: Site, visitor: str, job: Job, number: int, sent: VariantsRequest) -> Analysis:
    return request_variants(site, visitor, job, get_result(site, job.id, number), sent)


# Pages.


@pages_router.post(f"{_RESULT}/explanation")
def create_explanation_page(request: Request, site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """Ask for an explanation."""
    request_explanation(site, visitor_of(request), job, get_result(site, job.id, number))
    return RedirectResponse(f"/predictions/{job.id}/results/{number}/explanation", 303)


@pages_router.get(f"{_RESULT}/explanation")
def show_explanation_page(request: Request, site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """The page of an explanation: sentence, picture and signals."""
    analysis = get_explanation(site, job, number)
    status = explanation_status(site, analysis)
    return _page(request, "explanation.html", site, job, number, status=status, why=status.explanation)


@pages_router.get(f"{_RESULT}/variants")
def variants_form(request: Request, site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """The form for changes of a protein, and earlier comparisons."""
    return _variants_form(request, site, job, number, {})


@pages_router.post(f"{_RESULT}/variants")
async def create_comparison_page(
    request: Request, site: SiteDep, job: JobDep, number: ResultNumber
) -> Response:
    """Receive the form; show errors beside their fields."""
    form = FormData()
    try:
        form = await receive_form(request, site.settings, 0)
        sent = parse_variants_form(form)
        analysis = await run_in_threadpool(_request_variants, site, visitor_of(request), job, number, sent)
    except RequestError as error:
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        return await run_in_threadpool(_variants_form, request, site, job, number, values, error)
    return RedirectResponse(comparison_path(analysis), 303)


def _variants_form(
    request: Request,
    site: Site,
    job: Job,
    number: int,
    values: dict[str, str],
    error: RequestError | None = None,
) -> Response:
    earlier = find_analyses(site, job.id, number, VARIANTS)
    status, errors = error.status if error else 200, form_errors(error)
    shown: dict[str, Any] = {"values": values, "errors": errors, "earlier": earlier}
    response = _page(request, "variants.html", site, job, number, status, **shown)
    if error and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


@pages_router.get(f"{_RESULT}/variants/{{comparison}}")
def show_comparison_page(
    request: Request, site: SiteDep, job: JobDep, number: ResultNumber, comparison: ComparisonNumber
) -> Response:
    """The page of a comparison: the unchanged protein beside each variant."""
    status = comparison_status(site, get_comparison(site, job, number, comparison))
    found = status.comparison
    shown: dict[str, Any] = {"status": status, "compared": found, "variants": []}
    if found is not None:
        shown["variants"] = found.variants[:_MAX_SHOWN]
    return _page(request, "comparison.html", site, job, number, **shown)


def _page(
    request: Request, template: str, site: Site, job: Job, number: int, code: int = 200, **context: Any
) -> Response:
    status = context.get("status")
    active = status is not None and status.status in OPEN_STATUSES
    result = get_result(site, job.id, number)
    return page(request, template, code, job=job, result=result, active=active, **context)


# Files.


@files_router.get(f"{_RESULT}/explanation/{PICTURE}", **file_route("image/svg+xml"))
def explanation_svg(site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """Get the picture of an explanation: importance and signals along the sequence."""
    content = _read(site, get_explanation(site, job, number), PICTURE)
    return Response(content, media_type="image/svg+xml", headers=_CACHE)


@files_router.get(f"{_RESULT}/variants/{{comparison}}/{HEAT_MAP}", **file_route("image/svg+xml"))
def scan_svg(site: SiteDep, job: JobDep, number: ResultNumber, comparison: ComparisonNumber) -> Response:
    """Get the heat map of a scan."""
    content = _read(site, get_comparison(site, job, number, comparison), HEAT_MAP)
    return Response(content, media_type="image/svg+xml", headers=_CACHE)


@files_router.get(f"{_RESULT}/variants/{{comparison}}/{TABLE}", **file_route("text/csv"))
def variants_csv(site: SiteDep, job: JobDep, number: ResultNumber, comparison: ComparisonNumber) -> Response:
    """Download a comparison as CSV, as `deepgps variants` writes it."""
    content = _read(site, get_comparison(site, job, number, comparison), TABLE)
    name = f"opengps-{job.id[:6]}-{TABLE}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


@files_router.get(f"{_RESULT}/variants/{{comparison}}/{{image}}.png", **file_route("image/png"))
def variant_png(
    site: SiteDep, job: JobDep, number: ResultNumber, comparison: ComparisonNumber, image: str
) -> Response:
    """Get the image of a variant by its number, or `unchanged`; all are stretched alike for display."""
    if f"{image}.png" != UNCHANGED and not (image.isascii() and image.isdigit() and len(image) < 9):
        raise not_found(f"There is no image '{image[:80]}'; give a number, or unchanged.", "image")
    content = _read(site, get_comparison(site, job, number, comparison), f"{image}.png")
    return Response(content, media_type="image/png", headers=_CACHE)


def _read(site: Site, analysis: Analysis, name: str) -> bytes:
    try:
        return site.storage.read(f"{analysis_key(analysis)}/{name}")
    except FileNotFoundError:
        raise not_found(f"There is no '{name}' here; it is not finished, or has none.", "number") from None
