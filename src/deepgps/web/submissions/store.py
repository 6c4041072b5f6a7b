"""Submissions in the database and on disk."""

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, func, select, update

from deepgps.web.database import Sessions
from deepgps.web.problems import refused
from deepgps.web.settings import Settings
from deepgps.web.store import VISIT_S
from deepgps.web.submissions.reading import Read
from deepgps.web.submissions.schemas import CONSENT, SenderFields
from deepgps.web.submissions.tables import Picture, Submission

_ORPHAN_S = 3600.0
_BUSY_S = 3600


def new_id() -> str:
    """Make a submission's id: 128 random bits."""
    return secrets.token_urlsafe(16)


def field_file(folder: Path, picture: Picture) -> Path:
    """Name the file of the raw intensities of a picture."""
    return folder / f"{picture.sha256}.ome.tif"


def crops_file(folder: Path, picture: Picture) -> Path:
    """Name the file of its crops, (n, 2, S, S) uint8."""
    return folder / f"{picture.sha256}.npy"


def drawn_file(folder: Path, picture: Picture) -> Path:
    """Name the file of its comparison, (3, S, S) uint8: nucleus, real and drawn protein."""
    return folder / f"{picture.sha256}.drawn.npy"


def write_files(folder: Path, read: Read) -> None:
    """Write the files of a picture: the images without loss, and the crops."""
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    images, um = read.images, read.images.pixel_size_um
    tifffile.imwrite(
        field_file(folder, read.picture),
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
    np.save(crops_file(folder, read.picture), read.crops)


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
    for picture in pictures:
        picture.submission_id = submission_id
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
    shutil.rmtree(settings.submission_folder(submission_id), ignore_errors=True)


def delete_picture(sessions: Sessions, settings: Settings, picture: Picture) -> None:
    """Delete one picture and its files."""
    with sessions.begin() as session:
        session.execute(delete(Picture).where(Picture.number == picture.number))
    folder = settings.submission_folder(picture.submission_id)
    files: tuple[Callable[[Path, Picture], Path], ...] = (field_file, crops_file, drawn_file)
    for name in files:
        name(folder, picture).unlink(missing_ok=True)


def purge_submissions(sessions: Sessions, settings: Settings) -> None:
    """Forget addresses after an hour, and remove what a process that was killed left half written."""
    before = time.time() - VISIT_S
    old = (Submission.created < before) & Submission.address.is_not(None)
    with sessions.begin() as session:
        session.execute(update(Submission).where(old).values(address=None))
        known = set(session.scalars(select(Submission.id)))
    for folder in (settings.data / "submissions").glob("*"):
        if folder.name not in known and folder.stat().st_mtime < time.time() - _ORPHAN_S:
            shutil.rmtree(folder, ignore_errors=True)
