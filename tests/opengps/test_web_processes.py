"""Real servers and workers that are killed: in one folder, and on machines that share services."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from contributor import FIELDS, pair
from services import SECRET, free_port
from sqlalchemy import create_engine, text
from visitor import API, SEQUENCE, fasta

pytestmark = pytest.mark.slow
PATIENCE_S = 300


def until(event, condition):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out waiting until {event}")


class Place:
    """A site, and the processes that a test starts for it.

    On one machine all share a data folder; where there are services, each process has one of its own.
    """

    def __init__(self, folder, models, services=None):
        self.folder, self.services, self.started, self.ports = folder, services, [], []
        self.environment = {
            **os.environ,
            "DEEPGPS_MODELS": str(models),
            # Short chunks, so that a kill happens in the middle of a job.
            "OPENGPS_CHUNK_PROTEINS": "4",
            "OPENGPS_CHUNK_IMAGES": "4",
            "OPENGPS_REQUESTS_PER_MINUTE": "100000",
        }
        self.database = f"sqlite:///{folder / 'opengps.db'}"
        if services:
            self.database, self.bucket = services.database(), services.bucket()
            self.environment |= {
                **services.s3_environment,
                "OPENGPS_DATABASE_URL": self.database,
                "OPENGPS_STORAGE_URL": self.bucket,
            }

    def run(self, *command, **options):
        deepgps = Path(sys.executable).with_name("deepgps")
        data = self.folder / f"machine{len(self.started)}" if self.services else self.folder
        environment = {**self.environment, "OPENGPS_DATA": str(data)}
        process = subprocess.Popen([deepgps, *command], env=environment, stdout=subprocess.DEVNULL, **options)
        self.started.append(process)
        return process

    def serve(self, *options, port=None, **how):
        """Start a server and wait until it answers."""
        port = port or free_port()
        process = self.run("serve", "--port", str(port), *options, **how)
        process.port = port
        self.ports.append(port)
        until("the server answers", lambda: self.get("/health", port=port))
        return process

    def site(self):
        """One server with a worker; with services, two of them and three workers."""
        server = self.serve()
        if self.services:
            self.serve()
            self.run("worker")
        return server

    def get(self, address, port=None, **query):
        """Ask one server, or whichever answers."""
        for each in [port] if port else self.ports:
            with suppress(requests.ConnectionError):
                answer = requests.get(f"http://127.0.0.1:{each}{address}", params=query, timeout=60)
                answer.raise_for_status()
                return answer
        return None

    def ask(self, address, **query):
        return self.get(f"{API}{address}", **query).json()

    def post(self, address, **body):
        answer = requests.post(f"http://127.0.0.1:{self.ports[-1]}{API}{address}", timeout=60, **body)
        answer.raise_for_status()
        return answer.json()

    def send(self, proteins, **fields):
        return self.post(
            "/predictions", json={"proteins": proteins, "model": "tiny", "images": False, **fields}
        )["id"]

    def status(self, job):
        found = self.ask(f"/predictions/{job}")
        assert found["status"] != "failed", found["error"]
        return found

    def wait_for(self, job, count):
        until(f"{count} proteins", lambda: self.status(job)["predicted"] >= count)

    def finish(self, job):
        until("the job is finished", lambda: self.status(job)["status"] == "finished")

    def kill_worker_of(self, job):
        """Kill the worker that holds the lease of a job; one that no server restarts is replaced."""
        engine = create_engine(self.database)

        def worker():
            with engine.connect() as connection:
                found = connection.execute(text("SELECT worker FROM jobs WHERE id = :job"), {"job": job})
                return found.scalar()

        pid = int(until("a worker leases the job", worker).split(":")[1])
        os.kill(pid, signal.SIGKILL)
        for process in [each for each in self.started if each.pid == pid]:
            # Until then it counts as alive.
            process.wait()
            self.run("worker")

    def check(self, job, count):
        """Every protein is there once, in order."""
        self.finish(job)
        expected = [f"p{i}" for i in range(count)]
        rows = self.ask(f"/predictions/{job}/results", limit=500)["results"]
        assert [row["protein_id"] for row in rows] == expected

    def files(self):
        """The stored files of jobs and submissions."""
        if not self.services:
            return [path for kind in ("jobs", "submissions") for path in (self.folder / kind).rglob("*.*")]
        own = ("openGPS.txt", "visitors.key")
        return [each for each in self.services.files(self.bucket) if not each.endswith(own)]


@contextmanager
def place_at(folder, models, services=None):
    place = Place(folder, models, services)
    try:
        yield place
    finally:
        for process in place.started:
            process.kill()
            process.wait()


@pytest.fixture(params=["one machine", pytest.param("services", marks=pytest.mark.services)])
def place(request, tmp_path, tiny_bundle):
    services = request.getfixturevalue("services") if request.param == "services" else None
    with place_at(tmp_path / "data", tiny_bundle.path.parent, services) as place:
        yield place


@pytest.fixture
def one_machine(tmp_path, tiny_bundle):
    with place_at(tmp_path / "data", tiny_bundle.path.parent) as place:
        yield place


def children(process):
    # The worker is started by a thread, whose children are listed under it.
    found = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = [int(pid) for path in found for pid in path.read_text().split()]
    # Not the processes that read uploads.
    return [pid for pid in pids if b"opengps.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")


def test_a_killed_worker_and_a_killed_server_lose_and_double_nothing(place):
    server = place.site()
    job = place.send(fasta(500))
    place.wait_for(job, 20)
    place.kill_worker_of(job)
    at = place.status(job)["predicted"]
    place.wait_for(job, at + 20)
    assert place.status(job)["predicted"] < 500
    server.kill()
    server.wait()
    place.serve(port=server.port)
    place.check(job, 500)


def test_images_of_killed_workers_are_all_there_once(place):
    place.site()
    job = place.send(fasta(12), images=True, nuclei=["hek-1", "u2os-1"])
    for count in (2, 6):
        place.wait_for(job, count)
        place.kill_worker_of(job)
    place.finish(job)
    for port in place.ports:
        content = place.get(f"{API}/predictions/{job}/results.zip", port=port).content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert len(set(names)) == len(names)
            assert sum(name.startswith("images/") for name in names) == 12 * 2 * 2
            assert json.loads(archive.read("run.json"))["finished"]
            assert archive.read("report.html").count(b"data:image/jpeg") == 2 * 24  # gallery and cards
            assert len(archive.read("results.jsonl").splitlines()) == 24
    assert len([each for each in place.files() if str(each).endswith(".png")]) == 24


def test_a_deleted_job_leaves_no_file(place):
    place.site()
    job = place.send(fasta(2), images=True)
    place.finish(job)
    assert len(place.files()) >= 6
    requests.delete(
        f"http://127.0.0.1:{place.ports[-1]}{API}/predictions/{job}", timeout=60
    ).raise_for_status()
    assert place.files() == []


def test_a_submission_is_compared_and_shown_by_every_server(place):
    place.site()
    sent = place.post("/submissions", data=FIELDS, files=pair())
    here = f"/submissions/{sent['id']}"
    until("a comparison", lambda: place.ask(here)["images"][0]["comparison"])
    drawn = f"{API}{here}/images/{sent['images'][0]['number']}/drawn.png"
    for port in place.ports:
        assert place.get(drawn, port=port).content.startswith(b"\x89PNG")
    requests.delete(f"http://127.0.0.1:{place.ports[0]}{API}{here}", timeout=60).raise_for_status()
    assert place.files() == []


@needs_proc
def test_the_worker_stops_when_its_server_is_killed(one_machine):
    server = one_machine.serve()
    (worker,) = until("the worker runs", lambda: children(server))
    server.kill()
    server.wait()

    def gone():
        try:
            return "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]
        except OSError:
            return True

    until("the worker ends", gone)


def test_several_workers_share_the_jobs(place):
    place.serve("--no-worker")
    jobs = [place.send(fasta(60)) for _ in range(3)]
    assert [place.status(job)["status"] for job in jobs] == ["queued"] * 3
    first, second = place.run("worker"), place.run("worker")
    place.wait_for(jobs[0], 10)
    first.kill()
    first.wait()
    for job in jobs:
        place.check(job, 60)
    assert second.poll() is None


def test_a_single_protein_is_soon_done_beside_a_batch(place):
    place.site()
    batch = place.send(fasta(400))
    place.wait_for(batch, 4)
    single = place.send(f">one\n{SEQUENCE}\n")
    place.finish(single)
    assert place.status(batch)["predicted"] < 400


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_server_and_its_worker_stop_silently(place, how):
    server = place.serve(stderr=subprocess.PIPE)
    job = place.send(fasta(2), images=True)
    place.finish(job)
    assert place.get(f"/predictions/{job}/results.zip").content
    server.send_signal(how)
    _, message = server.communicate(timeout=PATIENCE_S)
    assert message == b""


def test_a_port_in_use_is_an_error(one_machine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        deepgps = Path(sys.executable).with_name("deepgps")
        done = subprocess.run(
            [deepgps, "serve", "--port", port], env=one_machine.environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_setting_is_an_error(one_machine):
    deepgps = Path(sys.executable).with_name("deepgps")
    environment = {**one_machine.environment, "OPENGPS_MAX_PROTEINS": "many"}
    done = subprocess.run([deepgps, "worker"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "OPENGPS_MAX_PROTEINS = 'many'" in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("OPENGPS_DATABASE_URL", f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/site", "cannot be opened"),
        ("OPENGPS_STORAGE_URL", "nothing://x", "cannot be used"),
        ("OPENGPS_STORAGE_URL", "file:///proc/opengps", "cannot be written"),
    ],
)
def test_an_unreachable_service_is_an_error(one_machine, tmp_path, setting, value, message):
    deepgps = Path(sys.executable).with_name("deepgps")
    environment = {**one_machine.environment, "OPENGPS_DATA": str(tmp_path), setting: value}
    done = subprocess.run([deepgps, "worker"], env=environment, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
