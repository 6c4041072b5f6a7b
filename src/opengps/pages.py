"""The pages; none of them needs JavaScript."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from deepgps.bundle import Bundle
from deepgps.bundle.metrics_table import HEADINGS, format_metric, group_metrics
from deepgps.images.cell import DEFAULT_CELLS
from deepgps.results.table import table_line
from opengps.api import SeenBy, cancel_prediction
from opengps.catalogue import find_model, models, nucleus_for, preferred
from opengps.downloads import RowNumber
from opengps.examples import GALLERY, example_fasta
from opengps.problems import RefusedError, not_found
from opengps.receiving import accept, read_form, receive_form
from opengps.rendering import page
from opengps.store import (
    SORTS,
    View,
    delete_job,
    find_entry,
    find_row,
    find_rows,
    rejections,
    rows_of_protein,
)
from opengps.tables import OPEN, Entry, Job
from opengps.views import DOWNLOADS, JobHere, SiteHere, status_of

router = APIRouter(include_in_schema=False)

ROWS_PER_PAGE = 50
# Beyond so many, a drop-down of images and rejected records is a download's business.
_REJECTED_SHOWN = 20


@router.get("/")
def home(request: Request) -> Response:
    """What the site does, an example, what it cannot tell, how to cite."""
    return page(request, "home.html", example=example_fasta(), gallery=GALLERY)


@router.get("/predict")
def predict_form(request: Request, example: bool = False, model: str = "") -> Response:
    """The form."""
    values = {"proteins": example_fasta() if example else "", "model": model}
    return _form(request, values, DEFAULT_CELLS[:1], [])


@router.get("/predictions")
def predictions() -> Response:
    """Lead who cuts an address short back to the form: jobs are nobody's to list."""
    return RedirectResponse("/predict", 303)


@router.post("/predictions")
async def create(request: Request, site: SiteHere) -> Response:
    """Send the form; errors stand beside their fields."""
    form = FormData()
    try:
        form = await receive_form(request, site.settings, site.settings.max_nuclei + 1)
        order, file, uploads = await read_form(form)
        if not order.images:
            # Then the form's choice of nuclei, which cannot be empty, and of mean images say nothing.
            order = order.model_copy(update={"nuclei": [], "mean": False})
        address = request.client.host if request.client else ""
        job_id = await accept(site, address, order, file, uploads)
    except RefusedError as error:
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        nuclei = [name for name in form.getlist("nuclei") if isinstance(name, str)]
        answer = _form(request, values, nuclei, error.problems, error.status)
        if error.retry_after is not None:
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    return RedirectResponse(f"/predictions/{job_id}", 303)


def _form(
    request: Request,
    values: Mapping[str, Any],
    nuclei: Sequence[str],
    problems: Sequence[Any],
    status: int = 200,
) -> Response:
    beside: dict[str, list[str]] = {}
    for problem in problems:
        beside.setdefault((problem.where or "").partition(".")[0], []).append(problem.message)
    return page(
        request,
        "predict.html",
        status,
        values=values,
        chosen=nuclei,
        errors=beside,
        beside_fields=any(beside),
        models=models(),
        wanted=preferred(values.get("model") or ""),
        nuclei=DEFAULT_CELLS,
        base=str(request.base_url).rstrip("/"),
    )


@router.get("/predictions/{job_id}")
def show_prediction(
    request: Request,
    site: SiteHere,
    job: JobHere,
    q: Annotated[str, Query(max_length=200)] = "",
    localization: Annotated[str, Query(max_length=80)] = "",
    confidence: Annotated[str, Query(max_length=10)] = "",
    sort: str = "input",
    order: str = "asc",
    show: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """A job: how far it is, and its results as far as they are there."""
    view = View(
        text=q.replace("\0", ""),
        localization=localization.replace("\0", ""),
        confidence=_share(confidence),
        sort=sort if sort in SORTS else "input",
        descending=order == "desc",
        offset=(show - 1) * ROWS_PER_PAGE,
        limit=ROWS_PER_PAGE,
    )
    rows, total = find_rows(site.sessions, job.id, view)
    return page(
        request,
        "prediction.html",
        job=job,
        status=status_of(site, job),
        active=job.status in OPEN,
        rows=rows,
        total=total,
        view=view,
        place=show,
        places=max(1, ceil(total / ROWS_PER_PAGE)),
        link=_linker(view),
        rejected=rejections(site.sessions, job.id)[:_REJECTED_SHOWN] if job.rejected else [],
        downloads=[name for name in DOWNLOADS if job.images or name != "images.zip"],
        base=str(request.base_url).rstrip("/"),
    )


def _share(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _linker(view: View) -> Any:
    """Make links to the same view with another order or place."""
    kept = {
        "q": view.text,
        "localization": view.localization,
        "confidence": f"{view.confidence:g}" if view.confidence else "",
        "sort": view.sort,
        "order": "desc" if view.descending else "asc",
    }

    def link(**changes: Any) -> str:
        fields = {name: value for name, value in {**kept, **changes}.items() if value != ""}
        return f"?{urlencode(fields)}#results"

    return link


@router.get("/predictions/{job_id}/results/{number}")
def show_result(request: Request, site: SiteHere, job: JobHere, number: RowNumber) -> Response:
    """One protein: its images, probabilities, evidence, and itself in other nuclei."""
    row = find_row(site.sessions, job.id, number)
    if row is None:
        raise not_found(f"There is no row {number} in this prediction.", "number")
    siblings = rows_of_protein(site.sessions, job.id, row.protein_id)
    entry = find_entry(site.sessions, job.id, row.protein_id)
    bundle = models().get(job.model)
    return page(
        request,
        "result.html",
        job=job,
        row=row,
        record=row.record,
        ranked=sorted(row.record["probabilities"].items(), key=lambda item: -item[1]),
        bundle=bundle if bundle is not None and bundle.sha256 == job.sha256 else None,
        thresholds=_thresholds(bundle, job),
        siblings=siblings,
        entry=entry,
        again=_as_table(entry) if entry else "",
        others=[name for name in DEFAULT_CELLS if name not in job.nuclei],
        before=number - 1 if number else None,
        after=number + 1 if find_row(site.sessions, job.id, number + 1) else None,
        base=str(request.base_url).rstrip("/"),
    )


def _as_table(entry: Entry) -> str:
    """Write a protein so that its id, whatever it holds, is read back unchanged."""
    lines = table_line(["id", "sequence"]) + table_line([entry.protein_id, entry.sequence or ""])
    return lines.decode()


def _thresholds(bundle: Any, job: Job) -> dict[str, float]:
    if bundle is None or bundle.sha256 != job.sha256 or not bundle.metadata.multi_label:
        return {}
    return dict(zip(bundle.metadata.classes, bundle.metadata.thresholds, strict=True))


@router.post("/predictions/{job_id}/cancel")
def cancel(site: SiteHere, job: JobHere) -> Response:
    """Stop a job; one that is over already stays as it is."""
    if job.status in OPEN:
        cancel_prediction(site, job)
    return RedirectResponse(f"/predictions/{job.id}", 303)


@router.post("/predictions/{job_id}/delete")
def delete(request: Request, site: SiteHere, job: JobHere) -> Response:
    """Delete a job."""
    delete_job(site.sessions, site.settings, job.id)
    return page(request, "deleted.html")


@router.get("/models")
def list_models(request: Request) -> Response:
    """The installed models."""
    families: dict[str, dict[str, Bundle]] = {}
    for name, bundle in models().items():
        family = name if bundle.class_set is None else name.rpartition(":")[0]
        families.setdefault(family, {})[name] = bundle
    return page(request, "models.html", families=families)


@router.get("/models/{name}")
def show_model(request: Request, name: str) -> Response:
    """One model and its card."""
    bundle = find_model(name, "name")
    card = bundle.read("CARD.md").decode("utf-8", errors="replace")
    quality = group_metrics(bundle.metadata.metrics)
    return page(
        request,
        "model.html",
        name=name,
        bundle=bundle,
        metadata=bundle.metadata,
        card=card,
        quality=quality,
        headings=HEADINGS,
        format_metric=format_metric,
    )


@router.get("/nuclei")
def list_nuclei(request: Request, model: SeenBy = "") -> Response:
    """The default nuclei, as a model sees them."""
    chosen = model or preferred() or ""
    # One model of each size and scale.
    crops = {bundle.metadata.crop: name for name, bundle in reversed(models().items())}
    crop = find_model(chosen, "model").metadata.crop if chosen else None
    cell = nucleus_for(DEFAULT_CELLS[0], crop)
    return page(
        request,
        "nuclei.html",
        nuclei=DEFAULT_CELLS,
        model=chosen,
        others=sorted(set(crops.values()) - {crops.get(crop, "")}) if crop else [],
        edge_px=cell.nucleus.shape[0],
        pixel_size_um=cell.pixel_size_um,
    )


@router.get("/privacy")
def privacy(request: Request) -> Response:
    """What is kept, how long, and the limits."""
    return page(request, "privacy.html")


@router.get("/api")
def api_page(request: Request) -> Response:
    """The API, to try out; its assets come from an installed package."""
    return page(request, "api.html", base=str(request.base_url).rstrip("/"))
