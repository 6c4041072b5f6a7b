"""Measure start-up, speed and memory on this machine, and report what changed: ``make bench``.

Proteins are random with a fixed seed, 450 residues long on average. Ratios are of processor time, all threads
together, of two workloads measured alternately, so that neither the machine nor its load matters much; only
they are compared with the recorded ones. Seconds and rates are wall-clock time, beside what is aimed at.
Memory is the peak resident size of a process of its own.

``--record`` records the figures, for later runs to be compared with and in
`docs/explanation/performance.md`.
"""

import argparse
import io
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np

from bench_figures import RECORDED, Figures, changed_ratios, record
from costs import layers
from deepgps.bundle import DEFAULT_MODEL, GRAIN_FILE, Bundle
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.predict import predict_to_folder
from deepgps.runtime import available_runtimes, open_graph

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
RESIDUE_PERCENT = (8, 1, 5, 7, 4, 7, 2, 6, 6, 10, 2, 4, 5, 4, 6, 7, 5, 7, 1, 3)
"""Share of each residue in Swiss-Prot, rounded."""
MEAN_LENGTH = 450
SEED = 0
BATCH = 8
"""Images that `Predictor` draws together."""
SIZE_PX, LATENT_DIM = 208, 1024
"""Of the paper's network."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rounds and proteins each measurement takes."""

    rounds: int = 5
    labels: int = 100
    images: int = 24
    few: int = 100
    many: int = 10_000
    unet_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)


QUICK = Sizes(rounds=2, labels=4, images=2, few=2, many=4, unet_widths=(4, 8))


# ---- workloads ----


def random_proteins(count: int) -> Iterable[Protein]:
    """Generate random proteins, the same ones each time."""
    rng = random.Random(SEED)
    for number in range(count):
        length = max(20, round(rng.gammavariate(2, MEAN_LENGTH / 2)))
        yield Protein(f"R{number}", "M" + "".join(rng.choices(RESIDUES, RESIDUE_PERCENT, k=length - 1)))


def write_fasta(path: Path, count: int) -> Path:
    """Write random proteins to a file."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f">{protein.id}\n{protein.sequence}\n" for protein in random_proteins(count))
    return path


def python_loop() -> int:
    """Work for Python itself, about that of ten labels; labels are compared with it."""
    return sum(len(str(number)) for number in range(200_000))


def draw_images(predictor: Predictor, count: int) -> None:
    """Draw images without writing them."""
    latents = [each.latent for each in predictor.encode(list(random_proteins(BATCH)))]
    cells = [Cell.load("hek-1")] * BATCH
    for start in range(0, count, BATCH):
        batch = slice(0, min(BATCH, count - start))
        predictor.draw(cells[batch], latents[batch])


@contextmanager
def use_runtime(name: str) -> Iterator[None]:
    """Choose the runtime that computes graphs."""
    before = os.environ.get("DEEPGPS_RUNTIME")
    os.environ["DEEPGPS_RUNTIME"] = name
    try:
        yield
    finally:
        os.environ.pop("DEEPGPS_RUNTIME")
        if before is not None:
            os.environ["DEEPGPS_RUNTIME"] = before


def load_predictor(model: str, runtime: str) -> Predictor:
    """Load a model into a runtime, with one thread, its generator included."""
    with use_runtime(runtime):
        predictor = Predictor.load(model, threads=1)
        _ = predictor._generator
        return predictor


def measure_alternately(workloads: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return processor seconds of each workload in each round; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    for number in range(rounds + 1):
        for name, workload in workloads.items():
            start = time.process_time()
            workload()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


# ---- processes of their own ----


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended: seconds of the clock and of the processor, and peak memory in MiB."""

    seconds: float
    cpu: float
    peak_mib: float


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


def run_deepgps(*arguments: str | Path) -> Finished:
    """Run ``deepgps`` in a process of its own."""
    return run_python(_COMMAND, *arguments)


def run_python(code: str, *arguments: str | Path) -> Finished:
    """Run a program in a process of its own; the last word it prints on stderr is its peak memory in KiB."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(f"deepgps {' '.join(map(str, arguments))} failed: {ended.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(seconds, cpu, int((ended.stderr.split() or ["0"])[-1]) / 1024)


# ---- measurements ----


def measure_start(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """Measure cold starts, beside those of Python alone and of the libraries."""
    one, rounds = write_fasta(folder / "one.fasta", 1), range(sizes.rounds)
    bare = [run_python("pass") for _ in rounds]
    helps = [run_deepgps("--help") for _ in rounds]
    libraries = [run_python("import numpy, onnxruntime, scipy.ndimage") for _ in rounds]
    options = ("--model", model, "--out")
    predictions = [run_deepgps("predict", one, *options, folder / f"one-{number}") for number in rounds]
    figures.add_rate("deepgps --help, cold", f"{_median_seconds(helps):.2f} s", "< 0.5 s")
    figures.add_rate("one protein with its image, cold", f"{_median_seconds(predictions):.2f} s", "< 3 s")
    figures.add_ratio("help", "deepgps --help / a bare Python", _cpu_ratios(helps, bare))
    description = "one cold protein / import of NumPy, SciPy, ONNX Runtime"
    figures.add_ratio("cold", description, _cpu_ratios(predictions, libraries))


def _median_seconds(finished: Sequence[Finished]) -> float:
    return statistics.median(each.seconds for each in finished)


def _cpu_ratios(processes: Sequence[Finished], others: Sequence[Finished]) -> list[float]:
    return [one.cpu / other.cpu for one, other in zip(processes, others, strict=True)]


def measure_speed(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """Measure labels and images in one process, with and without writing them."""
    predictor, cells = load_predictor(model, "cpu"), [Cell.load("hek-1")]

    def labels() -> None:
        for _ in predictor.predict(random_proteins(sizes.labels), images=False):
            pass

    def write_images(image_format: str) -> None:
        proteins, out = random_proteins(sizes.images), folder / "written"
        predict_to_folder(predictor, proteins, out, cells=cells, image_format=image_format, overwrite=True)  # type: ignore[arg-type]

    workloads = {
        "python": python_loop,
        "labels": labels,
        "drawn": lambda: draw_images(predictor, sizes.images),
        "files": lambda: write_images("files"),
    }
    with suppress(ModuleNotFoundError):
        import zarr  # noqa: F401

        workloads["zarr"] = lambda: write_images("zarr")
    seconds = measure_alternately(workloads, sizes.rounds)
    per_label = [each / sizes.labels for each in seconds["labels"]]
    ratios = list(map(truediv, per_label, seconds["python"]))
    figures.add_ratio("labels", "a label / 200,000 numbers in Python", ratios)
    for name in ("files", "zarr"):
        if name in workloads:
            description = f"an image from sequence to {name} / its drawing in float32"
            figures.add_ratio(name, description, list(map(truediv, seconds[name], seconds["drawn"])))


def measure_command(figures: Figures, model: str, folder: Path, sizes: Sizes) -> None:
    """Measure the command on few and many proteins: speed with start-up and writing, and memory."""
    few, many = write_fasta(folder / "few.fasta", sizes.few), write_fasta(folder / "many.fasta", sizes.many)
    options = ("--model", model, "--out")
    for name in ("cpu", "openvino"):
        if name in available_runtimes():
            with use_runtime(name):
                imaged = run_deepgps("predict", few, *options, folder / name)
            speed = f"{sizes.few / imaged.seconds:.1f} proteins/s"
            figures.add_rate(f"deepgps predict, {sizes.few:,} with images, {name}", speed, "≥ 15")
    small = run_deepgps("predict", few, "--no-images", *options, folder / "small")
    large = run_deepgps("predict", many, "--no-images", *options, folder / "large")
    speed = f"{sizes.many / large.seconds:.0f} proteins/s"
    figures.add_rate(f"deepgps predict, {sizes.many:,} labels only", speed, "≥ 100")
    peak = f"{imaged.peak_mib:.0f} MiB"
    figures.add_rate(f"peak memory, {sizes.few:,} with images, the last", peak, "< 1 GB")
    peak = f"{large.peak_mib:.0f} MiB"
    figures.add_rate(f"peak memory, {sizes.many:,} labels only", peak, "as for few")
    description = f"memory: {sizes.many:,} labels / {sizes.few:,}"
    figures.add_ratio("memory", description, [large.peak_mib / small.peak_mib], "about 1")


# ---- generators ----

_BFLOAT16 = " in bfloat16"


def measure_generators(figures: Figures, model: str, sizes: Sizes) -> dict[str, Any]:
    """Compare the model's generator with one of the paper's size, and both with the machine's peak.

    Returns
    -------
    dict
        The machine's peaks and the costs of the graphs; empty without torch.
    """
    try:
        import torch

        from peak import PRECISIONS, peaks, workloads_of
    except ModuleNotFoundError as error:
        print(f"generator against the paper's U-Net: not measured, {error.name} is not installed")
        return {}
    # Threads that wait for each other count as busy, so that one is compared with one.
    torch.set_num_threads(1)
    exact, (run_eager, paper) = load_predictor(model, "cpu"), paper_network(sizes.unet_widths)
    graphs = {"paper-size generator": paper, **generator_graphs(exact.bundle)}
    convolution, operations = workloads_of(torch.float32, torch.device("cpu"))["convolution"]
    workloads: dict[str, Callable[[], object]] = {
        "peak": convolution,
        "eager": run_eager,
        "drawn": lambda: draw_images(exact, BATCH),
        "paper": paper_runner(paper, "cpu"),
    }
    if "openvino" in available_runtimes():
        rough = load_predictor(model, "openvino")
        compare_images(figures, exact, rough)
        workloads[f"drawn{_BFLOAT16}"] = lambda: draw_images(rough, BATCH)
        workloads[f"paper{_BFLOAT16}"] = paper_runner(paper, "openvino")
    with torch.inference_mode():
        seconds = measure_alternately(workloads, sizes.rounds)
    flop = {"drawn": ("generator", drawing_flop(exact.bundle, BATCH))}
    flop |= {"paper": ("paper-size generator", sum(each.flop for each in layers(paper)))}
    add_shares_of_peak(figures, seconds, operations, flop)
    add_speedups(figures, seconds)
    measured = {name: peaks(dtype) for name, dtype in PRECISIONS.items()}
    giga = {name: {what: rate / 1e9 for what, rate in rates.items()} for name, rates in measured.items()}
    return {"peaks": giga, "costs": {name: graph_cost(graph, measured) for name, graph in graphs.items()}}


def paper_network(widths: tuple[int, ...]) -> tuple[Callable[[], object], bytes]:
    """Build a U-Net of the paper's size with random weights.

    Returns
    -------
    tuple
        A function that draws one image in eager torch, and the network as an ONNX graph.
    """
    import torch

    from deepgps.models.unet import UNet

    torch.manual_seed(SEED)
    net, file = UNet(widths).eval(), io.BytesIO()
    inputs = {name: torch.from_numpy(values) for name, values in one_image().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The older exporter takes a second and not a minute, and finds the same layers.
        torch.onnx.export(
            net,
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=["image"],
            dynamo=False,
        )
    return lambda: net(*inputs.values()), file.getvalue()


def one_image() -> dict[str, np.ndarray]:
    """Return the inputs of the paper-size network for one image."""
    nucleus = Cell.load("hek-1").nucleus.astype(np.float32)[None, None, :SIZE_PX, :SIZE_PX]
    return {"nucleus": nucleus, "latent": np.ones((1, 1, LATENT_DIM), np.float32)}


def paper_runner(graph: bytes, runtime: str) -> Callable[[], object]:
    """Return a function that draws one image with the paper-size network."""
    with use_runtime(runtime):
        opened = open_graph(graph, 1, reduced=True)
    inputs = one_image()
    return lambda: opened.run(["image"], inputs)


def generator_graphs(bundle: Bundle) -> dict[str, bytes]:
    """Return the graphs that draw an image."""
    graphs = {"generator": bundle.read("generator.onnx")}
    if bundle.metadata.flow_matching is not None:
        graphs["generator of the grain"] = bundle.read(GRAIN_FILE)
    return graphs


def drawing_flop(bundle: Bundle, images: int) -> float:
    """Return the floating-point operations of a batch of images in one nucleus."""
    structure, *grain = (layers(graph) for graph in generator_graphs(bundle).values())
    flow = bundle.metadata.flow_matching
    if flow is None:
        # What depends on the nucleus alone is computed once.
        return sum(each.flop * (1 if each.nucleus_only else images) for each in structure)
    flop = flow.steps * sum(each.flop for each in structure)
    flop += flow.grain_steps * sum(each.flop for each in grain[0])
    return images * flop


def add_shares_of_peak(
    figures: Figures,
    seconds: Mapping[str, Sequence[float]],
    operations: float,
    flop: Mapping[str, tuple[str, float]],
) -> None:
    """Add the share of the convolution's rate that the generators reach in float32."""
    for key, (name, needed) in flop.items():
        pairs = zip(seconds[key], seconds["peak"], strict=True)
        samples = [(needed / own) / (operations / best) for own, best in pairs]
        description = f"{name}: share of the convolution's rate, float32"
        figures.add_ratio(f"{key} of peak", description, samples, "≥ 0.5")


def add_speedups(figures: Figures, seconds: Mapping[str, Sequence[float]]) -> None:
    """Add how many times faster one way to draw an image is than another."""

    def add(name: str, description: str, slow: str, fast: str, aim: str = "", images: int = 1) -> None:
        if slow in seconds and fast in seconds:
            samples = [images * ratio for ratio in map(truediv, seconds[slow], seconds[fast])]
            figures.add_ratio(name, description, samples, aim)

    mini = "paper's U-Net in eager torch / bundled generator, an image"
    add("mini", mini, "eager", "drawn", images=BATCH)
    add("eager", "paper's U-Net: eager torch / ONNX Runtime", "eager", "paper")
    bfloat16 = "paper's U-Net: eager torch / OpenVINO in bfloat16"
    add("eager bf16", bfloat16, "eager", f"paper{_BFLOAT16}", "≥ 2")
    add("bf16", "generator: ONNX Runtime / OpenVINO in bfloat16", "drawn", f"drawn{_BFLOAT16}")


def compare_images(figures: Figures, exact: Predictor, rough: Predictor) -> None:
    """Add how images in bfloat16 differ from those in float32."""
    latents = [each.latent for each in exact.encode(list(random_proteins(BATCH)))]
    cells = [Cell.load("hek-1")] * BATCH
    one, other = exact.draw(cells, latents), rough.draw(cells, latents)
    psnr = -10 * np.log10(np.mean((one - other) ** 2) + 1e-20)
    figures.add_rate("images in bfloat16 against float32: PSNR", f"{psnr:.1f} dB")
    figures.add_rate("the same: largest difference of a pixel", f"{np.abs(one - other).max():.4f}")
    r = min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True))
    figures.add_rate("the same: lowest correlation r of an image", f"{r:.6f}")


def graph_cost(graph: bytes, peaks: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Sum up a graph, with its shortest possible time: its operations at the convolution's rate."""
    found = layers(graph)
    flop = sum(each.flop for each in found)
    return {
        "gflop": flop / 1e9,
        "mb": sum(each.bytes for each in found) / 1e6,
        "nucleus_share": sum(each.flop for each in found if each.nucleus_only) / max(flop, 1),
        "shortest_s": {precision: flop / rates["convolution"] for precision, rates in peaks.items()},
    }


# ---- the command ----


def describe_machine() -> str:
    """Describe the machine and its load."""
    load = f"load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else "load unknown"
    return f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {date.today()}, {load}."


def print_changes(figures: Figures) -> None:
    """Print which ratios changed since the recorded ones."""
    if not RECORDED.exists():
        return
    lines = changed_ratios(json.loads(RECORDED.read_text(encoding="utf-8"))["ratios"], figures.ratios)
    print("\nChanged since the recorded figures:" if lines else "\nNothing changed beyond the noise.")
    for line in lines:
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
    parser.add_argument("--record", action="store_true", help="record the figures, and show them on the page")
    options = parser.parse_args(arguments)
    sizes, figures = QUICK if options.quick else Sizes(), Figures()
    print(f"{describe_machine()} Model {options.model}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_start(figures, options.model, folder, sizes)
        measure_speed(figures, options.model, folder, sizes)
        measure_command(figures, options.model, folder, sizes)
    generators = measure_generators(figures, options.model, sizes)
    print_changes(figures)
    if options.record and generators:
        document = {"machine": describe_machine(), **generators}
        record({**document, "ratios": figures.ratios, "rates": figures.rates})


if __name__ == "__main__":
    main()
