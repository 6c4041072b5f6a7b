"""Measure start-up, speed and memory on this machine, and say what moved: ``make bench``.

Proteins are random, drawn with a seed, 450 residues long on average. Ratios are of processor time, all
threads together, of two things measured in turns, so that neither the machine nor what else it does counts
for much; only they are held against those kept in `benchmarks/results/bench.json`. What the clock says stands
beside what is aimed at. Memory is the peak resident size of a process of its own.

``--keep`` keeps the figures as the ones to hold later runs against, and puts them on the page
`docs/explanation/performance.md`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from operator import truediv
from pathlib import Path

from deepgps.bundle import DEFAULT_MODEL
from deepgps.images.cell import Cell
from deepgps.results.predict import predict_to_folder
from deepgps.runtime import available_runtimes
from generators import measure_generators
from moved import RESULTS, moved, written
from timing import Figures, drawn, in_turns, loaded, random_proteins, runtime, yardstick


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many proteins each measurement takes."""

    repeats: int = 5
    labels: int = 100
    images: int = 24
    few: int = 100
    many: int = 10_000
    unet_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)


# Linux counts into ru_maxrss what the parent held before the process began; VmHWM is the process's own.
_COMMAND = """
import re, sys
from pathlib import Path
from deepgps.cli.app import run

def peak_kib():
    status = Path("/proc/self/status")
    if status.exists():
        return re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

code = run(sys.argv[1:])
print(peak_kib(), file=sys.stderr)
sys.exit(code)
"""

QUICK = Sizes(repeats=2, labels=4, images=2, few=2, many=4, unet_widths=(4, 8))


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended: seconds of the clock and of the processor, and peak memory in MiB."""

    seconds: float
    cpu: float
    peak_mib: float


def write_fasta(path: Path, count: int) -> Path:
    """Write random proteins to a file."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f">{protein.id}\n{protein.sequence}\n" for protein in random_proteins(count))
    return path


def deepgps(*tokens: str | Path) -> Finished:
    """Run the command in a process of its own."""
    return python(_COMMAND, *tokens)


def python(code: str, *tokens: str | Path) -> Finished:
    """Run a program that says its peak memory last."""
    command = [sys.executable, "-c", code, *map(str, tokens)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(f"deepgps {' '.join(map(str, tokens))} failed: {ended.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(seconds, cpu, int((ended.stderr.split() or ["0"])[-1]) / 1024)


def measure_start(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """Cold starts, beside those of a bare Python and of the libraries."""
    one = write_fasta(folder / "one.fasta", 1)
    bare = [python("pass") for _ in range(sizes.repeats)]
    helps = [deepgps("--help") for _ in range(sizes.repeats)]
    libraries = [python("import numpy, onnxruntime, scipy.ndimage") for _ in range(sizes.repeats)]
    runs = [
        deepgps("predict", one, "--model", model, "--out", folder / f"one-{n}") for n in range(sizes.repeats)
    ]
    figures.rate("deepgps --help, cold", f"{median(helps):.2f} s", "< 0.5 s")
    figures.rate("one protein with its image, cold", f"{median(runs):.2f} s", "< 3 s")
    figures.ratio("help", "deepgps --help / a bare Python", shares(helps, bare))
    figures.ratio("cold", "one cold protein / import of NumPy, SciPy, ONNX Runtime", shares(runs, libraries))


def median(finished: Sequence[Finished]) -> float:
    return statistics.median(each.seconds for each in finished)


def shares(these: Sequence[Finished], those: Sequence[Finished]) -> list[float]:
    return [one.cpu / other.cpu for one, other in zip(these, those, strict=True)]


def measure_speed(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """Labels and images in one process, with and without writing them."""
    predictor, cells, count = loaded(model, "cpu"), [Cell.load("hek-1")], sizes.images

    def labels() -> None:
        for _ in predictor.predict(random_proteins(sizes.labels), images=False):
            pass

    def saved(images: str) -> None:
        proteins, out = random_proteins(count), folder / "saved"
        predict_to_folder(predictor, proteins, out, cells=cells, image_format=images, overwrite=True)  # type: ignore[arg-type]

    works = {"yardstick": yardstick, "labels": labels, "drawn": lambda: drawn(predictor, count)}
    works |= {"files": lambda: saved("files")}
    with suppress(ModuleNotFoundError):
        import zarr  # noqa: F401

        works |= {"zarr": lambda: saved("zarr")}
    took = in_turns(works, sizes.repeats)
    each = {name: [s / (sizes.labels if name == "labels" else count) for s in took[name]] for name in took}
    labelled = map(truediv, each["labels"], took["yardstick"])
    figures.ratio("labels", "a label / 200,000 numbers in Python", list(labelled))
    for kind in [each for each in ("files", "zarr") if each in works]:
        whole = list(map(truediv, each[kind], each["drawn"]))
        figures.ratio(kind, f"an image from sequence to {kind} / its drawing in float32", whole)


def measure_command(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """The command on few and many proteins: speed with start-up and writing, and memory."""
    few, many = write_fasta(folder / "few.fasta", sizes.few), write_fasta(folder / "many.fasta", sizes.many)
    options = ("--model", model, "--out")
    for name in ("cpu", "openvino"):
        if name in available_runtimes():
            with runtime(name):
                imaged = deepgps("predict", few, *options, folder / name)
            speed = f"{sizes.few / imaged.seconds:.1f} proteins/s"
            figures.rate(f"deepgps predict, {sizes.few:,} with images, {name}", speed, "≥ 15")
    small = deepgps("predict", few, "--no-images", *options, folder / "small")
    large = deepgps("predict", many, "--no-images", *options, folder / "large")
    labels = f"{sizes.many / large.seconds:.0f} proteins/s"
    figures.rate(f"deepgps predict, {sizes.many:,} labels only", labels, "≥ 100")
    figures.rate(f"peak memory, {sizes.few:,} with images, the last", f"{imaged.peak_mib:.0f} MiB", "< 1 GB")
    figures.rate(f"peak memory, {sizes.many:,} labels only", f"{large.peak_mib:.0f} MiB", "as for few")
    what = f"memory: {sizes.many:,} labels / {sizes.few:,}"
    figures.ratio("memory", what, [large.peak_mib / small.peak_mib], "about 1")


def machine() -> str:
    """Say what was measured on, and how busy it was."""
    load = f"load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else "load unknown"
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {date.today()}, {load}."


def compare(figures: Figures) -> None:
    """Say which ratios lie beyond the noise of this run and of the one that was kept."""
    if not RESULTS.exists():
        return
    said = moved(json.loads(RESULTS.read_text(encoding="utf-8"))["ratios"], figures.ratios)
    print(
        "\nMoved beyond the noise, since the figures that were kept:"
        if said
        else "\nNothing moved beyond the noise."
    )
    for line in said:
        print(f"  {line}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print it as it comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="name of an installed model, or path to a bundle"
    )
    parser.add_argument("--quick", action="store_true", help="a few proteins only: to see that it runs")
    parser.add_argument("--keep", action="store_true", help="keep the figures, and put them on the page")
    options = parser.parse_args(arguments)
    sizes, figures = QUICK if options.quick else Sizes(), Figures()
    print(f"{machine()} Model {options.model}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_start(figures, options.model, folder, sizes)
        measure_speed(figures, options.model, folder, sizes)
        measure_command(figures, options.model, folder, sizes)
    about = measure_generators(figures, options.model, sizes.repeats, sizes.unet_widths)
    compare(figures)
    if options.keep and about:
        written({"machine": machine(), **about, "ratios": figures.ratios, "rates": figures.rates})


if __name__ == "__main__":
    main()
