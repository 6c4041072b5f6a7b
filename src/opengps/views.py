"""What pages and API both show of a job and its rows."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Path, Request

from deepgps.bundle import Bundle
from deepgps.results.table import Record
from opengps.catalogue import hindrance, predicts
from opengps.problems import not_found
from opengps.queue import Site
from opengps.rendering import API, when
from opengps.schemas import JobStatus, Model, ResultRow
from opengps.store import find_job, position
from opengps.tables import Job, Row

DOWNLOADS = ("results.csv", "results.tsv", "results.json", "rejected.csv", "images.zip", "results.zip")


def site_of(request: Request) -> Site:
    """Find the site that an app serves."""
    site: Site = request.app.state.site
    return site


SiteHere = Annotated[Site, Depends(site_of)]


def job_of(site: SiteHere, job_id: Annotated[str, Path(description="The job's id")]) -> Job:
    """Find the job that an address names.

    Raises
    ------
    RefusedError
        404 if there is none.
    """
    # PostgreSQL refuses NUL in a text, which no id holds.
    job = find_job(site.sessions, job_id) if "\0" not in job_id else None
    if job is None:
        said = "There is no such prediction; it may be deleted, or past its time."
        raise not_found(said, "job_id")
    return job


JobHere = Annotated[Job, Depends(job_of)]


def status_of(site: Site, job: Job) -> JobStatus:
    """Describe a job."""
    return JobStatus(
        id=job.id,
        status=job.status,
        model=job.model,
        version=job.version,
        nuclei=job.nuclei,
        mean=job.mean,
        total=job.total,
        predicted=job.predicted,
        rejected=job.rejected,
        position=position(site.sessions, job),
        created=when(job.created) or "",
        started=when(job.started),
        finished=when(job.finished),
        expires=when(job.expires) or "",
        message=job.message,
        links=dict(_links(job)),
    )


def _links(job: Job) -> Iterator[tuple[str, str]]:
    here = f"{API}/predictions/{job.id}"
    yield "self", here
    yield "page", f"/predictions/{job.id}"
    yield "results", f"{here}/results"
    for name in DOWNLOADS:
        yield name, f"{here}/{name}"


def row_of(job: Job, row: Row) -> ResultRow:
    """Describe one row of the results."""
    record: Record = row.record  # type: ignore[assignment]
    here = f"{API}/predictions/{job.id}"
    links = {
        "self": f"{here}/results/{row.number}",
        "page": f"/predictions/{job.id}/results/{row.number}",
    }
    if record["images"]:
        for name in ("image.png", "nucleus.png", "protein.png", "overlay.png", "image.ome.tif"):
            links[name] = f"{here}/results/{row.number}/{name}"
    return ResultRow(number=row.number, links=links, **record)


def model_of(name: str, bundle: Bundle) -> Model:
    """Describe an installed model."""
    metadata = bundle.metadata
    return Model(
        name=name,
        version=metadata.version,
        sha256=bundle.sha256,
        predicts=predicts(metadata),
        classes=list(metadata.classes),
        multi_label=metadata.multi_label,
        cell_line=metadata.cell_line,
        calibration=metadata.calibration,
        licence=metadata.licence,
        crop_px=metadata.crop.size_px,
        pixel_size_um=metadata.crop.pixel_size_um,
        metrics=dict(metadata.metrics),
        training_data=dict(metadata.training_data),
        hindrance=hindrance(bundle),
    )
