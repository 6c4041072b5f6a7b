"""Submissions in the database and on disk."""

import io
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, select, update

from deepgps.web.database import Sessions
from deepgps.web.problems import refused
from deepgps.web.settings import Settings
from deepgps.web.shelf import shelf_of, submission_key
from deepgps.web.store import VISIT_S
from deepgps.web.submissions.reading import Read
from deepgps.web.submissions.schemas import CONSENT, SenderFields
from deepgps.web.submissions.tables import Picture, Submission

_ORPHAN_S = 3600.0
_BUSY_S = 3600


def new_id() -> str:
    """Make a submission's id: 128 random bits."""
    return secrets.token_urlsafe(16)


class Kept(StrEnum):
    """What is kept of a picture, by the ends of its files' names."""

    FIELD = ".ome.tif"
    """The raw intensities of both images."""
    CROPS = ".npy"
    """Its crops, (n, 2, S, S) uint8."""
    DRAWN = ".drawn.npy"
    """Its comparison, (3, S, S) uint8: nucleus, real and drawn protein."""


def picture_key(picture: Picture, kept: Kept) -> str:
    """Name a file of a picture on the shelf."""
    return f"{submission_key(picture.submission_id)}/{picture.sha256}{kept}"


def write_array(settings: Settings, picture: Picture, kept: Kept, array: NDArray[np.uint8]) -> None:
    """Write an array of a picture."""
    content = io.BytesIO()
    np.save(content, array)
    shelf_of(settings).write(picture_key(picture, kept), content.getvalue())


def read_array(settings: Settings, picture: Picture, kept: Kept) -> NDArray[np.uint8]:
    """Read an array of a picture.

    Raises
    ------
    FileNotFoundError
        If it was deleted.
    """
    content = shelf_of(settings).read(picture_key(picture, kept))
    array: NDArray[np.uint8] = np.load(io.BytesIO(content))
    return array


def write_files(settings: Settings, read: Read) -> None:
    """Write the files of a picture: the images without loss, and the crops."""
    shelf_of(settings).write(picture_key(read.picture, Kept.FIELD), _field(read))
    write_array(settings, read.picture, Kept.CROPS, read.crops)


def _field(read: Read) -> bytes:
    import tifffile

    images, um, content = read.images, read.images.pixel_size_um, io.BytesIO()
    tifffile.imwrite(
        content,
        np.stack([images.nucleus, images.protein]),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["nucleus", "protein"]},
            "PhysicalSizeX": um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": um,
            "PhysicalSizeYUnit": "µm",
        },
    )
    return content.getvalue()


def is_known(sessions: Sessions, checksum: str) -> bool:
    """Whether these pixels were submitted before, whatever became of them."""
    with sessions() as session:
        return session.scalar(select(Picture.number).where(Picture.sha256 == checksum)) is not None


def create_submission(
    sessions: Sessions,
    submission_id: str,
    sender: SenderFields,
    address: str,
    pictures: Sequence[Picture],
    rejected: Sequence[dict[str, str]],
) -> None:
    """Keep a submission whose files are written."""
    submission = Submission(
        id=submission_id,
        created=time.time(),
        address=address,
        contributor=sender.contributor,
        licence=sender.licence,
        model=sender.model,
        consent=CONSENT,
        rejected=list(rejected),
    )
    with sessions.begin() as session:
        session.add(submission)
        session.flush()
        session.add_all(pictures)


def check_submission_quota(sessions: Sessions, settings: Settings, address: str, pictures: int) -> None:
    """Refuse a submission that is too much for one address, or for the moderators.

    Raises
    ------
    RefusedError
        429, with the seconds to wait.
    """
    now = time.time()
    mine = (Submission.address == address) & (Submission.created > now - VISIT_S)
    sent = (
        select(func.count(), func.min(Submission.created)).select_from(Picture).join(Submission).where(mine)
    )
    with sessions() as session:
        count, first = session.execute(sent).one()
        pending = session.scalar(select(func.count()).where(Picture.status == "pending")) or 0
    if pending + pictures > settings.max_pending:
        said = f"{pending:,} pictures wait for the moderator, and this site takes no more; try again later."
        raise refused(429, "busy", said, retry_after=_BUSY_S)
    if count and count + pictures > settings.pictures_per_hour:
        wait, most = max(1, int(first + VISIT_S - now)), settings.pictures_per_hour
        said = f"You sent {count:,} pictures in the last hour; this site takes {most:,}. Wait {wait:,} s."
        raise refused(429, "too_many_pictures_per_hour", said, retry_after=wait)


def find_submission(sessions: Sessions, submission_id: str) -> Submission | None:
    """Find a submission."""
    with sessions() as session:
        return session.get(Submission, submission_id)


def pictures_of(sessions: Sessions, **equal: Any) -> list[Picture]:
    """List the pictures whose columns have the given values, in the order they came."""
    with sessions() as session:
        return list(session.scalars(select(Picture).filter_by(**equal).order_by(Picture.number)))


def delete_submission(sessions: Sessions, settings: Settings, submission_id: str) -> None:
    """Delete a submission, its pictures and their files."""
    with sessions.begin() as session:
        session.execute(delete(Picture).where(Picture.submission_id == submission_id))
        session.execute(delete(Submission).where(Submission.id == submission_id))
    shelf_of(settings).remove(submission_key(submission_id))


def delete_picture(sessions: Sessions, settings: Settings, picture: Picture) -> None:
    """Delete one picture and its files."""
    with sessions.begin() as session:
        session.execute(delete(Picture).where(Picture.number == picture.number))
    for kept in Kept:
        shelf_of(settings).remove(picture_key(picture, kept))


def purge_submissions(sessions: Sessions, settings: Settings) -> None:
    """Forget addresses after an hour, and remove what a process that was killed left half written."""
    before = time.time() - VISIT_S
    old = (Submission.created < before) & Submission.address.is_not(None)
    with sessions.begin() as session:
        session.execute(update(Submission).where(old).values(address=None))
        known = set(session.scalars(select(Submission.id)))
    shelf = shelf_of(settings)
    for name in shelf.names("submissions"):
        if name not in known and shelf.changed(submission_key(name)) < time.time() - _ORPHAN_S:
            shelf.remove(submission_key(name))
