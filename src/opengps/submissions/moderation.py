"""Moderation on the site, for whoever the operator names: a page, and its twin in the API."""

import base64
import binascii
import hmac
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from deepgps.errors import InputError
from opengps.database import Decision, iso_time
from opengps.errors import ErrorResponse, not_found, request_error, unauthorized
from opengps.jobs import SiteDep
from opengps.rendering import page
from opengps.schemas import MAX_INTEGER
from opengps.security import FROM_PROXY
from opengps.settings import Settings
from opengps.submissions.routes import image_status
from opengps.submissions.schemas import DecisionFields, DecisionRecord, ModerationQueue, QueuedImage
from opengps.submissions.store import decisions, images_by_status, moderate

_CHALLENGE = 'Basic realm="openGPS moderation", charset="UTF-8"'
_PER_PAGE = 50
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 403, 404, 408, 413, 422, 429, 503)
}

api_router = APIRouter(tags=["moderation"], responses=_REFUSED)
pages_router = APIRouter()
Status = Literal["pending", "accepted", "rejected"]


def get_moderator(request: Request, site: SiteDep) -> str:
    """Return who moderates: the owner of the token, or the user that a trusted proxy names.

    Raises
    ------
    RequestError
        401 without a valid token, 403 for another user of the proxy, 404 if there is no moderation on the
        site.
    """
    settings = site.settings
    if not (settings.moderator_tokens or settings.moderators):
        raise not_found("There is no moderation on this site; see 'deepgps submissions'.", "path")
    user = request.headers.get(settings.moderator_header, "") if settings.moderator_header else ""
    if user and request.scope.get(FROM_PROXY):
        if user in {name.strip() for name in settings.moderators.split(",")}:
            return user
        raise request_error(403, "forbidden", f"User '{user[:100]}' may not moderate; ask the operator.")
    token = _sent_token(request.headers.get("authorization", ""))
    for name, expected in moderator_tokens(settings):
        if hmac.compare_digest(token.encode(), expected.encode()):
            return name
    raise unauthorized("Moderators need their token, as a password or as 'Bearer TOKEN'.", _CHALLENGE)


ModeratorDep = Annotated[str, Depends(get_moderator)]
ImageNumber = Annotated[int, Path(ge=1, le=MAX_INTEGER, description="Number of the image")]


def moderator_tokens(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield name and token of each moderator in the settings."""
    for pair in settings.moderator_tokens.split(","):
        name, _, token = pair.strip().partition(":")
        if name and token:
            yield name, token


def _sent_token(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


@api_router.get("/moderation")
def list_moderation(
    site: SiteDep,
    moderator: ModeratorDep,
    status: Annotated[Status, Query(description="Which images to list")] = "pending",
) -> ModerationQueue:
    """List submitted images for their moderators."""
    return _queue(site, moderator, status)


@api_router.post("/moderation/{number}")
def decide_image(
    site: SiteDep, moderator: ModeratorDep, number: ImageNumber, decision: DecisionFields
) -> list[DecisionRecord]:
    """Accept or reject an image; the response lists all decisions about it."""
    _decide(site, moderator, number, decision.status, decision.reason)
    return [_record(each) for each in decisions(site.sessions, number)]


def _queue(site: SiteDep, moderator: str, status: Status) -> ModerationQueue:
    found = images_by_status(site.sessions, status, limit=_PER_PAGE)
    return ModerationQueue(
        moderator=moderator,
        images=[
            QueuedImage(
                contributor=submission.contributor,
                licence=submission.licence,
                image=image_status(site, image),
                decisions=[_record(each) for each in decisions(site.sessions, image.number)],
            )
            for image, submission in found
        ],
    )


def _record(decision: Decision) -> DecisionRecord:
    return DecisionRecord(
        status=decision.status,
        reason=decision.reason,
        moderator=decision.moderator,
        decided_at=iso_time(decision.decided_at),
    )


def _decide(site: SiteDep, moderator: str, number: int, status: str, reason: str | None) -> None:
    try:
        moderate(site.sessions, [number], status, reason or None, moderator)
    except InputError:
        raise not_found(f"There is no image {number}.", "number") from None


@pages_router.get("/moderation")
def show_moderation(
    request: Request, site: SiteDep, moderator: ModeratorDep, status: Status = "pending"
) -> Response:
    """The page of moderators: what waits, and what was decided."""
    return page(request, "moderation.html", status=status, queue=_queue(site, moderator, status))


@pages_router.post("/moderation/{number}")
def decide_image_page(
    site: SiteDep,
    moderator: ModeratorDep,
    number: ImageNumber,
    status: Annotated[str, Form()],
    reason: Annotated[str, Form(max_length=1000)] = "",
) -> Response:
    """Accept or reject an image."""
    if status not in ("accepted", "rejected"):
        raise request_error(422, "validation_error", "Accept the image, or reject it.", "status")
    _decide(site, moderator, number, status, reason.strip())
    return RedirectResponse("/moderation", 303)
