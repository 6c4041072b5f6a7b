"""The job queue, which is the table of jobs: workers lease jobs, extend the lease, and release it.

Visitors are served round robin: next is the visitor whom a worker served longest ago, and of their open
jobs the one that has waited longest. A worker leases it for one chunk and releases it, and it waits again;
so a single protein waits for one chunk of each other visitor, and neither for a large batch nor for many
jobs. Every change of a leased job is one transaction with the condition that the lease is still held: a
worker that was killed leaves a lease that expires, and one that was slow and lost its lease cannot change
anything.
"""

import os
import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from opengps.database import OPEN_STATUSES, InputRecord, Job, Result, ServedVisitor
from opengps.site import Site

# A new process may get the number of an old one.
_PROCESS_TOKEN = secrets.token_hex(4)


class LeaseLostError(Exception):
    """The job was cancelled or deleted, or another worker has taken over its lease."""


def worker_name() -> str:
    """Return the name of this process: host, process number, a random token."""
    return f"{socket.gethostname()}:{os.getpid()}:{_PROCESS_TOKEN}"


def lease_job(site: Site) -> Job | None:
    """Lease the job whose visitor has waited longest; return None if no job waits."""
    now = time.time()
    with site.sessions() as session:
        # An idle worker only reads: writing would lock SQLite.
        if session.scalar(select(Job.id).where(_is_waiting(now)).limit(1)) is None:
            return None
    # One statement, so that two workers never lease the same job.
    last_served = func.coalesce(ServedVisitor.served_at, 0.0)
    chosen = (
        select(Job.id).outerjoin(ServedVisitor, ServedVisitor.visitor == Job.visitor).where(_is_waiting(now))
    )
    first = chosen.order_by(last_served, Job.queued_at).limit(1).scalar_subquery()
    statement = (
        update(Job)
        .where(Job.id == first, _is_waiting(now))
        .values(
            status="running",
            started_at=func.coalesce(Job.started_at, now),
            worker=worker_name(),
            lease_expires_at=now + site.settings.lease_s,
            attempts=Job.attempts + 1,
        )
        .returning(Job)
    )
    with site.sessions.begin() as session:
        job = session.scalars(statement).one_or_none()
        if job is not None and job.visitor is not None:
            session.merge(ServedVisitor(visitor=job.visitor, served_at=now))
    if job is not None and job.attempts > site.settings.max_attempts:
        times = site.settings.max_attempts
        error = f"This job stopped {times} times at the same protein; leave that protein out and try again."
        release_job(site, job, status="failed", error=error)
        return lease_job(site)
    return job


def _is_waiting(now: float) -> ColumnElement[bool]:
    free = or_(Job.worker.is_(None), Job.lease_expires_at < now)
    return Job.status.in_(OPEN_STATUSES) & free & (Job.retry_at <= now)


def save_progress(
    site: Site, job: Job, *, next_record: int | None = None, results: Sequence[Result] = ()
) -> None:
    """Extend the lease, and add the results of a finished protein in the same transaction.

    Parameters
    ----------
    site, job
        The site and the leased job.
    next_record
        Number of the first input record that is not done.
    results
        New results, one per nucleus image.

    Raises
    ------
    LeaseLostError
        If the job is cancelled, deleted or leased by another worker. Only in the first case are the results
        added.
    """
    values: dict[str, Any] = {"lease_expires_at": time.time() + site.settings.lease_s, "attempts": 0}
    if next_record is not None:
        values["next_record"] = next_record
    if results:
        values["predicted"] = Job.predicted + 1
    held = update(Job).where(Job.id == job.id, Job.worker == worker_name()).values(values)
    with site.sessions.begin() as session:
        status = session.execute(held.returning(Job.status)).scalar_one_or_none()
        if status is None:
            raise LeaseLostError
        session.add_all(results)
    if status not in OPEN_STATUSES:
        raise LeaseLostError


def save_lookup(site: Site, job: Job, record: InputRecord) -> None:
    """Extend the lease, and save a record that was looked up in the same transaction.

    Raises
    ------
    LeaseLostError
        If the job is cancelled, deleted or leased by another worker.
    """
    rejected = int(record.reason is not None)
    held = update(Job).where(Job.id == job.id, Job.worker == worker_name(), Job.status.in_(OPEN_STATUSES))
    values = {
        "lease_expires_at": time.time() + site.settings.lease_s,
        "attempts": 0,
        "rejected": Job.rejected + rejected,
    }
    with site.sessions.begin() as session:
        if not session.execute(held.values(values)).rowcount:  # type: ignore[attr-defined]
            raise LeaseLostError
        session.merge(record)


def release_job(
    site: Site, job: Job, *, status: str | None = None, error: str | None = None, attempts: int | None = None
) -> None:
    """Release a job if its lease is still held: it waits for its next chunk, or is done.

    Parameters
    ----------
    site, job
        The site and the leased job.
    status
        The final status, if the job is done; a cancelled job stays cancelled.
    error
        Why it failed.
    attempts
        Replaces the number of chunks started since the last finished protein.
    """
    now = time.time()
    released = {"worker": None, "lease_expires_at": 0.0, "queued_at": now}
    if attempts is not None:
        released["attempts"] = attempts
    held = (Job.id == job.id) & (Job.worker == worker_name())
    with site.sessions.begin() as session:
        if status is not None:
            done = update(Job).where(held, Job.status.in_(OPEN_STATUSES))
            session.execute(done.values(status=status, finished_at=now, error=error))
        session.execute(update(Job).where(held).values(released))


def release_dead_workers(site: Site) -> None:
    """Release the jobs of workers on this machine that no longer run.

    A job is tried again at once, and after that only in a while: a machine that starts three times in a
    minute says nothing of the job.
    """
    with site.sessions() as session:
        columns = select(Job.id, Job.worker, Job.attempts).where(Job.worker.is_not(None))
        leased = session.execute(columns).all()
    for job_id, worker, attempts in leased:
        host, pid, token = (worker or "").split(":")
        if host == socket.gethostname() and not _is_running(int(pid), token):
            retry_at = time.time() + site.settings.retry_s if attempts > 1 else 0.0
            with site.sessions.begin() as session:
                held = update(Job).where(Job.id == job_id, Job.worker == worker)
                session.execute(held.values(worker=None, lease_expires_at=0.0, retry_at=retry_at))


def _is_running(pid: int, token: str) -> bool:
    if pid == os.getpid():
        return token == _PROCESS_TOKEN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
