"""``deepgps evaluate images``: measure folders of images, and write metrics, a table and a report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import deepgps
from deepgps.arrays import Floats
from deepgps.bundle import Metric
from deepgps.errors import InputError
from deepgps.evaluation.images.features import FEATURES
from deepgps.evaluation.images.pairs import (
    BASELINES,
    ORACLES,
    PREDICTED,
    PairMeasurements,
    measure_pairs,
    pair_metrics,
    read_pairs,
    table_rows,
)
from deepgps.files import atomic_path, write_csv
from deepgps.reporting.images import image_uri
from deepgps.reporting.pages import write_page

METRICS, METRICS_TABLE, PAIRS, LEFT_OUT = "metrics.json", "metrics.csv", "pairs.csv", "left_out.csv"
REPORT = "report.html"
SIMILARITY_COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 3),
    ("ms_ssim", "MS-SSIM", 3),
    ("pearson", "Pearson r", 3),
    ("spearman", "Spearman rho", 3),
    ("mutual_information", "mutual information", 3),
    ("iou_median", "IoU, median", 3),
    ("iou_otsu", "IoU, Otsu", 3),
    ("intranuclear_error", "intranuclear error", 3),
    ("intranuclear_r", "intranuclear r", 2),
    ("intranuclear_rho", "intranuclear rho", 2),
)
_BY_RANK, _AT_RANDOM, _PANEL_PX = 4, 8, 160


@dataclass(frozen=True, slots=True, eq=False)
class PairEvaluation:
    """What an evaluation of images measured.

    Attributes
    ----------
    metrics
        By name.
    measurements
        What they were computed from.
    notes
        What a reader must know.
    left_out
        Name and reason of each image that is in no pair.
    files
        What was written.
    """

    metrics: Mapping[str, Metric]
    measurements: PairMeasurements
    notes: tuple[str, ...]
    left_out: Sequence[tuple[str, str]]
    files: tuple[Path, ...]


def evaluate_images(
    true: Path,
    predicted: Path,
    out: Path,
    *,
    nucleus: Path | None = None,
    labels: Path | None = None,
    pixel_size_um: float | None = None,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> PairEvaluation:
    """Measure the predicted images of any model beside the true ones, and beside trivial baselines.

    Parameters
    ----------
    true, predicted, nucleus, labels, pixel_size_um
        As in `deepgps.evaluation.images.pairs.read_pairs`.
    out
        Folder for ``metrics.json``, ``metrics.csv``, ``pairs.csv``, ``left_out.csv`` and ``report.html``.
    seed
        Seed of the bootstrap, the controls and the gallery.
    on_progress
        Called with a stage, and how many of how many are done in it.

    Returns
    -------
    PairEvaluation
        Metrics with intervals, and what they were computed from.

    Raises
    ------
    InputError
        If the images or labels cannot be used, or `out` is a file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from deepgps.evaluation.images.evaluate_pairs import evaluate_images
    >>> done = evaluate_images(Path("true"), Path("drawn"), Path("report"))  # doctest: +SKIP
    >>> done.metrics["images/predicted/pearson"].value  # doctest: +SKIP
    0.31
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file; give --out a folder.")
    read = read_pairs(
        true,
        predicted,
        nucleus=nucleus,
        labels=labels,
        pixel_size_um=pixel_size_um,
        on_pair=lambda done, total: on_progress("reading", done, total),
    )
    measurements = measure_pairs(
        read.pairs, seed=seed, on_pair=lambda done, total: on_progress("measuring", done, total)
    )
    metrics, notes = pair_metrics(measurements, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "deepgps": deepgps.__version__,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "true": true.name,
        "predicted": predicted.name,
        "nucleus": None if nucleus is None else nucleus.name,
        "labels": None if labels is None else labels.name,
        "pixel_size_um": sorted({round(pair.pixel_size_um, 6) for pair in read.pairs}),
        "pairs": len(read.pairs),
        "left_out": len(read.left_out),
        "groups": int(measurements.groups.max()) + 1,
        "normalisation": "each image by its 3rd and 99.8th percentiles to 0 and 1, clipped",
        "features": f"{FEATURES} features of structure, standardised by the true images",
        "controls": measurements.controlled,
        "seed": seed,
        "notes": [*read.notes, *notes],
    }
    document = {"about": about, "metrics": {name: each.model_dump() for name, each in metrics.items()}}
    with atomic_path(out / METRICS) as draft:
        draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    rows = (
        (name, *map(_digits, (each.value, each.low, each.high)), each.n) for name, each in metrics.items()
    )
    write_csv(out / METRICS_TABLE, ("metric", "value", "low", "high", "n"), rows)
    header, *lines = table_rows(measurements)
    write_csv(out / PAIRS, map(str, header), lines)
    write_csv(out / LEFT_OUT, ("name", "reason"), read.left_out)
    _write_report(out / REPORT, metrics, measurements, about, seed)
    files = tuple(out / name for name in (REPORT, METRICS, METRICS_TABLE, PAIRS, LEFT_OUT))
    return PairEvaluation(metrics, measurements, (*read.notes, *notes), read.left_out, files)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write_report(
    path: Path,
    metrics: Mapping[str, Metric],
    measurements: PairMeasurements,
    about: dict[str, Any],
    seed: int,
) -> None:
    kinds = [kind for kind in (PREDICTED, *BASELINES) if kind in measurements.values]
    by_kind = [(kind, _of(metrics, f"images/{kind}/")) for kind in kinds]
    shown = {key for key, _, _ in SIMILARITY_COLUMNS}
    others = [
        (name.removeprefix("images/"), {"value": metric})
        for name, metric in metrics.items()
        if name.rpartition("/")[2] not in shown
        and name.startswith(("images/predicted/", "images/true", "images/sequence"))
    ]
    write_page(
        path,
        "image_pairs.html",
        title=f"Images of {about['predicted']}",
        facts=[
            f"{about['pairs']:,} pairs in {about['groups']:,} groups, {about['left_out']:,} images left out",
            f"deepGPS {about['deepgps']}",
            about["date"],
        ],
        notes=about["notes"],
        columns=SIMILARITY_COLUMNS,
        kinds=by_kind,
        oracles=[kind for kind in ORACLES if kind in kinds],
        effect=metrics.get("images/sequence_effect"),
        copied_effect=metrics.get("images/sequence_effect of the copied nucleus"),
        others=others,
        about=[(key, value) for key, value in about.items() if key != "notes"],
        gallery=_gallery(measurements, seed),
    )


def _of(metrics: Mapping[str, Metric], prefix: str) -> dict[str, Metric]:
    return {name.removeprefix(prefix): each for name, each in metrics.items() if name.startswith(prefix)}


def _gallery(measurements: PairMeasurements, seed: int) -> list[tuple[str, list[dict[str, str]]]]:
    """Pairs chosen at random and by Pearson r: nucleus, true, predicted."""
    r = measurements.values[PREDICTED]["pearson"]
    order = np.argsort(-np.where(np.isfinite(r), r, -np.inf), kind="stable")
    random = np.sort(np.random.default_rng(seed).permutation(len(r))[:_AT_RANDOM])
    chosen = {f"Chosen at random (seed {seed})": random, "Best by Pearson r": order[:_BY_RANK]}
    chosen["Worst"] = order[::-1][:_BY_RANK]

    def shown(number: int) -> dict[str, str]:
        pair = measurements.pairs[number]
        images = [image for image in (pair.nucleus, pair.true, pair.predicted) if image is not None]
        label = f", {pair.label}" if pair.label else ""
        return {"caption": f"{pair.name}{label}; r {r[number]:.2f}", "source": image_uri(_row(images))}

    return [(title, [shown(int(number)) for number in numbers]) for title, numbers in chosen.items()]


def _row(images: Sequence[Floats]) -> Image.Image:
    panels = [
        np.asarray(Image.fromarray((image * 255).astype(np.uint8)).resize((_PANEL_PX, _PANEL_PX)))
        for image in images
    ]
    gap = np.full((_PANEL_PX, 4), 90, np.uint8)
    return Image.fromarray(np.hstack([part for panel in panels for part in (panel, gap)][:-1]))
