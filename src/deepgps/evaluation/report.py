"""``report.html`` of an evaluation: what was evaluated, what to beware of, and all metrics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from deepgps.arrays import Doubles, Floats, Ints
from deepgps.bundle import Metric
from deepgps.evaluation.dataset import SEPARATOR, EvaluationDataset
from deepgps.evaluation.images.baselines import CLASS_MEAN, CONSTANT, COPY, MASK
from deepgps.evaluation.images.features import BANDS, FEATURES, PROFILE, PROFILE_EDGES_UM, SPECTRUM_EDGES
from deepgps.evaluation.images.measure import (
    DRAWN,
    NO_PROTEIN,
    REAL,
    STRUCTURED_KINDS,
    WRONG_CLASS,
    CropMeasurements,
    ImageGenerator,
    wrong_proteins,
)
from deepgps.evaluation.images.metrics import CLASSIFIERS, COMPARED_KINDS, EFFECTS
from deepgps.evaluation.labels import LabelReport
from deepgps.reporting.charts import (
    interval_chart,
    line_chart,
    reliability_chart,
    round_axis,
    scatter_chart,
    unit_axis,
)
from deepgps.reporting.images import image_uri
from deepgps.reporting.pages import write_page

if TYPE_CHECKING:
    from deepgps.evaluation.evaluate import Evaluation

BASELINES = (CONSTANT, CLASS_MEAN, MASK, COPY)
"""Images that need no model and know of the real image nothing but its class."""
ORACLES = ("own mean", "own nuclear mask")

LABEL_SUMMARY = ("accuracy", "balanced_accuracy", "mcc", "exact_match", "f1_macro", "auroc_macro")
IMAGE_SUMMARY = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "pearson": "Pearson r",
    "intranuclear_r": "intranuclear fraction, r",
    "classifier_accuracy_balanced": "classifier accuracy, balanced",
    "profile_classifier_accuracy_balanced": "profile classifier accuracy, balanced",
}
"""Metrics of images at the top of the report."""

# Key, heading and digits of the columns of each table.
SIMILARITY_COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    ("psnr_stacked", "PSNR, stacked (dB)", 2),
    ("ssim", "SSIM", 3),
    ("pearson", "Pearson r", 3),
    ("intranuclear_r", "intranuclear r", 2),
    ("intranuclear_mae", "intranuclear MAE", 3),
)
STRUCTURE_COLUMNS = (
    ("profile_error", "profile error", 3),
    ("fine_detail", "fine detail (log2)", 2),
    ("classifier_accuracy", "classifier accuracy", 2),
    ("classifier_accuracy_balanced", "balanced", 2),
    ("profile_classifier_accuracy", "profile classifier accuracy", 2),
    ("profile_classifier_accuracy_balanced", "balanced", 2),
    ("frechet_distance", "Fréchet distance", 1),
)
CLASS_COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    ("psnr_class_mean", "PSNR of class mean", 2),
    ("pearson", "Pearson r", 3),
    ("sequence_effect", "sequence_effect", 3),
    ("intranuclear_mae", "intranuclear MAE", 3),
    ("classifier_accuracy", "classifier accuracy", 2),
    ("classifier_accuracy_real", "… real", 2),
    ("profile_classifier_accuracy", "profile classifier accuracy", 2),
    ("profile_classifier_accuracy_real", "… real", 2),
)

_MAX_LEFT_OUT = 100
_SCATTER_POINTS = 600
_BY_RANK, _AT_RANDOM = 4, 12


def write_evaluation_report(evaluation: "Evaluation", path: Path) -> None:
    """Write the report; it loads nothing from elsewhere."""
    about = evaluation.about
    facts = [
        f"data {about['data']}, split {about['split']}",
        f"{about['proteins']:,} proteins",
        f"{about['crops']:,} crops" if about["crops"] else "labels only",
        *(["mean images"] if about["mean"] else []),
        f"deepGPS {about['deepgps']}",
    ]
    write_page(
        path,
        "evaluation.html",
        title=f"Evaluation of {about['model']} {about['model_version']}",
        facts=facts,
        notes=evaluation.notes,
        summary=[*_label_summary(evaluation), *_image_summary(evaluation)],
        labels=_labels(evaluation),
        images=_images(evaluation),
        left_out=evaluation.dataset.left_out,
        max_left_out=_MAX_LEFT_OUT,
        **_provenance(evaluation),
    )


def _label_summary(evaluation: "Evaluation") -> Iterator[dict[str, Any]]:
    report = evaluation.labels.report
    if report is None:
        return
    caveat = "" if evaluation.labels.is_test else " (not a test: see above)"
    for name in LABEL_SUMMARY:
        key = f"protein/{name}"
        if key in report.metrics:
            best = max((each[key] for each in report.baselines.values()), key=lambda metric: metric.value)
            yield {
                "name": f"labels: {name}, by protein{caveat}",
                "model": report.metrics[key],
                "best": best,
                "digits": 2,
                "best_name": None,
                "ceiling": None,
                "is_effect": False,
            }


def _image_summary(evaluation: "Evaluation") -> Iterator[dict[str, Any]]:
    if evaluation.images is None:
        return
    kinds = evaluation.images.kinds
    for name, heading in IMAGE_SUMMARY.items():
        known = [each for each in BASELINES if name in kinds[each] and np.isfinite(kinds[each][name].value)]
        best = max(known, key=lambda kind: kinds[kind][name].value, default=None)
        yield {
            "name": f"images: {heading}",
            "model": kinds[DRAWN].get(name),
            "best": None if best is None else kinds[best][name],
            "digits": 2,
            "best_name": best,
            "ceiling": kinds[REAL].get(name),
            "ceiling_name": REAL,
            "is_effect": False,
        }
    effect = evaluation.images.effects["sequence_effect"]
    yield {"name": "images: sequence_effect", "model": effect, "digits": 3, "is_effect": True}


def _labels(evaluation: "Evaluation") -> dict[str, Any] | None:
    """Return what the template shows of labels; None for a model that only draws."""
    report, new = evaluation.labels.report, evaluation.labels.new
    if report is None:
        return None
    class_metrics = list(
        dict.fromkeys(
            name.split("/")[1]
            for name in report.metrics
            if name.startswith("protein/") and name.count("/") == 2
        )
    )
    counts = report.confusion_by_protein
    positives = [int(each[1].sum() if report.multi_label else each.sum()) for each in counts]
    filled = report.reliability.count > 0
    return {
        "report": report,
        "new": new,
        "columns": [(name, name, 3) for name in ("model", *report.baselines)],
        "by_protein": _overall(report, "protein"),
        "by_crop": _overall(report, "crop"),
        "by_new_protein": _overall(new, "protein") if new else [],
        "class_metrics": class_metrics,
        "by_class": [
            (slug, count, [report.metrics.get(f"protein/{name}/{slug}") for name in class_metrics])
            for slug, count in zip(report.classes, positives, strict=True)
        ],
        "charts": _label_charts(report),
        "bin_counts": [f"{int(count):,}" for count in report.reliability.count[filled]],
    }


def _overall(report: LabelReport, level: str) -> list[tuple[str, dict[str, Metric]]]:
    models = {"model": report.metrics, **report.baselines}
    return [
        (name.partition("/")[2], {model: metrics[name] for model, metrics in models.items()})
        for name in report.metrics
        if name.startswith(f"{level}/") and name.count("/") == 1
    ]


def _label_charts(report: LabelReport) -> list[Markup]:
    roc = {slug: (each.false_positive_rate, each.true_positive_rate) for slug, each in report.curves.items()}
    precision = {slug: (each.recall, each.precision) for slug, each in report.curves.items()}
    reliability = report.reliability
    what = "all classes pooled" if report.multi_label else "the predicted class"
    return [
        line_chart(
            "ROC, one class against the rest",
            roc,
            unit_axis("1 - specificity"),
            unit_axis("sensitivity"),
            diagonal=True,
        ),
        line_chart("Precision and recall", precision, unit_axis("recall"), unit_axis("precision")),
        reliability_chart(
            f"Calibration, {what}: ECE {reliability.ece:.3f}", reliability.probability, reliability.frequency
        ),
    ]


def _images(evaluation: "Evaluation") -> dict[str, Any] | None:
    """Return what the template shows of images; None without a crop store."""
    images, measurements, reference = evaluation.images, evaluation.measurements, evaluation.reference
    if images is None or measurements is None or reference is None:
        return None
    dataset, seed = evaluation.dataset, evaluation.about["seed"]
    groups = len(np.unique(dataset.groups))
    one_protein_each = len(np.unique(dataset.protein_of)) == groups
    kinds = [(kind, images.kinds[kind]) for kind in COMPARED_KINDS]
    effect, effect_same_class = (images.effects[name] for name in EFFECTS)
    return {
        "crops": len(dataset.rows),
        "groups": groups,
        "group_name": "proteins" if one_protein_each else "groups of crops (cut from the same field)",
        "oracles": ORACLES,
        "effect": effect,
        "effect_same_class": effect_same_class,
        "similarity_columns": SIMILARITY_COLUMNS,
        "kinds": kinds,
        "interval_charts": [
            interval_chart("Pearson r", _of_kinds(images.kinds, "pearson"), include=0),
            interval_chart("PSNR (dB)", _of_kinds(images.kinds, "psnr")),
        ],
        "classifier": _classifier(evaluation),
        "structure_columns": STRUCTURE_COLUMNS,
        "structured_kinds": [
            *((kind, row) for kind, row in kinds if kind in STRUCTURED_KINDS),
            (REAL, images.kinds[REAL]),
        ],
        "charts": _image_charts(measurements, dataset, seed),
        "class_columns": CLASS_COLUMNS,
        "by_class": [
            (f"{name.replace(SEPARATOR, ', ')} ({int((dataset.crop_classes == name).sum()):,})", row)
            for name, row in images.by_class.items()
        ],
        "gallery": _gallery(evaluation, measurements, seed),
    }


def _of_kinds(kinds: Mapping[str, Mapping[str, Metric]], name: str) -> dict[str, Metric]:
    return {kind: kinds[kind][name] for kind in COMPARED_KINDS if name in kinds[kind]}


def _classifier(evaluation: "Evaluation") -> dict[str, Any] | None:
    assert evaluation.images is not None and evaluation.reference is not None
    if evaluation.reference.classifiers is None:
        return None
    classifier = evaluation.reference.classifiers[0]
    ceiling, profile_ceiling = (evaluation.images.kinds[REAL].get(name) for name in CLASSIFIERS)
    return {
        "features": FEATURES,
        "counts": list(zip(classifier.classes, map(int, classifier.counts), strict=True)),
        "ceiling": ceiling,
        "profile_ceiling": profile_ceiling,
        "is_weak": ceiling is not None and ceiling.value < 0.5,
    }


def _image_charts(measurements: CropMeasurements, dataset: EvaluationDataset, seed: int) -> list[Markup]:
    profiles, spectra = _mean_curves(measurements)
    distances = (PROFILE_EDGES_UM[:-1] + PROFILE_EDGES_UM[1:]) / 2
    frequencies = np.log10(np.sqrt(SPECTRUM_EDGES[:-1] * SPECTRUM_EDGES[1:]))
    return [
        line_chart(
            "Profile around the nucleus, mean of crops",
            {kind: (distances, profile) for kind, profile in profiles.items()},
            round_axis("distance from the nuclear outline (µm)", distances, include=0),
            round_axis("intensity over mean", np.stack(list(profiles.values())), include=0),
            mark_x=0,
        ),
        line_chart(
            "Sharpness: radial power spectrum",
            {kind: (frequencies, spectrum) for kind, spectrum in spectra.items()},
            round_axis("log10 of periods per µm", frequencies),
            round_axis("log10 of share of variance", np.stack(list(spectra.values()))),
        ),
        scatter_chart(
            "Intranuclear fraction, crop by crop",
            _fractions(measurements, dataset, seed),
            unit_axis("real"),
            unit_axis("drawn"),
            diagonal=True,
        ),
    ]


def _mean_curves(measurements: CropMeasurements) -> tuple[dict[str, Doubles], dict[str, Doubles]]:
    """Return the mean profile and the mean log spectrum of the kinds of image worth a line."""
    profiles, spectra = {}, {}
    for kind in (REAL, DRAWN, WRONG_CLASS, MASK):
        sums, counts = np.zeros(PROFILE + BANDS), np.zeros(PROFILE + BANDS)
        for start in range(0, len(measurements.records), 4096):
            chunk = measurements.features(kind, slice(start, start + 4096))[:, : PROFILE + BANDS]
            sums += np.nansum(chunk, 0)
            counts += np.isfinite(chunk).sum(0)
        mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        profiles[kind], spectra[kind] = mean[:PROFILE], mean[PROFILE:]
    return profiles, spectra


def _fractions(
    measurements: CropMeasurements, dataset: EvaluationDataset, seed: int
) -> dict[str, tuple[Doubles, Doubles]]:
    """Return real and drawn intranuclear fractions of randomly chosen crops, by the class shown."""
    real, drawn = (measurements.measure(kind, "intranuclear") for kind in (REAL, DRAWN))
    chosen = np.random.default_rng(seed).permutation(len(real))[:_SCATTER_POINTS]
    names = dataset.crop_classes[chosen]
    return {
        str(name).replace(SEPARATOR, ", "): (real[chosen][names == name], drawn[chosen][names == name])
        for name in np.unique(names)
    }


def choose_cells(pearson: Doubles, seed: int) -> dict[str, Ints]:
    """Choose cells to show by the Pearson r (N,) of the drawn image: best, median, worst, and at random."""
    known = np.flatnonzero(np.isfinite(pearson))
    order = known[np.argsort(-pearson[known], kind="stable")]
    middle = max((len(order) - _BY_RANK) // 2, 0)
    random = np.random.default_rng(seed).permutation(known)[:_AT_RANDOM]
    return {
        f"Chosen at random (seed {seed})": np.sort(random),
        "Best by Pearson r": order[:_BY_RANK],
        "Median": order[middle : middle + _BY_RANK],
        "Worst": order[::-1][:_BY_RANK],
    }


def _gallery(
    evaluation: "Evaluation", measurements: CropMeasurements, seed: int
) -> Iterator[tuple[str, Iterator[dict[str, str]]]]:
    """Yield nucleus, real image, drawn image, and one drawn from a protein of another class, of cells."""
    dataset = evaluation.dataset
    store = dataset.store
    assert store is not None
    generator = ImageGenerator(evaluation.predictor, dataset)
    pearson = measurements.measure(DRAWN, "pearson")
    wrong = wrong_proteins(dataset, seed)[WRONG_CLASS]

    def cell(number: int) -> dict[str, str]:
        owner, other = dataset.protein_of[number], wrong[number]
        nucleus, real = store.images([dataset.rows[number]])[0]
        drawn, control = generator.draw(np.stack([nucleus, nucleus]), np.array([owner, other], np.int64))
        if other == NO_PROTEIN:
            control = np.zeros_like(real)
        protein = dataset.proteins[owner].protein
        return {
            "caption": f"{protein.id}: {dataset.crop_classes[number]}; r {pearson[number]:.2f}",
            "control": dataset.proteins[other].class_name if other != NO_PROTEIN else "none",
            "source": image_uri(_side_by_side([nucleus, real, drawn, control])),
        }

    for title, numbers in choose_cells(pearson, seed).items():
        yield title, map(cell, numbers)


def _side_by_side(panels: list[Floats]) -> Image.Image:
    """Put images (H, W) in [0, 1] side by side, with grey gaps."""
    gap = np.full((panels[0].shape[0], 4), 0.35, np.float32)
    row = np.hstack([part for panel in panels for part in (panel, gap)][:-1])
    return Image.fromarray((np.clip(row, 0, 1) * 255).astype(np.uint8))


def _provenance(evaluation: "Evaluation") -> dict[str, Any]:
    metadata, about = evaluation.predictor.bundle.metadata, evaluation.about
    shown = evaluation.dataset.crop_classes.tolist()
    tested_on = Counter(shown or [each.class_name for each in evaluation.dataset.proteins])
    return {
        "training_data": list(metadata.training_data.items()),
        "tested_on": tested_on.most_common(),
        "provenance": [
            ("model", f"{about['model']} {about['model_version']}, sha256 {about['model_sha256'][:16]}"),
            ("cell line", metadata.cell_line),
            ("pixel size", f"{about['pixel_size_um']:g} µm"),
            ("training crops of the store", f"{about['training_crops']:,}, for baselines and classifier"),
            ("seed", about["seed"]),
            *((f"sha256 of {name}", value[:16]) for name, value in about["inputs"].items()),
        ],
    }
