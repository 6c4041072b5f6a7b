"""Submissions in the database and in the file storage; what moderators decide."""

import io
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select, update

from deepgps.errors import InputError
from opengps.database import Decision, ImagePair, Sessions, Submission, forget_deleted
from opengps.jobs import DAY_S, remove_orphans
from opengps.quotas import check_disk, check_submission_quota, lock_quotas
from opengps.site import Site
from opengps.storage import submission_key
from opengps.submissions.schemas import CONSENT, SubmissionFields

STATUSES = ("pending", "accepted", "rejected")


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
    visitor: str,
    images: Sequence[ImagePair],
    rejected: Sequence[dict[str, str]],
) -> None:
    """Add a submission, whose files are stored already, to the database.

    Raises
    ------
    RequestError
        If it exceeds a quota; quotas are counted in the transaction that adds it.
    """
    submission = Submission(
        id=submission_id,
        created_at=time.time(),
        visitor=visitor,
        disk_bytes=site.storage.size(submission_key(submission_id)),
        contributor=fields.contributor,
        licence=fields.licence,
        model=fields.model,
        consent=CONSENT,
        rejected=list(rejected),
    )
    with site.sessions.begin() as session:
        lock_quotas(session)
        session.add(submission)
        session.flush()
        session.add_all(images)
        session.flush()
        check_submission_quota(session, site.settings, visitor)
        check_disk(session, site, visitor)


def get_images(site: Site, **equal: Any) -> list[ImagePair]:
    """Return the images whose columns have these values, in the order they were sent."""
    with site.sessions() as session:
        return list(session.scalars(select(ImagePair).filter_by(**equal).order_by(ImagePair.number)))


def images_by_status(
    sessions: Sessions, status: str | None = None, limit: int | None = None
) -> list[tuple[ImagePair, Submission]]:
    """Return the images of one status, or all, with their submissions, in the order they were sent."""
    chosen = select(ImagePair, Submission).join(Submission).order_by(ImagePair.number).limit(limit)
    if status is not None:
        chosen = chosen.where(ImagePair.status == status)
    with sessions() as session:
        return [(image, submission) for image, submission in session.execute(chosen)]


def decisions(sessions: Sessions, number: int) -> list[Decision]:
    """Return all decisions about an image, the newest first."""
    chosen = select(Decision).where(Decision.image == number).order_by(Decision.id.desc())
    with sessions() as session:
        return list(session.scalars(chosen))


def moderate(
    sessions: Sessions, numbers: Sequence[int], status: str, reason: str | None, moderator: str
) -> None:
    """Accept or reject images, all or none of them; a later decision replaces an earlier one.

    Each decision is recorded with its moderator, and stays when the image is deleted.

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
    moderator
        Who decides.

    Raises
    ------
    InputError
        If an image does not exist.
    """
    with sessions.begin() as session:
        chosen = select(ImagePair.number, ImagePair.sha256).where(ImagePair.number.in_(numbers))
        known = {row.number: row.sha256 for row in session.execute(chosen)}
        if missing := [number for number in numbers if number not in known]:
            raise InputError(f"There is no image {missing[0]}; see 'deepgps submissions list'.")
        now = time.time()
        decision = {"status": status, "reason": reason, "decided_at": now, "decided_by": moderator}
        session.execute(update(ImagePair).where(ImagePair.number.in_(numbers)).values(decision))
        session.add_all(
            Decision(
                image=number,
                sha256=sha256,
                status=status,
                reason=reason,
                moderator=moderator,
                decided_at=now,
            )
            for number, sha256 in known.items()
        )


def delete_submission(site: Site, submission_id: str) -> None:
    """Delete a submission, its images and their files."""
    with site.sessions.begin() as session:
        session.execute(delete(Submission).where(Submission.id == submission_id))
    forget_deleted(site.sessions)
    site.storage.remove(submission_key(submission_id))


def delete_image(site: Site, image: ImagePair) -> None:
    """Delete one image and its files."""
    with site.sessions.begin() as session:
        session.execute(delete(ImagePair).where(ImagePair.number == image.number))
    forget_deleted(site.sessions)
    for file in ImageFile:
        site.storage.remove(image_key(image, file))


def purge_submissions(site: Site) -> None:
    """Forget who sent old submissions, and delete files of submissions that were never completed."""
    kept_s = site.settings.retention_days * DAY_S
    old = (Submission.created_at < time.time() - kept_s) & Submission.visitor.is_not(None)
    with site.sessions.begin() as session:
        session.execute(update(Submission).where(old).values(visitor=None))
        known = set(session.scalars(select(Submission.id)))
    remove_orphans(site, "submissions", known)
