"""Jobs: created, found, listed, cancelled and deleted, for the pages and the API."""

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated

import numpy as np
from fastapi import Depends, Path, Request
from sqlalchemy import ColumnElement, asc, delete, desc, func, or_, select, update

from deepgps.arrays import Floats
from deepgps.bundle import Bundle, CropSpec
from deepgps.images.cell import Cell
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.image_storage import IMAGE_EXTENSIONS, IMAGE_FOLDER
from opengps.database import (
    OPEN_STATUSES,
    InputRecord,
    Job,
    Result,
    ServedVisitor,
    UploadedNucleus,
    Usage,
    forget_deleted,
    iso_time,
)
from opengps.errors import not_found
from opengps.models import default_cell
from opengps.quotas import HOUR_S, check_disk, check_job_quota, job_bytes, lock_quotas
from opengps.schemas import API, JobStatus, PredictionResult
from opengps.site import Site
from opengps.storage import job_key

DAY_S = 86_400.0

DOWNLOADS = ("results.csv", "results.tsv", "results.json", "rejected.csv", "images.zip", "results.zip")
SORT_COLUMNS = {
    "input": Result.number,
    "protein": func.lower(Result.protein_id),
    "localization": Result.localizations,
    "confidence": Result.confidence,
    "intranuclear": Result.intranuclear_fraction,
    "nucleus": Result.nucleus,
}
"""What results can be sorted by."""


def get_site(request: Request) -> Site:
    """Return the site that the app serves."""
    site: Site = request.app.state.site
    return site


SiteDep = Annotated[Site, Depends(get_site)]


def get_job(site: SiteDep, job_id: Annotated[str, Path(description="Id of the job")]) -> Job:
    """Return the job of an address.

    Raises
    ------
    RequestError
        404 if it does not exist or has expired.
    """
    # PostgreSQL refuses NUL in text; no id contains it.
    if "\0" not in job_id:
        with site.sessions() as session:
            job = session.get(Job, job_id)
        if job is not None and job.expires_at >= time.time():
            return job
    raise not_found("There is no such prediction; it may be deleted or expired.", "job_id")


JobDep = Annotated[Job, Depends(get_job)]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A validated request for a job.

    Attributes
    ----------
    model, bundle
        Name of the model, and its bundle.
    records
        Proteins, rejected records, and names to look up, in input order.
    cells
        Nucleus images to draw into; empty without images.
    mean
        Whether to draw mean images.
    seed
        Which of the possible images to draw.
    """

    model: str
    bundle: Bundle
    records: Sequence[Protein | Rejection | str]
    cells: Sequence[Cell] = field(default=())
    mean: bool = False
    seed: int = 0


def create_job(site: Site, request: JobRequest, visitor: str) -> str:
    """Add a job to the queue and return its id, 128 random bits.

    Raises
    ------
    RequestError
        If it exceeds a quota; quotas are counted in the transaction that adds it.
    """
    now, metadata = time.time(), request.bundle.metadata
    images = len(request.records) * len(request.cells)
    job = Job(
        id=secrets.token_urlsafe(16),
        created_at=now,
        expires_at=now + site.settings.retention_days * DAY_S,
        queued_at=now,
        model=request.model,
        version=metadata.version,
        model_sha256=request.bundle.sha256,
        classes=list(metadata.classes),
        images=bool(request.cells),
        mean=request.mean,
        seed=request.seed,
        nuclei=[cell.name for cell in request.cells],
        landmarks={cell.name: list(cell.landmarks) for cell in request.cells if cell.landmarks},
        total=len(request.records),
        rejected=sum(isinstance(each, Rejection) for each in request.records),
        visitor=visitor,
        disk_bytes=job_bytes(len(request.records), images, metadata.crop.size_px),
    )
    with site.sessions.begin() as session:
        lock_quotas(session)
        session.add(job)
        session.add(Usage(visitor=visitor, created_at=now, proteins=job.total))
        session.flush()
        check_job_quota(session, site.settings, visitor)
        check_disk(session, site, visitor)
        session.add_all(_input_record(job.id, number, each) for number, each in enumerate(request.records))
        session.add_all(_uploaded(job.id, cell) for cell in request.cells if cell.source == "uploaded")
    return job.id


def _input_record(job_id: str, number: int, source: Protein | Rejection | str) -> InputRecord:
    record = InputRecord(job_id=job_id, number=number, source="")
    if isinstance(source, str):
        record.protein_id, record.source = source, "UniProt"
    elif isinstance(source, Rejection):
        record.protein_id, record.source, record.reason = source.id, source.source, source.reason
    else:
        record.protein_id, record.sequence = source.id, source.sequence
        record.gene_symbol, record.accession = source.gene_symbol, source.accession
    return record


def _uploaded(job_id: str, cell: Cell) -> UploadedNucleus:
    return UploadedNucleus(
        job_id=job_id,
        name=cell.name,
        pixels=_content(cell.nucleus),
        **{name: _content(image) for name, image in cell.landmarks.items()},
        size_px=cell.nucleus.shape[0],
        pixel_size_um=cell.pixel_size_um,
        warnings=list(cell.warnings),
        checked=cell.checked,
    )


def _content(pixels: Floats) -> bytes:
    return np.ascontiguousarray(pixels, np.float32).tobytes()


def job_cells(site: Site, job: Job, crop: CropSpec) -> list[Cell]:
    """Return the cells that a job draws into, at the size and scale of a model's crops."""
    with site.sessions() as session:
        stored = session.scalars(select(UploadedNucleus).filter_by(job_id=job.id))
        uploaded = {each.name: _uploaded_cell(each) for each in stored}
    return [uploaded.get(name) or default_cell(name, crop) for name in job.nuclei]


def _uploaded_cell(stored: UploadedNucleus) -> Cell:
    def image(content: bytes) -> Floats:
        return np.frombuffer(content, np.float32).reshape(stored.size_px, stored.size_px)

    return Cell(
        stored.name,
        image(stored.pixels),
        stored.pixel_size_um,
        "uploaded",
        tuple(stored.warnings),
        microtubules=None if stored.microtubules is None else image(stored.microtubules),
        er=None if stored.er is None else image(stored.er),
        checked=stored.checked,
    )


def job_exists(site: Site, job_id: str) -> bool:
    """Return whether a job is in the database."""
    with site.sessions() as session:
        return session.get(Job, job_id) is not None


def job_status(site: Site, job: Job) -> JobStatus:
    """Return what the API says of a job."""
    return JobStatus(
        id=job.id,
        status=job.status,
        model=job.model,
        version=job.version,
        nuclei=job.nuclei,
        mean=job.mean,
        seed=job.seed,
        landmarks=job.landmarks,
        total=job.total,
        predicted=job.predicted,
        rejected=job.rejected,
        queue_position=_queue_position(site, job),
        created_at=iso_time(job.created_at),
        started_at=None if job.started_at is None else iso_time(job.started_at),
        finished_at=None if job.finished_at is None else iso_time(job.finished_at),
        expires_at=iso_time(job.expires_at),
        error=job.error,
        links=_links(job, site.settings.root_path),
    )


def _queue_position(site: Site, job: Job) -> int | None:
    """Return the turn that the job gets, if every visitor gets one in turn."""
    if job.status != "queued":
        return None
    unfinished = Job.status.in_(OPEN_STATUSES)
    counts = select(Job.visitor, func.count()).where(unfinished, Job.id != job.id).group_by(Job.visitor)
    earlier = select(func.count()).where(
        unfinished, Job.visitor.is_not_distinct_from(job.visitor), Job.queued_at < job.queued_at
    )
    served = func.coalesce(ServedVisitor.served_at, 0.0)
    with site.sessions() as session:
        others = [(visitor, count) for visitor, count in session.execute(counts) if visitor != job.visitor]
        own = session.scalar(earlier) or 0
        served_at = {row[0]: row[1] for row in session.execute(select(ServedVisitor.visitor, served))}
    last = served_at.get(job.visitor or "", 0.0)
    return 1 + own + sum(min(count, own + (served_at.get(who or "", 0.0) < last)) for who, count in others)


def _links(job: Job, root: str) -> dict[str, str]:
    url = f"{root}{API}/predictions/{job.id}"
    links = {"self": url, "page": f"{root}/predictions/{job.id}", "results": f"{url}/results"}
    return links | {name: f"{url}/{name}" for name in DOWNLOADS}


def prediction_result(site: Site, job: Job, result: Result) -> PredictionResult:
    """Return what the API says of one result."""
    root, path = site.settings.root_path, f"/predictions/{job.id}/results/{result.number}"
    url = f"{root}{API}{path}"
    links = {"self": url, "page": f"{root}{path}"}
    links |= {name: f"{url}/{name}" for name in ("explanation", "variants")}
    if result.record["images"]:
        names = ("image.png", "nucleus.png", "protein.png", "overlay.png", "image.ome.tif")
        links |= {name: f"{url}/{name}" for name in names}
    landmarks = job.landmarks.get(result.nucleus or "", [])
    return PredictionResult(number=result.number, landmarks=landmarks, links=links, **result.record)


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Which results of a job to list.

    Attributes
    ----------
    text
        Only those whose protein id, localizations or nucleus contain this text, in any case.
    localization
        Only those with this class.
    confidence
        Only those with at least this confidence.
    sort, descending
        A key of `SORT_COLUMNS`, and the direction.
    offset, limit
        The first one, and how many.
    """

    text: str = ""
    localization: str = ""
    confidence: float = 0.0
    sort: str = "input"
    descending: bool = False
    offset: int = 0
    limit: int = 50


def list_results(site: Site, job_id: str, query: ResultQuery) -> tuple[list[Result], int]:
    """Return the results of a query, and how many there are without its limit."""
    conditions = _conditions(job_id, query)
    direction = desc if query.descending else asc
    chosen = select(Result).where(*conditions).order_by(direction(SORT_COLUMNS[query.sort]), Result.number)
    with site.sessions() as session:
        total = session.scalar(select(func.count()).where(*conditions)) or 0
        return list(session.scalars(chosen.offset(query.offset).limit(query.limit))), total


def _conditions(job_id: str, query: ResultQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Result.job_id == job_id]
    if query.text:
        columns = (Result.protein_id, Result.localizations, Result.nucleus)
        conditions.append(or_(*(column.icontains(query.text, autoescape=True) for column in columns)))
    if query.localization:
        conditions.append(Result.localizations.contains(f"|{query.localization}|", autoescape=True))
    if query.confidence > 0:
        conditions.append(Result.confidence >= query.confidence)
    return conditions


def get_result(site: Site, job_id: str, number: int) -> Result:
    """Return one result by its number.

    Raises
    ------
    RequestError
        404 if it does not exist.
    """
    with site.sessions() as session:
        result = session.get(Result, (job_id, number))
    if result is None:
        raise not_found(f"There is no result {number} in this prediction.", "number")
    return result


def iterate_results(site: Site, job_id: str) -> Iterator[Result]:
    """Iterate over all results of a job, in input order."""
    chosen = select(Result).where(Result.job_id == job_id).order_by(Result.number)
    with site.sessions() as session:
        yield from session.scalars(chosen.execution_options(yield_per=200))


def results_of_protein(site: Site, job_id: str, protein_id: str) -> list[Result]:
    """Return the results of one protein, one per nucleus."""
    chosen = select(Result).where(Result.job_id == job_id, Result.protein_id == protein_id)
    with site.sessions() as session:
        return list(session.scalars(chosen.order_by(Result.number)))


def image_keys(job_id: str, results: Iterable[Result]) -> list[str]:
    """Return the storage keys of the images of results."""
    stems = (result.record["images"] for result in results if result.record["images"])
    folder = PurePosixPath(job_key(job_id)) / IMAGE_FOLDER
    return [f"{folder}/{stem}{extension}" for stem in stems for extension in IMAGE_EXTENSIONS]


def find_input(site: Site, job_id: str, protein_id: str) -> InputRecord | None:
    """Return the input record of a predicted protein."""
    chosen = select(InputRecord).where(InputRecord.job_id == job_id, InputRecord.protein_id == protein_id)
    with site.sessions() as session:
        return session.scalars(chosen.where(InputRecord.sequence.is_not(None))).first()


def rejected_records(site: Site, job_id: str) -> list[InputRecord]:
    """Return the input records that could not be used."""
    chosen = select(InputRecord).where(InputRecord.job_id == job_id, InputRecord.reason.is_not(None))
    with site.sessions() as session:
        return list(session.scalars(chosen.order_by(InputRecord.number)))


def cancel_job(site: Site, job_id: str) -> bool:
    """Cancel a job and keep its results; return whether it was unfinished."""
    unfinished = update(Job).where(Job.id == job_id, Job.status.in_(OPEN_STATUSES))
    with site.sessions.begin() as session:
        done = session.execute(unfinished.values(status="cancelled", finished_at=time.time()))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def delete_job(site: Site, job_id: str) -> None:
    """Delete a job, its results and files. A worker that is busy with it notices when it saves a result."""
    with site.sessions.begin() as session:
        session.execute(delete(Job).where(Job.id == job_id))
    forget_deleted(site.sessions)
    site.storage.remove(job_key(job_id))


def purge_jobs(site: Site) -> None:
    """Delete jobs that have expired, files without a job, and after an hour who started how many."""
    now = time.time()
    with site.sessions.begin() as session:
        session.execute(delete(Usage).where(Usage.created_at < now - HOUR_S))
        session.execute(delete(ServedVisitor).where(ServedVisitor.served_at < now - HOUR_S))
        expired = list(session.scalars(select(Job.id).where(Job.expires_at < now)))
    for job_id in expired:
        delete_job(site, job_id)
    with site.sessions() as session:
        known = set(session.scalars(select(Job.id)))
    remove_orphans(site, "jobs", known)


def remove_orphans(site: Site, folder: str, known: set[str]) -> None:
    """Remove files that a killed process left behind: not in the database and older than an hour."""
    for name in site.storage.names(folder):
        key = f"{folder}/{name}"
        if name not in known and site.storage.modified(key) < time.time() - HOUR_S:
            site.storage.remove(key)
