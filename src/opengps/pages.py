"""The pages of predictions, models and nuclei; none of them needs JavaScript."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from deepgps.bundle import Bundle
from deepgps.bundle.metrics_table import HEADINGS, format_metric, group_metrics
from deepgps.images.cell import DEFAULT_CELLS
from deepgps.prediction.overall import OTHERS, open_overall
from deepgps.prediction.prediction import class_thresholds
from deepgps.results.records import table_line
from opengps.api import ModelQuery
from opengps.database import OPEN_STATUSES, InputRecord
from opengps.downloads import ResultNumber
from opengps.errors import RequestError
from opengps.examples import GALLERY, example_fasta
from opengps.jobs import (
    DOWNLOADS,
    SORT_COLUMNS,
    JobDep,
    ResultQuery,
    SiteDep,
    cancel_job,
    delete_job,
    find_input,
    get_result,
    job_status,
    list_results,
    rejected_records,
    results_of_protein,
)
from opengps.models import available_model, default_cell, get_model, models
from opengps.rendering import form_errors, page
from opengps.requests import max_files, parse_form, receive_form, submit_job
from opengps.visitors import visitor_of

router = APIRouter()

ROWS_PER_PAGE = 50
_MAX_REJECTED = 20


@router.get("/")
def home(request: Request) -> Response:
    """The home page: what the site does, an example, its limits, how to cite."""
    return page(request, "home.html", example=example_fasta(), gallery=GALLERY)


@router.get("/predict")
def prediction_form(request: Request, example: bool = False, model: str = "") -> Response:
    """The form."""
    values = {"proteins": example_fasta() if example else "", "model": model}
    return _form(request, values, DEFAULT_CELLS[:1])


@router.get("/predictions")
def predictions() -> Response:
    """Redirect to the form: nobody can list jobs."""
    return RedirectResponse("/predict", 303)


@router.post("/predictions")
async def create_prediction_page(request: Request, site: SiteDep) -> Response:
    """Receive the form; show errors beside their fields."""
    form = FormData()
    try:
        form = await receive_form(request, site.settings, max_files(site.settings))
        sent, files = await parse_form(form)
        if not sent.images:
            # The form always sends a nucleus.
            sent = sent.model_copy(update={"nuclei": [], "mean": False, "seed": 0})
        job_id = await submit_job(site, visitor_of(request), sent, files)
    except RequestError as error:
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        nuclei = [name for name in form.getlist("nuclei") if isinstance(name, str)]
        return _form(request, values, nuclei, error)
    return RedirectResponse(f"/predictions/{job_id}", 303)


def _form(
    request: Request, values: dict[str, str], nuclei: Sequence[str], error: RequestError | None = None
) -> Response:
    response = page(
        request,
        "predict.html",
        error.status if error else 200,
        values=values,
        chosen_nuclei=nuclei,
        errors=form_errors(error),
        models=models(),
        chosen_model=available_model(values.get("model") or ""),
        nuclei=DEFAULT_CELLS,
    )
    if error and error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


@router.get("/predictions/{job_id}")
def show_prediction_page(
    request: Request,
    site: SiteDep,
    job: JobDep,
    q: Annotated[str, Query(max_length=200)] = "",
    localization: Annotated[str, Query(max_length=80)] = "",
    confidence: Annotated[str, Query(max_length=10)] = "",
    sort: str = "input",
    order: str = "asc",
    number: Annotated[int, Query(ge=1, le=100_000, alias="page")] = 1,
) -> Response:
    """The page of a job: its progress and its results so far."""
    query = ResultQuery(
        text=q.replace("\0", ""),
        localization=localization.replace("\0", ""),
        confidence=_probability(confidence),
        sort=sort if sort in SORT_COLUMNS else "input",
        descending=order == "desc",
        offset=(number - 1) * ROWS_PER_PAGE,
        limit=ROWS_PER_PAGE,
    )
    results, total = list_results(site, job.id, query)
    return page(
        request,
        "prediction.html",
        job=job,
        status=job_status(site, job),
        active=job.status in OPEN_STATUSES,
        results=results,
        total=total,
        query=query,
        page_number=number,
        pages=max(1, ceil(total / ROWS_PER_PAGE)),
        link=_link_to(query),
        rejected=rejected_records(site, job.id)[:_MAX_REJECTED] if job.rejected else [],
        downloads=[name for name in DOWNLOADS if job.images or name != "images.zip"],
    )


def _probability(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _link_to(query: ResultQuery) -> Any:
    """Return a function that links to the same query with some fields changed."""
    fields = {
        "q": query.text,
        "localization": query.localization,
        "confidence": f"{query.confidence:g}" if query.confidence else "",
        "sort": query.sort,
        "order": "desc" if query.descending else "asc",
    }

    def link(**changes: Any) -> str:
        changed = {name: value for name, value in {**fields, **changes}.items() if value != ""}
        return f"?{urlencode(changed)}#results"

    return link


@router.get("/predictions/{job_id}/results/{number}")
def show_result(request: Request, site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """The page of one protein: images, probabilities, evidence, other nuclei."""
    result = get_result(site, job.id, number)
    record = find_input(site, job.id, result.protein_id)
    bundle = models().get(job.model)
    if bundle is not None and bundle.sha256 != job.model_sha256:
        bundle = None
    following = ResultQuery(offset=number + 1, limit=1)
    return page(
        request,
        "result.html",
        job=job,
        result=result,
        record=result.record,
        ranked=sorted(result.record["probabilities"].items(), key=lambda item: -item[1]),
        bundle=bundle,
        thresholds=class_thresholds(bundle.metadata) if bundle else {},
        landmarks=job.landmarks.get(result.nucleus or "", []),
        same_protein=results_of_protein(site, job.id, result.protein_id),
        input=record,
        as_table=_as_table(record) if record else "",
        other_nuclei=[name for name in DEFAULT_CELLS if name not in job.nuclei],
        previous=number - 1 if number else None,
        next=number + 1 if list_results(site, job.id, following)[0] else None,
    )


def _as_table(record: InputRecord) -> str:
    """Write a protein so that any id is read back unchanged."""
    lines = table_line(["id", "sequence"]) + table_line([record.protein_id, record.sequence or ""])
    return lines.decode()


@router.post("/predictions/{job_id}/cancel")
def cancel_prediction_page(site: SiteDep, job: JobDep) -> Response:
    """Cancel a job; a finished one stays as it is."""
    cancel_job(site, job.id)
    return RedirectResponse(f"/predictions/{job.id}", 303)


@router.post("/predictions/{job_id}/delete")
def delete_prediction_page(request: Request, site: SiteDep, job: JobDep) -> Response:
    """Delete a job."""
    delete_job(site, job.id)
    return page(request, "deleted.html")


@router.get("/models")
def list_models_page(request: Request) -> Response:
    """The installed models, each with its class sets."""
    families: dict[str, dict[str, Bundle]] = {}
    for name, bundle in models().items():
        family = name if bundle.class_set is None else name.rpartition(":")[0]
        families.setdefault(family, {})[name] = bundle
    return page(request, "models.html", families=families)


@router.get("/models/{name}")
def show_model_page(request: Request, name: str) -> Response:
    """The page of one model, with its card."""
    bundle = get_model(name, "name")
    return page(
        request,
        "model.html",
        name=name,
        bundle=bundle,
        metadata=bundle.metadata,
        card=bundle.read("CARD.md").decode("utf-8", errors="replace"),
        quality=group_metrics(bundle.metadata.metrics),
        headings=HEADINGS,
        format_metric=format_metric,
        overall=open_overall(bundle),
        others=OTHERS,
    )


@router.get("/nuclei")
def list_nuclei_page(request: Request, model: ModelQuery = "") -> Response:
    """The default nuclei, fitted to a model's crops."""
    chosen = model or available_model() or ""
    # One model of each size and scale.
    by_crop = {bundle.metadata.crop: name for name, bundle in reversed(models().items())}
    crop = get_model(chosen, "model").metadata.crop if chosen else None
    first = default_cell(DEFAULT_CELLS[0], crop)
    return page(
        request,
        "nuclei.html",
        nuclei=DEFAULT_CELLS,
        model=chosen,
        others=sorted(set(by_crop.values()) - {by_crop.get(crop, "")}) if crop else [],
        size_px=first.nucleus.shape[0],
        pixel_size_um=first.pixel_size_um,
    )


@router.get("/privacy")
def privacy(request: Request) -> Response:
    """What is stored, for how long, and the limits."""
    return page(request, "privacy.html")


@router.get("/api")
def api_page(request: Request) -> Response:
    """The API, to try out."""
    return page(request, "api.html")
