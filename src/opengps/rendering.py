"""Templates, and errors as a page or as JSON."""

from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.templating import Jinja2Templates

from deepgps import __version__
from deepgps.reporting.charts import bar
from opengps.catalogue import hindrance, predicts, spoken
from opengps.problems import RefusedError

HERE = Path(__file__).parent
API = "/api/v1"

templates = Jinja2Templates(directory=HERE / "templates")
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def when(seconds: float | None) -> str | None:
    """Say a time: ISO 8601, UTC, to the second."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def day(seconds: float) -> str:
    """Say a time on a page."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y, %H:%M UTC")


def size(count: int) -> str:
    """Say a number of bytes on a page."""
    return f"{count / 1e6:g} MB" if count >= 1e5 else f"{count:,} bytes"


def _mark() -> str:
    """Tell the styles and scripts of this release from any others, so that browsers may keep them."""
    digest = sha256()
    for file in sorted((HERE / "static").glob("*.*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def nucleus_image(name: str, model: str) -> str:
    """Address of the image of a default nucleus, as a model sees it if one is named."""
    return f"{API}/nuclei/{name}/image.png" + (f"?{urlencode({'model': model})}" if model else "")


templates.env.filters |= {"spoken": spoken, "day": day, "bytes": size}
templates.env.globals |= {"software": __version__, "api": API, "hindrance": hindrance, "predicts": predicts}
templates.env.globals["bar"] = bar
templates.env.globals |= {"nucleus_image": nucleus_image, "mark": _mark()}


def page(request: Request, template: str, code: int = 200, /, **context: Any) -> Response:
    """Render a page, answered with an HTTP status."""
    context["settings"] = request.app.state.site.settings
    answer = templates.TemplateResponse(request, template, context, status_code=code)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def is_api(request: Request) -> bool:
    """Whether a program asks, and not a browser for a page."""
    return request.url.path.startswith("/api/")


def respond(request: Request, error: RefusedError) -> Response:
    """Answer with an error: JSON to a program, a page to a person."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if is_api(request):
        content = {"errors": [problem.model_dump() for problem in error.problems]}
        return JSONResponse(content, error.status, headers)
    title = HTTPStatus(error.status).phrase
    answer = page(
        request, "error.html", error.status, title=title, problems=error.problems, code=error.status
    )
    answer.headers.update(headers)
    return answer
