"""``opengps check``: what an operator should look at before a site is public."""

import ipaddress
import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from deepgps.errors import DeepGPSError
from opengps.models import models, unavailable_reason
from opengps.quotas import free_bytes
from opengps.schemas import LIMITS
from opengps.settings import PREFIX, Settings
from opengps.site import open_site
from opengps.submissions.moderation import moderator_tokens

_PACKAGES = (
    *("deepgps", "fastapi", "starlette", "uvicorn", "python-multipart", "sqlalchemy", "jinja2", "pydantic"),
    *("numpy", "onnxruntime", "pillow", "tifffile"),
)
_SHORT_TOKEN = 16


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level
        ``fine``, ``look`` for what the operator has to judge, ``wrong`` for what must be changed.
    topic, text
        What, and what was found.
    """

    level: Literal["fine", "look", "wrong"]
    topic: str
    text: str


def check_site(settings: Settings) -> Iterator[Finding]:
    """Look at the settings, the database, the disk, the models and the versions of a site."""
    yield from _names(settings)
    yield from _proxy(settings)
    yield from _access(settings)
    yield from _database(settings)
    yield from _disk(settings)
    yield from _models()
    yield from _memory()
    shown = ", ".join(f"{name} {getattr(settings, name):,}" for name in LIMITS)
    yield Finding("look", "limits", shown)
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    yield Finding("look", "versions", f"Python {platform.python_version()}, {versions}")


def _names(settings: Settings) -> Iterator[Finding]:
    if settings.allowed_hosts:
        yield Finding("fine", "host names", f"only {settings.allowed_hosts} are answered")
    else:
        yield Finding("wrong", "host names", f"any is answered; set {PREFIX}ALLOWED_HOSTS")
    if settings.contact:
        yield Finding("fine", "contact", settings.contact)
    else:
        yield Finding("wrong", "contact", f"no page says who runs the site; set {PREFIX}CONTACT")


def _proxy(settings: Settings) -> Iterator[Finding]:
    trusted = [each.strip() for each in settings.trusted_proxies.split(",") if each.strip()]
    wide = [each for each in trusted if _is_wide(each)]
    if wide:
        text = f"'{wide[0]}' is wide: whoever is behind it chooses the address that limits count by"
        yield Finding("wrong", "trusted proxies", f"{text}; name the proxy in {PREFIX}TRUSTED_PROXIES")
    else:
        yield Finding(
            "look", "trusted proxies", f"{', '.join(trusted) or 'none'}; is that all of your proxy?"
        )
    if settings.root_path:
        yield Finding("look", "path", f"the site is served below {settings.root_path}")


def _is_wide(proxy: str) -> bool:
    if proxy == "*":
        return True
    try:
        return ipaddress.ip_network(proxy, strict=False).num_addresses > 256
    except ValueError:
        return False


def _access(settings: Settings) -> Iterator[Finding]:
    if settings.metrics:
        text = f"anyone who reaches the site can read it; block it in the proxy, or set {PREFIX}METRICS=false"
        yield Finding("look", "/metrics", text)
    else:
        yield Finding("fine", "/metrics", "does not answer")
    yield Finding("look", "API", "needs a token" if settings.api_token else "is open to anyone")
    tokens = [settings.api_token, *(token for _, token in moderator_tokens(settings))]
    if any(0 < len(token) < _SHORT_TOKEN for token in tokens):
        yield Finding("wrong", "tokens", "one is short enough to guess; use: openssl rand -hex 24")
    if bool(settings.moderator_header) != bool(settings.moderators):
        text = f"{PREFIX}MODERATOR_HEADER and {PREFIX}MODERATORS work together only"
        yield Finding("wrong", "moderators", text)
    names = [*(name for name, _ in moderator_tokens(settings)), *settings.moderators.split(",")]
    shown = ", ".join(name.strip() for name in names if name.strip())
    closed = "submission is closed" if settings.max_pending_images == 0 else "only on the command line"
    yield Finding("look", "moderators", shown or closed)


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        open_site(settings).sessions.kw["bind"].dispose()
    except DeepGPSError as error:
        yield Finding("wrong", "database and files", str(error))
        return
    if settings.database_url:
        yield Finding("fine", "database", "answers")
        return
    file = settings.data / "opengps.db"
    with closing(sqlite3.connect(file)) as connection:
        found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    level: Literal["fine", "wrong"] = "fine" if found == "ok" else "wrong"
    yield Finding(level, "database", f"{file} is {'sound' if found == 'ok' else f'damaged: {found}'}")
    if os.name == "posix" and settings.data.stat().st_mode & 0o007:
        yield Finding("wrong", "data folder", f"other users may look into it: chmod 700 {settings.data}")


def _disk(settings: Settings) -> Iterator[Finding]:
    free, total = free_bytes(settings), shutil.disk_usage(settings.data).total
    text = f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free; results and submissions may take "
    text += f"{settings.max_disk_bytes / 1e9:,.1f} GB, {settings.min_free_bytes / 1e9:,.1f} GB stay free"
    enough = free >= settings.max_disk_bytes + settings.min_free_bytes
    yield Finding("fine" if enough else "look", "disk", text)


def _models() -> Iterator[Finding]:
    found = {name: unavailable_reason(bundle) for name, bundle in models().items() if ":" not in name}
    usable = [name for name, reason in found.items() if reason is None]
    yield Finding("fine" if usable else "wrong", "models", ", ".join(usable) or "none can be used")
    for name, reason in found.items():
        if reason is not None:
            yield Finding("look", "models", f"{name} {reason}")


def _memory() -> Iterator[Finding]:
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    found = next((path.read_text().strip() for path in limits if path.is_file()), "max")
    if found == "max" or int(found) > 1 << 60:
        text = "this process has no limit; the shipped units and the compose file set one for the services"
        yield Finding("look", "memory", text)
    else:
        yield Finding("fine", "memory", f"limited to {int(found) / 1e9:,.1f} GB")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
