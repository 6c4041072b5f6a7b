"""Download files over HTTP with few connections, retries with backoff, and resumed transfers."""

# pooch restarts a broken transfer and retries without pause; like this module, it uses requests.

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
from deepgps.files import hash_file

USER_AGENT = f"deepgps/{__version__}"
BACKOFF_S, MAX_WAIT_S = 1.0, 300.0
DOWNLOAD_TIMEOUT_S = 30.0
_CHUNK = 1 << 16
_BUSY = {408, 425, 429}
_NOT_FOUND = {400, 404, 410}

T = TypeVar("T")
R = TypeVar("R")


class RefusedError(DeepGPSError):
    """The server refuses the request; a retry would not help.

    Attributes
    ----------
    status
        HTTP status.
    not_found
        Whether the file does not exist (400, 404, 410); False if access is denied (401, 403, 407).
    """

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"The server refused '{url}' (status {status}).")
        self.status = status
        self.not_found = status in _NOT_FOUND


class UnreachableError(DeepGPSError):
    """The server did not return the file after several attempts, or returned something else."""


class _RetryError(Exception):
    """A failure after which a retry may succeed."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StoppedError(Exception):
    """Another thread has failed, or the user has interrupted."""


@dataclass(frozen=True, slots=True)
class Download:
    """A completely downloaded file.

    Attributes
    ----------
    url
        Its source.
    sha256
        Hash of the file on disk.
    bytes
        Size of the file on disk.
    """

    url: str
    sha256: str
    bytes: int


class Client:
    """An HTTP client that retries, resumes and downloads in several threads.

    Parameters
    ----------
    connections
        Largest number of requests at a time.
    retries
        Retries after a busy server (429, 5xx), a broken connection or a timeout.
    on_wait
        Called with a message before each wait; from any thread.
    """

    def __init__(
        self, *, connections: int = 4, retries: int = 5, on_wait: Callable[[str], None] | None = None
    ) -> None:
        self.connections, self.retries, self._on_wait = connections, retries, on_wait
        self._stopped = threading.Event()
        self._session = requests.Session()
        # A compressed transfer cannot be resumed.
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, pool_block=True)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def read(self, url: str) -> bytes:
        """Return the body of a small response.

        Returns
        -------
        bytes
            The body.

        Raises
        ------
        RefusedError, UnreachableError
            If the server refuses, or does not respond after all retries.
        """
        return self._with_retries(url, lambda: self._read(url))

    def download(
        self,
        url: str,
        path: Path,
        *,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Download:
        """Download a file completely or not at all; resume from ``NAME.part`` if an earlier attempt left one.

        Parameters
        ----------
        url
            Address of the file.
        path
            Where to save it.
        size
            Expected size in bytes, if known.
        on_bytes
            Called with the size of each chunk as it arrives.

        Returns
        -------
        Download
            Address, sha256 and size of the file.

        Raises
        ------
        RefusedError
            If the server refuses.
        UnreachableError
            If the server does not return the complete file after all retries.
        OSError
            If the file cannot be written; the error names it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        self._with_retries(url, lambda: self._resume(url, part, on_bytes or (lambda _: None)))
        tag = _tag_path(part)
        sha256 = hash_file(part)
        actual_size = part.stat().st_size
        if size is not None and actual_size != size:
            part.unlink()
            raise UnreachableError(
                f"'{url}' has {actual_size:,} bytes, but {size:,} were expected; try again later."
            )
        part.replace(path)
        tag.unlink(missing_ok=True)
        return Download(url, sha256, actual_size)

    def map_unordered(
        self, function: Callable[[T], R], items: Sequence[T]
    ) -> Generator[tuple[T, R], None, None]:
        """Apply a function to all items in parallel threads; yield (item, result) as they finish."""
        pending, running = iter(items), dict[Future[R], T]()
        with ThreadPoolExecutor(self.connections) as pool:
            try:
                # Submit few at a time, so that a failure does not leave thousands pending.
                for item in islice(pending, 2 * self.connections):
                    running[pool.submit(function, item)] = item
                while running:
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        item = running.pop(future)
                        for following in islice(pending, 1):
                            running[pool.submit(function, following)] = following
                        yield item, future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _with_retries(self, url: str, attempt: Callable[[], T]) -> T:
        for number in range(self.retries + 1):
            if self._stopped.is_set():
                raise _StoppedError
            try:
                return attempt()
            except (_RetryError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                reason, wait_s = _reason(error), getattr(error, "wait_s", 0.0)
            if number < self.retries:
                self._wait(url, reason, max(wait_s, BACKOFF_S * 2**number * random.uniform(0.5, 1.5)))
        raise UnreachableError(f"'{url}' could not be fetched in {self.retries + 1} attempts ({reason}).")

    def _wait(self, url: str, reason: str, seconds: float) -> None:
        seconds = min(seconds, MAX_WAIT_S)
        if self._on_wait:
            self._on_wait(f"'{url}': {reason}; retrying in {seconds:.0f} s")
        self._stopped.wait(seconds)

    def _read(self, url: str) -> bytes:
        with self._session.get(url, timeout=DOWNLOAD_TIMEOUT_S) as response:
            _check(response, url)
            return response.content

    def _resume(self, url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
        offset, headers = _offset(part)
        with self._session.get(url, headers=headers, stream=True, timeout=DOWNLOAD_TIMEOUT_S) as response:
            if response.status_code == 416:
                if response.headers.get("Content-Range", "").endswith(f"/{offset}"):
                    return
                part.unlink(missing_ok=True)
                raise _RetryError("the partial file does not match")
            _check(response, url)
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            if response.status_code == 206 and not resumed:
                part.unlink(missing_ok=True)
                raise _RetryError("the server sent another range than requested")
            # Some servers compress the transfer unasked; a .gz file is meant to stay compressed.
            compressed = response.headers.get("Content-Encoding", "identity") != "identity"
            decompress = compressed and not url.endswith(".gz")
            try:
                _save_tag(part, response, resumable=not decompress)
                with part.open("ab" if resumed else "wb") as file:
                    for chunk in response.raw.stream(_CHUNK, decode_content=decompress):
                        if self._stopped.is_set():
                            raise _StoppedError
                        file.write(chunk)
                        on_bytes(len(chunk))
            except OSError as error:
                if isinstance(error, requests.RequestException) or error.errno is None:
                    raise
                # The error of a full disk does not name the file.
                raise OSError(error.errno, error.strerror, str(part)) from None


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _offset(part: Path) -> tuple[int, dict[str, str]]:
    """Return the offset to resume from, and headers that resume only if the file has not changed."""
    with suppress(FileNotFoundError):
        offset, tag = part.stat().st_size, _tag_path(part).read_text(encoding="utf-8")
        if offset and tag:
            return offset, {"Range": f"bytes={offset}-", "If-Range": tag}
    return 0, {}


def _save_tag(part: Path, response: requests.Response, *, resumable: bool) -> None:
    """Save the tag that a later attempt needs to resume; an empty one if it cannot."""
    tag = response.headers.get("ETag", "") if resumable else ""
    if not tag.startswith('"'):
        # A weak tag does not guarantee the same bytes.
        tag = response.headers.get("Last-Modified", "") if resumable else ""
    _tag_path(part).write_text(tag, encoding="utf-8")


def _check(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in _BUSY or status >= 500:
        raise _RetryError(f"status {status}", _retry_after(response.headers.get("Retry-After", "")))
    if status >= 400:
        raise RefusedError(url, status)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UnreachableError(
            f"The response for '{url}' is a web page, not the file "
            "(a proxy or login page, or the file has moved)."
        )


def _retry_after(text: str) -> float:
    if text.strip().isdigit():
        return float(text)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, _RetryError):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "timed out"
    if isinstance(error, urllib3.exceptions.ProtocolError | requests.exceptions.ChunkedEncodingError):
        return "the transfer was interrupted"
    return "no connection"
