"""Jobs in the database, as pages and API see them."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import ColumnElement, asc, delete, desc, func, or_, select, update
from sqlalchemy.orm import Session

from deepgps.bundle import Bundle
from deepgps.images.cell import Cell
from deepgps.proteins.protein import Protein, Rejection
from opengps.database import Sessions
from opengps.settings import Settings
from opengps.shelf import job_key, shelf_of
from opengps.tables import OPEN, Entry, Job, OwnNucleus, Row, Visit

VISIT_S = 3600.0
DAY_S = 86_400.0

SORTS = {
    "input": Row.number,
    "protein": func.lower(Row.protein_id),
    "localization": Row.localizations,
    "confidence": Row.confidence,
    "intranuclear": Row.fraction,
    "nucleus": Row.nucleus,
}
"""What a table of results can be sorted by."""


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request, ready to become a job.

    Attributes
    ----------
    model, bundle
        The model: the name it is installed under, and itself.
    entries
        Proteins, rejected records, and names to look up, in input order.
    cells
        What to draw into; empty without images.
    mean
        Whether to draw mean images.
    """

    model: str
    bundle: Bundle
    entries: Sequence[Protein | Rejection | str]
    cells: Sequence[Cell] = field(default=())
    mean: bool = False


def create_job(sessions: Sessions, order: Order, settings: Settings, address: str) -> str:
    """Keep a job for a worker to find.

    Returns
    -------
    str
        Its id: 128 random bits.
    """
    now, metadata = time.time(), order.bundle.metadata
    job = Job(
        id=secrets.token_urlsafe(16),
        status="queued",
        created=now,
        expires=now + settings.retention_days * DAY_S,
        turn=now,
        model=order.model,
        version=metadata.version,
        sha256=order.bundle.sha256,
        classes=list(metadata.classes),
        images=bool(order.cells),
        mean=order.mean,
        nuclei=[cell.name for cell in order.cells],
        total=len(order.entries),
        rejected=sum(isinstance(each, Rejection) for each in order.entries),
    )
    with sessions.begin() as session:
        session.add(job)
        session.flush()
        session.add_all(_entry(job.id, number, each) for number, each in enumerate(order.entries))
        session.add_all(_own(job.id, each) for each in order.cells if each.source != "drawn")
        session.add(Visit(address=address, at=now, proteins=job.total))
    return job.id


def _entry(job_id: str, number: int, given: Protein | Rejection | str) -> Entry:
    entry = Entry(job_id=job_id, number=number, source="")
    if isinstance(given, str):
        entry.protein_id, entry.source = given, "UniProt"
    elif isinstance(given, Rejection):
        entry.protein_id, entry.source, entry.reason = given.id, given.source, given.reason
    else:
        entry.protein_id, entry.sequence = given.id, given.sequence
        entry.gene_symbol, entry.accession = given.gene_symbol, given.accession
    return entry


def _own(job_id: str, cell: Cell) -> OwnNucleus:
    return OwnNucleus(
        job_id=job_id,
        name=cell.name,
        pixels=np.ascontiguousarray(cell.nucleus, np.float32).tobytes(),
        edge_px=cell.nucleus.shape[0],
        pixel_size_um=cell.pixel_size_um,
        warnings=list(cell.warnings),
    )


def find_job(sessions: Sessions, job_id: str) -> Job | None:
    """Find a job that is neither deleted nor past its time."""
    with sessions() as session:
        job = session.get(Job, job_id)
    if job is None or job.status == "deleted" or job.expires < time.time():
        return None
    return job


def position(sessions: Sessions, job: Job) -> int | None:
    """Count the jobs whose turn comes before this one's, itself included; None once it has begun."""
    if job.status != "queued":
        return None
    earlier = select(func.count()).where(Job.status.in_(OPEN), Job.turn < job.turn)
    with sessions() as session:
        return 1 + (session.scalar(earlier) or 0)


@dataclass(frozen=True, slots=True)
class View:
    """Which rows of a job to show.

    Attributes
    ----------
    text
        Only those whose protein id, localizations or nucleus holds this, in any case.
    localization
        Only those that name this class.
    confidence
        Only those at least this sure.
    sort, descending
        A key of `SORTS`, and the direction.
    offset, limit
        Where to start and how many to show.
    """

    text: str = ""
    localization: str = ""
    confidence: float = 0.0
    sort: str = "input"
    descending: bool = False
    offset: int = 0
    limit: int = 50


def find_rows(sessions: Sessions, job_id: str, view: View) -> tuple[list[Row], int]:
    """Find the rows of a view, and how many there are without its limit."""
    wanted = _wanted(job_id, view)
    direction = desc if view.descending else asc
    rows = select(Row).where(*wanted).order_by(direction(SORTS[view.sort]), Row.number)
    with sessions() as session:
        count = session.scalar(select(func.count()).where(*wanted)) or 0
        return list(session.scalars(rows.offset(view.offset).limit(view.limit))), count


def _wanted(job_id: str, view: View) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [Row.job_id == job_id]
    if view.text:
        columns = (Row.protein_id, Row.localizations, Row.nucleus)
        wanted.append(or_(*(column.icontains(view.text, autoescape=True) for column in columns)))
    if view.localization:
        # Lists are kept as |a|b|, so that no class is found within another's name.
        wanted.append(Row.localizations.contains(f"|{view.localization}|", autoescape=True))
    if view.confidence > 0:
        wanted.append(Row.confidence >= view.confidence)
    return wanted


def find_row(sessions: Sessions, job_id: str, number: int) -> Row | None:
    """Find one row by its place."""
    with sessions() as session:
        return session.get(Row, (job_id, number))


def rows_of_protein(sessions: Sessions, job_id: str, protein_id: str) -> list[Row]:
    """Find the rows of one protein, one per nucleus."""
    chosen = select(Row).where(Row.job_id == job_id, Row.protein_id == protein_id).order_by(Row.number)
    with sessions() as session:
        return list(session.scalars(chosen))


def find_entry(sessions: Sessions, job_id: str, protein_id: str) -> Entry | None:
    """Find the record of a protein that was predicted."""
    chosen = select(Entry).where(Entry.job_id == job_id, Entry.protein_id == protein_id)
    with sessions() as session:
        return session.scalars(chosen.where(Entry.sequence.is_not(None))).first()


def rejections(sessions: Sessions, job_id: str) -> list[Entry]:
    """List the records that could not be used."""
    chosen = select(Entry).where(Entry.job_id == job_id, Entry.reason.is_not(None)).order_by(Entry.number)
    with sessions() as session:
        return list(session.scalars(chosen))


def cancel_job(sessions: Sessions, job_id: str) -> bool:
    """Stop a job; what is done stays. Return whether there was something to stop."""
    stop = update(Job).where(Job.id == job_id, Job.status.in_(OPEN))
    with sessions.begin() as session:
        done = session.execute(stop.values(status="cancelled", finished=time.time()))
    return bool(done.rowcount)  # type: ignore[attr-defined]


def delete_job(sessions: Sessions, settings: Settings, job_id: str) -> None:
    """Delete a job and its results; files that a worker is writing go when its turn ends."""
    with sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(status="deleted"))
    purge(sessions, settings)


def purge(sessions: Sessions, settings: Settings) -> None:
    """Remove the files and rows of jobs that are deleted or past their time, and visits that are."""
    now = time.time()
    over = select(Job).where(or_(Job.status == "deleted", Job.expires < now), Job.held_until < now)
    with sessions() as session:
        jobs = list(session.scalars(over))
    for job in jobs:
        shelf_of(settings).remove(job_key(job.id))
        with sessions.begin() as session:
            _remove(session, job.id)
    with sessions.begin() as session:
        session.execute(delete(Visit).where(Visit.at < now - VISIT_S))


def _remove(session: Session, job_id: str) -> None:
    for table in (Row, Entry, OwnNucleus):
        session.execute(delete(table).where(table.job_id == job_id))
    session.execute(delete(Job).where(Job.id == job_id))
