"""Submissions in the database and on disk."""

import io
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update

from deepgps.arrays import Bytes
from opengps.database import Sessions
from opengps.problems import refused
from opengps.settings import Settings
from opengps.shelf import shelf_of, submission_key
from opengps.store import VISIT_S
from opengps.submissions.reading import Read
from opengps.submissions.schemas import CONSENT, SenderFields
from opengps.submissions.tables import ImagePair, Submission

_ORPHAN_S = 3600.0
_BUSY_S = 3600


def new_id() -> str:
    """Make a submission's id: 128 random bits."""
    return secrets.token_urlsafe(16)


class Kept(StrEnum):
    """What is kept of an image, by the ends of its files' names."""

    FIELD = ".ome.tif"
    """The raw intensities of both images."""
    CROPS = ".npy"
    """Its crops, (n, 2, S, S) uint8."""
    DRAWN = ".drawn.npy"
    """Its comparison, (3, S, S) uint8: nucleus, real and drawn protein."""


def image_key(image_pair: ImagePair, kept: Kept) -> str:
    """Name a file of an image on the shelf."""
    return f"{submission_key(image_pair.submission_id)}/{image_pair.sha256}{kept}"


def write_array(settings: Settings, image_pair: ImagePair, kept: Kept, array: Bytes) -> None:
    """Write an array of an image."""
    content = io.BytesIO()
    np.save(content, array)
    shelf_of(settings).write(image_key(image_pair, kept), content.getvalue())


def read_array(settings: Settings, image_pair: ImagePair, kept: Kept) -> Bytes:
    """Read an array of an image.

    Raises
    ------
    FileNotFoundError
        If it was deleted.
    """
    content = shelf_of(settings).read(image_key(image_pair, kept))
    array: Bytes = np.load(io.BytesIO(content))
    return array


def write_files(settings: Settings, read: Read) -> None:
    """Write the files of an image: the images without loss, and the crops."""
    shelf_of(settings).write(image_key(read.image_pair, Kept.FIELD), _field(read))
    write_array(settings, read.image_pair, Kept.CROPS, read.crops)


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
        return session.scalar(select(ImagePair.number).where(ImagePair.sha256 == checksum)) is not None


def create_submission(
    sessions: Sessions,
    submission_id: str,
    sender: SenderFields,
    address: str,
    image_pairs: Sequence[ImagePair],
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
        session.add_all(image_pairs)


def check_submission_quota(sessions: Sessions, settings: Settings, address: str, image_pairs: int) -> None:
    """Refuse a submission that is too much for one address, or for the moderators.

    Raises
    ------
    RefusedError
        429, with the seconds to wait.
    """
    now = time.time()
    mine = (Submission.address == address) & (Submission.created > now - VISIT_S)
    sent = (
        select(func.count(), func.min(Submission.created)).select_from(ImagePair).join(Submission).where(mine)
    )
    with sessions() as session:
        count, first = session.execute(sent).one()
        pending = session.scalar(select(func.count()).where(ImagePair.status == "pending")) or 0
    if pending + image_pairs > settings.max_pending:
        said = f"{pending:,} images wait for the moderator, and this site takes no more; try again later."
        raise refused(429, "busy", said, retry_after=_BUSY_S)
    if count and count + image_pairs > settings.images_per_hour:
        wait, most = max(1, int(first + VISIT_S - now)), settings.images_per_hour
        said = f"You sent {count:,} images in the last hour; this site takes {most:,}. Wait {wait:,} s."
        raise refused(429, "too_many_images_per_hour", said, retry_after=wait)


def find_submission(sessions: Sessions, submission_id: str) -> Submission | None:
    """Find a submission."""
    with sessions() as session:
        return session.get(Submission, submission_id)


def images_of(sessions: Sessions, **equal: Any) -> list[ImagePair]:
    """List the images whose columns have the given values, in the order they came."""
    with sessions() as session:
        return list(session.scalars(select(ImagePair).filter_by(**equal).order_by(ImagePair.number)))


def delete_submission(sessions: Sessions, settings: Settings, submission_id: str) -> None:
    """Delete a submission, its images and their files."""
    with sessions.begin() as session:
        session.execute(delete(ImagePair).where(ImagePair.submission_id == submission_id))
        session.execute(delete(Submission).where(Submission.id == submission_id))
    shelf_of(settings).remove(submission_key(submission_id))


def delete_image(sessions: Sessions, settings: Settings, image_pair: ImagePair) -> None:
    """Delete one image and its files."""
    with sessions.begin() as session:
        session.execute(delete(ImagePair).where(ImagePair.number == image_pair.number))
    for kept in Kept:
        shelf_of(settings).remove(image_key(image_pair, kept))


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
