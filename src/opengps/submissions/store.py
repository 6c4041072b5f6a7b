"""Submissions in the database and in the file storage; what moderators decide."""

import io
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update

from deepgps.errors import InputError
from opengps.database import ImagePair, Sessions, Submission
from opengps.errors import request_error
from opengps.jobs import HOUR_S, remove_orphans
from opengps.site import Site
from opengps.storage import submission_key
from opengps.submissions.schemas import CONSENT, SubmissionFields

STATUSES = ("pending", "accepted", "rejected")
_BUSY_RETRY_S = 3600


def new_submission_id() -> str:
    """Return a new id: 128 random bits."""
    return secrets.token_urlsafe(16)


class ImageFile(StrEnum):
    """The stored files of an image, by the ends of their names."""

    FIELD = ".ome.tif"
    """Both images as sent, without loss."""
    CROPS = ".npy"
    """Its crops, (n, 2, S, S) uint8: nucleus and protein."""
    COMPARISON = ".comparison.npy"
    """The compared crop, (3, S, S) uint8: nucleus, submitted protein, drawn protein."""


def image_key(image: ImagePair, file: ImageFile) -> str:
    """Return the storage key of a file of an image."""
    return f"{submission_key(image.submission_id)}/{image.sha256}{file}"


def write_array(site: Site, image: ImagePair, file: ImageFile, array: NDArray[np.uint8]) -> None:
    """Store an array of an image."""
    content = io.BytesIO()
    np.save(content, array)
    site.storage.write({image_key(image, file): content.getvalue()})


def read_array(site: Site, image: ImagePair, file: ImageFile) -> NDArray[np.uint8]:
    """Read an array of an image.

    Raises
    ------
    FileNotFoundError
        If it was deleted.
    """
    array: NDArray[np.uint8] = np.load(io.BytesIO(site.storage.read(image_key(image, file))))
    return array


def is_duplicate(site: Site, sha256: str) -> bool:
    """Return whether these pixels were submitted before, whatever was decided."""
    with site.sessions() as session:
        return session.scalar(select(ImagePair.number).where(ImagePair.sha256 == sha256)) is not None


def add_submission(
    site: Site,
    submission_id: str,
    fields: SubmissionFields,
    address: str,
    images: Sequence[ImagePair],
    rejected: Sequence[dict[str, str]],
) -> None:
    """Add a submission, whose files are stored already, to the database."""
    submission = Submission(
        id=submission_id,
        created_at=time.time(),
        address=address,
        contributor=fields.contributor,
        licence=fields.licence,
        model=fields.model,
        consent=CONSENT,
        rejected=list(rejected),
    )
    with site.sessions.begin() as session:
        session.add(submission)
        session.flush()
        session.add_all(images)


def check_submission_quota(site: Site, address: str, images: int) -> None:
    """Refuse a submission that exceeds the quota of its address, or what moderators can handle.

    Raises
    ------
    RequestError
        429, with the seconds to wait.
    """
    now, settings = time.time(), site.settings
    recent = (Submission.address == address) & (Submission.created_at > now - HOUR_S)
    sent = select(func.count(), func.min(Submission.created_at)).select_from(ImagePair).join(Submission)
    with site.sessions() as session:
        count, first = session.execute(sent.where(recent)).one()
        pending = session.scalar(select(func.count()).where(ImagePair.status == "pending")) or 0
    if pending + images > settings.max_pending_images:
        message = f"{pending:,} images wait for a moderator, the limit of this site; try again later."
        raise request_error(429, "server_busy", message, retry_after=_BUSY_RETRY_S)
    if count and count + images > settings.images_per_hour:
        wait, limit = max(1, int(first + HOUR_S - now)), settings.images_per_hour
        message = f"You sent {count:,} images in the last hour; the limit is {limit:,}. Wait {wait:,} s."
        raise request_error(429, "too_many_images_per_hour", message, retry_after=wait)


def get_images(site: Site, **equal: Any) -> list[ImagePair]:
    """Return the images whose columns have these values, in the order they were sent."""
    with site.sessions() as session:
        return list(session.scalars(select(ImagePair).filter_by(**equal).order_by(ImagePair.number)))


def images_by_status(sessions: Sessions, status: str | None = None) -> list[tuple[ImagePair, Submission]]:
    """Return the images of one status, or all, with their submissions, in the order they were sent."""
    chosen = select(ImagePair, Submission).join(Submission).order_by(ImagePair.number)
    if status is not None:
        chosen = chosen.where(ImagePair.status == status)
    with sessions() as session:
        return [(image, submission) for image, submission in session.execute(chosen)]


def moderate(sessions: Sessions, numbers: Sequence[int], status: str, reason: str | None = None) -> None:
    """Accept or reject images, all or none of them; a later decision replaces an earlier one.

    Parameters
    ----------
    sessions
        The database.
    numbers
        Numbers of the images.
    status
        ``accepted`` or ``rejected``.
    reason
        Shown to the contributors.

    Raises
    ------
    InputError
        If an image does not exist.
    """
    with sessions.begin() as session:
        known = set(session.scalars(select(ImagePair.number).where(ImagePair.number.in_(numbers))))
        if missing := [number for number in numbers if number not in known]:
            raise InputError(f"There is no image {missing[0]}; see 'deepgps submissions list'.")
        decision = {"status": status, "reason": reason, "decided_at": time.time()}
        session.execute(update(ImagePair).where(ImagePair.number.in_(numbers)).values(decision))


def delete_submission(site: Site, submission_id: str) -> None:
    """Delete a submission, its images and their files."""
    with site.sessions.begin() as session:
        session.execute(delete(Submission).where(Submission.id == submission_id))
    site.storage.remove(submission_key(submission_id))


def delete_image(site: Site, image: ImagePair) -> None:
    """Delete one image and its files."""
    with site.sessions.begin() as session:
        session.execute(delete(ImagePair).where(ImagePair.number == image.number))
    for file in ImageFile:
        site.storage.remove(image_key(image, file))


def purge_submissions(site: Site) -> None:
    """Delete addresses after an hour, and files of submissions that were never completed."""
    old = (Submission.created_at < time.time() - HOUR_S) & Submission.address.is_not(None)
    with site.sessions.begin() as session:
        session.execute(update(Submission).where(old).values(address=None))
        known = set(session.scalars(select(Submission.id)))
    remove_orphans(site, "submissions", known)
