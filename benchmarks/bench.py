"""Measure start-up, speed and memory on this machine, in one run: ``make bench``.

Proteins are random, drawn with a seed, 450 residues long on average. Memory is the peak resident size of a
process of its own. Nothing here is a test: figures depend on the machine, and stand beside what is aimed at.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from deepgps.bundle import DEFAULT_MODEL
from deepgps.images.defaults import default_nucleus
from deepgps.predict import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.save import save

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
# Share of each residue in Swiss-Prot, in per cent, rounded.
SHARES = (8, 1, 5, 7, 4, 7, 2, 6, 6, 10, 2, 4, 5, 4, 6, 7, 5, 7, 1, 3)
MEAN_LENGTH = 450
SEED = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many proteins each measurement takes."""

    repeats: int = 3
    labels: int = 500
    pictures: int = 100
    few: int = 100
    many: int = 10_000
    unet: int = 5
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

QUICK = Sizes(repeats=1, labels=4, pictures=2, few=2, many=4, unet=1, unet_widths=(4, 8))


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended: seconds on the clock, and peak memory in MiB."""

    seconds: float
    peak_mib: float


def random_proteins(count: int) -> Iterable[Protein]:
    """Draw proteins, the same ones each time."""
    chance = random.Random(SEED)
    for number in range(count):
        length = max(20, round(chance.gammavariate(2, MEAN_LENGTH / 2)))
        yield Protein(f"R{number}", "M" + "".join(chance.choices(RESIDUES, SHARES, k=length - 1)))


def write_fasta(path: Path, count: int) -> Path:
    """Write random proteins to a file."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(f">{protein.id}\n{protein.sequence}\n" for protein in random_proteins(count))
    return path


def deepgps(*tokens: str | Path) -> Finished:
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", _COMMAND, *map(str, tokens)]
    start = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if ended.returncode:
        raise SystemExit(f"deepgps {' '.join(map(str, tokens))} failed: {ended.stderr}")
    return Finished(seconds, int(ended.stderr.split()[-1]) / 1024)


def per_second(count: int, work: Callable[[], object]) -> float:
    """Time a piece of work."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def show(what: str, measured: str, aim: str = "") -> None:
    """Print one line of the table."""
    print(f"{what:<52}{measured:>16}   {aim}", flush=True)


def measure_start(model: str, folder: Path, sizes: Sizes) -> None:
    """Cold starts: the median of a few processes."""
    one = write_fasta(folder / "one.fasta", 1)
    helps = [deepgps("--help").seconds for _ in range(sizes.repeats)]
    show("deepgps --help, cold", f"{statistics.median(helps):.2f} s", "aim: < 0.5 s")
    runs = [
        deepgps("predict", one, "--model", model, "--out", folder / f"one-{n}").seconds
        for n in range(sizes.repeats)
    ]
    show("one protein with its picture, cold", f"{statistics.median(runs):.2f} s", "aim: < 3 s")


def measure_speed(model: str, folder: Path, sizes: Sizes) -> float:
    """Proteins per second; returns pictures drawn per second, without writing them."""
    predictor = Predictor.load(model)
    nuclei = [default_nucleus()]

    def predict(count: int, *, images: bool) -> None:
        for _ in predictor.predict(random_proteins(count), nuclei, images=images):
            pass

    predict(1, images=True)
    labels = per_second(sizes.labels, lambda: predict(sizes.labels, images=False))
    drawn = per_second(sizes.pictures, lambda: predict(sizes.pictures, images=True))
    proteins = random_proteins(sizes.pictures)
    written = per_second(sizes.pictures, lambda: save(predictor, proteins, folder / "saved", nuclei=nuclei))
    show("labels only, in process", f"{labels:.0f} proteins/s")
    show("with pictures, in process, not written", f"{drawn:.1f} proteins/s")
    show(
        "with pictures, in process, written",
        f"{written:.1f} proteins/s",
        "aim: >= 10 proteins/s on two cores",
    )
    return generated_per_second(predictor, sizes)


def generated_per_second(predictor: Predictor, sizes: Sizes) -> float:
    """Pictures drawn per second by the generator alone, as `Predictor` calls it."""
    sequences = [protein.sequence for protein in islice(random_proteins(8), 8)]
    latents = [encoding.latent for encoding in predictor.encode(sequences)]
    nuclei = [default_nucleus()] * len(latents)
    rounds = max(1, sizes.pictures // len(latents))
    return per_second(rounds * len(latents), lambda: [predictor.draw(nuclei, latents) for _ in range(rounds)])


def measure_command(model: str, folder: Path, sizes: Sizes) -> None:
    """The command on few and many proteins: speed with start-up and writing, and memory."""
    few, many = write_fasta(folder / "few.fasta", sizes.few), write_fasta(folder / "many.fasta", sizes.many)
    pictured = deepgps("predict", few, "--model", model, "--out", folder / "pictured")
    options = ("--model", model, "--no-images", "--out")
    small = deepgps("predict", few, *options, folder / "small")
    large = deepgps("predict", many, *options, folder / "large")
    show(
        f"deepgps predict, {sizes.few:,} with pictures",
        f"{sizes.few / pictured.seconds:.1f} proteins/s",
        "aim: >= 10 proteins/s on two cores",
    )
    show(f"deepgps predict, {sizes.many:,} labels only", f"{sizes.many / large.seconds:.0f} proteins/s")
    show(f"peak memory, {sizes.few:,} with pictures", f"{pictured.peak_mib:.0f} MiB")
    show(f"peak memory, {sizes.few:,} labels only", f"{small.peak_mib:.0f} MiB")
    show(f"peak memory, {sizes.many:,} labels only", f"{large.peak_mib:.0f} MiB", "aim: as for few")


def measure_against_paper(ours: float, sizes: Sizes) -> None:
    """Compare with the paper's U-Net, run eagerly in torch, one picture at a time."""
    what = "generator against the paper's U-Net (torch, batch 1)"
    try:
        import torch

        from deepgps.models.unet import UNet
    except ModuleNotFoundError as error:
        show(what, "not measured", f"{error.name} is not installed")
        return
    torch.manual_seed(SEED)
    net = UNet(sizes.unet_widths).eval()
    nucleus, latent = torch.rand(1, 1, 208, 208), torch.rand(1, 1, 1024)
    with torch.inference_mode():
        net(nucleus, latent)
        theirs = per_second(sizes.unet, lambda: [net(nucleus, latent) for _ in range(sizes.unet)])
    show(what, f"{ours / theirs:.0f} times", f"{ours:.1f} against {theirs:.2f} pictures/s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print it as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="name of an installed model, or path to a bundle"
    )
    parser.add_argument("--quick", action="store_true", help="a few proteins only: to see that it runs")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, model {options.model}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_start(options.model, folder, sizes)
        ours = measure_speed(options.model, folder, sizes)
        measure_command(options.model, folder, sizes)
    measure_against_paper(ours, sizes)


if __name__ == "__main__":
    main()
