"""Calibrate prediction sets and intervals of pixels on held-out predictions, and measure what they cover.

Labels: a protein's probabilities are predicted by models that never saw it or its relatives, and combined
with what is known with one source hidden (`known_combination`). The truth is what that source says with
certainty. Bounds are measured in fifths of homology clusters, and shipped from all of them.

Images: real images held out of training, U-2 OS cells and OpenCell crops, beside images drawn into the same
nuclei for the known localization with several seeds. The factor is measured in halves of the groups (mosaics
and figures), and shipped from all of them.
"""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.bundle import Metric
from deepgps.datasets.crops.reference import DOMAINS, ImageField, reference_fields
from deepgps.datasets.crops.settings import Source
from deepgps.evaluation.bootstrap import mean_interval
from deepgps.evaluation.protocols import folds
from deepgps.images.cell import Cell
from deepgps.images.processing import cut, nucleus_crops, percentile_normalise, resample
from deepgps.images.segmentation import OtsuWatershed
from deepgps.localization import CLASS_SETS, ClassSet
from deepgps.prediction import Predictor
from deepgps.prediction.coverage import (
    COVERAGE_FILE,
    IMAGE_FILES,
    LABEL_FILES,
    conformal_bound,
    conformal_factor,
    files_of,
    pixel_interval,
    pixel_scores,
)
from deepgps.prediction.encoder import class_set_logits
from deepgps.prediction.prediction import UNCLEAR, named_classes
from deepgps.proteins.known import KnownFacts, KnownProtein
from deepgps.proteins.protein import Protein
from deepgps.tables import read_table
from deepgps.training.mini.image_pack import TEST_GROUPS
from known_combination import Rows, combined_logits, hidden_rows

FOLDS = 5
SETS = ("mini", "single-2", "single-4", "all")
SAMPLES = (4, 8)
YES, NO = 0.97, 0.02
"""Probabilities of a class that is known to be shown, and of the others."""
IMAGES: Mapping[Source, int] = {"hpa_u2os_cells": 40, "opencell_crops": 25}
"""Held-out images of each source, at most."""
HEADS = {"hpa_u2os_cells": "U-2 OS", "opencell_crops": "HEK293T"}


def measure(model: str, data: Path, what: Sequence[str] = ("labels", "images")) -> dict[str, Metric]:
    """Measure both, and write ``coverage.json``."""
    predictor = Predictor.load(model, threads=1)
    path = Path(str(resources.files("deepgps.prediction") / COVERAGE_FILE))
    document = json.loads(path.read_text("utf-8")) if path.exists() else {}
    figures: dict[str, Metric] = {}
    if "labels" in what:
        document["labels"], more = _labels(predictor, data)
        figures |= more
    if "images" in what:
        document["images"], more = _images(predictor, data)
        figures |= more
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return figures


# ---- labels ----


def _labels(predictor: Predictor, data: Path) -> tuple[dict[str, Any], dict[str, Metric]]:
    clusters = _clusters(data)
    people = [each for each in predictor.known or () if each.human and each.accession in clusters]
    held_out = _held_out(predictor, people)
    trained = [each for each in people if each.accession in held_out]
    # Other class sets need the votes of relatives, which are not stored: OpenCell's proteins alone.
    opencell = [each for each in trained if any(s.source == "OpenCell" for s in each.statements)]
    votes = _votes(predictor, opencell)
    sets: dict[str, Any] = {}
    figures: dict[str, Metric] = {}
    for name in SETS:
        classes, chosen = CLASS_SETS[name], trained if name == "mini" else opencell
        logits = np.stack([held_out[each.accession] for each in chosen])
        if name != "mini":
            logits = class_set_logits(predictor.bundle.metadata.class_sets[name], logits, votes)
        own = predictor if name == "mini" else predictor.with_class_set(name)
        assert predictor.overall is not None
        combination = predictor.overall.combination(classes)
        statements = [each.statements for each in chosen]
        rows = hidden_rows(statements, logits, classes, combination.levels)
        if not own.bundle.metadata.multi_label:
            rows = rows.subset(rows.labels.sum(1) == 1)
        group = np.array([clusters[each.accession] for each in chosen])[rows.proteins]
        probability = softmax if not own.bundle.metadata.multi_label else _sigmoid
        kinds = {
            "predicted": (probability(rows.predicted.astype(np.float64), axis=1), np.ones(len(group), bool)),
            "known": (
                probability(combined_logits(combination, rows).astype(np.float64), axis=1),
                rows.informed.astype(bool),
            ),
        }
        sets[name] = {}
        for kind, (chances, used) in kinds.items():
            part = chances[used], rows.subset(used), group[used]
            sets[name][kind] = _rounded(classes, _bounds(part[0], part[1]))
            title = f"Prediction sets of {name}, {'a source known' if kind == 'known' else 'predicted'}"
            figures |= {f"{title}: {key}": value for key, value in _measured(own, classes, *part).items()}
    files = files_of(predictor.bundle.metadata, LABEL_FILES)
    return {"files": files, "sets": sets}, figures


def _sigmoid(logits: Doubles, axis: int) -> Doubles:
    return np.asarray(expit(logits))


def _clusters(data: Path) -> dict[str, int]:
    table = read_table(data / "sequences" / "human_proteome.csv.gz", required=("accession", "cluster"))
    return {row.cells["accession"]: int(row.cells["cluster"]) for row in table.rows if row.cells["cluster"]}


def _held_out(predictor: Predictor, people: Sequence[KnownProtein]) -> dict[str, Floats]:
    """Logits by models that never saw the protein, by accession, where it trained."""
    facts = KnownFacts.from_bytes(predictor.bundle.read("known.npz"))
    rows = {names.partition("\t")[0]: row for row, names in enumerate(facts.names)}
    found = {each.accession: facts.logits[rows[each.accession]].astype(np.float32) for each in people}
    return {name: logits for name, logits in found.items() if np.isfinite(logits).all()}


def _votes(predictor: Predictor, chosen: Sequence[KnownProtein]) -> Floats:
    """Return the votes of relatives (P, 2 K + 1), without the proteins' own."""
    assert predictor.known is not None
    proteins = [
        Protein(
            each.accession, predictor.known.sequence(each.accession) or "", each.gene_symbol, each.accession
        )
        for each in chosen
    ]
    return np.stack([each.votes for each in predictor.encode(proteins)])


def _positives(rows: Rows, place: int) -> Ints:
    """Rows of which a class is true, one for each protein: that of the first target."""
    found = np.flatnonzero(rows.labels[:, place] & rows.decided[:, place])
    _, first = np.unique(rows.proteins[found], return_index=True)
    return found[first]


def _bounds(chances: Doubles, rows: Rows) -> Doubles:
    count = chances.shape[1]
    return np.array([conformal_bound(chances[_positives(rows, place), place]) for place in range(count)])


def _rounded(classes: ClassSet, bounds: Doubles) -> dict[str, float]:
    # Down, so that no protein at a bound falls out.
    return {slug: float(np.floor(b * 1e5) / 1e5) for slug, b in zip(classes.slugs, bounds, strict=True)}


def _measured(
    predictor: Predictor, classes: ClassSet, chances: Doubles, rows: Rows, group: Ints
) -> dict[str, Metric]:
    """Coverage by class and size of sets whose bounds other clusters gave, beside the named classes."""
    fold = folds(group, FOLDS)
    inside = np.zeros(chances.shape, bool)
    for number in range(FOLDS):
        here = fold == number
        inside[here] = chances[here] >= _bounds(chances[~here], rows.subset(~here))
    inside[np.arange(len(inside)), chances.argmax(1)] |= ~inside.any(1)
    named = _named(predictor, chances)
    figures, worst = {}, list[Metric]()
    for place, slug in enumerate(classes.slugs):
        positives = _positives(rows, place)
        if len(positives) < 20:
            continue
        metric = mean_interval(inside[positives, place].astype(float), group[positives])
        worst.append(metric)
        if classes.name == "mini":
            figures[f"coverage, {slug}"] = metric
    figures["coverage, worst class"] = min(worst, key=lambda metric: metric.value)
    sizes = {"": inside, " of the baseline 'named classes'": named}
    for ending, chosen in sizes.items():
        figures[f"classes in a set{ending}"] = mean_interval(chosen.sum(1).astype(float), group)
        whole = (chosen | ~(rows.labels & rows.decided)).all(1).astype(float)
        figures[f"all true classes in the set{ending}"] = mean_interval(whole, group)
    return figures


def _named(predictor: Predictor, chances: Doubles) -> Mask:
    metadata = predictor.bundle.metadata
    place = {slug: k for k, slug in enumerate(metadata.classes)}
    named = np.zeros(chances.shape, bool)
    for row, own in enumerate(chances):
        for slug in named_classes(own.astype(np.float32), metadata)[0]:
            if slug != UNCLEAR:
                named[row, place[slug]] = True
    return named


# ---- images ----


def _images(predictor: Predictor, data: Path) -> tuple[dict[str, Any], dict[str, Metric]]:
    cells = [each for source in IMAGES for each in _cells(predictor, data, source)]
    groups = np.unique([group for *_, group in cells], return_inverse=True)[1]
    sources = np.array([source for _, _, _, source, _ in cells])
    reals = [real for _, real, _, _, _ in cells]
    drawn = [_samples(predictor, cell, latent, max(SAMPLES)) for cell, _, latent, _, _ in cells]
    half = np.array([np.random.default_rng(0).permutation(groups.max() + 1)[g] % 2 for g in groups])
    factors, figures = {}, dict[str, Metric]()
    for count in SAMPLES:
        scores = [pixel_scores(r, s[:count]) for r, s in zip(reals, drawn, strict=True)]
        factors[str(count)] = round(conformal_factor(scores), 4)
        covered, width = np.zeros(len(cells)), np.zeros(len(cells))
        for number in range(2):
            factor = conformal_factor([s for s, h in zip(scores, half, strict=True) if h != number])
            for k in np.flatnonzero(half == number):
                low, high = pixel_interval(drawn[k][:count], factor)
                covered[k] = ((reals[k] >= low) & (reals[k] <= high)).mean()
                width[k] = (high - low).mean()
        plain = [_within(r, s[:count]) for r, s in zip(reals, drawn, strict=True)]
        for source, head in {**HEADS, "": "all"}.items():
            mine = (sources == source) | (source == "")
            title = f"Intervals of pixels from {count} images, {head}"
            figures[f"{title}: coverage"] = mean_interval(covered[mine], groups[mine])
            figures[f"{title}: coverage of the baseline 'lowest to highest'"] = mean_interval(
                np.array(plain)[mine], groups[mine]
            )
            figures[f"{title}: mean width"] = mean_interval(width[mine], groups[mine])
    return {"files": files_of(predictor.bundle.metadata, IMAGE_FILES), "factors": factors}, figures


def _within(real: Floats, samples: Floats) -> float:
    return float(((real >= samples.min(0)) & (real <= samples.max(0))).mean())


def _cells(predictor: Predictor, data: Path, source: Source) -> list[tuple[Cell, Floats, Floats, str, str]]:
    """Held-out cells of known localization: the cell, the real image, a latent, source and group."""
    flow = predictor.bundle.metadata.flow_matching
    assert flow is not None
    found = []
    for field in reference_fields(data / "images", [source]):
        classes = CLASS_SETS["mini"].of(field.proteins[0].localizations)
        if field.group not in TEST_GROUPS[source] or not classes:
            continue
        pair = _crop(predictor, field)
        if pair is None:
            continue
        latent = np.array([[YES if slug in classes else NO for slug in flow.classes]], np.float32)
        cell = Cell(field.name, pair[0], pair[2], field.name, cell_line=DOMAINS[field.domain])
        found.append((cell, pair[1], latent, source, f"{source} {field.group}"))
    order = np.random.default_rng(0).permutation(len(found))[: IMAGES[source]]
    return [found[k] for k in order]


def _crop(predictor: Predictor, field: ImageField) -> tuple[Floats, Floats, float] | None:
    """Nucleus and protein at the size and scale of the model, around the middle nucleus."""
    crop = predictor.bundle.metadata.crop
    images = [
        percentile_normalise(resample(each, field.pixel_size_um, crop.pixel_size_um))
        for each in (field.nucleus, field.proteins[0].pixels)
    ]
    if max(images[0].shape) <= crop.size_px:
        row, column = (edge // 2 for edge in images[0].shape)
    else:
        labels = OtsuWatershed()(images[0], crop.pixel_size_um)
        crops = nucleus_crops(images[0], labels, crop.size_px)
        if not crops:
            return None
        row, column = crops[0].row, crops[0].col
    nucleus, protein = (cut(each, row, column, crop.size_px) for each in images)
    return nucleus, protein, crop.pixel_size_um


def _samples(predictor: Predictor, cell: Cell, latent: Floats, count: int) -> Floats:
    return np.stack([predictor.with_seed(seed).draw([cell], [latent])[0] for seed in range(count)])
