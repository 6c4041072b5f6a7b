"""The downloader against a server that answers as real ones do, and misbehaves as they do."""

import gzip
import hashlib
import sys
import time

import pytest

from deepgps.datasets.fetch import download
from deepgps.datasets.fetch.download import Client, RefusedError, UnreachableError
from fake_sources import serving

PATH = "/hpa/ENSG00090000014.xml"


@pytest.fixture(scope="module")
def running():
    with serving() as sources:
        yield sources


@pytest.fixture
def sources(running, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.forget()
    return running


def ranges(sources):
    return [range_ for _, range_ in sources.asked]


def test_a_download_is_complete_hashed_and_leaves_no_temporary_file(sources, tmp_path):
    counted = []
    result = Client().download(sources.url + PATH, tmp_path / "sub" / "a.xml", on_bytes=counted.append)
    body = sources.files[PATH].body
    assert (tmp_path / "sub" / "a.xml").read_bytes() == body
    assert (result.sha256, result.bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    assert sum(counted) == len(body)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.xml"]


def test_requests_have_a_user_agent(sources, tmp_path, monkeypatch):
    seen = []
    handler = sources.http.RequestHandlerClass
    monkeypatch.setattr(handler, "_file", lambda self, *_: (seen.append(self.headers), self._refuse(404)))
    with pytest.raises(RefusedError):
        Client().read(sources.url + PATH)
    assert seen[0]["User-Agent"].startswith("deepgps/")


@pytest.mark.parametrize("fault", ["429:0", "429", "500", "503", "reset", "truncated"])
def test_temporary_failures_are_retried(sources, tmp_path, fault):
    sources.faults[PATH] = [fault, fault]
    waits = []
    Client(on_wait=waits.append).download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body
    assert len(sources.asked) == 3
    assert len(waits) == 2


def test_retry_after_is_respected(sources, tmp_path):
    sources.faults[PATH] = ["429:1"]
    start = time.monotonic()
    Client().download(sources.url + PATH, tmp_path / "a")
    assert time.monotonic() - start >= 1


def test_wait_times_double(sources, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 1.0)
    waits = []
    client = Client()
    monkeypatch.setattr(client._stopped, "wait", waits.append)
    sources.faults[PATH] = ["500"] * 5
    client.read(sources.url + PATH)
    assert len(waits) == 5
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waits))


def test_an_interrupted_transfer_is_resumed(sources, tmp_path):
    sources.faults[PATH] = ["truncated"]
    Client().download(sources.url + PATH, tmp_path / "a")
    body = sources.files[PATH].body
    assert ranges(sources) == ["", f"bytes={len(body) // 2}-"]
    assert (tmp_path / "a").read_bytes() == body


def test_a_later_run_resumes_a_transfer(sources, tmp_path):
    sources.faults[PATH] = ["truncated"]
    with pytest.raises(UnreachableError, match="in 1 attempts \\(the transfer was interrupted\\)"):
        Client(retries=0).download(sources.url + PATH, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    Client().download(sources.url + PATH, tmp_path / "a")
    assert ranges(sources)[-1].startswith("bytes=")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


def test_a_file_that_has_changed_is_downloaded_from_the_start(sources, tmp_path):
    (tmp_path / "a.part").write_bytes(b"of an older file")
    (tmp_path / "a.part.tag").write_text('"older"')
    Client().download(sources.url + PATH, tmp_path / "a")
    assert ranges(sources) == ["bytes=16-"]
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


def test_a_complete_partial_file_is_not_downloaded_again(sources, tmp_path):
    content = sources.files[PATH]
    (tmp_path / "a.part").write_bytes(content.body)
    (tmp_path / "a.part.tag").write_text(content.etag)
    sent = sources.sent
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content.body
    assert sources.sent == sent


def test_a_partial_file_that_is_too_long_is_discarded(sources, tmp_path):
    content = sources.files[PATH]
    (tmp_path / "a.part").write_bytes(content.body + b"more")
    (tmp_path / "a.part.tag").write_text(content.etag)
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content.body


def test_a_slow_server_times_out(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT_S", 0.1)
    sources.piece_s = 0.4
    sources.faults[PATH] = ["slow"]
    with pytest.raises(UnreachableError, match="timed out"):
        Client(retries=0).download(sources.url + PATH, tmp_path / "a")
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_not_retried(sources, tmp_path, status):
    sources.faults[PATH] = [str(status)]
    with pytest.raises(RefusedError) as refusal:
        Client().download(sources.url + PATH, tmp_path / "a")
    assert refusal.value.status == status
    assert len(sources.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_transfer_is_decompressed(sources, tmp_path):
    sources.faults[PATH] = ["gzip"]
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body
    image = "/hpa-images/1000/40_A1_1_blue.tif.gz"
    sources.faults[image] = ["gzip"]
    Client().download(sources.url + image, tmp_path / "b.tif.gz")
    assert gzip.decompress((tmp_path / "b.tif.gz").read_bytes()) == sources.files[image].body


def test_only_missing_files_count_as_not_found():
    assert [status for status in (400, 401, 403, 404, 407, 410) if RefusedError("", status).not_found] == [
        400,
        404,
        410,
    ]


def test_a_login_page_is_refused(sources, tmp_path):
    sources.faults[PATH] = ["html"]
    with pytest.raises(UnreachableError, match="web page"):
        Client().download(sources.url + PATH, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused(sources, tmp_path):
    with pytest.raises(UnreachableError, match="but 5 were expected"):
        Client().download(sources.url + PATH, tmp_path / "a", size=5)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.part").exists()


def test_a_missing_server_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UnreachableError, match="in 3 attempts \\(no connection\\)"):
        Client(retries=2).read("http://127.0.0.1:9/x")


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_full_disk_names_the_file(sources, tmp_path):
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failure:
        Client().download(sources.url + PATH, tmp_path / "a")
    assert failure.value.filename == str(tmp_path / "a.part")
    assert not (tmp_path / "a").exists()
    assert len(sources.asked) == 1


def test_parallel_requests_are_limited(sources):
    client, running, most = Client(connections=3), [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        return number * number

    assert sorted(client.map_unordered(work, range(20))) == [(n, n * n) for n in range(20)]
    assert max(most) == 3


def test_a_failure_stops_pending_work(sources):
    client, started = Client(connections=2), []

    def work(number):
        started.append(number)
        if number == 1:
            raise ValueError("one")
        return number

    with pytest.raises(ValueError, match="one"):
        list(client.map_unordered(work, range(1000)))
    assert len(started) < 20
