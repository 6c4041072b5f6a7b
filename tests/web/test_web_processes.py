"""Real servers and real workers, killed as they come."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from visitor import API, SEQUENCE, fasta, jsonl

pytestmark = pytest.mark.slow
PATIENCE_S = 120


def until(said, condition):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {said}")


class Place:
    """A data folder, a port, and the processes that a test starts there."""

    def __init__(self, folder, models):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.environment = {
            **os.environ,
            "DEEPGPS_MODELS": str(models),
            "OPENGPS_DATA": str(folder),
            # Short turns, so that a kill falls into the middle of a job.
            "OPENGPS_TURN_LABELS": "4",
            "OPENGPS_REQUESTS_PER_MINUTE": "100000",
        }
        self.started = []

    def run(self, *command):
        deepgps = Path(sys.executable).with_name("deepgps")
        process = subprocess.Popen([deepgps, *command], env=self.environment, stdout=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def serve(self, *options):
        process = self.run("serve", "--port", str(self.port), *options)
        until("the server answers", lambda: self.ask("/health"))
        return process

    def ask(self, address, body=None):
        request = Request(f"http://127.0.0.1:{self.port}{address}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with suppress(URLError, ConnectionError), urlopen(request, timeout=30) as answer:
            return json.load(answer)
        return None

    def send(self, proteins):
        body = {"proteins": proteins, "model": "tiny", "pictures": False}
        return self.ask(f"{API}/predictions", body)["id"]

    def status(self, job):
        return self.ask(f"{API}/predictions/{job}")

    def wait_for(self, job, count):
        until(f"{count} proteins", lambda: self.status(job)["predicted"] >= count)

    def check(self, job, count):
        """Every protein is there once, in order, in the database and on disk."""
        until("the job is finished", lambda: self.status(job)["status"] == "finished")
        wanted = [f"p{i}" for i in range(count)]
        rows = self.ask(f"{API}/predictions/{job}/results?limit=500")["results"]
        assert [row["protein_id"] for row in rows] == wanted
        assert [r["protein_id"] for r in jsonl(self.folder / "jobs" / job / "results.jsonl")] == wanted


@contextmanager
def place_at(folder, models):
    place = Place(folder, models)
    try:
        yield place
    finally:
        for process in place.started:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path, tiny_bundle):
    with place_at(tmp_path / "data", tiny_bundle.path.parent) as place:
        yield place


def children(process):
    # The worker is started by a thread, whose children are listed under it.
    found = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")


@needs_proc
def test_a_killed_worker_and_a_killed_server_lose_and_double_nothing(place):
    server = place.serve()
    job = place.send(fasta(500))
    place.wait_for(job, 20)
    (worker,) = children(server)
    os.kill(worker, signal.SIGKILL)
    at = place.status(job)["predicted"]
    assert at < 500
    place.wait_for(job, at + 20)
    server.kill()
    server.wait()
    server = place.serve()
    assert place.status(job)["predicted"] < 500
    place.check(job, 500)


@needs_proc
def test_the_worker_ends_with_its_server_however_that_ends(place):
    server = place.serve()
    (worker,) = until("the worker runs", lambda: children(server))
    server.kill()
    server.wait()

    def gone():
        try:
            return "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]
        except OSError:
            return True

    until("the worker ends", gone)


def test_several_workers_share_the_work_and_never_a_turn(place):
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
    place.serve()
    batch = place.send(fasta(400))
    place.wait_for(batch, 4)
    single = place.send(f">one\n{SEQUENCE}\n")
    until("the single protein", lambda: place.status(single)["status"] == "finished")
    assert place.status(batch)["predicted"] < 400


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_server_and_its_worker_stop_without_complaint_when_told(place, how):
    deepgps = Path(sys.executable).with_name("deepgps")
    command = [deepgps, "serve", "--port", str(place.port)]
    server = subprocess.Popen(
        command, env=place.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    place.started.append(server)
    until("the server answers", lambda: place.ask("/health"))
    job = place.send(fasta(8))
    place.wait_for(job, 8)
    server.send_signal(how)
    _, said = server.communicate(timeout=PATIENCE_S)
    assert said == b""


def test_a_taken_port_is_said_in_a_sentence(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        deepgps = Path(sys.executable).with_name("deepgps")
        done = subprocess.run(
            [deepgps, "serve", "--port", port], env=place.environment, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_used_is_said_in_a_sentence(place):
    deepgps = Path(sys.executable).with_name("deepgps")
    environment = {**place.environment, "OPENGPS_MAX_PROTEINS": "many"}
    done = subprocess.run([deepgps, "worker"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "OPENGPS_MAX_PROTEINS = 'many'" in done.stderr
