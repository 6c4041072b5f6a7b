"""The sources of training data, on this machine: OpenCell, the Human Protein Atlas, AlphaFold DB and UniProt.

It answers as the real ones do (listings in pages, ranges, 400 for withdrawn images) and misbehaves as they do
where it is told to (429, 500, bodies that break off, slow bodies). As a script:

    python tests/fake_sources.py --port 0 --data ../shared/data  # says which variables to set
    python tests/fake_sources.py --data ../shared/data -- bash script.sh   # sets them for a command

Proteins are made up; the nuclei are real ones where ``--data`` is there, else drawn.
"""

import argparse
import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from fake_content import ALPHAFOLD, Content, contents

PLACES = {
    "DEEPGPS_OPENCELL_BUCKET": "/opencell-bucket",
    "DEEPGPS_OPENCELL_PORTAL": "/opencell-portal",
    "DEEPGPS_HPA_URL": "/hpa",
    "DEEPGPS_HPA_IMAGES_URL": "/hpa-images",
    "DEEPGPS_ALPHAFOLD_URL": "/alphafold",
    "DEEPGPS_UNIPROT_URL": "/uniprot",
}
BUCKET = PLACES["DEEPGPS_OPENCELL_BUCKET"]
PIECES = 20


class Sources:
    """A running server.

    Attributes
    ----------
    url
        Its address.
    files
        What it has, by path.
    asked
        Every request so far: path with query, and the Range asked for or "".
    faults
        By path, how the next answers fail, first first: a status such as ``429``, ``truncated``, ``slow``,
        ``html``, ``reset``, or ``gzip``, which packs the answer for the way. A status may carry a
        Retry-After: ``429:0``.
    """

    def __init__(self, files: dict[str, Content], port: int, page: int) -> None:
        self.files, self.page = files, page
        self.asked: list[tuple[str, str]] = []
        self.faults: dict[str, list[str]] = {}
        self.sent = 0
        self.piece_s = 0.05
        handler = type("Handler", (_Handler,), {"sources": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make deepGPS ask this server."""
        return {name: self.url + path for name, path in PLACES.items()} | {"NO_PROXY": "127.0.0.1"}

    def forget(self) -> None:
        """Behave again, and forget what was asked."""
        self.asked.clear()
        self.faults.clear()
        self.piece_s = 0.05

    def bodies(self, part: str) -> list[str]:
        """Paths asked for so far that contain a part."""
        return [path for path, _ in self.asked if part in path]

    def misbehave(self) -> None:
        """Fail once, in turn, for every fifth file, as a busy real server would."""
        kinds = ("429:1", "500", "truncated", "slow", "503")
        for number, path in enumerate(sorted(self.files)[::5]):
            self.faults[path] = [kinds[number % len(kinds)]]


@contextmanager
def serving(data: Path | None = None, *, port: int = 0, page: int = 7) -> Iterator[Sources]:
    """Serve on a thread.

    Parameters
    ----------
    data
        Folder of real data, for real nuclei.
    port
        Port to listen at; 0 takes a free one.
    page
        Keys in a page of the listing.
    """
    sources = Sources(dict(contents(data)), port, page)
    thread = threading.Thread(target=sources.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield sources
    finally:
        sources.http.shutdown()
        sources.http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Or each answer waits 40 ms for the client to acknowledge its header.
    disable_nagle_algorithm = True
    sources: Sources

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query, keep_blank_values=True)
        self.sources.asked.append((self.path, self.headers.get("Range", "")))
        waiting = self.sources.faults.get(path)
        fault = waiting.pop(0) if waiting else ""
        if fault[:3].isdigit():
            self._refuse(int(fault[:3]), fault[4:])
        elif fault == "html":
            self._send(200, b"<html>Please log in to the hotel network</html>", {"Content-Type": "text/html"})
        elif fault == "gzip":
            packed = gzip.compress(self.sources.files[path].body)
            self._send(200, packed, {"Content-Encoding": "gzip", "ETag": '"packed"'})
        elif fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif path.rstrip("/") == BUCKET and "list-type" in query:
            self._list(query)
        elif path in self.sources.files:
            self._file(self.sources.files[path], fault)
        else:
            # The image server of the HPA answers 400 for what it has withdrawn.
            self._refuse(400 if path.startswith(PLACES["DEEPGPS_HPA_IMAGES_URL"]) else 404)

    def _file(self, content: Content, fault: str) -> None:
        body, tag = content.body, content.etag
        if content.kind == "application/json":
            # Answers name the server they come from.
            body = body.replace(ALPHAFOLD.encode(), (self.sources.url + "/alphafold").encode())
        start = self._start(tag)
        if start and start >= len(body):
            self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": content.kind}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(200 if start is None else 206, body[start or 0 :], headers, fault)

    def _start(self, tag: str) -> int | None:
        asked = self.headers.get("Range", "")
        if not asked or self.headers.get("If-Range", tag) != tag:
            return None
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def _refuse(self, status: int, retry_after: str = "") -> None:
        self._send(status, b"no", {"Retry-After": retry_after} if retry_after else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: str = "") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "truncated":
            body, self.close_connection = body[: len(body) // 2], True
        step = -(-len(body) // PIECES) or 1
        for piece in (
            (body[at : at + step] for at in range(0, len(body), step)) if fault == "slow" else [body]
        ):
            time.sleep(self.sources.piece_s if fault == "slow" else 0)
            self.wfile.write(piece)
            self.sources.sent += len(piece)

    def _list(self, query: dict[str, list[str]]) -> None:
        """Answer ListObjectsV2: keys in order, a page at a time."""
        prefix = query.get("prefix", [""])[0]
        keys = sorted(
            path.removeprefix(BUCKET + "/") for path in self.sources.files if path.startswith(BUCKET)
        )
        keys = [key for key in keys if key.startswith(prefix)]
        token = query.get("continuation-token", [""])[0]
        start = int(token.removeprefix("token/+=")) if token else 0
        page, more = keys[start : start + self.sources.page], start + self.sources.page < len(keys)
        following = f"<NextContinuationToken>token/+={start + len(page)}</NextContinuationToken>"
        self._send(
            200,
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>czb-opencell</Name>'
            f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{self.sources.page}"
            f"</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{following if more else ''}"
            f"{''.join(self._entry(key) for key in page)}</ListBucketResult>".encode(),
            {"Content-Type": "application/xml"},
        )

    def _entry(self, key: str) -> str:
        content = self.sources.files[f"{BUCKET}/{key}"]
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>2021-06-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(content.etag)}</ETag><Size>{content.size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    def handle(self) -> None:
        # A client that is killed, or has had enough, is no event here.
        try:
            super().handle()
        except (ConnectionError, OSError, ValueError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of real data; nuclei are drawn without it")
    parser.add_argument("--page", type=int, default=7, help="keys in a page of the listing")
    parser.add_argument("--faults", action="store_true", help="misbehave now and then, as real servers do")
    parser.add_argument("command", nargs="*", help="run this with the variables set, and end")
    given = parser.parse_args()
    with serving(given.data, port=given.port, page=given.page) as sources:
        if given.faults:
            sources.misbehave()
        if given.command:
            return subprocess.run(given.command, env={**os.environ, **sources.environment}).returncode
        for name, value in sources.environment.items():
            print(f"export {name}={value}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
