"""A soak of a website on loopback: honest visitors among attackers, kills, a full disk and a locked database.

``python tests/opengps/soak.py --seed 1 --seconds 600`` (`make soak`) prints figures as JSON. It fails if an
honest job is wrong, doubled or missing, if any answer is a 500, or if memory or descriptors grow.
"""

import argparse
import gzip
import io
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests
import tifffile
from services import free_port

from deepgps import Predictor, Protein

API = "/api/v1"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PATIENCE_S = 900
SPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
MB = 1e6


@dataclass
class Figures:
    """What happened; changed by all threads."""

    pages_s: list[float] = field(default_factory=list)
    singles_s: list[float] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)
    events: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    proteins: int = 0


class Soak:
    """A site, and everything that happens to it for some time."""

    def __init__(self, folder: Path, seed: int, seconds: float) -> None:
        self.folder, self.seed, self.seconds = folder, seed, seconds
        self.figures, self.stop = Figures(), threading.Event()
        self.port, self.begun = free_port(), time.monotonic()
        self.predictor = Predictor.load(threads=1)
        self.server = self.worker = None
        self.samples: list[tuple[float, float, int]] = []
        self.environment = {
            **os.environ,
            "OPENGPS_DATA": str(folder / "data"),
            "OPENGPS_LOOKUPS": "false",
            "OPENGPS_CHUNK_PROTEINS": "16",
            "OPENGPS_CHUNK_IMAGES": "4",
            "OPENGPS_REQUEST_TIMEOUT_S": "15",
            "OPENGPS_BODY_TIMEOUT_S": "5",
            "OPENGPS_UPLOAD_TIMEOUT_S": "20",
            "OPENGPS_RETRY_S": "5",
            "OPENGPS_JOBS_PER_HOUR": "100000",
            "OPENGPS_PROTEINS_PER_HOUR": "10000000",
            "OPENGPS_REQUESTS_PER_MINUTE": "100000",
            "OPENGPS_MAX_OPEN_JOBS": "150",
            "DEEPGPS_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    # Processes.

    def start_server(self) -> None:
        command = f"from deepgps.cli import main; import sys; sys.argv = {self._words('serve')!r}; main()"
        self.server = self._start(command)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with suppress(requests.RequestException):
                if requests.get(self.url("/health"), timeout=10).ok:
                    return
            time.sleep(0.2)
        raise AssertionError("the server does not answer")

    def start_worker(self) -> None:
        self.worker = self._start(
            "from deepgps.cli import main; import sys; sys.argv = ['deepgps', 'worker']; main()"
        )

    def _words(self, *words: str) -> list[str]:
        return ["deepgps", *words, "--port", str(self.port), "--no-worker"]

    def _start(self, code: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-c", code], env=self.environment, **quiet)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, method: str, path: str, address: str, **options) -> requests.Response | None:
        """Send a request as if from an address; None while the server is away."""
        headers = {"X-Forwarded-For": address, "Connection": "close", **options.pop("headers", {})}
        try:
            answer = requests.request(method, self.url(path), headers=headers, timeout=60, **options)
        except requests.RequestException:
            return None
        self.figures.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.figures.problems.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def until(self, condition, patience_s: float = PATIENCE_S) -> bool:
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.2)
        return False

    # Honest visitors.

    def honest(self, number: int, *, batch: bool) -> None:
        rng = random.Random(f"{self.seed} honest {number}")
        address = f"198.51.100.{number}"
        last = False
        while not last:
            # The last job begins when all else has ended.
            last = self.stop.is_set()
            count = 60 if batch else rng.choice([1, 1, 1, 3, 8])
            images = not batch and rng.random() < 0.2
            names = [f"v{number}-{rng.randrange(10**6)}-{place}" for place in range(min(count, 60))]
            proteins = [
                Protein(name, "M" + "".join(rng.choice(LETTERS) for _ in range(rng.randint(30, 80))))
                for name in names
            ]
            self._predict(address, proteins, images=images, single=not batch and len(proteins) == 1)
            if not batch:
                self.stop.wait(rng.uniform(0.1, 1.0))

    def _predict(self, address: str, proteins: list[Protein], *, images: bool, single: bool) -> None:
        body = {
            "proteins": "".join(f">{each.id}\n{each.sequence}\n" for each in proteins),
            "images": images,
        }
        begun, job = time.monotonic(), None
        while job is None:
            if time.monotonic() - begun > PATIENCE_S:
                self.figures.problems.append("an honest job was never accepted")
                return
            answer = self.ask("POST", f"{API}/predictions", address, json=body)
            if answer is not None and answer.status_code == 202:
                job = answer.json()["id"]
            elif answer is not None and answer.status_code not in (429, 503):
                self.figures.problems.append(f"an honest job: {answer.status_code} {answer.text[:200]}")
                return
            else:
                time.sleep(0.5)
        status = {}

        def done() -> bool:
            answer = self.ask("GET", f"{API}/predictions/{job}", address)
            status.update(answer.json() if answer is not None and answer.ok else {})
            return status.get("status") not in (None, "queued", "running")

        if not self.until(done) or status["status"] != "finished":
            self.figures.problems.append(f"job {job} is {status.get('status')}: {status.get('error')}")
            return
        if single and not images:
            self.figures.singles_s.append(time.monotonic() - begun)
        self._verify(address, job, proteins, images=images)

    def _verify(self, address: str, job: str, proteins: list[Protein], *, images: bool) -> None:
        found: list[dict] = []

        def fetched() -> bool:
            answer = self.ask("GET", f"{API}/predictions/{job}/results?limit=500", address)
            if answer is not None and answer.ok:
                found[:] = answer.json()["results"]
            return bool(found)

        self.until(fetched)
        expected = [
            (each.protein.id, list(each.localizations), each.confidence)
            for each in self.predictor.predict(proteins, images=False)
        ]
        got = [(row["protein_id"], row["localizations"], row["confidence"]) for row in found]
        same = [each[:2] for each in got] == [each[:2] for each in expected]
        if not same or any(abs(a[2] - b[2]) > 1e-4 for a, b in zip(got, expected, strict=True)):
            self.figures.problems.append(f"job {job} has wrong results")
        for row in found if images else ():
            picture = None

            def drawn(url: str = row["links"]["image.png"]) -> bool:
                nonlocal picture
                picture = self.ask("GET", url, address)
                return picture is not None and picture.status_code != 503

            self.until(drawn, 60)
            if picture is None or not picture.content.startswith(b"\x89PNG"):
                self.figures.problems.append(f"job {job} has no image of {row['protein_id']}")
        self.figures.jobs += 1
        self.figures.proteins += len(proteins)

    def read_pages(self) -> None:
        rng = random.Random(f"{self.seed} pages")
        while not self.stop.wait(0.25):
            begun = time.monotonic()
            path = rng.choice(["/", "/predict", "/models", "/privacy", "/submit"])
            answer = self.ask("GET", path, "198.51.100.200")
            if answer is not None and answer.ok:
                self.figures.pages_s.append(time.monotonic() - begun)

    # Attackers.

    def attack(self, number: int) -> None:
        rng = random.Random(f"{self.seed} attack {number}")
        address = f"192.0.2.{number}"
        attacks = (
            *(self._huge_pixels, self._other_file, self._gzip_twice, self._empty_rows, self._much_text),
            *(self._broken_host, self._drip, self._noise, self._many_jobs, self._wrong_method),
            *(self._zip_of_many, self._deep_json),
        )
        while not self.stop.wait(rng.uniform(0.2, 1.5)):
            chosen = rng.choice(attacks)
            answer = chosen(address, rng)
            self.figures.events[chosen.__name__.strip("_")] += 1
            if answer is not None and answer.status_code in (200, 201, 202):
                self.figures.problems.append(f"{chosen.__name__} was accepted: {answer.text[:100]}")

    def _form(self, address: str, name: str, content: bytes, field_name: str = "nucleus_images"):
        data = {"proteins": "MKVLAAGIVGLCAKWDEYHRPQ"} if field_name == "nucleus_images" else {}
        return self.ask("POST", f"{API}/predictions", address, data=data, files={field_name: (name, content)})

    def _ome(self, um: float, other: str | None = None) -> bytes:
        unit = f'<UUID FileName="{other}">urn:uuid:other</UUID>' if other else ""
        xml = (
            f'<?xml version="1.0"?><OME xmlns="{SPACE}" UUID="urn:uuid:own"><Image ID="Image:0"><Pixels '
            'ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="300" SizeY="260" SizeZ="1" SizeT="1" '
            f'SizeC="1" PhysicalSizeX="{um}" PhysicalSizeY="{um}"><Channel ID="Channel:0"/>'
            f'<TiffData FirstC="0" IFD="0" PlaneCount="1">{unit}</TiffData></Pixels></Image></OME>'
        )
        content = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (260, 300), np.uint8)
        tifffile.imwrite(content, pixels, description=xml, metadata=None)
        return content.getvalue()

    def _huge_pixels(self, address, rng):
        return self._form(address, "camera.ome.tif", self._ome(6.5))

    def _other_file(self, address, rng):
        other = str(self.folder / "data" / "opengps.db")
        return self._form(address, "a.ome.tif", self._ome(0.2, other))

    def _gzip_twice(self, address, rng):
        return self._form(address, "a.gz", gzip.compress(gzip.compress(bytes(5_000_000))), "file")

    def _noise(self, address, rng):
        return self._form(address, "a.tif", b"II*\0" + rng.randbytes(rng.randint(10, 50_000)))

    def _empty_rows(self, address, rng):
        table = "nucleus_image,protein_image,protein\n" + ",,\n" * 200_000
        fields = {"contributor": "x", "licence": "CC0-1.0", "consent": "true"}
        return self.ask(
            "POST", f"{API}/submissions", address, data=fields, files={"files": ("t.csv", table.encode())}
        )

    def _zip_of_many(self, address, rng):
        content = b"PK\3\4" + b"PK\1\2" * 300_000 + b"PK\5\6" + bytes(6) + b"\0\0\xff\xff" * 3
        fields = {"contributor": "x", "licence": "CC0-1.0", "consent": "true"}
        return self.ask(
            "POST", f"{API}/submissions", address, data=fields, files={"files": ("t.zip", content)}
        )

    def _much_text(self, address, rng):
        return self.ask("POST", f"{API}/predictions", address, json={"proteins": "AC DE " * 2_000_000})

    def _deep_json(self, address, rng):
        headers = {"Content-Type": "application/json"}
        return self.ask("POST", f"{API}/predictions", address, data=b"[" * 500_000, headers=headers)

    def _broken_host(self, address, rng):
        return self.ask("GET", API, address, headers={"Host": rng.choice(["[", "a b", "x:y:z"])})

    def _wrong_method(self, address, rng):
        answer = self.ask("PUT", f"{API}/predictions/x", address)
        if answer is not None and answer.status_code == 405 and "GET" not in answer.headers.get("allow", ""):
            self.figures.problems.append("405 without the methods that are allowed")
        return answer

    def _drip(self, address, rng):
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            head = f"POST {API}/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
            line.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
            begun = time.monotonic()
            line.settimeout(1)
            while time.monotonic() - begun < 45 and not self.stop.is_set():
                line.sendall(b" ")
                with suppress(TimeoutError):
                    if line.recv(100):
                        return
            if not self.stop.is_set():
                self.figures.problems.append("a slow body was not hung up")

    def _many_jobs(self, address, rng):
        for _ in range(10):
            body = {
                "proteins": "".join(f">x{n}\nMKVLAAGIVGLCAKWDEYHRPQ\n" for n in range(3)),
                "images": False,
            }
            self.ask("POST", f"{API}/predictions", address, json=body)

    # Accidents.

    def accidents(self) -> None:
        rng = random.Random(f"{self.seed} accidents")
        pause = max(5.0, self.seconds / 30)
        while not self.stop.wait(rng.uniform(0.5, 1.5) * pause):
            # In the second half the server keeps running, so that its memory can be compared.
            late = time.monotonic() - self.begun > self.seconds / 2
            kinds = [self._kill_worker, self._lock_database, self._fill_disk]
            # A server takes a while to start: once in two minutes, three times in ten.
            if not late and self.figures.events["kill_server"] <= self.seconds / 300:
                kinds.append(self._kill_server)
            chosen = rng.choice(kinds)
            self.figures.events[chosen.__name__.strip("_")] += 1
            chosen(rng)

    def _kill_worker(self, rng) -> None:
        self.worker.kill()
        self.worker.wait()
        self.start_worker()

    def _kill_server(self, rng) -> None:
        self.server.kill()
        self.server.wait()
        self.start_server()

    def _lock_database(self, rng) -> None:
        with closing(sqlite3.connect(self.folder / "data" / "opengps.db", timeout=20)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.stop.wait(rng.uniform(2, 8))
            other.rollback()

    def _fill_disk(self, rng) -> None:
        """No process can make a file longer, as on a full disk."""
        pids = [self.server.pid, self.worker.pid]
        with suppress(ProcessLookupError):
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.stop.wait(rng.uniform(2, 6))
        for pid in pids:
            with suppress(ProcessLookupError):
                unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

    def watch(self) -> None:
        """Note memory and descriptors of the server."""
        page = resource.getpagesize()
        while not self.stop.wait(1):
            with suppress(OSError, ValueError, IndexError):
                place = Path(f"/proc/{self.server.pid}")
                memory = int((place / "statm").read_text().split()[1]) * page
                count = len(list((place / "fd").iterdir()))
                self.samples.append((time.monotonic() - self.begun, memory, count))

    # All of it.

    def run(self) -> dict:
        self.start_server()
        self.start_worker()
        self.begun = time.monotonic()
        visitors = [
            threading.Thread(target=self.honest, args=(n,), kwargs={"batch": n == 1}) for n in (1, 2, 3)
        ]
        others = [
            threading.Thread(target=self.read_pages),
            threading.Thread(target=self.accidents),
            threading.Thread(target=self.watch),
            *(threading.Thread(target=self.attack, args=(n,)) for n in (1, 2, 3)),
        ]
        try:
            for each in (*visitors, *others):
                each.start()
            self.stop.wait(self.seconds)
            self.stop.set()
            for each in (*others, *visitors):
                each.join(PATIENCE_S + 120)
                if each.is_alive():
                    self.figures.problems.append("a visitor waits in vain")
            self._check_database()
            self._check_growth()
        finally:
            self.stop.set()
            for process in (self.server, self.worker):
                process.send_signal(signal.SIGTERM)
            for process in (self.server, self.worker):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
        return self.report()

    def _check_database(self) -> None:
        with closing(sqlite3.connect(self.folder / "data" / "opengps.db", timeout=30)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                self.figures.problems.append("the database is damaged")
            wrong = connection.execute(
                "SELECT jobs.id FROM jobs LEFT JOIN results ON results.job_id = jobs.id "
                "WHERE status = 'finished' GROUP BY jobs.id, total, rejected, predicted "
                "HAVING count(results.number) != total - rejected OR predicted != total - rejected "
                "OR count(DISTINCT results.protein_id) != total - rejected"
            ).fetchall()
            failed = connection.execute("SELECT id, error FROM jobs WHERE status = 'failed'").fetchall()
        self.figures.problems += [f"job {job} has doubled or missing results" for (job,) in wrong]
        self.figures.problems += [f"job {job} failed: {error}" for job, error in failed]

    def _check_growth(self) -> None:
        late = [sample for sample in self.samples if sample[0] > self.seconds / 2]
        third = len(late) // 3
        if third < 3:
            return
        for name, place, allowed in (("memory", 1, 150 * MB), ("descriptors", 2, 40)):
            before, after = (
                statistics.median(sample[place] for sample in part) for part in (late[:third], late[-third:])
            )
            if after - before > allowed:
                self.figures.problems.append(f"{name} grew from {before:,.0f} to {after:,.0f}")

    def report(self) -> dict:
        found = self.figures
        memory, descriptors = ([sample[place] for sample in self.samples] or [0] for place in (1, 2))
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "honest": {"jobs": found.jobs, "proteins": found.proteins},
            "pages_s": _percentiles(found.pages_s),
            "single_predictions_s": _percentiles(found.singles_s),
            "statuses": {str(status): found.statuses[status] for status in sorted(found.statuses)},
            "events": dict(sorted(found.events.items())),
            "server_memory_mb": [round(each / MB) for each in (memory[0], memory[-1], max(memory))],
            "server_descriptors": [descriptors[0], descriptors[-1], max(descriptors)],
            "problems": found.problems,
        }


def _percentiles(values: list[float]) -> dict:
    if len(values) < 2:
        return {"n": len(values)}
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return {"n": len(values), "p50": round(statistics.median(values), 3), "p95": round(cuts[-1], 3)}


def soak(seed: int, seconds: float) -> dict:
    """Run a soak; return its figures."""
    with tempfile.TemporaryDirectory(prefix="opengps-soak-") as folder:
        return Soak(Path(folder), seed, seconds).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    figures = soak(options.seed, options.seconds)
    print(json.dumps(figures, indent=2))
    sys.exit(bool(figures["problems"]))


if __name__ == "__main__":
    main()
