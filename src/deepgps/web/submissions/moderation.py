"""What a moderator decides."""

import time
from collections.abc import Sequence

from sqlalchemy import select, update

from deepgps.errors import InputError
from deepgps.web.database import Sessions
from deepgps.web.submissions.tables import Picture, Submission

STATUSES = ("pending", "accepted", "rejected")


def listed(sessions: Sessions, status: str | None = None) -> list[tuple[Picture, Submission]]:
    """List pictures of a status, or all, with their submissions, in the order they came."""
    chosen = select(Picture, Submission).join(Submission).order_by(Picture.number)
    if status is not None:
        chosen = chosen.where(Picture.status == status)
    with sessions() as session:
        return [(picture, submission) for picture, submission in session.execute(chosen)]


def decide(sessions: Sessions, numbers: Sequence[int], status: str, reason: str | None = None) -> None:
    """Accept or reject pictures, all of them or none; a later decision replaces an earlier one.

    Parameters
    ----------
    sessions
        The site's database.
    numbers
        Numbers of the pictures.
    status
        ``accepted`` or ``rejected``.
    reason
        What their contributors are told.

    Raises
    ------
    InputError
        If there is no such picture.
    """
    with sessions.begin() as session:
        known = set(session.scalars(select(Picture.number).where(Picture.number.in_(numbers))))
        if missing := [number for number in numbers if number not in known]:
            raise InputError(f"There is no picture {missing[0]}; see 'deepgps submissions list'.")
        decision = {"status": status, "reason": reason, "decided": time.time()}
        session.execute(update(Picture).where(Picture.number.in_(numbers)).values(decision))
