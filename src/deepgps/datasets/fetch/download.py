"""Polite HTTP: few connections, patience with busy servers, files that go on where they broke off."""

# pooch begins a broken file anew and asks without pause; its downloader is requests, as this one's is.

import hashlib
import random
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from time import time
from typing import TypeVar

import requests
import urllib3

from deepgps import __version__
from deepgps.errors import DeepGPSError

USER_AGENT = f"deepgps/{__version__}"
BACKOFF_S, LONGEST_WAIT_S = 1.0, 300.0
TIMEOUT_S = 30.0
_CHUNK = 1 << 16
_BUSY = {408, 425, 429}
_GONE = {400, 404, 410}

T = TypeVar("T")
R = TypeVar("R")


class RefusedError(DeepGPSError):
    """The server says that it has no such thing, or not for us; asking again now would not help.

    Attributes
    ----------
    status
        Its answer.
    gone
        Whether it is the thing that is not there, and not we who are kept from it (401, 403, a proxy's 407).
    """

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"The server refused '{url}' (status {status}).")
        self.status = status
        self.gone = status in _GONE


class UnreachableError(DeepGPSError):
    """The server did not give a file in several tries, or gave something else."""


class _LaterError(Exception):
    """Worth another try."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StoppedError(Exception):
    """Another thread has failed, or the user has had enough."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is there, whole.

    Attributes
    ----------
    url
        Where it came from.
    sha256
        Of what lies on disk.
    bytes
        Its size.
    """

    url: str
    sha256: str
    bytes: int


class Client:
    """Asks servers for things, with several threads at a time.

    Parameters
    ----------
    connections
        Most requests at a time.
    retries
        Further tries for what failed: a busy server (429, 5xx), a broken or silent connection.
    on_wait
        Called with a sentence before each wait; from any thread.
    """

    def __init__(
        self, *, connections: int = 4, retries: int = 5, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.connections, self.retries, self._on_wait = connections, retries, on_wait
        self._stopped = threading.Event()
        self._session = requests.Session()
        # Compressed on the way, a file could not go on where it broke off.
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, pool_block=True)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def read(self, url: str) -> bytes:
        """Fetch a small answer.

        Raises
        ------
        RefusedError, UnreachableError
            If the server has none, or cannot be had to give it.
        """
        return self._persist(url, lambda: self._read(url))

    def download(
        self,
        url: str,
        path: Path,
        *,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Download:
        """Fetch a file, whole or not at all; go on with what an earlier try left in ``NAME.part``.

        Parameters
        ----------
        url, path
            From and to.
        size
            Bytes it must have, where known.
        on_bytes
            Called with the number of bytes as they arrive.

        Raises
        ------
        RefusedError, UnreachableError
            If the server has none, or cannot be had to give it whole.
        OSError
            If it cannot be written; it names the file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        self._persist(url, lambda: self._continue(url, part, on_bytes or (lambda _: None)))
        tag = _tag_of(part)
        sha256 = sha256_of(part)
        found = part.stat().st_size
        if size is not None and found != size:
            part.unlink()
            raise UnreachableError(
                f"'{url}' has {found:,} bytes where {size:,} were announced; try again later."
            )
        part.replace(path)
        tag.unlink(missing_ok=True)
        return Download(url, sha256, found)

    def each(self, work: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[T, R], None, None]:
        """Do some work that asks for things, on all connections at once; yield results as they come."""
        waiting, running = iter(items), dict[Future[R], T]()
        with ThreadPoolExecutor(self.connections) as pool:
            try:
                # Only so many at a time, or a failure would find thousands in line.
                for item in islice(waiting, 2 * self.connections):
                    running[pool.submit(work, item)] = item
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        item = running.pop(future)
                        for following in islice(waiting, 1):
                            running[pool.submit(work, following)] = following
                        yield item, future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _persist(self, url: str, attempt: Callable[[], T]) -> T:
        for number in range(self.retries + 1):
            if self._stopped.is_set():
                raise _StoppedError
            try:
                return attempt()
            except (_LaterError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason, wait_s = _reason(error), getattr(error, "wait_s", 0.0)
            if number < self.retries:
                self._wait(url, reason, max(wait_s, BACKOFF_S * 2**number * random.uniform(0.5, 1.5)))
        raise UnreachableError(f"'{url}' could not be fetched in {self.retries + 1} tries ({reason}).")

    def _wait(self, url: str, reason: str, seconds: float) -> None:
        seconds = min(seconds, LONGEST_WAIT_S)
        if self._on_wait:
            self._on_wait(f"'{url}': {reason}; trying again in {seconds:.0f} s")
        self._stopped.wait(seconds)

    def _read(self, url: str) -> bytes:
        with self._session.get(url, timeout=TIMEOUT_S) as answer:
            _check(answer, url)
            return answer.content

    def _continue(self, url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
        offset, headers = _offset(part)
        with self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range", "").endswith(f"/{offset}"):
                    return
                part.unlink(missing_ok=True)
                raise _LaterError("what is left of it does not fit")
            _check(answer, url)
            resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            if answer.status_code == 206 and not resumed:
                part.unlink(missing_ok=True)
                raise _LaterError("another part came than was asked for")
            # Packed for the way only, though nobody asked for it; a .gz is packed for good.
            packed = answer.headers.get("Content-Encoding", "identity") != "identity"
            unpack = packed and not url.endswith(".gz")
            try:
                _keep_tag(part, answer, whole=unpack)
                with part.open("ab" if resumed else "wb") as file:
                    for chunk in answer.raw.stream(_CHUNK, decode_content=unpack):
                        if self._stopped.is_set():
                            raise _StoppedError
                        file.write(chunk)
                        on_bytes(len(chunk))
            except OSError as error:
                if isinstance(error, requests.RequestException) or error.errno is None:
                    raise
                # What a full disk says lacks the name.
                raise OSError(error.errno, error.strerror, str(part)) from None


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tag_of(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _offset(part: Path) -> tuple[int, dict[str, str]]:
    """Where to go on, and how to ask for it: only if the file is still the one that was begun."""
    with suppress(FileNotFoundError):
        offset, tag = part.stat().st_size, _tag_of(part).read_text(encoding="utf-8")
        if offset and tag:
            return offset, {"Range": f"bytes={offset}-", "If-Range": tag}
    return 0, {}


def _keep_tag(part: Path, answer: requests.Response, *, whole: bool) -> None:
    """Keep what a later try needs to go on; nothing, if the file must come as a whole."""
    tag = "" if whole else answer.headers.get("ETag", "")
    if not tag.startswith('"'):
        # A weak tag does not promise the same bytes.
        tag = "" if whole else answer.headers.get("Last-Modified", "")
    _tag_of(part).write_text(tag, encoding="utf-8")


def _check(answer: requests.Response, url: str) -> None:
    status = answer.status_code
    if status in _BUSY or status >= 500:
        raise _LaterError(f"status {status}", _retry_after(answer.headers.get("Retry-After", "")))
    if status >= 400:
        raise RefusedError(url, status)
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise UnreachableError(
            f"The answer for '{url}' is a web page, not the file (a proxy or login page, or it has moved)."
        )


def _retry_after(text: str) -> float:
    if text.strip().isdigit():
        return float(text)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, _LaterError):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(error, urllib3.exceptions.ProtocolError | requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    return "no connection"
