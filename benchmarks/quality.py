"""Print how good the model that ships is: every figure that was aimed at, beside its baselines and its bar.

Nothing is trained. The figures are those that the benchmarks left in ``benchmarks/results``; the sizes and
the speed are those of the bundle that ships, on this machine.

    python benchmarks/quality.py [--results benchmarks/results] [--model deepgps-mini]
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepgps.bundle import DEFAULT_MODEL, Metric
from deepgps.bundle.metrics_table import shown, text_lines
from deepgps.prediction import Predictor
from deepgps.proteins.features import RESIDUES

FILES = ("opencell_labels", "hou_test", "images", "opencell_tiles", "opencell_halves", "crowds")
"""JSON files that the figures of the bundle and of its card are read from."""
TWO, FOUR = "OpenCell, cytoplasmic or nucleoplasm", "OpenCell, four classes"
CELLS, TILES = "Held-out U-2 OS cells", "Held-out OpenCell images of 5 proteins"
HALVES = "OpenCell images of 35 proteins held out by halves, mean images"
KINDS = ("", ", mean images")
"""How the name of what was measured goes on, by kind of image: one that could be, or the mean."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure was to reach.

    Attributes
    ----------
    figure
        Its name.
    least
        The value to reach; to stay below where ``below``.
    stretch
        A higher one, hoped for.
    above
        Name of a figure that ``least`` is added to.
    below
        Whether less is better.
    """

    figure: str
    least: float
    stretch: float | None = None
    above: str | None = None
    below: bool = False


def image_bars(of: str) -> tuple[Bar, ...]:
    """What images were to reach."""
    levels = f"{of}: Pearson r of the baseline 'own nuclear mask'"
    return (
        Bar(f"{of}: Pearson r", 0.1, above=levels),
        Bar(f"{of}: intranuclear r", 0.88),
        Bar(f"{of}: sequence_effect", 0.25),
    )


BARS = (
    Bar(f"{TWO}, B: AUROC", 0.86, 0.88),
    Bar(f"{TWO}, B: accuracy", 0.80, 0.82),
    Bar(f"{FOUR}, B: accuracy", 0.68, 0.71),
    Bar(f"{FOUR}, B: macro-F1", 0.68, 0.71),
    Bar(f"{TWO}, A: AUROC", 0.72, 0.76),
    Bar(f"{FOUR}, A: accuracy", 0.54),
    Bar("Public benchmark, seven classes, A: macro-F1", 0.48, 0.53),
    Bar("Public benchmark, seven classes, B: macro-F1", 0.59, 0.62),
    Bar("OpenCell, all classes pooled, A: calibration error (ECE)", 0.05, below=True),
    Bar(f"{TWO}, A: calibration error (ECE)", 0.05, below=True),
    Bar(f"{FOUR}, A: calibration error (ECE)", 0.05, below=True),
    Bar("OpenCell, shuffled, A: noted or unclear in its own classes", 0.5),
    Bar("OpenCell, shuffled, A: noted or unclear in single-2", 0.5),
    Bar("OpenCell, shuffled, A: noted or unclear in single-4", 0.5),
    Bar("Independent protein CPSF6, nucleoplasm, B: probability", 0.5),
    Bar("Independent protein CSTF2, nucleoplasm, B: probability", 0.5),
    Bar("Independent protein EEF2, cytoplasmic, B: probability", 0.5),
    *(bar for kind in KINDS for bar in image_bars(f"{CELLS}{kind}")),
    *(Bar(f"{CELLS}{kind}: read back of five classes", 0.85) for kind in KINDS),
    *image_bars(TILES),
    *image_bars(HALVES),
    Bar("HEK293T, crowded crops: cells that are drawn, PCNA", 0.95),
    Bar("HEK293T, crowded crops: cells that are drawn, GAPDH", 0.95),
)
SIZE_MIB, MILLISECONDS = 15, 20
"""What encoder and index may weigh together, and what a protein may take on one core."""


def figures(results: Path) -> dict[str, Metric]:
    """Read the measured figures, by name; those of a file that is not there are missing."""
    found: dict[str, Metric] = {}
    for path in (results / f"{name}.json" for name in FILES):
        entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
        found |= {name: Metric.model_validate(each) for name, each in entries.items()}
    return found


def bar_line(bar: Bar, found: Mapping[str, Metric]) -> tuple[str, ...]:
    """Figure, value, bar and whether it was met."""
    metric, base = found.get(bar.figure), found.get(bar.above or "")
    if metric is None or (bar.above and base is None):
        return (bar.figure, "not measured", "", "")
    least = bar.least + (base.value if base else 0)
    met = metric.value <= least if bar.below else metric.value >= least
    said = "met" if met else "missed"
    if met and bar.stretch is not None and metric.value >= bar.stretch:
        said = "met, stretch too"
    return (bar.figure, shown(metric), f"{'at most' if bar.below else 'at least'} {least:.2f}", said)


def milliseconds(predictor: Predictor, count: int = 60) -> float:
    """Time of a core for one protein of 450 residues, labels alone."""
    rng = np.random.default_rng(0)
    texts = ["M" + "".join(rng.choice(list(RESIDUES), 449)) for _ in range(count)]
    predictor.encode(texts[:2])
    started = time.process_time()
    predictor.encode(texts)
    return 1000 * (time.process_time() - started) / count


def shipped(predictor: Predictor) -> Iterator[tuple[str, ...]]:
    """Size and speed of the bundle beside their bars."""
    path = predictor.bundle.path
    size = sum((path / name).stat().st_size for name in ("encoder.onnx", "neighbours.npz")) / 2**20
    took = milliseconds(predictor)
    for name, measured, bar, unit in (
        ("encoder and index", size, SIZE_MIB, "MiB"),
        ("a protein of 450 residues on one core, labels alone", took, MILLISECONDS, "ms"),
    ):
        said = "met" if measured <= bar else "missed"
        yield (name, f"{measured:.1f} {unit}", f"at most {bar} {unit}", said)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table of text, columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    found = figures(options.results)
    predictor = Predictor.load(options.model, threads=1)
    metadata = predictor.bundle.metadata
    print(f"{metadata.name} {metadata.version}: what was aimed at. In brackets 95 % bootstrap intervals.\n")
    rows = [*(bar_line(bar, found) for bar in BARS), *shipped(predictor)]
    print("\n".join(aligned([("figure", "measured", "bar", ""), *rows])))
    print("\nEvery figure, baselines included:\n")
    print(*text_lines(found), sep="\n")
    differing = [name for name, each in found.items() if metadata.metrics.get(name) != each]
    if differing:
        print(f"\nNot as the bundle and its card say it: {'; '.join(differing)}. Export it again.")


if __name__ == "__main__":
    main()
