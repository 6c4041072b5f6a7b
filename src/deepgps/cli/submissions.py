"""``deepgps submissions``: moderate the images that were submitted to an openGPS website."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from opengps.database import ImagePair, Submission
    from opengps.site import Site

_Flag = Annotated[bool, Parameter(negative=())]


def _open(data: Path | None) -> "Site":
    from deepgps.errors import InputError
    from opengps.settings import Settings
    from opengps.site import open_site

    settings = Settings.load(data=data)
    if not settings.database_url and not (settings.data / "opengps.db").exists():
        raise InputError(f"'{settings.data}' is not the folder of a website; give it with --data.")
    return open_site(settings)


def list_submissions(
    *, data: Path | None = None, status: Literal["pending", "accepted", "rejected", "all"] = "pending"
) -> None:
    """List submitted images, tab-separated.

    Parameters
    ----------
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    status
        Which images to list.
    """
    from opengps.submissions.store import images_by_status

    site = _open(data)
    header = (
        *("number", "status", "protein", "localizations", "cell_line", "cells", "r", "ssim", "predicted"),
        *("contributor", "licence", "page"),
    )
    print("\t".join(header))
    for image, submission in images_by_status(site.sessions, None if status == "all" else status):
        print("\t".join(_values(image, submission)))


def _values(image: "ImagePair", submission: "Submission") -> tuple[str, ...]:
    comparison = image.comparison or {}
    r, ssim = ("" if comparison.get(name) is None else f"{comparison[name]:.3f}" for name in ("r", "ssim"))
    return (
        *(str(image.number), image.status, image.protein_id, image.localizations),
        *(image.cell_line, str(len(image.crops)), r, ssim, "|".join(comparison.get("localizations", ()))),
        *(submission.contributor, submission.licence, f"/submissions/{submission.id}"),
    )


def accept(*numbers: int, data: Path | None = None) -> None:
    """Accept images, so that they are exported.

    Parameters
    ----------
    numbers
        Numbers of the images, as ``list`` shows them.
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    """
    _moderate(numbers, "accepted", None, data)


def reject(*numbers: int, reason: str | None = None, data: Path | None = None) -> None:
    """Reject images.

    Parameters
    ----------
    numbers
        Numbers of the images, as ``list`` shows them.
    reason
        Shown to the contributor.
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    """
    _moderate(numbers, "rejected", reason, data)


def _moderate(numbers: tuple[int, ...], status: str, reason: str | None, data: Path | None) -> None:
    from deepgps.errors import InputError
    from opengps.submissions.store import moderate

    if not numbers:
        raise InputError("No image is given; give numbers as 'deepgps submissions list' shows them.")
    moderator = f"{getpass.getuser()}, on the command line"
    moderate(_open(data).sessions, numbers, status, reason, moderator)
    print(f"{status}: {', '.join(map(str, numbers))}")


def export_submissions(out: Path, *, data: Path | None = None, overwrite: _Flag = False) -> None:
    """Write the accepted images to a crop store.

    Parameters
    ----------
    out
        Folder of the store; created if missing.
    data
        Folder of the website; ``OPENGPS_DATA`` if not given.
    overwrite
        Replace an earlier export.
    """
    from opengps.submissions.export import export_accepted

    done = export_accepted(_open(data), out, overwrite=overwrite)
    print(f"Wrote {done.crops:,} crops of {done.proteins:,} proteins from {done.images:,} images to {out}.")
