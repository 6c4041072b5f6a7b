"""Image figures of the shipped model, of drawn and of mean images.

- `measure_u2os`: whole mosaics of U-2 OS cells held out of training. Each cell whose protein is unknown is
drawn
  with a protein of its localization, chosen by seed. Two more rows ask label and image together: drawn from
  the probabilities of a label model that had not seen the protein's homology cluster, with its relatives as
  neighbours (B) and without (A).
- `measure_opencell`: published images of five OpenCell proteins (HEK293T) held out of training:
contrast-stretched
  crops, most of the proteins in the centrosome or on filaments.
- `measure_opencell_halves`: mean images of all 35 published OpenCell proteins. The generator is trained twice
more
  by the run's recipe, each time without the images of one half of them. The label model is the run's.

All write the reports of `deepgps evaluate`. What the metrics mean: docs/reference/metrics.md.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import expit

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.bundle import Metric
from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import CROPS, CROPS_INDEX, CROPS_MANIFEST, open_crops
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.evaluation.bootstrap import correlation_interval, mean_interval
from deepgps.evaluation.evaluate import Evaluation, evaluate
from deepgps.evaluation.images.features import load_cells
from deepgps.evaluation.images.measure import DRAWN, REAL, WRONG_CLASS
from deepgps.evaluation.images.metrics import COMPARED_KINDS, classifier_hits
from deepgps.evaluation.images.reference import BATCH
from deepgps.images.cell import Cell
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.localization import class_set
from deepgps.prediction import Predictor
from deepgps.training.export import export_run
from deepgps.training.mini.image_pack import ImagePack
from deepgps.training.mini.images import GRAIN_STAGE, STRUCTURE_STAGE
from deepgps.training.mini.labels import REGIMES, read_held_out
from deepgps.training.mini.train import PACKED, train_mini
from deepgps.training.recipe import RECIPE, MiniRecipe, load_recipe
from evaluation_store import write_evaluation_store
from figures import table

YES, NO = 0.97, 0.02
"""Probabilities of a class that is known to be shown, and of the others."""
U2OS, OPENCELL = "hpa_u2os_cells", "opencell_tiles"
U2OS_HEAD, OPENCELL_HEAD = "Held-out U-2 OS cells", "Held-out OpenCell images of 5 proteins"
OWN_MASK = "own nuclear mask"
HALVES = 2
FIVE = ("cytoplasmic", "nucleoplasm", "nucleolus", "er", "cytoskeleton")
"""Classes that most of the held-out U-2 OS images show."""
KNOWN, GIVEN = "drawn, protein known to the label model", "drawn from the known localization"
UNKNOWN = {
    "B": "drawn, protein unknown to the label model, relatives known (B)",
    "A": "drawn, protein unknown to the label model, no relatives (A)",
}
CORRECT_SIDE = "accuracy of nucleoplasm against cytosol by intranuclear fraction"
COLUMNS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "pearson": "Pearson r",
    "intranuclear_r": "intranuclear r",
    "intranuclear_mae": "intranuclear MAE",
    CORRECT_SIDE: CORRECT_SIDE,
}
STRUCTURE_COLUMNS = {
    "profile_error": "profile error",
    "fine_detail": "fine detail (log2)",
    "classifier_accuracy": "classifier accuracy",
    "classifier_accuracy_balanced": "classifier balanced accuracy",
    "five": "classifier accuracy, five classes",
    "profile_classifier_accuracy": "profile classifier accuracy",
    "profile_classifier_accuracy_balanced": "profile classifier balanced accuracy",
    "frechet_distance": "Fréchet distance",
}
Rows = dict[str, dict[str, Metric]]


def measure_u2os(model: str, data: Path, run: Path, report: Path) -> dict[str, Metric]:
    """Measure drawn and mean images on held-out U-2 OS cells."""
    proteins = load_labelled_proteins(data, class_set("mini"))
    with tempfile.TemporaryDirectory() as folder:
        drawn, mean = _drawn_and_mean(model, _store(run, data, Path(folder), proteins, U2OS), report)
        rows, mean_rows = (_u2os_rows(each, run, proteins) for each in (drawn, mean))
    for each in (rows, mean_rows):
        print(f"\n{table(each, COLUMNS)}\n\n{table(each, STRUCTURE_COLUMNS)}\n")
    return _u2os_figures(drawn, rows) | _u2os_mean_figures(mean, mean_rows)


def measure_opencell(model: str, data: Path, run: Path, report: Path) -> dict[str, Metric]:
    """Measure drawn images on held-out OpenCell images; the halves have more for mean images."""
    proteins = load_labelled_proteins(data, class_set("mini"))
    with tempfile.TemporaryDirectory() as folder:
        store = _store(run, data, Path(folder), proteins, OPENCELL)
        drawn, mean = _drawn_and_mean(model, store, report / OPENCELL)
    assert drawn.images is not None and mean.images is not None
    print(table({"mean image": mean.images.kinds[DRAWN], **drawn.images.kinds}, COLUMNS))
    rows = {DRAWN: drawn.images.kinds[DRAWN], OWN_MASK: drawn.images.kinds[OWN_MASK]}
    rows |= {"own mean": drawn.images.kinds["own mean"]}
    return _opencell_figures(OPENCELL_HEAD, rows, drawn.images.effects["sequence_effect"])


def measure_opencell_halves(data: Path, run: Path) -> dict[str, Metric]:
    """Measure mean images of all OpenCell proteins, each drawn by a generator that had not seen it."""
    proteins = load_labelled_proteins(data, class_set("mini"))
    with tempfile.TemporaryDirectory() as folder:
        halves = [_evaluate_half(run, data, half, proteins, Path(folder)) for half in range(HALVES)]
        rows, effect = _rows_of_halves(halves)
    _print_by_protein(halves)
    count = sum(len(each.dataset.proteins) for each in halves)
    return _opencell_figures(
        f"OpenCell images of {count} proteins held out by halves, mean images", rows, effect
    )


def _opencell_figures(head: str, rows: Rows, effect: Metric) -> dict[str, Metric]:
    return {
        f"{head}: Pearson r": rows[DRAWN]["pearson"],
        f"{head}: Pearson r of the baseline '{OWN_MASK}'": rows[OWN_MASK]["pearson"],
        f"{head}: intranuclear r": rows[DRAWN]["intranuclear_r"],
        f"{head}: PSNR (dB)": rows[DRAWN]["psnr"],
        f"{head}: PSNR (dB) of the baseline 'own mean'": rows["own mean"]["psnr"],
        f"{head}: PSNR (dB) of the baseline '{OWN_MASK}'": rows[OWN_MASK]["psnr"],
        f"{head}: sequence_effect": effect,
    }


def _store(run: Path, data: Path, folder: Path, proteins: LabelledProteins, source: str) -> Path:
    """Set up the held-out crops of a source."""
    classes = class_set("mini")
    _prepare_crops(run, data)
    return write_evaluation_store(run / "crops", folder / source, proteins, classes, source)


def _prepare_crops(run: Path, data: Path) -> None:
    """Cut the crops that are evaluated on from the reference images, unless they are there."""
    if not (run / "crops" / CROPS_MANIFEST).exists():
        crop = load_recipe(str(run / RECIPE)).crop
        prepare_reference_crops(
            data / "images", run / "crops", size_px=crop.size_px, pixel_size_um=crop.pixel_size_um
        )


def _drawn_and_mean(model: str, store: Path, report: Path) -> tuple[Evaluation, Evaluation]:
    drawn, mean = (
        evaluate(Predictor.load(model, mean=mean), store, report / folder, on_progress=show_progress)
        for mean, folder in ((False, ""), (True, "mean"))
    )
    return drawn, mean


def show_progress(stage: str, done: int, total: int) -> None:
    """Print how far a stage is."""
    if done == total or sys.stderr.isatty():
        print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr)


# ---- U-2 OS cells ----


def _u2os_rows(done: Evaluation, run: Path, proteins: LabelledProteins) -> Rows:
    assert done.images is not None and done.measurements is not None
    numbers = {str(name): row for row, name in enumerate(proteins.ids)}
    protein_rows = np.array([numbers[done.dataset.proteins[k].protein.id] for k in done.dataset.protein_of])
    rows = {kind: dict(done.images.kinds[kind]) for kind in COMPARED_KINDS}
    for kind in COMPARED_KINDS:
        fractions = done.measurements.measure(kind, "intranuclear")
        if np.isfinite(fractions).all():
            rows[kind][CORRECT_SIDE] = _correct_side_metric(done, fractions)
    slugs = class_set("mini").slugs
    known = [[YES if slug == name else NO for slug in slugs] for name in done.dataset.crop_classes]
    held_out = read_held_out(run / "labels")
    unknown = {
        UNKNOWN[protocol]: _drawn_from(done, expit(held_out[regime].logits[protein_rows]))
        for protocol, regime in (("B", REGIMES[1]), ("A", REGIMES[0]))
    }
    rows = {
        KNOWN: rows.pop(DRAWN),
        GIVEN: _drawn_from(done, np.array(known, np.float32)),
        **unknown,
        **rows,
    }
    rows[REAL] = dict(done.images.kinds[REAL])
    for name, kind in ((KNOWN, DRAWN), (REAL, REAL), ("nuclear mask", "nuclear mask")):
        rows[name]["five"] = _accuracy_of_five(done, kind)
    return rows


def _drawn_from(done: Evaluation, probabilities: Floats) -> dict[str, Metric]:
    """Draw probabilities (N, K) into the cells that were evaluated on, and measure the images."""
    dataset, pixel_size_um = done.dataset, done.about["pixel_size_um"]
    latents = probabilities.astype(np.float32)[:, None]
    columns = []
    for start in range(0, len(dataset.rows), BATCH):
        rows = slice(start, start + BATCH)
        real, cells = load_cells(dataset, dataset.rows[rows], pixel_size_um)
        into = [Cell("crop", nucleus, pixel_size_um, U2OS) for nucleus in cells.nuclei]
        drawn = done.predictor.draw(into, list(latents[rows]))
        measured = psnr(real, drawn), ssim(real, drawn), pearson(real, drawn)
        fractions = intranuclear(real, cells.masks), intranuclear(drawn, cells.masks)
        columns.append(np.stack([*measured, *fractions]))
    *similarities, real_fractions, fractions = np.concatenate(columns, axis=1)
    row = {
        name: mean_interval(values, dataset.groups)
        for name, values in zip(("psnr", "ssim", "pearson"), similarities, strict=True)
    }
    row["intranuclear_r"] = correlation_interval(real_fractions, fractions, dataset.groups)
    row["intranuclear_mae"] = mean_interval(np.abs(real_fractions - fractions), dataset.groups)
    return row | {CORRECT_SIDE: _correct_side_metric(done, fractions)}


def _correct_side_metric(done: Evaluation, fractions: Doubles) -> Metric:
    nuclear, cytoplasmic = (done.dataset.crop_classes == name for name in ("nucleoplasm", "cytoplasmic"))
    share, _ = correct_side(fractions, nuclear, cytoplasmic)
    return Metric(value=share, n=int(nuclear.sum() + cytoplasmic.sum()))


def correct_side(fractions: Doubles, nuclear: Mask, cytoplasmic: Mask) -> tuple[float, float]:
    """Share of images whose intranuclear fraction is on the correct side of the middle of the two means.

    Parameters
    ----------
    fractions
        (N,) intranuclear fractions.
    nuclear, cytoplasmic
        (N,) which images are of which kind.

    Returns
    -------
    share, threshold
    """
    threshold = (np.nanmean(fractions[nuclear]) + np.nanmean(fractions[cytoplasmic])) / 2
    correct = np.concatenate([fractions[nuclear] > threshold, fractions[cytoplasmic] <= threshold])
    return float(correct.mean()), float(threshold)


def _class_mean_ceiling(done: Evaluation) -> Metric:
    """Intranuclear r of each class's own mean, from knowing the class of a cell and nothing else."""
    assert done.measurements is not None
    real, classes = done.measurements.measure(REAL, "intranuclear"), done.dataset.crop_classes
    means = {name: real[classes == name].mean() for name in np.unique(classes)}
    return correlation_interval(real, np.array([means[name] for name in classes]), done.dataset.groups)


def _accuracy_of_five(done: Evaluation, kind: str) -> Metric:
    assert done.measurements is not None
    assert done.reference is not None and done.reference.classifiers is not None
    classes = done.dataset.crop_classes
    hits = classifier_hits(done.measurements, kind, done.reference.classifiers[0], classes)
    return mean_interval(np.where(np.isin(classes, FIVE), hits, np.nan), done.dataset.groups)


def _u2os_figures(done: Evaluation, rows: Rows) -> dict[str, Metric]:
    assert done.images is not None
    head = U2OS_HEAD
    figures = {f"{head}: {COLUMNS[name]}": rows[KNOWN][name] for name in COLUMNS}
    for baseline in ("constant mean", "own mean", OWN_MASK):
        figures[f"{head}: PSNR (dB) of the baseline '{baseline}'"] = rows[baseline]["psnr"]
    figures[f"{head}: {CORRECT_SIDE} of the baseline 'constant mean'"] = rows["constant mean"][CORRECT_SIDE]
    figures[f"{head}, drawn from the known localization: intranuclear r"] = rows[GIVEN]["intranuclear_r"]
    figures[f"{head}: intranuclear r of each class's own mean"] = _class_mean_ceiling(done)
    figures[f"{head}: classifier accuracy, five classes"] = rows[KNOWN]["five"]
    figures[f"{head}: classifier accuracy, five classes, real images"] = rows[REAL]["five"]
    for baseline in ("nuclear mask", OWN_MASK):
        figures[f"{head}: Pearson r of the baseline '{baseline}'"] = rows[baseline]["pearson"]
    for protocol, row in UNKNOWN.items():
        name = f"{head}, proteins unknown to the label model ({protocol}): {CORRECT_SIDE}"
        figures[name] = rows[row][CORRECT_SIDE]
    for key in ("classifier_accuracy_balanced", "profile_classifier_accuracy_balanced"):
        figures[f"{head}: {STRUCTURE_COLUMNS[key]}"] = rows[KNOWN][key]
        figures[f"{head}: {STRUCTURE_COLUMNS[key]}, real images"] = rows[REAL][key]
    return figures | {f"{head}: sequence_effect": done.images.effects["sequence_effect"]}


def _u2os_mean_figures(done: Evaluation, rows: Rows) -> dict[str, Metric]:
    assert done.images is not None
    head = f"{U2OS_HEAD}, mean images"
    figures = {
        f"{head}: {COLUMNS[name]}": rows[KNOWN][name] for name in ("psnr", "pearson", "intranuclear_r")
    }
    for baseline in ("constant mean", OWN_MASK):
        figures[f"{head}: PSNR (dB) of the baseline '{baseline}'"] = rows[baseline]["psnr"]
    figures[f"{head}: Pearson r of the baseline '{OWN_MASK}'"] = rows[OWN_MASK]["pearson"]
    figures[f"{head}, drawn from the known localization: intranuclear r"] = rows[GIVEN]["intranuclear_r"]
    figures[f"{head}: classifier accuracy, five classes"] = rows[KNOWN]["five"]
    return figures | {f"{head}: sequence_effect": done.images.effects["sequence_effect"]}


# ---- OpenCell by halves ----


def _half_run(run: Path, half: int) -> Path:
    """A run like another one, whose images are still to be trained, without one half of OpenCell."""
    there = run / "opencell_halves" / str(half)
    for folder in ("crops", "images"):
        (there / folder).mkdir(parents=True, exist_ok=True)
    grain = f"images/{PACKED[GRAIN_STAGE]}"
    for name in ("labels", f"crops/{CROPS}", f"crops/{CROPS_MANIFEST}", grain):
        (there / name).unlink(missing_ok=True)
        (there / name).symlink_to((run / name).resolve())
    index = open_crops(run / "crops").index
    of_opencell = pl.col("source") == OPENCELL
    names = sorted(index.filter(of_opencell)["group"].unique())
    held_out = [
        name
        for name, part in zip(names, np.random.default_rng(0).permutation(len(names)), strict=True)
        if int(part) % HALVES == half
    ]
    tested = pl.when(pl.col("group").is_in(held_out)).then(pl.lit("test")).otherwise(pl.lit("train"))
    index = index.with_columns(pl.when(of_opencell).then(tested).otherwise("split").alias("split"))
    index.write_parquet(there / "crops" / CROPS_INDEX)
    name = PACKED[STRUCTURE_STAGE]
    arrays = dict(ImagePack.load(run / "images" / name).arrays)
    split = np.where(np.isin(arrays["group"], held_out), "test", "train")
    arrays["split"] = np.where(arrays["source"] == OPENCELL, split, arrays["split"])
    ImagePack.of(arrays).save(there / "images" / name)
    return there


def _evaluate_half(run: Path, data: Path, half: int, proteins: LabelledProteins, folder: Path) -> Evaluation:
    """Mean images of one half, by a generator that has not seen it."""
    recipe = load_recipe(str(run / RECIPE))
    assert isinstance(recipe, MiniRecipe)
    # Mean images have no grain, so that next to nothing of it is trained.
    grain = recipe.images.grain.model_copy(update={"max_epochs": 1, "batches": 1})
    recipe = recipe.model_copy(update={"images": recipe.images.model_copy(update={"grain": grain})})
    _prepare_crops(run, data)
    there = _half_run(run, half)
    train_mini(recipe, data, there, resume=(there / RECIPE).exists())
    bundle = export_run(there, folder / f"bundle-{half}")
    store = _store(there, data, folder / f"crops-{half}", proteins, OPENCELL)
    predictor = Predictor(bundle, mean=True)
    return evaluate(predictor, store, folder / f"report-{half}", on_progress=show_progress)


def _rows_of_halves(halves: Sequence[Evaluation]) -> tuple[Rows, Metric]:
    """Metrics by kind of image, and the effect of the sequence, over the proteins of all halves."""
    groups: Ints = np.concatenate([each.dataset.groups + 1000 * k for k, each in enumerate(halves)])

    def column(kind: str, name: str) -> Doubles:
        return np.concatenate([each.measurements.measure(kind, name) for each in halves if each.measurements])

    real = column(REAL, "intranuclear")
    rows = {
        kind: {
            "pearson": mean_interval(column(kind, "pearson"), groups),
            "psnr": mean_interval(column(kind, "psnr"), groups),
            "intranuclear_r": correlation_interval(real, column(kind, "intranuclear"), groups),
        }
        for kind in (DRAWN, WRONG_CLASS, "nuclear mask", "own mean", OWN_MASK)
    }
    print(f"\n{table(rows, {name: COLUMNS[name] for name in ('pearson', 'intranuclear_r', 'psnr')})}\n")
    return rows, mean_interval(column(DRAWN, "pearson") - column(WRONG_CLASS, "pearson"), groups)


def _print_by_protein(halves: Sequence[Evaluation]) -> None:
    print("Pearson r by protein: of the mean image, and of the real image's own two levels\n")
    for done in halves:
        dataset, measurements = done.dataset, done.measurements
        assert measurements is not None and dataset.store is not None
        genes = dataset.store.index["group"]
        drawn, own = (measurements.measure(kind, "pearson") for kind in (DRAWN, OWN_MASK))
        for number, protein in enumerate(dataset.proteins):
            mine = dataset.protein_of == number
            gene = genes[int(dataset.rows[mine][0])]
            means = f"{drawn[mine].mean():.2f}, {own[mine].mean():.2f}"
            print(f"- {gene}: {protein.class_name}, {means} ({mine.sum()} crops)")
