"""``deepgps submissions``: what a moderator of an openGPS website does with the images sent to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from opengps.database import Sessions
    from opengps.settings import Settings
    from opengps.submissions.tables import ImagePair, Submission

_Flag = Annotated[bool, Parameter(negative=())]


def _open(data: Path | None) -> tuple["Sessions", "Settings"]:
    from deepgps.errors import InputError
    from opengps.database import connect
    from opengps.settings import Settings

    settings = Settings.load(data=data)
    if not settings.database_url and not (settings.data / "opengps.db").exists():
        raise InputError(f"'{settings.data}' holds no website; give its folder with --data.")
    return connect(settings), settings


def list_submissions(
    *, data: Path | None = None, status: Literal["pending", "accepted", "rejected", "all"] = "pending"
) -> None:
    """List submitted images, tab-separated.

    Parameters
    ----------
    data
        Folder of the website; ``OPENGPS_DATA`` where it is not given.
    status
        Which to list.
    """
    from opengps.submissions.moderation import listed

    sessions, _ = _open(data)
    header = (
        *("number", "status", "protein", "localizations", "cell_line", "cells", "r", "ssim", "model_says"),
        *("contributor", "licence", "page"),
    )
    print("\t".join(header))
    for image, submission in listed(sessions, None if status == "all" else status):
        print("\t".join(_cells(image, submission)))


def _cells(image: "ImagePair", submission: "Submission") -> tuple[str, ...]:
    found = image.comparison or {}
    r, ssim = ("" if found.get(name) is None else f"{found[name]:.3f}" for name in ("r", "ssim"))
    return (
        *(str(image.number), image.status, image.protein_id, image.localizations),
        *(image.cell_line, str(len(image.rows)), r, ssim, "|".join(found.get("localizations", ()))),
        *(submission.contributor, submission.licence, f"/submissions/{submission.id}"),
    )


def accept(*numbers: int, data: Path | None = None) -> None:
    """Accept images, so that they are exported.

    Parameters
    ----------
    numbers
        Numbers of the images, as ``list`` shows them.
    data
        Folder of the website; ``OPENGPS_DATA`` where it is not given.
    """
    _decide(numbers, "accepted", None, data)


def reject(*numbers: int, reason: str | None = None, data: Path | None = None) -> None:
    """Reject images.

    Parameters
    ----------
    numbers
        Numbers of the images, as ``list`` shows them.
    reason
        What the contributor is told.
    data
        Folder of the website; ``OPENGPS_DATA`` where it is not given.
    """
    _decide(numbers, "rejected", reason, data)


def _decide(numbers: tuple[int, ...], status: str, reason: str | None, data: Path | None) -> None:
    from deepgps.errors import InputError
    from opengps.submissions.moderation import decide

    if not numbers:
        raise InputError("No image is named; give numbers as 'deepgps submissions list' shows them.")
    sessions, _ = _open(data)
    decide(sessions, numbers, status, reason)
    print(f"{status}: {', '.join(map(str, numbers))}")


def export(out: Path, *, data: Path | None = None, overwrite: _Flag = False) -> None:
    """Write the accepted images to a crop store.

    Parameters
    ----------
    out
        Folder of the store; made if missing.
    data
        Folder of the website; ``OPENGPS_DATA`` where it is not given.
    overwrite
        Replace what it holds of an earlier export.
    """
    from opengps.submissions.export import export_accepted

    sessions, settings = _open(data)
    done = export_accepted(sessions, settings, out, overwrite=overwrite)
    print(
        f"{done.crops:,} crops of {done.proteins:,} proteins from {done.image_pairs:,} images are in {out}."
    )
