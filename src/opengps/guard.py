"""What every request passes first: host, origin, pace and size; and what every answer says."""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opengps.problems import RefusedError, refused
from opengps.rendering import respond
from opengps.settings import Settings

_SAFE = ("GET", "HEAD", "OPTIONS")
_MINUTE_S = 60
# What a release brings; a mark of it stands in the addresses of styles and scripts.
_OURS = ("/static/", "/api/assets/")

ANSWER_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # The address of a job is its key: no other site is told.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app
        What it guards.
    settings
        The limits.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.hosts = {host.strip().lower() for host in settings.allowed_hosts.split(",") if host.strip()}
        self._minute, self._seen = 0, dict[str, int]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith(_OURS) and message["status"] == HTTPStatus.OK:
                    headers.setdefault("Cache-Control", "public, max-age=86400")
                for name, value in ANSWER_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, self._measured(scope, receive), answer)
        except RefusedError as error:
            if begun:
                raise
            await respond(Request(scope), error)(scope, receive, answer)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts and urlsplit(f"//{host}").hostname not in self.hosts:
            raise refused(
                421, "unknown_host", f"This site does not answer to the name '{host[:100]}'.", "Host"
            )
        if scope["method"] not in _SAFE and _is_foreign(headers, host):
            said = "This request comes from another site's page; send it from this site's own."
            raise refused(403, "cross_site", said, "Origin")
        self._check_pace(scope)

    def _check_pace(self, scope: Scope) -> None:
        minute = int(time.time()) // _MINUTE_S
        if minute != self._minute:
            self._minute, self._seen = minute, {}
        address = (scope.get("client") or ("", 0))[0]
        self._seen[address] = self._seen.get(address, 0) + 1
        if self._seen[address] > self.settings.requests_per_minute:
            most, wait = self.settings.requests_per_minute, _MINUTE_S - int(time.time()) % _MINUTE_S
            said = f"You made more than {most:,} requests in this minute; wait {wait} s."
            raise refused(429, "too_many_requests", said, retry_after=wait)

    def _measured(self, scope: Scope, receive: Receive) -> Receive:
        """Receive a body up to the limit, and not for ever."""
        most, received = self.settings.max_request_bytes, 0
        # Once a request is here whole, listening only tells that its sender hung up.
        patience = None if scope["method"] in _SAFE else self.settings.body_timeout_s
        said = f"The request has more than {most:,} bytes, the most taken; send less at a time."
        claimed = Headers(scope=scope).get("content-length", "0")
        if claimed.isdecimal() and int(claimed) > most:
            raise refused(413, "too_large", said)

        async def measured() -> Message:
            nonlocal received, patience
            try:
                message = await asyncio.wait_for(receive(), patience)
            except TimeoutError:
                slow = f"Nothing came for {self.settings.body_timeout_s:g} s; send the request again."
                raise refused(408, "too_slow", slow) from None
            received += len(message.get("body", b""))
            patience = patience if message.get("more_body") else None
            if received > most:
                raise refused(413, "too_large", said)
            return message

        return measured


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser sends this for another site's page; what is no browser says neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != host
