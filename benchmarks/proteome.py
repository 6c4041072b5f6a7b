"""What a proteome costs: workers, memory, growth with the number of proteins and with their length.

Run ``python benchmarks/proteome.py [--quick]``; about fifteen minutes. Proteins are those of
``sequences/swissprot_localizations.csv.gz`` in ``../shared/data`` (or ``DEEPGPS_SHARED_DATA``), in its order.
Each command is a process of its own. Seconds are of the clock, and beside them of the processor, all
processes together, which tell more where something else is running. Memory is the largest sum of the
processes' shares (PSS: what several map counts once), looked at ten times a second.

``--big --out DIR`` is another run: 20,000 proteins in four nuclei with images in a Zarr store, on two
workers, killed once in the middle and gone on with; then every row and image is looked at.
"""

import argparse
import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

SHARED = Path(os.environ.get("DEEPGPS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
TABLE = SHARED / "sequences" / "swissprot_localizations.csv.gz"
NUCLEI = ("hek-1", "hek-2", "hek-3", "u2os-1")
EFFICIENCY_AIM, MEMORY_AIM_MIB = 0.85, 1000
_COMMAND = "from deepgps.cli import main; main()"
_ON_ONE_CORE = "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); "


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each measurement takes."""

    labels: int = 8000
    images: int = 600
    growth: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    lengths: tuple[int, ...] = (100, 1_000, 5_000, 10_000, 20_000, 40_000)
    residues: int = 400_000


QUICK = Sizes(40, 8, (10, 40), (100, 1_000), 3_000)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: seconds of clock and processor, peak memory in MiB."""

    seconds: float
    cpu: float
    peak_mib: float


def sequences() -> Iterator[tuple[str, str]]:
    """Accessions and sequences of the table; from its start again, renamed, where more are wanted."""
    if not TABLE.exists():
        sys.exit(f"No '{TABLE}'; set DEEPGPS_SHARED_DATA to the folder of the shared data.")
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        table = [(row["accession"], row["sequence"]) for row in csv.DictReader(file)]
    for number, (accession, sequence) in enumerate(cycle(table)):
        yield f"{accession}_{number // len(table)}", sequence


def write_fasta(path: Path, count: int) -> Path:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f">{name}\n{sequence}\n" for name, sequence in islice(sequences(), count))
    return path


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(path.parent.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest.pop())
        rest += parents.get(found[-1], [])
    return found


def memory_mib(pid: int) -> float:
    """What the processes of a tree take together: what several share counts once."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Running:
    """A command in a process of its own, and the peak of its memory."""

    def __init__(self, *tokens: str | Path, one_core: bool = False) -> None:
        self.start, self.peak = time.perf_counter(), 0.0
        command = [sys.executable, "-c", _ON_ONE_CORE + _COMMAND if one_core else _COMMAND, *map(str, tokens)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _look(self) -> None:
        while self.process.returncode is None:
            self.peak = max(self.peak, memory_mib(self.process.pid))
            time.sleep(0.1)

    def end(self) -> Ended:
        """Wait for its end; a failure ends the benchmark."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read().decode()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            sys.exit(f"deepgps failed ({self.process.returncode}): {errors}")
        seconds = time.perf_counter() - self.start
        return Ended(seconds, usage.ru_utime + usage.ru_stime, self.peak)

    def kill(self) -> float:
        """Kill it as a lack of memory would; return how long it ran."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        return time.perf_counter() - self.start


def predict(fasta: Path, out: Path, *options: str | Path, one_core: bool = False) -> Ended:
    return Running("predict", fasta, "--out", out, "--overwrite", *options, one_core=one_core).end()


def row(*cells: object) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def head(*names: str) -> None:
    print()
    row(*names)
    row(*("---" for _ in names))


def measure_workers(folder: Path, sizes: Sizes) -> None:
    """One worker that has one core, two that have two, and one that has all.

    A worker of one thread keeps more than a core busy where images are written, as the writing has threads
    of its own.
    """
    head("run", "proteins/s", "CPU ms each", "efficiency", "peak MiB")
    few, one = write_fasta(folder / "one.fasta", 1), 0.0
    kinds = {
        "labels": (sizes.labels, ("--no-images",)),
        "images, files": (sizes.images, ("--nucleus", "hek-1")),
        "images, Zarr": (sizes.images, ("--nucleus", "hek-1", "--image-format", "zarr")),
    }
    ways = {
        "1 worker, 1 core": ("--threads", "1"),
        "2 workers, 2 cores": ("--workers", "2", "--threads", "1"),
        "1 worker, all cores": (),
    }
    for kind, (count, drawing) in kinds.items():
        fasta = write_fasta(folder / "some.fasta", count)
        for way, options in ways.items():
            on_one = way == "1 worker, 1 core"
            # What starting costs is measured by itself, and not of the proteins.
            idle = predict(few, folder / "idle", *drawing, *options, one_core=on_one)
            done = predict(fasta, folder / "out", *drawing, *options, one_core=on_one)
            speed = (count - 1) / (done.seconds - idle.seconds)
            one = speed if on_one else one
            efficiency = f"{speed / one / 2:.2f}" if way.startswith("2") else ""
            cpu = 1000 * (done.cpu - idle.cpu) / (count - 1)
            row(f"{kind}, {way}", f"{speed:.1f}", f"{cpu:.1f}", efficiency, f"{done.peak_mib:.0f}")
    print(f"\nAim: efficiency of two workers >= {EFFICIENCY_AIM}, memory < {MEMORY_AIM_MIB} MiB.")


@contextmanager
def dask(workers: int) -> Iterator[str]:
    """Address of a Dask cluster of so many workers of one thread, on as many cores."""
    from distributed import LocalCluster

    # As the page on proteomes starts them.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "134217728")
    here = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, here[:workers])
    try:
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster:
            yield cluster.scheduler_address
    finally:
        os.sched_setaffinity(0, here)


def measure_dask(folder: Path, sizes: Sizes) -> None:
    """One Dask worker on a core that scheduler and writer share, and two on two."""
    head("run on a Dask cluster", "proteins/s", "efficiency")
    few = write_fasta(folder / "one.fasta", 1)
    kinds: dict[str, tuple[int, tuple[str, ...]]] = {"labels": (sizes.labels, ("--no-images",))}
    kinds["images, Zarr"] = sizes.images, ("--nucleus", "hek-1", "--image-format", "zarr")
    for kind, (count, drawing) in kinds.items():
        fasta, one = write_fasta(folder / "some.fasta", count), 0.0
        for workers in (1, 2):
            with dask(workers) as address:
                options = (*drawing, "--scheduler", address)
                # Each worker loads the model, once.
                predict(write_fasta(folder / "warm.fasta", 100), folder / "warm", *options)
                idle = predict(few, folder / "idle", *options)
                done = predict(fasta, folder / "out", *options)
            speed = (count - 1) / (done.seconds - idle.seconds)
            one = one or speed
            row(f"{kind}, {workers}", f"{speed:.1f}", f"{speed / one / 2:.2f}" if workers == 2 else "")


def measure_growth(folder: Path, sizes: Sizes) -> None:
    """Labels of ever more proteins: time of each, and memory."""
    head("records, labels only", "s", "ms each", "CPU ms each", "peak MiB", "bytes each on disk")
    idle = predict(write_fasta(folder / "one.fasta", 1), folder / "idle", "--no-images")
    for count in sizes.growth:
        done = predict(write_fasta(folder / "many.fasta", count), folder / "out", "--no-images")
        each = 1000 * (done.seconds - idle.seconds) / (count - 1)
        cpu = 1000 * (done.cpu - idle.cpu) / (count - 1)
        written = (folder / "out" / "results.jsonl").stat().st_size / count
        row(
            f"{count:,}",
            f"{done.seconds:.1f}",
            f"{each:.2f}",
            f"{cpu:.2f}",
            f"{done.peak_mib:.0f}",
            f"{written:.0f}",
        )


def measure_lengths(sizes: Sizes) -> None:
    """Labels of ever longer proteins, one thread: time of a residue."""
    from deepgps.prediction import Predictor
    from deepgps.proteins.protein import Protein

    head("residues", "CPU ms each", "µs a residue")
    predictor = Predictor.load(threads=1)
    text = "".join(sequence for _, sequence in islice(sequences(), 3_000))
    for length in sizes.lengths:
        count = max(1, sizes.residues // length)
        proteins = [Protein(str(n), text[n * length % 400_000 :][:length]) for n in range(count)]
        start = time.process_time()
        for _ in predictor.predict(proteins, images=False):
            pass
        each = (time.process_time() - start) / count
        row(f"{length:,}", f"{1000 * each:.2f}", f"{1e6 * each / length:.1f}")


def measure_start(folder: Path) -> None:
    """One protein, cold: without and with the index in the cache."""
    head("one protein, labels only, one thread", "s", "CPU s", "peak MiB")
    fasta = write_fasta(folder / "one.fasta", 1)
    os.environ["DEEPGPS_CACHE"] = str(folder / "cache")
    for what in ("first on this machine", "second", "third"):
        done = predict(fasta, folder / "out", "--no-images", "--threads", "1")
        row(what, f"{done.seconds:.2f}", f"{done.cpu:.2f}", f"{done.peak_mib:.0f}")
    del os.environ["DEEPGPS_CACHE"]


def rows_in(out: Path) -> int:
    path = out / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def big(out: Path, count: int, workers: int) -> None:
    """A proteome with images, killed in the middle and gone on with; then looked through."""
    out.mkdir(parents=True, exist_ok=True)
    fasta, results = write_fasta(out / "proteome.fasta", count), out / "results"
    tokens = ("predict", fasta, "--out", results, "--workers", str(workers), "--image-format", "zarr")
    command = (*tokens, "--format", "parquet", "--nucleus", *NUCLEI)
    running = Running(*command)
    while rows_in(results) < 2 * count and running.process.poll() is None:
        time.sleep(1)
    first = running.kill()
    killed_at = rows_in(results)
    ended = Running(*command).end()
    head("big run", "")
    row("proteins x nuclei", f"{count:,} x {len(NUCLEI)}")
    row("rows when killed (kill -9)", f"{killed_at:,} after {first:.0f} s")
    row("then, to the end", f"{ended.seconds:.0f} s")
    row("images/s", f"{len(NUCLEI) * count / (first + ended.seconds):.1f}")
    row("peak memory, all processes", f"{max(running.peak, ended.peak_mib):.0f} MiB")
    for name in ("results.jsonl", "results.parquet", "images.zarr"):
        path = results / name
        size = sum(each.stat().st_size for each in [path, *path.rglob("*")] if each.is_file())
        row(name, f"{size / 1e6:,.1f} MB")
    row("lost, doubled, or out of order", look_through(results, count))


def look_through(results: Path, count: int) -> str:
    """Hold every row against the input, and every image against its row."""
    import numpy as np
    import zarr

    with (results / "results.jsonl").open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    names = [name for name, _ in islice(sequences(), count)]
    expected = [(name, nucleus) for name in names for nucleus in NUCLEI]
    pairs = [(record["protein_id"], record["nucleus"]) for record in found]
    images = zarr.open_group(results / "images.zarr", mode="r")["protein"]
    black = sum(
        int((np.asarray(images[n : n + 16]).max((1, 2)) == 0).sum()) for n in range(0, len(found), 16)
    )
    fine = pairs == expected and len(found) == images.shape[0]
    wrong = f"none of {len(found):,} rows" if fine else f"SOMETHING IS WRONG: {len(found):,} rows"
    return f"{wrong}; {black} images black"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print tables as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few proteins only: to see that it runs")
    parser.add_argument("--big", action="store_true", help="the big run, killed once")
    parser.add_argument("--out", type=Path, help="folder of the big run")
    parser.add_argument("--proteins", type=int, default=20_000, help="proteins of the big run")
    parser.add_argument("--workers", type=int, default=2, help="workers of the big run")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    if options.big:
        big(options.out or Path("proteome"), options.proteins, options.workers)
        return
    sizes = QUICK if options.quick else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_start(folder)
        measure_workers(folder, sizes)
        measure_dask(folder, sizes)
        measure_growth(folder, sizes)
    measure_lengths(sizes)


if __name__ == "__main__":
    main()
