"""What pages and API both show of a submission, and its pictures as files."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from PIL import Image

from deepgps.results.pictures import overlay, stretched
from deepgps.web.catalogue import grey_png, png
from deepgps.web.downloads import MISSING, kinds
from deepgps.web.problems import not_found
from deepgps.web.queue import Site
from deepgps.web.rendering import API, when
from deepgps.web.submissions.schemas import Comparison, PictureStatus, Refusal, SubmissionStatus
from deepgps.web.submissions.store import Kept, find_submission, pictures_of, read_array
from deepgps.web.submissions.tables import Picture, Submission
from deepgps.web.views import SiteHere

LAYERS: Mapping[str, str] = {
    "nucleus.png": "the nucleus",
    "protein.png": "the protein, as sent",
    "overlay.png": "both",
    "drawn.png": "the protein, as the model draws it",
    "drawn-overlay.png": "the drawn protein in the nucleus",
}
_MOST_NUMBER = 2**31 - 1
_GONE = "There is no such submission; it may be deleted."

router = APIRouter(responses=MISSING, tags=["submissions"])
Number = Annotated[int, Path(ge=1, le=_MOST_NUMBER, description="The picture's number")]


def submission_of(
    site: SiteHere, submission_id: Annotated[str, Path(description="The submission's id")]
) -> Submission:
    """Find the submission that an address names.

    Raises
    ------
    RefusedError
        404 if there is none.
    """
    submission = find_submission(site.sessions, submission_id) if "\0" not in submission_id else None
    if submission is None:
        raise not_found(_GONE, "submission_id")
    return submission


SubmissionHere = Annotated[Submission, Depends(submission_of)]


def picture_of(site: SiteHere, submission: SubmissionHere, number: Number) -> Picture:
    """Find the picture that an address names.

    Raises
    ------
    RefusedError
        404 if it is not of this submission.
    """
    found = pictures_of(site.sessions, submission_id=submission.id, number=number)
    if not found:
        raise not_found(f"There is no picture {number} in this submission.", "number")
    return found[0]


PictureHere = Annotated[Picture, Depends(picture_of)]


def status_of(site: Site, submission: Submission) -> SubmissionStatus:
    """Describe a submission."""
    pictures = pictures_of(site.sessions, submission_id=submission.id)
    here = f"{API}/submissions/{submission.id}"
    return SubmissionStatus(
        id=submission.id,
        created=when(submission.created) or "",
        contributor=submission.contributor,
        licence=submission.licence,
        pictures=[picture_status(site, each) for each in pictures],
        rejected=[Refusal(**each) for each in submission.rejected],
        links={"self": here, "page": f"/submissions/{submission.id}"},
    )


def picture_status(site: Site, picture: Picture) -> PictureStatus:
    """Describe a picture."""
    comparison = picture.comparison
    return PictureStatus(
        number=picture.number,
        status=picture.status,
        reason=picture.reason,
        protein=picture.protein_id,
        localizations=picture.localizations.split("|"),
        cell_line=picture.cell_line,
        microscope=picture.microscope,
        pixel_size_um=picture.pixel_size_um,
        sha256=picture.sha256,
        crops=len(picture.rows),
        comparison=None if comparison is None else Comparison(**comparison),
        problem=picture.problem or _gave_up(site, picture),
        links=_links(picture),
    )


def _gave_up(site: Site, picture: Picture) -> str | None:
    if picture.comparison is None and picture.attempts >= site.settings.max_attempts:
        return "It could not be compared; its operator finds the reason in the worker's log."
    return None


def _links(picture: Picture) -> dict[str, str]:
    here = f"{API}/submissions/{picture.submission_id}/pictures/{picture.number}"
    shown = [name for name in LAYERS if picture.comparison is not None or not name.startswith("drawn")]
    return {"self": here, **{name: f"{here}/{name}" for name in shown}}


@router.get("/submissions/{submission_id}/pictures/{number}/{layer}.png", **kinds("image/png"))
def picture_layer(site: SiteHere, picture: PictureHere, layer: str) -> Response:
    """Get a picture's crop, stretched for display: as sent, or as the model draws it."""
    name = f"{layer}.png"
    if name not in LAYERS:
        raise not_found(f"There is no layer '{layer[:80]}'; there is: {', '.join(LAYERS)}.", "layer")
    try:
        if picture.comparison is not None:
            stack = read_array(site.settings, picture, Kept.DRAWN)
        elif not name.startswith("drawn"):
            stack = read_array(site.settings, picture, Kept.CROPS)[picture.shown]
        else:
            raise not_found(f"Picture {picture.number} is not compared yet.", "layer")
    except FileNotFoundError:
        raise not_found(_GONE, "submission_id") from None
    headers = {"Cache-Control": "private, max-age=60"}
    return Response(
        _layer(np.asarray(stack, np.float32) / 255, name), media_type="image/png", headers=headers
    )


def _layer(stack: Any, name: str) -> bytes:
    nucleus, protein = stack[0], stack[2 if name.startswith("drawn") else 1]
    if name.endswith("overlay.png"):
        return png(Image.fromarray(overlay(stretched(nucleus), stretched(protein))))
    return grey_png(nucleus if name == "nucleus.png" else protein)
