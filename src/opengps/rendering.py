"""Templates, and errors as a page or as JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.templating import Jinja2Templates

from deepgps import __version__
from deepgps.localization import display_name
from deepgps.reporting.charts import bar
from deepgps.reporting.pages import source_link
from opengps.errors import RequestError
from opengps.models import describe_classes, unavailable_reason
from opengps.schemas import API

PACKAGE = Path(__file__).parent

templates = Jinja2Templates(directory=PACKAGE / "templates")
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def format_time(seconds: float) -> str:
    """Format a time for a page."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y, %H:%M UTC")


def largest(changes: Mapping[str, float], count: int) -> list[str]:
    """Return the names of the changes that are furthest from 0."""
    return sorted(changes, key=lambda name: -abs(changes[name]))[:count]


def format_bytes(count: int) -> str:
    """Format a number of bytes for a page."""
    return f"{count / 1e6:g} MB" if count >= 1e5 else f"{count:,} bytes"


def nucleus_image_url(name: str, model: str, root: str) -> str:
    """Return the address of the image of a default nucleus, fitted to a model's crops if one is named."""
    return f"{root}{API}/nuclei/{name}/image.png" + (f"?{urlencode({'model': model})}" if model else "")


def _static_hash() -> str:
    """Hash styles and scripts, so that browsers may cache them until they change."""
    digest = sha256()
    for file in sorted((PACKAGE / "static").glob("*.*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


templates.env.filters |= {
    "class_name": display_name,
    "largest": largest,
    "time": format_time,
    "bytes": format_bytes,
}
templates.env.globals |= {
    "version": __version__,
    "bar": bar,
    "static_hash": _static_hash(),
    "describe_classes": describe_classes,
    "unavailable_reason": unavailable_reason,
    "source_link": source_link,
}


def page(request: Request, template: str, status: int = 200, /, **context: Any) -> Response:
    """Render a page."""
    settings = request.app.state.site.settings
    root = settings.root_path
    context |= {"settings": settings, "root": root, "api": root + API}
    context["base_url"] = str(request.base_url).rstrip("/")
    context["nucleus_image_url"] = partial(nucleus_image_url, root=root)
    response = templates.TemplateResponse(request, template, context, status_code=status)
    response.headers["Cache-Control"] = "no-store"
    return response


def error_response(request: Request, error: RequestError) -> Response:
    """Return an error as JSON for the API, and as a page for a browser."""
    if request.url.path.startswith("/api/"):
        content = {"errors": [each.model_dump() for each in error.errors]}
        response: Response = JSONResponse(content, error.status)
    else:
        title = HTTPStatus(error.status).phrase
        response = page(
            request, "error.html", error.status, title=title, status=error.status, errors=error.errors
        )
    if error.challenge is not None:
        response.headers["WWW-Authenticate"] = error.challenge
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def form_errors(error: RequestError | None) -> dict[str, list[str]]:
    """Group the messages of an error by the field of the form that they stand beside."""
    messages: dict[str, list[str]] = {}
    for each in error.errors if error else ():
        messages.setdefault((each.field or "").partition(".")[0], []).append(each.message)
    return messages
