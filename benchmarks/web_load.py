"""Load on the website: visitors who browse, visitors who predict, and a batch, on one ``deepgps serve``.

``python benchmarks/web_load.py [--visitors 100 --predictors 20 --batch 500 --seconds 60]``

Every browsing visitor opens a page, fetches what a browser fetches for it and has not kept, thinks for 1 to
3 s, and opens the next: the public pages, and the results of the example. Every predicting visitor sends
one protein by the form, looks at the job's page whenever that page's own script would until a result stands
there, reads it for 5 to 10 s, and sends the next. Visitors arrive one after the other over the first
seconds, and what they then see counts, too. All the while a batch is drawn, whose sender watches its page.
Server, worker and visitors share the machine; its load average is printed beside the figures.
"""

import argparse
import asyncio
import json
import math
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

API = "/api/v1"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
RESIDUES = 400
PAGES = ("/", "/predict", "/submit", "/models", "/models/deepgps-mini", "/nuclei", "/privacy", "/api")
FETCHED = re.compile(r'<(?:img|script|link)[^>]*?(?:src|href)="(/[^"]+)"')
CONNECTIONS_OF_A_BROWSER = 6
# As static/site.js looks again.
FIRST_LOOK_S, SLOWER, WATCHED_S = 0.3, 1.3, 1.0


@dataclass
class Measured:
    """What the visitors saw: seconds of each kind of request, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def add(self, kind: str, seconds: float) -> None:
        """Count one request."""
        self.seconds.setdefault(kind, []).append(seconds)


class Visitor:
    """One browser: its connections, and what it has fetched already."""

    def __init__(self, site: str, measured: Measured, seed: int) -> None:
        limits = httpx2.Limits(max_connections=CONNECTIONS_OF_A_BROWSER)
        self.client = httpx2.AsyncClient(base_url=site, timeout=60, limits=limits)
        self.measured, self.kept = measured, set[str]()
        self.random = random.Random(seed)

    async def ask(self, kind: str, path: str, **form: str) -> httpx2.Response | None:
        """Time one request; None, and an error, where it fails."""
        begun = time.perf_counter()
        try:
            if form:
                answer = await self.client.post(path, data=form)
            else:
                answer = await self.client.get(path)
        except httpx2.HTTPError as error:
            self.measured.errors.append(f"{kind} {path}: {type(error).__name__}")
            return None
        if answer.status_code >= 400:
            self.measured.errors.append(f"{kind} {path}: {answer.status_code}")
            return None
        self.measured.add(kind, time.perf_counter() - begun)
        return answer

    async def open(self, path: str) -> str:
        """Open a page with all that is on it; return its text."""
        answer = await self.ask("page", path)
        if answer is None:
            return ""
        wanted = [each.replace("&amp;", "&") for each in FETCHED.findall(answer.text)]
        new = [each for each in dict.fromkeys(wanted) if each not in self.kept]
        self.kept.update(new)
        await asyncio.gather(*(self.ask("image or file", each) for each in new))
        return answer.text

    async def browse(self, pages: Sequence[str], until: float, think_s: Sequence[float]) -> None:
        """Open one page after another."""
        while time.monotonic() < until:
            await self.open(self.random.choice(pages))
            await asyncio.sleep(self.random.uniform(*think_s))

    async def predict(self, until: float, read_s: Sequence[float]) -> None:
        """Send one protein after another and wait for each result."""
        while time.monotonic() < until:
            sequence = "M" + "".join(self.random.choices(LETTERS, k=RESIDUES))
            begun = time.perf_counter()
            sent = await self.ask("form", "/predictions", proteins=f">one\n{sequence}\n", nuclei="hek-1")
            if sent is not None and await self.result_of(sent.headers["location"]):
                self.measured.add("prediction, sent to seen", time.perf_counter() - begun)
            await asyncio.sleep(self.random.uniform(*read_s))

    async def result_of(self, job: str) -> bool:
        """Look at a job's page until a result stands there."""
        pause = FIRST_LOOK_S
        for _ in range(100):
            await asyncio.sleep(pause)
            if 'class="results"' in await self.open(job):
                return True
            pause *= SLOWER
        self.measured.errors.append(f"{job}: no result")
        return False

    async def watch(self, job: str, until: float) -> None:
        """Keep a page open that is fetched anew while it changes."""
        while time.monotonic() < until:
            await self.open(job)
            await asyncio.sleep(WATCHED_S)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """Run ``deepgps serve`` with limits that these visitors do not reach; yield its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    most = ("REQUESTS_PER_MINUTE", "JOBS_PER_HOUR", "PROTEINS_PER_HOUR")
    environment = {
        **os.environ,
        "OPENGPS_DATA": str(folder),
        **{f"OPENGPS_{each}": "10000000" for each in most},
    }
    program = Path(sys.executable).with_name("deepgps")
    command = [str(program), "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    site = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(base_url=site) as client:
            _await_health(client)
        yield site, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, without its children; NaN where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def worker_of(server: int) -> int:
    """Find the worker's process; 0 where there is no /proc."""
    found = [path.read_text().split() for path in Path(f"/proc/{server}/task").glob("*/children")]
    return int(next((each[0] for each in found if each), 0))


def _await_health(client: httpx2.Client) -> None:
    for _ in range(600):
        try:
            client.get("/health").raise_for_status()
            return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise SystemExit("The server does not answer.")


def send(site: str, proteins: str, wanted: int) -> str:
    """Send proteins and wait until so many are predicted; return the job's page."""
    with httpx2.Client(base_url=site, timeout=60) as client:
        answer = client.post(f"{API}/predictions", json={"proteins": proteins}).raise_for_status()
        job = answer.json()["id"]
        while client.get(f"{API}/predictions/{job}").json()["predicted"] < wanted:
            time.sleep(0.1)
    return f"/predictions/{job}"


def made_up(count: int) -> str:
    """FASTA of random proteins."""
    rng = random.Random(0)
    return "".join(f">p{i}\nM{''.join(rng.choices(LETTERS, k=RESIDUES))}\n" for i in range(count))


async def load(site: str, batch: str, example: str, chosen: argparse.Namespace) -> Measured:
    """Let all visitors in, one after the other, for a while."""
    measured, until = Measured(), time.monotonic() + chosen.seconds
    pages = (*PAGES, example, *(f"{example}/results/{number}" for number in range(6)))
    visitors = [Visitor(site, measured, seed) for seed in range(chosen.visitors + chosen.predictors + 1)]

    async def arrive(number: int, visitor: Visitor) -> None:
        await asyncio.sleep(visitor.random.uniform(0, chosen.arrive))
        if number < chosen.visitors:
            await visitor.browse(pages, until, chosen.think)
        elif number < chosen.visitors + chosen.predictors:
            await visitor.predict(until, chosen.read)
        else:
            await visitor.watch(batch, until)

    await asyncio.gather(*(arrive(*each) for each in enumerate(visitors)))
    await asyncio.gather(*(each.client.aclose() for each in visitors))
    return measured


def report(measured: Measured, seconds: float, chosen: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Put the figures together."""
    rows = {
        kind: {"n": len(each), **{f"p{q}_ms": round(1000 * float(np.percentile(each, q))) for q in (50, 95)}}
        for kind, each in sorted(measured.seconds.items())
    }
    asked = sum(len(each) for kind, each in measured.seconds.items() if not kind.startswith("prediction"))
    return {
        **{name: value for name, value in vars(chosen).items() if name != "seconds"},
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "load_average_after": [round(each, 2) for each in os.getloadavg()],
        **more,
        "requests_per_s": round(asked / seconds, 1),
        "errors": len(measured.errors),
        "first_errors": measured.errors[:5],
        "latency": rows,
    }


def options() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--predictors", type=int, default=20)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--arrive", type=float, default=15, help="seconds over which they arrive")
    parser.add_argument("--think", type=float, nargs=2, default=(1, 3), help="seconds between pages")
    parser.add_argument("--read", type=float, nargs=2, default=(5, 10), help="seconds between predictions")
    return parser.parse_args()


def main() -> None:
    """Measure and print as JSON."""
    chosen = options()
    print(f"load average before: {os.getloadavg()}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (site, server):
        example = send(site, made_up(6), 6)
        batch = send(site, made_up(chosen.batch), 1)
        # A server that has just started compiles its templates once.
        asyncio.run(Visitor(site, Measured(), 0).open("/predict"))
        with httpx2.Client(base_url=site, timeout=60) as client:
            before = client.get(f"{API}{batch}").json()["predicted"]
            processes = {"server": server, "worker": worker_of(server)}
            used = {name: cpu_s(pid) for name, pid in processes.items()}
            begun = time.monotonic()
            measured = asyncio.run(load(site, batch, example, chosen))
            seconds = time.monotonic() - begun
            done = client.get(f"{API}{batch}").json()["predicted"] - before
            cores = {
                f"{name}_cores": round((cpu_s(pid) - used[name]) / seconds, 2)
                for name, pid in processes.items()
            }
    print(json.dumps(report(measured, seconds, chosen, batch_predicted_meanwhile=done, **cores), indent=2))


if __name__ == "__main__":
    main()
