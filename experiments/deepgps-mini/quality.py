"""Print the figures of the shipped model beside their baselines and targets; nothing is trained.

    python experiments/deepgps-mini/quality.py [--model deepgps-mini]

The figures are those in ``figures.json``; size and speed are measured on this machine.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepgps.bundle import (
    DEFAULT_MODEL,
    KNOWN_FILE,
    KNOWN_SEQUENCES_FILE,
    NEIGHBOURS_FILE,
    OVERALL_FILE,
    Metric,
)
from deepgps.bundle.metrics_table import format_metric, metric_lines
from deepgps.localization import class_set
from deepgps.prediction import Predictor
from deepgps.prediction.overall import said_classes
from deepgps.prediction.prediction import NAMED_FROM, UNCLEAR
from deepgps.proteins.features import RESIDUES
from deepgps.proteins.known import main_statements
from deepgps.proteins.protein import Protein
from figures import read_figures

MINI = class_set("mini").slugs
TWO, FOUR = "OpenCell, cytoplasmic or nucleoplasm", "OpenCell, four classes"
HIDDEN, ECE = "OpenCell hidden, overall answer", "calibration error (ECE)"
WARNED = "with a warning or unclear in"


@dataclass(frozen=True, slots=True)
class Target:
    """The value that a figure was to reach.

    Attributes
    ----------
    figure
        Its name.
    value
        To reach, or to stay below where ``below``.
    stretch
        A higher value, hoped for.
    above
        Name of a figure that ``value`` is added to.
    below
        Whether less is better.
    times
        Name of a figure that ``value`` is multiplied by.
    """

    figure: str
    value: float
    stretch: float | None = None
    above: str | None = None
    below: bool = False
    times: str | None = None


TARGETS = (
    Target(f"{HIDDEN}: macro-F1", 0, above=f"{HIDDEN}: macro-F1 of the baseline 'copy HPA'"),
    Target(f"{HIDDEN}: macro-F1", 0, above=f"{HIDDEN}: macro-F1 of the baseline 'prediction alone'"),
    Target(f"{HIDDEN}: {ECE}", 0, above=f"{HIDDEN}: {ECE} of the baseline 'copy HPA'", below=True),
    Target(f"{HIDDEN}: {ECE}", 0, above=f"{HIDDEN}: {ECE} of the baseline 'prediction alone'", below=True),
    Target(f"{TWO}, B: AUROC", 0.86, 0.88),
    Target(f"{TWO}, B: accuracy", 0.80, 0.82),
    Target(f"{FOUR}, B: accuracy", 0.68, 0.71),
    Target(f"{FOUR}, B: macro-F1", 0.68, 0.71),
    Target(f"{TWO}, A: AUROC", 0.77),
    Target(f"{FOUR}, A: accuracy", 0.54),
    Target("Public benchmark, seven classes, A: macro-F1", 0.52, 0.53),
    Target("Public benchmark, seven classes, B: macro-F1", 0.59, 0.62),
    Target("OpenCell, all classes pooled, A: calibration error (ECE)", 0.05, below=True),
    Target(f"{TWO}, A: calibration error (ECE)", 0.05, below=True),
    Target(f"{FOUR}, A: calibration error (ECE)", 0.05, below=True),
    Target(f"OpenCell, shuffled, A: {WARNED} the model's own classes", 0.5),
    Target(f"OpenCell, shuffled, A: {WARNED} single-2", 0.5),
    Target(f"OpenCell, shuffled, A: {WARNED} single-4", 0.5),
    Target("Independent protein CPSF6, nucleoplasm, B: probability", 0.5),
    Target("Independent protein CSTF2, nucleoplasm, B: probability", 0.5),
    Target("Independent protein EEF2, cytoplasmic, B: probability", 0.5),
)
BEFORE = "deepgps-mini 0.4"
"""The model before images were drawn by flow matching."""
BESIDE = ("real images", BEFORE, "mean images")
"""Baselines that stand beside every figure of images."""
IMAGE_LINES = ("HEK293T", "U-2 OS")
IMAGE_TARGETS = (
    Target("HEK293T images, LMNB1: rim ratio", 2),
    Target("HEK293T images, NPM1: DNA r", -0.3, below=True),
    Target("HEK293T images, RELA: roughness", 0.12, below=True),
    Target("HEK293T images, CEP131: brightest 1 %", 0.2),
    Target("HEK293T images, VDAC1: intranuclear", 0.25, below=True),
    *(
        Target(name, 1, below=True, times=f"{name} of the baseline '{BEFORE}'")
        for name in (f"{line} images, {slug}: structure distance" for line in IMAGE_LINES for slug in MINI)
    ),
    *(Target(f"{line} images: read-back, balanced accuracy", 0.70) for line in IMAGE_LINES),
    *(Target(f"{line} images: read-back, five classes", 0.88) for line in IMAGE_LINES),
    *(
        Target(name, 0.5, below=True, times=f"{name} of the baseline '{BEFORE}'")
        for name in (f"{line} images: kernel distance" for line in IMAGE_LINES)
    ),
    Target("HEK293T mean images: Pearson r", 0.50),
    Target("U-2 OS mean images: Pearson r", 0.60),
    Target("U-2 OS mean images, landmarks given: Pearson r", 0.75),
    *(Target(f"{line} mean images: intranuclear r", 0.88) for line in IMAGE_LINES),
)
"""Targets of images, in cells held out of training; a class without real images has none of its own."""
MAX_SIZE_MIB, MAX_MILLISECONDS = 15, 4
"""Size of encoder and indexes together, and time of a protein on one core."""
INDEXES = ("encoder.onnx", NEIGHBOURS_FILE, KNOWN_FILE, KNOWN_SEQUENCES_FILE, OVERALL_FILE)
RANDOM_PROTEINS, MAX_UNCLEAR = 500, 0.01
"""Human proteins with a record that are looked up, and the share of them that may be unclear."""


def target_row(target: Target, figures: Mapping[str, Metric]) -> tuple[str, ...]:
    """Return figure, value, target and whether it was met."""
    metric, base, factor = (figures.get(name or "") for name in (target.figure, target.above, target.times))
    if metric is None or (target.above and base is None) or (target.times and factor is None):
        return (target.figure, "not measured", "", "")
    value = target.value * (factor.value if factor else 1) + (base.value if base else 0)
    met = metric.value <= value if target.below else metric.value >= value
    verdict = "met" if met else "missed"
    if met and target.stretch is not None and metric.value >= target.stretch:
        verdict = "met, stretch too"
    return (
        target.figure,
        format_metric(metric),
        f"{'at most' if target.below else 'at least'} {value:.2f}",
        verdict,
    )


def image_rows(figures: Mapping[str, Metric]) -> Iterator[tuple[str, ...]]:
    """Rows of `target_row` for `IMAGE_TARGETS` that were measured, with the baselines beside."""
    for target in IMAGE_TARGETS:
        beside = [figures.get(f"{target.figure} of the baseline '{name}'") for name in BESIDE]
        row = target_row(target, figures)
        if target.figure in figures or any(beside):
            yield (*row, *("–" if metric is None else f"{metric.value:.2f}" for metric in beside))


def size_and_speed_rows(predictor: Predictor) -> Iterator[tuple[str, ...]]:
    """Size and speed of the bundle beside their targets."""
    path = predictor.bundle.path
    size = sum((path / name).stat().st_size for name in INDEXES if (path / name).exists()) / 2**20
    for name, measured, target, unit in (
        ("encoder and indexes", size, MAX_SIZE_MIB, "MiB"),
        (
            "a protein of 450 residues on one core, labels only",
            _milliseconds(predictor),
            MAX_MILLISECONDS,
            "ms",
        ),
    ):
        verdict = "met" if measured <= target else "missed"
        yield (name, f"{measured:.1f} {unit}", f"at most {target} {unit}", verdict)


def known_rows(predictor: Predictor) -> Iterator[tuple[str, ...]]:
    """Answers for random human proteins with a record, beside what they must be."""
    known = predictor.known
    if known is None:
        return
    told = [each for each in known if each.human and said_classes(each.statements, predictor.classes)]
    chosen = [told[row] for row in np.random.default_rng(0).choice(len(told), RANDOM_PROTEINS, replace=False)]
    proteins = [
        Protein(each.accession, known.sequence(each.accession) or "", each.gene_symbol, each.accession)
        for each in chosen
    ]
    right = unclear = low = disordered = 0
    for answer, expected in zip(predictor.predict(proteins, images=False), chosen, strict=True):
        found, chances = answer.known, answer.probabilities
        right += found is not None and found.accession == expected.accession and found.identical
        unclear += answer.localizations == (UNCLEAR,)
        named = [slug for slug in answer.localizations if slug in chances]
        said = said_classes(main_statements(expected.statements), predictor.classes)
        low += any(chances[slug] < NAMED_FROM and slug not in said for slug in named)
        disordered += bool(named) and min(chances[slug] for slug in named) < max(
            (p for slug, p in chances.items() if slug not in named), default=0
        )
    for name, count, most in (
        ("known part wrong", RANDOM_PROTEINS - right, 0),
        ("overall unclear", unclear, int(MAX_UNCLEAR * RANDOM_PROTEINS)),
        (f"a class named below {NAMED_FROM:g} without a source", low, 0),
        ("a class named that is less probable than an unnamed one", disordered, 0),
    ):
        verdict = "met" if count <= most else "missed"
        yield (
            f"{RANDOM_PROTEINS} random human proteins with a record: {name}",
            f"{count}",
            f"at most {most}",
            verdict,
        )


def _milliseconds(predictor: Predictor, count: int = 60) -> float:
    """Processor time of one protein of 450 residues, labels only."""
    rng = np.random.default_rng(0)
    sequences = ["M" + "".join(rng.choice(list(RESIDUES), 449)) for _ in range(count)]
    predictor.encode(sequences[:2])
    started = time.process_time()
    predictor.encode(sequences)
    return 1000 * (time.process_time() - started) / count


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    figures, predictor = read_figures(), Predictor.load(options.model, threads=1)
    metadata = predictor.bundle.metadata
    print(f"{metadata.name} {metadata.version}: targets. In brackets 95 % bootstrap intervals.\n")
    rows = [
        *(target_row(target, figures) for target in TARGETS),
        *known_rows(predictor),
        *size_and_speed_rows(predictor),
    ]
    print("\n".join(_aligned([("figure", "measured", "target", ""), *rows])))
    print("\nImages in held-out cells, at 0.41 um a pixel:\n")
    measured = figures | read_figures(on_card=False)
    print("\n".join(_aligned([("figure", "measured", "target", "", *BESIDE), *image_rows(measured)])))
    print("\nEvery figure, with baselines:\n")
    print(*metric_lines(figures), sep="\n")
    differing = [name for name, each in figures.items() if metadata.metrics.get(name) != each]
    if differing:
        print(f"\nNot as in the bundle and its card: {'; '.join(differing)}. Export it again.")


if __name__ == "__main__":
    main()
