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
    return [asked for _, asked in sources.asked]


def test_a_file_comes_whole_with_its_hash_and_nothing_beside_it(sources, tmp_path):
    counted = []
    got = Client().download(sources.url + PATH, tmp_path / "sub" / "a.xml", on_bytes=counted.append)
    body = sources.files[PATH].body
    assert (tmp_path / "sub" / "a.xml").read_bytes() == body
    assert (got.sha256, got.bytes) == (hashlib.sha256(body).hexdigest(), len(body))
    assert sum(counted) == len(body)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.xml"]


def test_it_says_who_asks(sources, tmp_path, monkeypatch):
    seen = []
    handler = sources.http.RequestHandlerClass
    monkeypatch.setattr(handler, "_file", lambda self, *_: (seen.append(self.headers), self._refuse(404)))
    with pytest.raises(RefusedError):
        Client().read(sources.url + PATH)
    assert seen[0]["User-Agent"].startswith("deepgps/")


@pytest.mark.parametrize("fault", ["429:0", "429", "500", "503", "reset", "truncated"])
def test_what_passes_is_waited_for(sources, tmp_path, fault):
    sources.faults[PATH] = [fault, fault]
    waits = []
    Client(on_wait=waits.append).download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body
    assert len(sources.asked) == 3
    assert len(waits) == 2


def test_a_server_is_left_alone_as_long_as_it_asks_for(sources, tmp_path):
    sources.faults[PATH] = ["429:1"]
    start = time.monotonic()
    Client().download(sources.url + PATH, tmp_path / "a")
    assert time.monotonic() - start >= 1


def test_waits_double(sources, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 1.0)
    waits = []
    client = Client()
    monkeypatch.setattr(client._stopped, "wait", waits.append)
    sources.faults[PATH] = ["500"] * 5
    client.read(sources.url + PATH)
    assert len(waits) == 5
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waits))


def test_a_broken_transfer_goes_on_where_it_broke(sources, tmp_path):
    sources.faults[PATH] = ["truncated"]
    Client().download(sources.url + PATH, tmp_path / "a")
    body = sources.files[PATH].body
    assert ranges(sources) == ["", f"bytes={len(body) // 2}-"]
    assert (tmp_path / "a").read_bytes() == body


def test_a_later_process_goes_on_too(sources, tmp_path):
    sources.faults[PATH] = ["truncated"]
    with pytest.raises(UnreachableError, match="in 1 tries \\(the transfer broke off\\)"):
        Client(retries=0).download(sources.url + PATH, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    Client().download(sources.url + PATH, tmp_path / "a")
    assert ranges(sources)[-1].startswith("bytes=")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


def test_a_file_that_has_changed_meanwhile_is_begun_anew(sources, tmp_path):
    (tmp_path / "a.part").write_bytes(b"of an older file")
    (tmp_path / "a.part.tag").write_text('"older"')
    Client().download(sources.url + PATH, tmp_path / "a")
    assert ranges(sources) == ["bytes=16-"]
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


def test_a_file_killed_between_its_last_byte_and_its_name_is_not_fetched_again(sources, tmp_path):
    content = sources.files[PATH]
    (tmp_path / "a.part").write_bytes(content.body)
    (tmp_path / "a.part.tag").write_text(content.etag)
    sent = sources.sent
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content.body
    assert sources.sent == sent


def test_too_long_a_part_is_thrown_away(sources, tmp_path):
    content = sources.files[PATH]
    (tmp_path / "a.part").write_bytes(content.body + b"more")
    (tmp_path / "a.part.tag").write_text(content.etag)
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == content.body


def test_a_slow_server_is_not_waited_for_for_ever(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.1)
    sources.piece_s = 0.4
    sources.faults[PATH] = ["slow"]
    with pytest.raises(UnreachableError, match="no answer in time"):
        Client(retries=0).download(sources.url + PATH, tmp_path / "a")
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_not_asked_again(sources, tmp_path, status):
    sources.faults[PATH] = [str(status)]
    with pytest.raises(RefusedError) as refusal:
        Client().download(sources.url + PATH, tmp_path / "a")
    assert refusal.value.status == status
    assert len(sources.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_packed_for_the_way_is_unpacked(sources, tmp_path):
    sources.faults[PATH] = ["gzip"]
    Client().download(sources.url + PATH, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == sources.files[PATH].body
    image = "/hpa-images/1000/40_A1_1_blue.tif.gz"
    sources.faults[image] = ["gzip"]
    Client().download(sources.url + image, tmp_path / "b.tif.gz")
    assert gzip.decompress((tmp_path / "b.tif.gz").read_bytes()) == sources.files[image].body


def test_only_what_is_not_there_is_gone():
    assert [status for status in (400, 401, 403, 404, 407, 410) if RefusedError("", status).gone] == [
        400,
        404,
        410,
    ]


def test_a_login_page_is_not_taken_for_the_file(sources, tmp_path):
    sources.faults[PATH] = ["html"]
    with pytest.raises(UnreachableError, match="web page"):
        Client().download(sources.url + PATH, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_than_listed_is_refused(sources, tmp_path):
    with pytest.raises(UnreachableError, match="where 5 were announced"):
        Client().download(sources.url + PATH, tmp_path / "a", size=5)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "a.part").exists()


def test_no_server_at_all_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UnreachableError, match="in 3 tries \\(no connection\\)"):
        Client(retries=2).read("http://127.0.0.1:9/x")


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
def test_a_full_disk_names_the_file_and_leaves_nothing_under_its_name(sources, tmp_path):
    (tmp_path / "a.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as failure:
        Client().download(sources.url + PATH, tmp_path / "a")
    assert failure.value.filename == str(tmp_path / "a.part")
    assert not (tmp_path / "a").exists()
    assert len(sources.asked) == 1


def test_work_is_done_on_so_many_connections_and_no_more(sources):
    client, running, most = Client(connections=3), [], []

    def work(number):
        running.append(number)
        most.append(len(running))
        time.sleep(0.01)
        running.remove(number)
        return number * number

    assert sorted(client.each(work, range(20))) == [(n, n * n) for n in range(20)]
    assert max(most) == 3


def test_after_a_failure_the_rest_is_not_begun(sources):
    client, begun = Client(connections=2), []

    def work(number):
        begun.append(number)
        if number == 1:
            raise ValueError("one")
        return number

    with pytest.raises(ValueError, match="one"):
        list(client.each(work, range(1000)))
    assert len(begun) < 20
