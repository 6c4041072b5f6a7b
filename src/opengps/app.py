"""The app factory."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from deepgps import __version__
from opengps import api, downloads, pages
from opengps.guard import ANSWER_HEADERS, Guard
from opengps.metrics import metrics
from opengps.problems import RefusedError, refused
from opengps.queue import Site, open_site
from opengps.receiving import invalid
from opengps.rendering import API, HERE, respond
from opengps.settings import Settings
from opengps.submissions import api as submissions
from opengps.submissions import pages as submission_pages
from opengps.submissions import views as submitted

_ABOUT = (
    "Where in the cell does this protein go? Send proteins, get a prediction's address (202), ask it until "
    "`status` is `finished`, and fetch rows, tables and images; rows arrive while it runs. "
    'Every error has one shape: `{"errors": [{"code", "message", "where"}]}`'
)


def create_app(settings: Settings) -> FastAPI:
    """Make the site's app."""
    app = FastAPI(
        title="openGPS",
        version=__version__,
        description=_ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.site = open_site(settings)
    for router in (api.router, downloads.router, submissions.router, submitted.router):
        _name_routes(router)
        app.include_router(router, prefix=API)
    for files in (downloads.router, submitted.router):
        app.include_router(files, include_in_schema=False)
    app.include_router(pages.router)
    app.include_router(submission_pages.router)
    app.add_api_route("/health", health, include_in_schema=False)
    app.add_api_route("/metrics", metrics, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.mount("/api/assets", StaticFiles(directory=_swagger()))
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Guard, settings=settings)
    return app


def _name_routes(router: APIRouter) -> None:
    """Call each route in the API's listing what the first line of its docstring says."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.summary = (route.endpoint.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def health(request: Request) -> Response:
    """Tell whether the server and its database answer."""
    site: Site = request.app.state.site
    with site.sessions() as session:
        session.connection()
    return JSONResponse({"status": "ok", "version": __version__})


def _swagger() -> Path:
    """Find Swagger UI in the installed package that brings it."""
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("fastapi-offline is not installed", name="fastapi_offline")
    return Path(found.origin).parent / "static"


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return respond(request, error)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(request, invalid(error.errors()))


_SAID = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take this method."),
}


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, said = _SAID.get(error.status_code, ("http", str(error.detail)))
    answer = respond(request, refused(error.status_code, code, said))
    answer.headers.update(error.headers or {})
    return answer


def _unexpected(request: Request, error: Exception) -> Response:
    logging.getLogger("opengps").error("%s failed: %s", json.dumps(request.url.path), type(error).__name__)
    said = "This should not have happened; the operator finds it in the log. Try again, or tell the operator."
    answer = respond(request, refused(500, "unexpected", said))
    # This is answered outside of the guard.
    answer.headers.update(ANSWER_HEADERS)
    return answer
