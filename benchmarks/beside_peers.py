"""Our rates beside what users of other tools have published of theirs.

Run ``python benchmarks/beside_peers.py [--quick] [--record]``; a minute on a quiet machine. It predicts
proteins of the same mean length as the users had, on one core, and draws a few into a nucleus. Of the larger
proteomes it predicts `MEASURED` and multiplies, since each protein takes the same (`proteome.py` shows that).
Seconds are of the processor, all of a process together, so that what else is running counts little. Proteins
are those of `proteome.py`. Energy and cost are computed with the assumptions in the arguments.
"""

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path

from proteome import predict, sequences

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "speed-beside-peers.md"
_BLOCK = re.compile(r"(<!-- begin: beside_peers -->\n).*?(<!-- end: beside_peers -->\n)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Proteome:
    """Proteins that are predicted: how many, and their mean length in residues."""

    name: str
    count: int
    mean_length: int


PROTEOMES = (
    Proteome("3,700 proteins", 3_700, 620),
    Proteome("a bacterial genome, 4,300 proteins", 4_300, 315),
    Proteome("the human proteome, 20,400 proteins", 20_400, 560),
)
MEASURED, DRAWN = 1_000, 40


def proteins_of(mean_length: int, count: int) -> list[tuple[str, str]]:
    """Take real proteins, in the order of the table, whose mean length is as asked for."""
    chosen: list[tuple[str, str]] = []
    residues = 0
    for name, sequence in sequences():
        # One that brings the mean nearer to what it should be.
        long, wanted = len(sequence) >= mean_length, residues < mean_length * (len(chosen) or 1)
        if not chosen or long == wanted:
            chosen.append((name, sequence))
            residues += len(sequence)
        if len(chosen) == count:
            break
    return chosen


def write(path: Path, proteins: Sequence[tuple[str, str]]) -> Path:
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins), encoding="ascii")
    return path


def measure(folder: Path, divisor: int) -> tuple[list[float], float]:
    """Return the core seconds of the labels of each proteome, start included, and of an image more."""
    few = write(folder / "one.fasta", list(islice(sequences(), 1)))
    labels = ("--no-images", "--threads", "1")
    predict(few, folder / "labels", *labels, one_core=True)  # finds the index, once on a machine
    start = predict(few, folder / "labels", *labels, one_core=True).cpu
    seconds = []
    for proteome in PROTEOMES:
        count = max(2, min(proteome.count, MEASURED) // divisor)
        fasta = write(folder / "some.fasta", proteins_of(proteome.mean_length, count))
        more = predict(fasta, folder / "labels", *labels, one_core=True).cpu - start
        seconds.append(start + max(0.0, more) / (count - 1) * proteome.count)
    count = max(2, DRAWN // divisor)
    drawing = ("--nucleus", "hek-1", "--threads", "1")
    one = predict(few, folder / "images", *drawing, one_core=True)
    fasta = write(folder / "few.fasta", list(islice(sequences(), count)))
    all_of = predict(fasta, folder / "images", *drawing, one_core=True)
    return seconds, (all_of.cpu - one.cpu) / (count - 1)


def table(labels: Sequence[float], image_s: float, watts: float, price: float) -> str:
    """Lay out what was measured and what is computed of it, in Markdown."""

    def cost(seconds: float) -> list[str]:
        hours = seconds / 3600
        return [_duration(seconds), f"{hours * watts:.2g} Wh", f"${hours * price:.2g}"]

    lines = [
        "| on one core | labels: core time | energy | cost | with an image each: core time | energy | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for proteome, each in zip(PROTEOMES, labels, strict=True):
        cells = [proteome.name, *cost(each), *cost(each + proteome.count * image_s)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Labels of {MEASURED:,} proteins and {DRAWN} images were measured, and multiplied; an image takes "
        f"{image_s:.2f} s of core time more. Energy is {watts:g} W a core and cost ${price:g} a core hour, "
        f"both assumed. {date.today().isoformat()}.",
        "",
    ]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a hundredth of it: to see that it runs")
    parser.add_argument("--record", action="store_true", help="write the table into the page")
    parser.add_argument(
        "--watts", type=float, default=10.0, help="of a busy core, with its share of the machine"
    )
    parser.add_argument("--price", type=float, default=0.05, help="of a core hour, in dollars")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        labels, image_s = measure(Path(folder), 100 if chosen.quick else 1)
    found = table(labels, image_s, chosen.watts, chosen.price)
    print(found)
    if chosen.record and not chosen.quick:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_BLOCK.sub(lambda block: block[1] + found + block[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()
