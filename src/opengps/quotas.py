"""How much one address may ask for, counted in the database, so that it holds over all servers."""

import math
import time

from sqlalchemy import func, select

from opengps.database import Sessions
from opengps.problems import refused
from opengps.settings import Settings
from opengps.store import VISIT_S
from opengps.tables import OPEN, Job, Visit

_BUSY_S = 60


def check_quota(sessions: Sessions, settings: Settings, address: str, proteins: int) -> None:
    """Refuse a job that is one too many.

    Raises
    ------
    RefusedError
        429, with the seconds to wait.
    """
    now = time.time()
    visits = select(func.count(), func.coalesce(func.sum(Visit.proteins), 0), func.min(Visit.at))
    recent = visits.where(Visit.address == address, Visit.at > now - VISIT_S)
    waiting = select(func.count()).where(Job.status.in_(OPEN))
    with sessions() as session:
        jobs, sent, first = session.execute(recent).one()
        queued = session.scalar(waiting) or 0
    if queued >= settings.max_open_jobs:
        said = f"{queued:,} jobs are waiting or running, as many as this site takes; try again in a minute."
        raise refused(429, "busy", said, retry_after=_BUSY_S)
    wait = math.ceil(first + VISIT_S - now) if first else 1
    if jobs >= settings.jobs_per_hour:
        said = f"You started {jobs:,} jobs in the last hour, the most this site takes; wait {wait:,} s."
        raise refused(429, "too_many_jobs", said, retry_after=wait)
    if sent and sent + proteins > settings.proteins_per_hour:
        most = settings.proteins_per_hour
        said = f"You sent {sent:,} proteins in the last hour; this site takes {most:,}. Wait {wait:,} s."
        raise refused(429, "too_many_proteins_per_hour", said, retry_after=wait)
