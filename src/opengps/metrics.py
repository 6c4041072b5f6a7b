"""``/metrics``: what an operator watches, for Prometheus, counted in the database over all servers."""

import time
from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from opengps.queue import Site
from opengps.submissions.moderation import STATUSES
from opengps.submissions.tables import ImagePair
from opengps.tables import OPEN, Job

_JOBS = (*OPEN, "finished", "failed", "cancelled")
_KIND = "text/plain; version=0.0.4; charset=utf-8"


def metrics(request: Request) -> Response:
    """Tell how many jobs and submitted images are in which state, and how long the first in line waits."""
    return Response("\n".join(_lines(request.app.state.site)) + "\n", media_type=_KIND)


def _lines(site: Site) -> Iterator[str]:
    with site.sessions() as session:
        jobs, images = _counted(session, Job.status), _counted(session, ImagePair.status)
        first = session.scalar(select(func.min(Job.turn)).where(Job.status.in_(OPEN), Job.holder.is_(None)))
    yield from _gauge("opengps_jobs", "Jobs that are not deleted, by status")
    yield from (f'opengps_jobs{{status="{status}"}} {jobs.get(status, 0)}' for status in _JOBS)
    yield from _gauge("opengps_submitted_images", "Submitted images, by status")
    for status in STATUSES:
        yield f'opengps_submitted_images{{status="{status}"}} {images.get(status, 0)}'
    yield from _gauge("opengps_longest_wait_seconds", "How long the first in line waits")
    yield f"opengps_longest_wait_seconds {0.0 if first is None else max(0.0, time.time() - first):.3f}"


def _counted(session: Session, status: InstrumentedAttribute[str]) -> dict[str, int]:
    counts = select(status, func.count()).group_by(status)
    return {row[0]: row[1] for row in session.execute(counts)}


def _gauge(name: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} gauge"
