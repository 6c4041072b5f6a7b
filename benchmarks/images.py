"""How good the drawn images of a model are, on whole mosaics of U-2 OS cells kept out of training.

`deepgps evaluate` on the run's crop store, where each cell whose protein is unknown is drawn with a protein
of its localization, chosen by seed from the tables: as the shipped label half knows it. Two rows are added:
drawn as a label half knows the protein that never saw its homology cluster, but has its relatives as
neighbours (B); and one that has no relative of it (A). The first asks what the generator makes of a sure
label, the others ask label and image together. All of that once more for mean images.

    python benchmarks/images.py [--model deepgps-mini] [--run runs/mini] [--out benchmarks/results]
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from deepgps.evaluation.images.likeness import right_side
from safetensors.torch import load_file
from scipy.special import expit

from deepgps.bundle import Metric
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.evaluation.bootstrap import correlation_interval, mean_interval
from deepgps.evaluation.evaluate import Evaluation
from deepgps.evaluation.images.measure import BATCH, DRAWN, REAL, cells
from deepgps.evaluation.images.metrics import COMPARED_KINDS, hits
from deepgps.images.cell import Cell
from deepgps.images.similarity import intranuclear, pearson, psnr, ssim
from deepgps.localization import class_set
from deepgps.models.deepgps import LocalizationTokens
from deepgps.training.mini.images import NO, YES
from deepgps.training.mini.labels import REGIMES, read_held_out
from image_figures import arguments, cell, drawn_and_mean, keep, table
from stand_ins import paired_store

SOURCE = "hpa_u2os_cells"
HEAD = "Held-out U-2 OS cells"
MEANS = f"{HEAD}, mean images"
COLUMNS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "pearson": "Pearson r",
    "intranuclear_r": "intranuclear r",
    "intranuclear_mae": "intranuclear MAE",
    "right side": "right side",
}
STRUCTURE = {
    "profile_error": "profile error",
    "fine_detail": "fine detail (log2)",
    "read_back": "read back",
    "read_back_balanced": "read back, balanced",
    "read_back_five": "read back, five classes",
    "place": "place read",
    "place_balanced": "place read, balanced",
    "distance": "distance",
}
FIVE = ("cytoplasmic", "nucleoplasm", "nucleolus", "er", "cytoskeleton")
"""Classes that most of the held-out images show."""
KNOWN = "drawn, protein known to the label half"
GIVEN = "drawn from its localization alone"
NEW = {
    "B": "drawn, protein new to it, relatives known (B)",
    "A": "drawn, protein new to it, no relatives (A)",
}
Row = dict[str, Metric]


def held_out(run: Path, rows: np.ndarray, regime: str) -> np.ndarray:
    """Probabilities (N, K) of proteins whose cluster the label half had not seen."""
    return np.asarray(expit(read_held_out(run / "labels")[regime].logits[rows]))


def latents(run: Path, probabilities: np.ndarray) -> np.ndarray:
    """Latent tokens (N, T, D) of probabilities (N, K), as the encoder makes them."""
    tokens = load_file(run / "images" / "generator.safetensors")["tokens.tokens"]
    module = LocalizationTokens(*tokens.shape)
    with torch.no_grad():
        module.tokens.copy_(tokens)
        return module.decided(torch.from_numpy(probabilities)).numpy()


def likeness(done: Evaluation, latents: np.ndarray) -> Row:
    """Draw latents (N, T, D) into the cells that were evaluated on, and measure the images."""
    subjects, um = done.subjects, done.about["pixel_size_um"]
    columns = []
    for start in range(0, len(subjects.rows), BATCH):
        rows = slice(start, start + BATCH)
        real, around = cells(subjects, subjects.rows[rows], um)
        into = [Cell("crop", nucleus, um, SOURCE) for nucleus in around.nuclei]
        drawn = done.predictor.draw(into, latents[rows])
        measured = psnr(real, drawn), ssim(real, drawn), pearson(real, drawn)
        columns.append(np.stack([*measured, *(intranuclear(each, around.masks) for each in (real, drawn))]))
    *measured, real, drawn = np.concatenate(columns, axis=1)
    row = {
        name: mean_interval(values, subjects.groups)
        for name, values in zip(("psnr", "ssim", "pearson"), measured, strict=True)
    }
    row["intranuclear_r"] = correlation_interval(real, drawn, subjects.groups)
    row["intranuclear_mae"] = mean_interval(np.abs(real - drawn), subjects.groups)
    return row | {"right side": right(done, drawn)}


def right(done: Evaluation, fractions: np.ndarray) -> Metric:
    """Share of cytosol and nucleoplasm cells on the right side of the middle of the two means."""
    kinds = (done.subjects.shown == name for name in ("nucleoplasm", "cytoplasmic"))
    nuclear, cytoplasmic = kinds
    share, _ = right_side(fractions, nuclear, cytoplasmic)
    return Metric(value=share, n=int(nuclear.sum() + cytoplasmic.sum()))


def class_ceiling(done: Evaluation) -> Metric:
    """Intranuclear r of whoever knows the class of a cell and nothing else of it: each class's own mean."""
    assert done.measured is not None
    real = done.measured.measure(REAL, "intranuclear")
    means = {name: real[done.subjects.shown == name].mean() for name in np.unique(done.subjects.shown)}
    return correlation_interval(
        real, np.array([means[name] for name in done.subjects.shown]), done.subjects.groups
    )


def rows_of(done: Evaluation, run: Path, proteins: LabelledProteins) -> dict[str, Row]:
    """Every row of the table."""
    assert done.images is not None and done.measured is not None
    numbers = {str(name): row for row, name in enumerate(proteins.ids)}
    owners = np.array([numbers[done.subjects.subjects[k].protein.id] for k in done.subjects.owner])
    found = {kind: dict(done.images.kinds[kind]) for kind in COMPARED_KINDS}
    for kind in COMPARED_KINDS:
        fractions = done.measured.measure(kind, "intranuclear")
        if np.isfinite(fractions).all():
            found[kind]["right side"] = right(done, fractions)
    new = {
        NEW[name]: likeness(done, latents(run, held_out(run, owners, REGIMES[name == "B"])))
        for name in ("B", "A")
    }
    given = np.array(
        [[YES if slug == name else NO for slug in class_set("mini").slugs] for name in done.subjects.shown],
        np.float32,
    )
    rows = {KNOWN: found.pop(DRAWN), GIVEN: likeness(done, latents(run, given)), **new, **found}
    rows[REAL] = dict(done.images.kinds[REAL])
    for name, kind in ((KNOWN, DRAWN), (REAL, REAL), ("nuclear mask", "nuclear mask")):
        rows[name]["read_back_five"] = read_of_five(done, kind)
    return rows


def read_of_five(done: Evaluation, kind: str) -> Metric:
    """Share of the images of `FIVE` classes whose class was read."""
    assert done.measured is not None and done.trained is not None and done.trained.readers is not None
    right = hits(done.measured, kind, done.trained.readers[0], done.subjects.shown)
    return mean_interval(np.where(np.isin(done.subjects.shown, FIVE), right, np.nan), done.subjects.groups)


def page(done: Evaluation, rows: dict[str, Row], mean: Evaluation, means: dict[str, Row]) -> str:
    """The results as Markdown."""
    assert done.images is not None and mean.images is not None
    metadata, effects = done.predictor.bundle.metadata, done.images.effects
    means = {name: means[name] for name in (KNOWN, GIVEN, *NEW.values())}
    notes = "\n".join(f"- {note}" for note in done.notes)
    return f"""# Images on held-out U-2 OS cells

Model {metadata.name} {metadata.version}, generator {metadata.files["generator.onnx"][:12]};
{len(done.subjects.rows)} images of whole mosaics kept out of training. Means over images, 95 % bootstrap
intervals over mosaics; data range 1. What the figures mean: `docs/reference/metrics.md`. "Right side": share
of cytosol and nucleoplasm cells whose intranuclear fraction is on the right side of the middle of the two
means of that row.

To beware of:

{notes}

{table(rows, COLUMNS)}

`sequence_effect` (Pearson r with the right protein less that with one of another class):
{cell(effects["sequence_effect"])}; with another protein of the same class:
{cell(effects["sequence_effect_same_class"])}.

Whoever knows the class of a cell and nothing else of it can reach an intranuclear r of
{cell(class_ceiling(done))}: each class's own mean over these very images.

Structure, and what classifiers of real images read; the row `real` is the ceiling:

{table(rows, STRUCTURE)}

## Mean images

The mean of all images that could be, as `deepgps predict --mean` draws it:

{table(means, COLUMNS)}

`sequence_effect`: {cell(mean.images.effects["sequence_effect"])}; with another protein of the same class:
{cell(mean.images.effects["sequence_effect_same_class"])}.

{table(means, STRUCTURE)}
"""


def quoted(done: Evaluation, rows: dict[str, Row]) -> Row:
    """What the model card quotes."""
    assert done.images is not None
    found = {f"{HEAD}: {COLUMNS[name]}": rows[KNOWN][name] for name in COLUMNS}
    for base in ("constant mean", "own mean", "own nuclear mask"):
        found[f"{HEAD}: PSNR (dB) of the baseline '{base}'"] = rows[base]["psnr"]
    found[f"{HEAD}: right side of the baseline 'constant mean'"] = rows["constant mean"]["right side"]
    found[f"{HEAD}, localization given: intranuclear r"] = rows[GIVEN]["intranuclear_r"]
    found[f"{HEAD}: intranuclear r of each class's own mean"] = class_ceiling(done)
    found[f"{HEAD}: read back of five classes"] = rows[KNOWN]["read_back_five"]
    found[f"{HEAD}: read back of five classes, of real images"] = rows[REAL]["read_back_five"]
    found[f"{HEAD}: Pearson r of the baseline 'nuclear mask'"] = rows["nuclear mask"]["pearson"]
    found[f"{HEAD}: Pearson r of the baseline 'own nuclear mask'"] = rows["own nuclear mask"]["pearson"]
    for name, row in NEW.items():
        found[f"{HEAD}, proteins new to the label half ({name}): right side"] = rows[row]["right side"]
    for name, said in (("read_back_balanced", "class read back"), ("place_balanced", "place read")):
        found[f"{HEAD}: {said}, balanced"] = rows[KNOWN][name]
        found[f"{HEAD}: {said}, balanced, of real images"] = rows[REAL][name]
    return found | {f"{HEAD}: sequence_effect": done.images.effects["sequence_effect"]}


def quoted_means(done: Evaluation, rows: dict[str, Row]) -> Row:
    """What the model card quotes of mean images."""
    assert done.images is not None
    row = rows[KNOWN]
    found = {f"{MEANS}: {COLUMNS[name]}": row[name] for name in ("psnr", "pearson", "intranuclear_r")}
    for base in ("constant mean", "own nuclear mask"):
        found[f"{MEANS}: PSNR (dB) of the baseline '{base}'"] = rows[base]["psnr"]
    found[f"{MEANS}: Pearson r of the baseline 'own nuclear mask'"] = rows["own nuclear mask"]["pearson"]
    found[f"{MEANS}, localization given: intranuclear r"] = rows[GIVEN]["intranuclear_r"]
    found[f"{MEANS}: read back of five classes"] = row["read_back_five"]
    return found | {f"{MEANS}: sequence_effect": done.images.effects["sequence_effect"]}


def main() -> None:
    options = arguments(__doc__)
    classes = class_set("mini")
    proteins = load_labelled_proteins(options.data, classes)
    with tempfile.TemporaryDirectory() as folder:
        store = paired_store(options.run / "crops", Path(folder) / SOURCE, proteins, classes, SOURCE)
        drawn, mean = drawn_and_mean(options.model, store, options.report)
        rows, means = (rows_of(each, options.run, proteins) for each in (drawn, mean))
    figures = quoted(drawn, rows) | quoted_means(mean, means)
    keep(options.out, "images", page(drawn, rows, mean, means), figures)


if __name__ == "__main__":
    main()
