"""Protection of the site: what every request must satisfy, headers of every response, timeouts, and logs."""

import asyncio
import hmac
import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from copy import copy
from http import HTTPStatus
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from opengps.errors import RequestError, request_error, unauthorized
from opengps.rendering import error_response
from opengps.schemas import API
from opengps.settings import Settings
from opengps.visitors import network

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_MINUTE_S = 60
_AT_ONCE_RETRY_S = 5
_HOST = re.compile(r"([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
# The description of the API, what pages show, and what moderators have tokens of their own for.
_OPEN_API = re.compile(rf"{API}/(openapi\.json$|nuclei/[^/]+/image\.png$|moderation(/|$))")
# Their addresses contain a hash of their content.
_STATIC = ("/static/", "/api/assets/")

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # The address of a job gives access to it: it is not sent to other sites.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class SecurityMiddleware:
    """ASGI middleware that checks host, origin, rate and size of requests, and sets security headers.

    Parameters
    ----------
    app
        The app.
    settings
        The limits.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.hosts = {host.strip().lower() for host in settings.allowed_hosts.split(",") if host.strip()}
        self._minute, self._requests = 0, dict[str, int]()
        self._at_once = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._strip_root(scope)
        body, started = _Body(complete=scope["method"] in _SAFE_METHODS), False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                if not body.complete:
                    # Nobody waits for the rest of a body that is refused.
                    headers["Connection"] = "close"
                if self.settings.root_path and "location" in headers:
                    headers["Location"] = self._below_root(scope, headers["location"])
                if scope["path"].startswith(_STATIC) and message["status"] == HTTPStatus.OK:
                    headers.setdefault("Cache-Control", "public, max-age=86400")
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        address = network((scope.get("client") or ("", 0))[0])
        counted = not body.complete
        self._at_once[address] += counted
        try:
            self._check(scope, address)
            await self.app(scope, self._limited(scope, receive, body), send_with_headers)
        except RequestError as error:
            if started:
                raise
            await error_response(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            self._at_once[address] -= counted
            if not self._at_once[address]:
                del self._at_once[address]

    def _strip_root(self, scope: Scope) -> None:
        """Accept addresses with and without the path below which the site is served."""
        root = self.settings.root_path
        if root and f"{scope['path']}/".startswith(f"{root}/"):
            scope["path"] = scope["path"][len(root) :] or "/"
            scope["raw_path"] = scope.get("raw_path", b"")[len(root) :] or b"/"

    def _below_root(self, scope: Scope, location: str) -> str:
        base = str(Request(scope).base_url).rstrip("/")
        return f"{self.settings.root_path}{location.removeprefix(base)}"

    def _check(self, scope: Scope, address: str) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            # Nothing below can use it.
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"host"]
            raise request_error(400, "invalid_host", f"'{host[:100]}' is not a host name.", "Host")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            message = f"This site does not answer to the host name '{host[:100]}'."
            raise request_error(421, "unknown_host", message, "Host")
        if scope["method"] not in _SAFE_METHODS and _is_cross_site(headers, host):
            message = "This request was sent by a page of another site; send it from a page of this site."
            raise request_error(403, "cross_site", message, "Origin")
        self._check_rate(address)
        self._check_token(scope, headers)
        limit = self.settings.requests_at_once
        if scope["method"] not in _SAFE_METHODS and self._at_once[address] > limit:
            message = f"You send more than {limit:,} requests at once; wait until some of them are answered."
            raise request_error(429, "too_many_at_once", message, retry_after=_AT_ONCE_RETRY_S)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        path, token = scope["path"], self.settings.api_token
        if not token or not path.startswith(API) or _OPEN_API.match(path):
            return
        if not hmac.compare_digest(headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
            raise unauthorized("The API of this site needs its token; ask the operator.", "Bearer")

    def _check_rate(self, address: str) -> None:
        minute = int(time.time()) // _MINUTE_S
        if minute != self._minute:
            self._minute, self._requests = minute, {}
        self._requests[address] = self._requests.get(address, 0) + 1
        if self._requests[address] > self.settings.requests_per_minute:
            limit, wait = self.settings.requests_per_minute, _MINUTE_S - int(time.time()) % _MINUTE_S
            message = f"You sent more than {limit:,} requests in this minute; wait {wait} s."
            raise request_error(429, "too_many_requests", message, retry_after=wait)

    def _limited(self, scope: Scope, receive: Receive, body: "_Body") -> Receive:
        """Limit the size of a body, the time between its parts, and that of the whole."""
        limit, received = self.settings.max_request_bytes, 0
        end = time.monotonic() + self.settings.request_timeout_s
        message_too_large = f"The request has more than {limit:,} bytes, the limit; send less at a time."
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            raise request_error(413, "payload_too_large", message_too_large)

        async def receive_limited() -> Message:
            nonlocal received
            if body.complete:
                # From now on, receiving only reports that the sender has disconnected.
                return await receive()
            pause, left = self.settings.body_timeout_s, end - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), min(pause, left))
            except TimeoutError:
                text = (
                    f"Nothing was received for {pause:g} s; send the request again."
                    if pause < left
                    else f"The body took more than {self.settings.request_timeout_s:g} s; send less."
                )
                raise request_error(408, "request_timeout", text) from None
            received += len(message.get("body", b""))
            body.complete = not message.get("more_body")
            if received > limit:
                raise request_error(413, "payload_too_large", message_too_large)
            return message

        return receive_limited


class _Body:
    """Whether all of a request's body has arrived."""

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete


def _is_cross_site(headers: Headers, host: str) -> bool:
    """Return whether a browser sends this for another site's page; other clients send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    # Compared as a text: an origin that is none belongs to no site.
    return origin is not None and origin.partition("://")[2] != host


class PeerMiddleware:
    """ASGI middleware that remembers who opened the connection, before a proxy's headers replace it.

    Parameters
    ----------
    app
        The app.
    trusted_proxies
        Setting of that name.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: str) -> None:
        self.app = ProxyHeadersMiddleware(app, trusted_hosts=trusted_proxies)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http":
            peer = (scope.get("client") or ("", 0))[0]
            scope[FROM_PROXY] = peer in self.app.trusted_hosts
        await self.app(scope, receive, send)  # type: ignore[arg-type]


FROM_PROXY = "opengps.from_proxy"
"""Key of a request's scope: whether a trusted proxy sent it."""

HEADER_TIMEOUT_S = 20.0
"""Seconds in which the headers of a request must arrive."""


# Of uvicorn's two protocols, the one that limits the size of headers.
class HeaderTimeoutProtocol(H11Protocol):
    """Closes a connection whose request headers do not arrive in time; bodies have their own timeout."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Wait until the headers are complete."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_LOG_FORMAT = "%(asctime)s %(name)s %(message)s"
_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PrivateFormatter(logging.Formatter):
    """Formats exceptions as place and type, without their messages, which may contain a sequence."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; what another formatter has cached for it is not used."""
        record = copy(record)
        record.exc_text = None
        return super().format(record)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802
        """Format an exception and its causes."""
        error, lines = ei[1], list[str]()
        while error is not None:
            places = "".join(traceback.format_tb(error.__traceback__))
            lines.append(f"{places}{type(error).__name__}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(reversed(lines))


def set_up_logging() -> None:
    """Log warnings and errors of this process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrivateFormatter(_LOG_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
