"""Quotas of visitors and of the site, and the space on the disk; all are counted in the database."""

import math
import shutil
import time

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from opengps.database import OPEN_STATUSES, Analysis, ImagePair, Job, Submission, Usage
from opengps.errors import RequestError, request_error
from opengps.settings import Settings
from opengps.site import Site

HOUR_S = 3600.0
BUSY_RETRY_S = 60
"""Seconds after which to try again where a limit of the whole site is reached."""
FULL_RETRY_S = 3600

_RECORD_BYTES = 4_000
_BYTES_PER_PIXEL = 10
# Any number, as long as all processes of a site use the same one.
_QUOTA_LOCK = 6_021_024


def lock_quotas(session: Session) -> None:
    """Wait for other transactions that count quotas; on SQLite, whose next write waits anyway, do nothing."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SELECT pg_advisory_xact_lock({_QUOTA_LOCK})"))


def job_bytes(records: int, images: int, size_px: int) -> int:
    """Return the most bytes of disk that a job is expected to need.

    Parameters
    ----------
    records
        Number of proteins.
    images
        Number of images.
    size_px
        Edge of an image.
    """
    return records * _RECORD_BYTES + images * size_px**2 * _BYTES_PER_PIXEL


def check_job_quota(
    session: Session, settings: Settings, visitor: str, *, jobs: int = 0, proteins: int = 0
) -> None:
    """Refuse a job that exceeds a quota.

    Parameters
    ----------
    session
        A transaction. Quotas hold under concurrency where it has written before it counts.
    settings
        The limits.
    visitor
        Who sends it.
    jobs, proteins
        The job and its proteins, where they are not in the database yet.

    Raises
    ------
    RequestError
        429, with the seconds to wait.
    """
    now = time.time()
    used = select(func.count(), func.coalesce(func.sum(Usage.proteins), 0), func.min(Usage.created_at))
    recent = used.where(Usage.visitor == visitor, Usage.created_at > now - HOUR_S)
    count, sent, first = session.execute(recent).one()
    count, sent = count + jobs, sent + proteins
    unfinished = (select(func.count()).where(each.status.in_(OPEN_STATUSES)) for each in (Job, Analysis))
    queued = sum(session.scalar(each) or 0 for each in unfinished) + jobs
    if queued > settings.max_open_jobs:
        raise request_error(
            429,
            "server_busy",
            f"{queued - 1:,} jobs are waiting or running, the limit of this site; try again in a minute.",
            retry_after=BUSY_RETRY_S,
        )
    wait = math.ceil(first + HOUR_S - now) if first else 1
    if count > settings.jobs_per_hour:
        raise request_error(
            429,
            "too_many_jobs",
            f"You started {count - 1:,} jobs in the last hour, the limit of this site; wait {wait:,} s.",
            retry_after=wait,
        )
    # A single job may exceed it: what one job may have is a limit of its own.
    if count > 1 and sent > settings.proteins_per_hour:
        raise request_error(
            429,
            "too_many_proteins_per_hour",
            f"With these you sent {sent:,} proteins in the last hour; the limit is "
            f"{settings.proteins_per_hour:,}. Wait {wait:,} s.",
            retry_after=wait,
        )


def check_submission_quota(
    session: Session, settings: Settings, visitor: str, *, submissions: int = 0, images: int = 0
) -> None:
    """Refuse a submission that exceeds the quota of its visitor, or what moderators can handle.

    Parameters
    ----------
    session, settings, visitor
        As in `check_job_quota`.
    submissions, images
        The submission and its images, where they are not in the database yet.

    Raises
    ------
    RequestError
        429, with the seconds to wait.
    """
    now = time.time()
    recent = (Submission.visitor == visitor) & (Submission.created_at > now - HOUR_S)
    sent = select(func.count(), func.min(Submission.created_at), func.count(Submission.id.distinct()))
    count, first, requests = session.execute(sent.select_from(ImagePair).join(Submission).where(recent)).one()
    count, requests = count + images, requests + submissions
    waiting = select(func.count()).where(ImagePair.status == "pending")
    pending = (session.scalar(waiting) or 0) + images
    if pending > settings.max_pending_images:
        limit = settings.max_pending_images
        message = f"With these, more than {limit:,} images wait for a moderator, the limit; try again later."
        raise request_error(429, "server_busy", message, retry_after=FULL_RETRY_S)
    if requests > 1 and count > settings.images_per_hour:
        wait, limit = max(1, int(first + HOUR_S - now)), settings.images_per_hour
        message = (
            f"With these you sent {count:,} images within an hour; the limit is {limit:,}. Wait {wait} s."
        )
        raise request_error(429, "too_many_images_per_hour", message, retry_after=wait)


def check_disk(session: Session, site: Site, visitor: str, more: int = 0) -> None:
    """Refuse what would exceed the disk budget of the site or of a visitor.

    Parameters
    ----------
    session
        As in `check_job_quota`.
    site
        The site, whose data folder may lie on a disk with little space.
    visitor
        Who sends it.
    more
        Bytes that are not in the database yet.

    Raises
    ------
    RequestError
        503 where the site has no space, 429 where the visitor has none left.
    """
    settings = site.settings
    total = (
        select(func.coalesce(func.sum(Job.disk_bytes), 0)),
        select(func.coalesce(func.sum(Submission.disk_bytes), 0)),
    )
    used = sum(int(session.scalar(each) or 0) for each in total) + more
    if used > settings.max_disk_bytes or free_bytes(settings) - more < settings.min_free_bytes:
        raise storage_full()
    own = total[0].where(Job.visitor == visitor), total[1].where(Submission.visitor == visitor)
    used = sum(int(session.scalar(each) or 0) for each in own) + more
    if used > settings.max_visitor_bytes:
        limit = settings.max_visitor_bytes
        message = (
            f"Your results and images would take {used / 1e6:,.0f} MB of the site's disk; the limit is "
            f"{limit / 1e6:,.0f} MB. Delete some that you have downloaded, or send less."
        )
        raise request_error(429, "too_much_disk", message, retry_after=FULL_RETRY_S)


def free_bytes(settings: Settings) -> int:
    """Return the free bytes of the disk of the data folder."""
    return shutil.disk_usage(settings.data).free


def storage_full() -> RequestError:
    """Return the error for a site without space."""
    message = "This site has no space left for further results; try again later, or tell the operator."
    return request_error(503, "storage_full", message, retry_after=FULL_RETRY_S)
