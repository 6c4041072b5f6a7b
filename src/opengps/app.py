"""The app: routes, error handlers, health and metrics."""

import errno
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from sqlalchemy import func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import InstrumentedAttribute, Session
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from deepgps import __version__
from opengps import api, downloads, pages
from opengps.analyses import routes as analyses
from opengps.database import OPEN_STATUSES, Analysis, ImagePair, Job
from opengps.errors import RequestError, request_error, validation_error
from opengps.jobs import SiteDep
from opengps.quotas import storage_full
from opengps.rendering import PACKAGE, error_response
from opengps.schemas import API
from opengps.security import SECURITY_HEADERS, SecurityMiddleware
from opengps.settings import Settings
from opengps.site import Site, open_site
from opengps.submissions import moderation
from opengps.submissions import routes as submissions
from opengps.submissions.store import STATUSES

_DESCRIPTION = (
    "Where in the cell does this protein go? Send proteins and get the address of a prediction (202); poll "
    "it until `status` is `finished`, and fetch results, tables and images; results are there while it runs. "
    'Every error has the form `{"errors": [{"code", "message", "field"}]}`'
)


_RETRY_S = 10


def create_app(settings: Settings) -> FastAPI:
    """Create the site's app."""
    root = settings.root_path
    app = FastAPI(
        title="openGPS",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        servers=[{"url": root}] if root else None,
    )
    app.state.site = open_site(settings)
    described = (
        *(api.router, analyses.api_router, downloads.router, analyses.files_router),
        *(submissions.api_router, submissions.files_router, moderation.api_router),
    )
    undescribed = (
        *(downloads.router, analyses.files_router, submissions.files_router),
        *(pages.router, analyses.pages_router, submissions.pages_router, moderation.pages_router),
    )
    for router in described:
        _set_summaries(router)
        app.include_router(router, prefix=API)
    for router in undescribed:
        app.include_router(router, include_in_schema=False)
    app.state.routes = [*_patterns(described, API), *_patterns(undescribed, "")]
    app.add_api_route("/health", health, include_in_schema=False)
    if settings.metrics:
        app.add_api_route("/metrics", metrics, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=PACKAGE / "static"))
    app.mount("/api/assets", StaticFiles(directory=_swagger_assets()))
    app.add_exception_handler(RequestError, _handle_request_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(DBAPIError, _handle_database_error)
    app.add_exception_handler(PoolTimeoutError, _handle_database_error)
    app.add_exception_handler(OSError, _handle_os_error)
    app.add_exception_handler(Exception, _handle_unexpected_error)
    app.add_middleware(SecurityMiddleware, settings=settings)
    return app


def _set_summaries(router: APIRouter) -> None:
    """Use the first line of its docstring as a route's summary."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            route.summary = (route.endpoint.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _patterns(routers: Iterable[APIRouter], prefix: str) -> Iterator[tuple[re.Pattern[str], set[str]]]:
    """Return what addresses each route matches, and its methods."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield compile_path(prefix + route.path)[0], route.methods or set()


def _swagger_assets() -> Path:
    """Return the folder of Swagger UI in an installed package."""
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("fastapi-offline is not installed", name="fastapi_offline")
    return Path(found.origin).parent / "static"


def health(site: SiteDep) -> Response:
    """Report whether the server and its database answer."""
    with site.sessions() as session:
        session.connection()
    return JSONResponse({"status": "ok", "version": __version__})


def metrics(site: SiteDep) -> Response:
    """Report jobs, analyses and submitted images by status, and the longest wait, for Prometheus."""
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response("\n".join(_metric_lines(site)) + "\n", media_type=media_type)


def _metric_lines(site: Site) -> Iterator[str]:
    waiting = select(func.min(Job.queued_at)).where(Job.status.in_(OPEN_STATUSES), Job.worker.is_(None))
    with site.sessions() as session:
        jobs, images = _count_by_status(session, Job.status), _count_by_status(session, ImagePair.status)
        analysed = _count_by_status(session, Analysis.status)
        first = session.scalar(waiting)
    yield from _gauge("opengps_jobs", "Jobs by status")
    for status in (*OPEN_STATUSES, "finished", "failed", "cancelled"):
        yield f'opengps_jobs{{status="{status}"}} {jobs.get(status, 0)}'
    yield from _gauge("opengps_analyses", "Explanations and comparisons of variants by status")
    for status in (*OPEN_STATUSES, "finished", "failed"):
        yield f'opengps_analyses{{status="{status}"}} {analysed.get(status, 0)}'
    yield from _gauge("opengps_submitted_images", "Submitted images by status")
    for status in STATUSES:
        yield f'opengps_submitted_images{{status="{status}"}} {images.get(status, 0)}'
    yield from _gauge("opengps_longest_wait_seconds", "How long the first job in the queue has waited")
    yield f"opengps_longest_wait_seconds {0.0 if first is None else max(0.0, time.time() - first):.3f}"


def _count_by_status(session: Session, status: InstrumentedAttribute[str]) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(select(status, func.count()).group_by(status))}


def _gauge(name: str, description: str) -> Iterator[str]:
    yield f"# HELP {name} {description}"
    yield f"# TYPE {name} gauge"


def _handle_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(request, error)


def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(request, validation_error(error.errors()))


def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        found = request_error(404, "not_found", "There is nothing at this address.")
    elif error.status_code == 405:
        found = request_error(405, "method_not_allowed", "This address does not support this method.")
    else:
        found = request_error(error.status_code, "http_error", str(error.detail))
    response = error_response(request, found)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed_methods(request))
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes of an address; the router names those of the first one only."""
    path, routes = request.scope["path"], request.app.state.routes
    return sorted({method for pattern, methods in routes if pattern.match(path) for method in methods})


def _handle_database_error(request: Request, error: Exception) -> Response:
    # What the database refuses because of its content is an error of this program.
    if isinstance(error, DBAPIError) and isinstance(error, IntegrityError | DataError | ProgrammingError):
        return _handle_unexpected_error(request, error)
    logging.getLogger("opengps").error("%s: the database: %s", json.dumps(request.url.path), _reason(error))
    message = "The database is busy, full or being restored; try again in a few seconds."
    return error_response(request, request_error(503, "unavailable", message, retry_after=_RETRY_S))


def _reason(error: Exception) -> str:
    # Not the statement; what it is about is in the first line.
    return str(getattr(error, "orig", error)).strip().partition("\n")[0][:200]


def _handle_os_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error_response(request, storage_full())
    return _handle_unexpected_error(request, error)


def _handle_unexpected_error(request: Request, error: Exception) -> Response:
    logging.getLogger("opengps").error("%s failed: %s", json.dumps(request.url.path), type(error).__name__)
    message = (
        "An unexpected error occurred; the operator finds it in the log. Try again, or tell the operator."
    )
    response = error_response(request, request_error(500, "internal_error", message))
    # This response does not pass through the middleware.
    response.headers.update(SECURITY_HEADERS)
    return response
