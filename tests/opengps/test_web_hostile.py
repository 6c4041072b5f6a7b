"""Requests that took the site down: each is refused with a sentence, and others are answered meanwhile."""

import asyncio
import gzip
import io
import json
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
import tifffile
from contributor import HEADER, packed, submit_files
from isolated import allocate, fail_with, read_file, refuse, wait, write_and_read
from sqlalchemy.exc import OperationalError
from test_web_security import draw, image, send_file
from visitor import API, SEQUENCE, error_of, fasta, visit

from deepgps.errors import DeepGPSError, InputError
from opengps import queue
from opengps.database import Job, Submission, UploadedNucleus
from opengps.isolation import IsolationError, LimitExceededError, run_isolated
from opengps.queue import lease_job
from opengps.settings import Settings
from opengps.visitors import network

SPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(planes, pixel_size_um=0.2, size=(208, 208)):
    """An OME-TIFF of one plane; its metadata say in which file each plane is."""
    pixels = np.asarray(tifffile.imread(io.BytesIO(image("TIFF", size))))
    data = "".join(
        f'<TiffData FirstC="{number}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{uuid}</UUID>'
        "</TiffData>"
        for number, (name, uuid) in enumerate(planes)
    )
    channels = "".join(f'<Channel ID="Channel:{number}"/>' for number in range(max(1, len(planes))))
    xml = (
        f'<?xml version="1.0"?><OME xmlns="{SPACE}" UUID="urn:uuid:own"><Image ID="Image:0"><Pixels '
        f'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{size[0]}" SizeY="{size[1]}" SizeZ="1" '
        f'SizeT="1" SizeC="{max(1, len(planes))}" PhysicalSizeX="{pixel_size_um}" '
        f'PhysicalSizeY="{pixel_size_um}">{channels}{data or "<TiffData/>"}</Pixels></Image></OME>'
    )
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, description=xml, metadata=None)
    return content.getvalue()


def test_an_upload_that_names_another_file_does_not_show_it(visitor, tmp_path):
    secret = tmp_path / "secret.tif"
    own = np.asarray(tifffile.imread(io.BytesIO(image("TIFF"))))
    tifffile.imwrite(secret, np.roll(own, 80, axis=1))
    for name in (str(secret), "secret.tif"):
        answer = draw(visitor, "a.ome.tif", ome([(name, "other")]))
        if answer.status_code == 422:
            assert "secret.tif" in error_of(answer, 422)["message"]
            continue
        with visitor.site.sessions() as session:
            stored = session.query(UploadedNucleus).filter_by(job_id=answer.json()["id"]).one()
        pixels = np.frombuffer(stored.pixels, np.float32)
        assert np.corrcoef(pixels, own.ravel())[0, 1] > 0.9
    assert draw(visitor, "a.ome.tif", ome([("a.ome.tif", "own")])).status_code == 202


def test_a_process_for_an_upload_opens_its_own_files_only(tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.write_bytes(b"secret")
    assert run_isolated(Settings(), own, write_and_read, own / "a") == b"own"
    with pytest.raises(IsolationError, match="PermissionError"):
        run_isolated(Settings(), own, read_file, other)


def test_a_process_for_an_upload_has_limits(tmp_path):
    few = Settings(upload_memory_bytes=200_000_000, upload_timeout_s=2)
    assert run_isolated(few, tmp_path, allocate, 50_000_000) == 50_000_000
    with pytest.raises(LimitExceededError, match="200 MB of memory"):
        run_isolated(few, tmp_path, allocate, 800_000_000)
    with pytest.raises(LimitExceededError, match="2 s"):
        run_isolated(few, tmp_path, wait, 60)
    with pytest.raises(InputError, match="this and that"):
        run_isolated(few, tmp_path, refuse, "this and that")
    with pytest.raises(IsolationError) as caught:
        run_isolated(few, tmp_path, fail_with, SEQUENCE)
    assert SEQUENCE not in str(caught.value)


def test_an_image_that_would_grow_is_refused_before_it_grows(visitor):
    begun = time.monotonic()
    answer = draw(visitor, "camera.ome.tif", ome([], 6.5, (300, 260)))
    assert "9,449" in error_of(answer, 422)["message"] or "pixel size" in error_of(answer, 422)["message"]
    assert time.monotonic() - begun < 60
    answer = draw(visitor, "a.png", image(), pixel_size_um=9.9)
    assert "pixel size" in error_of(answer, 422)["message"]


def test_gzip_is_unpacked_once(visitor):
    twice = gzip.compress(gzip.compress(fasta(2).encode()))
    assert "several times" in error_of(send_file(visitor, "a.gz", twice), 422)["message"]
    bomb = gzip.compress(gzip.compress(b">a\n" + bytes(2_000_000)))
    assert send_file(visitor, "a.gz", bomb).status_code == 422


def test_a_table_of_a_submission_is_read_up_to_its_limit(visitor):
    rows = HEADER + "a.tif,,,\n" * 300_000
    assert "limit" in error_of(submit_files(visitor, ("a.zip", packed({"t.csv": rows}))), 422)["message"]
    empty = HEADER + ",,,\n" * 300_000
    assert (
        "10,000 rows" in error_of(submit_files(visitor, ("a.zip", packed({"t.csv": empty}))), 422)["message"]
    )


def test_a_zip_of_very_many_files_is_not_opened(visitor):
    content = packed({f"{number:05}.txt": "" for number in range(20_000)})
    assert "too many files" in error_of(submit_files(visitor, ("a.zip", content)), 413)["message"]


@pytest.mark.parametrize("text", ["ACDEF " * 1000, f">a\n{'M' * 6000}"])
def test_a_text_in_json_has_the_limit_of_a_file(tmp_path, visitor, text):
    small = visit(tmp_path / "small", max_table_bytes=5000)
    assert error_of(small.send(text), 413)["code"] == "payload_too_large"
    body = json.dumps({"proteins": "M" * 300_000})
    kind = {"Content-Type": "application/json"}
    assert error_of(small.client.post(f"{API}/predictions", content=body, headers=kind), 413)


def ask(site, receive, path=f"{API}/predictions", method="POST"):
    """Send one request to the app; return the start of the response and its body."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
        "client": ("203.0.113.7", 1),
        "server": ("testserver", 80),
        "scheme": "http",
        "root_path": "",
        "http_version": "1.1",
    }
    return site.client.app(scope, receive, send), sent


def test_a_slow_body_is_hung_up(tmp_path, visitor):
    slow = visit(tmp_path / "slow", request_timeout_s=0.3)

    async def drip():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    answer, sent = ask(slow, drip)
    asyncio.run(answer)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"request_timeout" in sent[1]["body"]


def test_a_visitor_sends_a_few_requests_at_once(tmp_path, visitor):
    few = visit(tmp_path / "few", requests_at_once=2, body_timeout_s=0.5)

    async def never():
        await asyncio.sleep(30)

    async def all_at_once():
        asked = [ask(few, never) for _ in range(5)]
        await asyncio.gather(*(answer for answer, _ in asked))
        return Counter(sent[0]["status"] for _, sent in asked)

    assert asyncio.run(all_at_once()) == {408: 2, 429: 3}


@pytest.mark.parametrize("host", ["[", "a b", "[::1", "a/b", "a@b", "x:99999999"])
def test_a_host_that_is_none_is_a_bad_request(visitor, host):
    for path in ("/", API):
        assert visitor.client.get(path, headers={"Host": host}).status_code == 400
    assert visitor.client.get(API, headers={"Host": "[::1]:8000"}).status_code == 200
    answer = visitor.client.post(f"{API}/predictions", json={"proteins": "x"}, headers={"Origin": "http://["})
    assert error_of(answer, 403)["code"] == "cross_site"


def test_a_method_that_is_not_supported_names_those_that_are(visitor):
    job = visitor.send().json()["id"]
    answer = visitor.client.put(f"{API}/predictions/{job}")
    assert error_of(answer, 405)["code"] == "method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "DELETE"}
    assert visitor.client.delete("/predictions").headers["allow"] == "GET, POST"


# Fair between visitors.


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_visitor_is_an_address_or_a_network(address, expected):
    assert network(address) == expected


def of(visitor, job_id, name):
    with visitor.site.sessions.begin() as session:
        session.query(Job).filter_by(id=job_id).update({Job.visitor: name})
    return job_id


def test_many_jobs_of_one_visitor_do_not_starve_a_single_one(visitor):
    many = [of(visitor, visitor.send(images=False).json()["id"], "many") for _ in range(30)]
    visitor.chunk()
    single = of(visitor, visitor.send(images=False).json()["id"], "single")
    assert visitor.status(single)["queue_position"] == 1
    assert visitor.status(many[-1])["queue_position"] == 30
    visitor.chunk()
    assert visitor.status(single)["status"] == "finished"


def test_visitors_and_then_their_jobs_are_served_round_robin(visitor):
    jobs = {
        name: [of(visitor, visitor.send(fasta(30)).json()["id"], name) for _ in range(2)] for name in "ab"
    }
    served = []
    for _ in range(8):
        job = lease_job(visitor.site)
        served.append((job.visitor, jobs[job.visitor].index(job.id)))
        queue.release_job(visitor.site, job)
    assert [name for name, _ in served] == list("abababab")
    assert Counter(served) == dict.fromkeys([("a", 0), ("a", 1), ("b", 0), ("b", 1)], 2)


def test_quotas_hold_for_requests_at_once(tmp_path, visitor):
    few = visit(tmp_path / "few", jobs_per_hour=5)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(few.send(images=False).status_code)) for _ in range(20)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Counter(answers) == {202: 5, 429: 15}


def test_the_disk_has_a_budget(tmp_path, visitor):
    small = visit(tmp_path / "small", max_disk_bytes=1_000_000)
    assert small.send(fasta(2)).status_code == 202
    refused = small.send(fasta(2))
    assert error_of(refused, 503)["code"] == "storage_full"
    assert int(refused.headers["retry-after"]) > 0
    own = visit(tmp_path / "own", max_visitor_bytes=1_000_000)
    job = own.send(fasta(2)).json()["id"]
    assert error_of(own.send(fasta(2)), 429)["code"] == "too_much_disk"
    own.work()
    with own.site.sessions() as session:
        measured = session.get(Job, job).disk_bytes
    files = sum(path.stat().st_size for path in own.job_folder(job).rglob("*") if path.is_file())
    assert files <= measured < 1_000_000
    of(own, job, "another")
    assert own.send(fasta(2)).status_code == 202
    full = visit(tmp_path / "full", min_free_bytes=10**15)
    assert error_of(full.send(), 503)["code"] == "storage_full"
    assert error_of(submit_files(full, ("a.zip", packed({"t.csv": HEADER + "a.tif,,NPM1,er\n"}))), 503)


# Failures speak HTTP.


def test_a_locked_database_is_a_503(visitor, monkeypatch):
    monkeypatch.setattr("opengps.database._BUSY_MS", 50)
    locked = visit(visitor.site.settings.data)
    with closing(sqlite3.connect(visitor.site.settings.data / "opengps.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = locked.send()
        assert error_of(answer, 503)["code"] == "unavailable"
        assert int(answer.headers["retry-after"]) > 0
        assert locked.client.get(API).status_code == 200
        answer = locked.form({"proteins": SEQUENCE, "model": "tiny"}, status=503)
        assert "try again" in answer.text
    assert locked.send().status_code == 202


def test_a_full_disk_is_a_503(visitor, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("opengps.requests.check_request", full)
    assert error_of(visitor.send(), 503)["code"] == "storage_full"

    def failing(*_, **__):
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr("opengps.requests.create_job", failing)
    monkeypatch.setattr("opengps.requests.check_request", lambda *_: None)
    assert error_of(visitor.send(), 503)["code"] == "unavailable"


def test_a_damaged_database_is_a_sentence_at_the_start(visitor):
    visitor.predict(fasta(3))
    data = visitor.site.settings.data
    visitor.site.sessions.kw["bind"].dispose()
    file = data / "opengps.db"
    sound = file.read_bytes()
    for damaged in (b"no database at all" * 100, sound[:4096] + b"\xff" * (len(sound) - 4096)):
        file.write_bytes(damaged)
        for name in ("opengps.db-wal", "opengps.db-shm"):
            (data / name).unlink(missing_ok=True)
        with pytest.raises(DeepGPSError, match="opengps restore"):
            visit(data)


def test_a_database_that_fails_a_chunk_does_not_condemn_its_job(visitor, monkeypatch):
    job = visitor.send(images=False).json()["id"]

    def failing(*_, **__):
        raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))

    with monkeypatch.context() as patch:
        patch.setattr("opengps.worker.save_progress", failing)
        for _ in range(5):
            with pytest.raises(OperationalError):
                visitor.chunk()
    visitor.work()
    assert visitor.status(job)["status"] == "finished"


def test_fast_restarts_do_not_condemn_a_job(visitor, monkeypatch):
    job = visitor.send(images=False).json()["id"]
    now = time.time()
    monkeypatch.setattr(queue, "_is_running", lambda *_: False)
    monkeypatch.setattr("opengps.queue.time.time", lambda: now)
    for _ in range(6):
        lease_job(visitor.site)
        queue.release_dead_workers(visitor.site)
    assert visitor.status(job)["status"] != "failed"
    now += visitor.site.settings.retry_s + 1
    visitor.work()
    assert visitor.status(job)["status"] == "finished"


# Privacy.


def test_a_deleted_sequence_leaves_the_database_file(visitor):
    sequence = "MKWVTFISLLFLFSSAYSRGVFRRDAHKSEVAHRFKDLGEENFKALVL"
    job = visitor.predict(f">private\n{sequence}\n", images=False)
    files = [visitor.site.settings.data / name for name in ("opengps.db", "opengps.db-wal")]
    content = b"".join(path.read_bytes() for path in files if path.exists())
    assert sequence.encode() in content
    visitor.client.delete(f"{API}/predictions/{job}")
    content = b"".join(path.read_bytes() for path in files if path.exists())
    assert sequence.encode() not in content and b"private" not in content


def test_no_address_is_stored(visitor):
    visitor.send()
    with visitor.site.sessions() as session:
        assert session.query(Job).one().visitor != "203.0.113.7"
        assert session.query(Submission).count() == 0
    assert len((visitor.site.settings.data / "visitors.key").read_bytes()) == 32
    again = visit(visitor.site.settings.data)
    assert again.site.visitor_key == visitor.site.visitor_key
    content = (visitor.site.settings.data / "opengps.db").read_bytes()
    assert b"203.0.113" not in content


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        ("=1+1", "'=1+1"),
        ("a;=1+1", "a;'=1+1"),
        ("a,+1", "a,'+1"),
        ('a;"@x', "a;\"'@x"),
        ("a\t-1", "a\t'-1"),
        ("a; b-c", "a; b-c"),
    ],
)
def test_a_cell_is_no_formula_wherever_a_line_is_split(value, expected):
    from opengps.downloads import escape_formula

    assert escape_formula(value) == expected
