"""What a moderator decides."""

import time
from collections.abc import Sequence

from sqlalchemy import select, update

from deepgps.errors import InputError
from opengps.database import Sessions
from opengps.submissions.tables import ImagePair, Submission

STATUSES = ("pending", "accepted", "rejected")


def listed(sessions: Sessions, status: str | None = None) -> list[tuple[ImagePair, Submission]]:
    """List images of a status, or all, with their submissions, in the order they came."""
    chosen = select(ImagePair, Submission).join(Submission).order_by(ImagePair.number)
    if status is not None:
        chosen = chosen.where(ImagePair.status == status)
    with sessions() as session:
        return [(image_pair, submission) for image_pair, submission in session.execute(chosen)]


def decide(sessions: Sessions, numbers: Sequence[int], status: str, reason: str | None = None) -> None:
    """Accept or reject images, all of them or none; a later decision replaces an earlier one.

    Parameters
    ----------
    sessions
        The site's database.
    numbers
        Numbers of the images.
    status
        ``accepted`` or ``rejected``.
    reason
        What their contributors are told.

    Raises
    ------
    InputError
        If there is no such image.
    """
    with sessions.begin() as session:
        known = set(session.scalars(select(ImagePair.number).where(ImagePair.number.in_(numbers))))
        if missing := [number for number in numbers if number not in known]:
            raise InputError(f"There is no image {missing[0]}; see 'deepgps submissions list'.")
        decision = {"status": status, "reason": reason, "decided": time.time()}
        session.execute(update(ImagePair).where(ImagePair.number.in_(numbers)).values(decision))
