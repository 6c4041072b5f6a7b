"""Whose turn a job is: taken, kept, given back, and taken back from the dead."""

import os
import secrets
import socket
import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select, update

from opengps.database import Sessions
from opengps.settings import Settings
from opengps.tables import OPEN, Job, Row

# A new process may get the number of a dead one.
_MARK = secrets.token_hex(4)


class StoppedError(Exception):
    """The job was cancelled or deleted, or its turn taken over, while it was worked on."""


def worker_name() -> str:
    """Name this process so that others on the machine can tell whether it lives: host, process, a mark."""
    return f"{socket.gethostname()}:{os.getpid()}:{_MARK}"


def is_due(sessions: Sessions) -> bool:
    """Whether any job waits for a turn that nobody has."""
    with sessions() as session:
        return session.scalar(select(Job.id).where(_waiting(time.time())).limit(1)) is not None


def free_the_dead(sessions: Sessions) -> None:
    """Take back the turns of workers on this machine that no longer live."""
    with sessions.begin() as session:
        held = session.scalars(select(Job).where(Job.holder.is_not(None)))
        for job in held:
            host, pid, mark = (job.holder or "").split(":")
            if host == socket.gethostname() and not _lives(int(pid), mark):
                job.holder, job.held_until = None, 0.0


def _lives(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return mark == _MARK
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _waiting(now: float) -> ColumnElement[bool]:
    return Job.status.in_(OPEN) & or_(Job.holder.is_(None), Job.held_until < now)


def claim(sessions: Sessions, settings: Settings) -> Job | None:
    """Take the job that has waited longest; None if none waits."""
    now = time.time()
    # One statement, so that two workers never take the same.
    first = select(Job.id).where(_waiting(now)).order_by(Job.turn).limit(1).scalar_subquery()
    taken = (
        update(Job)
        .where(Job.id == first, _waiting(now))
        .values(
            status="running",
            started=func.coalesce(Job.started, now),
            holder=worker_name(),
            held_until=now + settings.lease_s,
            attempts=Job.attempts + 1,
        )
        .returning(Job)
    )
    with sessions.begin() as session:
        job = session.scalars(taken).one_or_none()
    if job is not None and job.attempts > settings.max_attempts:
        times = settings.max_attempts
        said = f"This job broke off {times} times at the same protein; leave it out and try again."
        let_go(sessions, job, status="failed", message=said)
        return claim(sessions, settings)
    return job


def let_go(sessions: Sessions, job: Job, *, status: str | None = None, message: str | None = None) -> None:
    """End a turn: the job waits for its next, or is over.

    Parameters
    ----------
    sessions, job
        The site's database, and whose turn it was.
    status, message
        What became of the job if it is over, and why if it failed.
    """
    now = time.time()
    mine = (Job.id == job.id) & (Job.holder == worker_name())
    with sessions.begin() as session:
        if status is not None:
            ended = update(Job).where(mine, Job.status.in_(OPEN))
            session.execute(ended.values(status=status, finished=now, message=message))
        session.execute(update(Job).where(mine).values(holder=None, held_until=0.0, turn=now))


def keep_on(
    sessions: Sessions, settings: Settings, job: Job, rows: Sequence[Row] = (), predicted: int | None = None
) -> None:
    """Keep a turn for another lease, now that it came to something: what broke off before no longer counts.

    Parameters
    ----------
    sessions, settings, job
        Those of the site, and whose turn it is.
    rows, predicted
        What it came to, and how many proteins are done with it; added only if the turn is still ours.

    Raises
    ------
    StoppedError
        If it is no longer ours, or nobody wants the job any more.
    """
    values = {"held_until": time.time() + settings.lease_s, "attempts": 0}
    if predicted is not None:
        values["predicted"] = predicted
    mine = update(Job).where(Job.id == job.id, Job.holder == worker_name()).values(values)
    with sessions.begin() as session:
        status = session.execute(mine.returning(Job.status)).scalar_one_or_none()
        if status is None:
            raise StoppedError
        session.add_all(rows)
    if status not in OPEN:
        raise StoppedError
