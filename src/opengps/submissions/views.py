"""What pages and API both show of a submission, and its images as files."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path
from fastapi.responses import Response
from PIL import Image

from deepgps.results.images import overlay, stretched
from opengps.catalogue import grey_png, png
from opengps.downloads import MISSING, kinds
from opengps.problems import not_found
from opengps.queue import Site
from opengps.rendering import API, when
from opengps.submissions.schemas import Comparison, ImageStatus, Refusal, SubmissionStatus
from opengps.submissions.store import Kept, find_submission, images_of, read_array
from opengps.submissions.tables import ImagePair, Submission
from opengps.views import SiteHere

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
Number = Annotated[int, Path(ge=1, le=_MOST_NUMBER, description="The image's number")]


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


def image_of(site: SiteHere, submission: SubmissionHere, number: Number) -> ImagePair:
    """Find the image that an address names.

    Raises
    ------
    RefusedError
        404 if it is not of this submission.
    """
    found = images_of(site.sessions, submission_id=submission.id, number=number)
    if not found:
        raise not_found(f"There is no image {number} in this submission.", "number")
    return found[0]


ImageHere = Annotated[ImagePair, Depends(image_of)]


def status_of(site: Site, submission: Submission) -> SubmissionStatus:
    """Describe a submission."""
    image_pairs = images_of(site.sessions, submission_id=submission.id)
    here = f"{API}/submissions/{submission.id}"
    return SubmissionStatus(
        id=submission.id,
        created=when(submission.created) or "",
        contributor=submission.contributor,
        licence=submission.licence,
        image_pairs=[image_status(site, each) for each in image_pairs],
        rejected=[Refusal(**each) for each in submission.rejected],
        links={"self": here, "page": f"/submissions/{submission.id}"},
    )


def image_status(site: Site, image_pair: ImagePair) -> ImageStatus:
    """Describe an image."""
    comparison = image_pair.comparison
    return ImageStatus(
        number=image_pair.number,
        status=image_pair.status,
        reason=image_pair.reason,
        protein=image_pair.protein_id,
        localizations=image_pair.localizations.split("|"),
        cell_line=image_pair.cell_line,
        microscope=image_pair.microscope,
        pixel_size_um=image_pair.pixel_size_um,
        sha256=image_pair.sha256,
        crops=len(image_pair.rows),
        comparison=None if comparison is None else Comparison(**comparison),
        problem=image_pair.problem or _gave_up(site, image_pair),
        links=_links(image_pair),
    )


def _gave_up(site: Site, image_pair: ImagePair) -> str | None:
    if image_pair.comparison is None and image_pair.attempts >= site.settings.max_attempts:
        return "It could not be compared; its operator finds the reason in the worker's log."
    return None


def _links(image_pair: ImagePair) -> dict[str, str]:
    here = f"{API}/submissions/{image_pair.submission_id}/images/{image_pair.number}"
    shown = [name for name in LAYERS if image_pair.comparison is not None or not name.startswith("drawn")]
    return {"self": here, **{name: f"{here}/{name}" for name in shown}}


@router.get("/submissions/{submission_id}/images/{number}/{layer}.png", **kinds("image/png"))
def image_layer(site: SiteHere, image_pair: ImageHere, layer: str) -> Response:
    """Get an image's crop, stretched for display: as sent, or as the model draws it."""
    name = f"{layer}.png"
    if name not in LAYERS:
        raise not_found(f"There is no layer '{layer[:80]}'; there is: {', '.join(LAYERS)}.", "layer")
    try:
        if image_pair.comparison is not None:
            stack = read_array(site.settings, image_pair, Kept.DRAWN)
        elif not name.startswith("drawn"):
            stack = read_array(site.settings, image_pair, Kept.CROPS)[image_pair.shown]
        else:
            raise not_found(f"Image {image_pair.number} is not compared yet.", "layer")
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
