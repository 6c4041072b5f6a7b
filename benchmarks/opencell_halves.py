"""How good mean images are on published images of OpenCell, all of their proteins held out, half by half.

The generator is trained twice more by the run's recipe, each time without the images of one half of
OpenCell's proteins; of the grain, which mean images have not, next to nothing. The label half is the run's.
A half that is trained is kept in the run.

    python benchmarks/opencell_halves.py [--run runs/mini] [--out benchmarks/results]
"""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from deepgps.bundle import Metric
from deepgps.datasets.crops.store import CROPS, INDEX, MANIFEST, open_crops
from deepgps.datasets.labels import LabelledProteins, load_labelled_proteins
from deepgps.evaluation.bootstrap import correlation_interval, mean_interval
from deepgps.evaluation.dataset import DatasetFiles
from deepgps.evaluation.evaluate import Evaluation, evaluate
from deepgps.evaluation.images.measure import DRAWN, REAL, WRONG_CLASS
from deepgps.localization import class_set
from deepgps.prediction.predictor import Predictor
from deepgps.training.export import export
from deepgps.training.mini.train import train_mini
from deepgps.training.recipe import RECIPE, MiniRecipe, load_recipe
from image_figures import arguments, cell, keep, progress, table
from opencell_tiles import MASK, SOURCE
from stand_ins import paired_store

HALVES = 2
ROWS = {
    "mean image": DRAWN,
    "mean image, wrong class (control)": WRONG_CLASS,
    "nuclear mask": "nuclear mask",
    "own mean": "own mean",
    MASK: MASK,
}
COLUMNS = {"pearson": "Pearson r", "intranuclear_r": "intranuclear r", "psnr": "PSNR (dB)"}


def half_run(run: Path, half: int) -> Path:
    """A run like another one, whose images are still to be trained, without one half of OpenCell."""
    there = run / "opencell_halves" / str(half)
    (there / "crops").mkdir(parents=True, exist_ok=True)
    for name in ("labels", f"crops/{CROPS}", f"crops/{MANIFEST}"):
        (there / name).unlink(missing_ok=True)
        (there / name).symlink_to((run / name).resolve())
    index = open_crops(run / "crops").index
    of_opencell = pl.col("source") == SOURCE
    names = sorted(index.filter(of_opencell)["group"].unique())
    out = [
        name
        for name, part in zip(names, np.random.default_rng(0).permutation(len(names)), strict=True)
        if part % HALVES == half
    ]
    tested = pl.when(pl.col("group").is_in(out)).then(pl.lit("test")).otherwise(pl.lit("train"))
    index = index.with_columns(pl.when(of_opencell).then(tested).otherwise("split").alias("split"))
    index.write_parquet(there / "crops" / INDEX)
    return there


def evaluated(run: Path, data: Path, half: int, proteins: LabelledProteins, folder: Path) -> Evaluation:
    """Mean images of one half, by a generator that has not seen it."""
    recipe = load_recipe(str(run / RECIPE))
    assert isinstance(recipe, MiniRecipe)
    grain = recipe.images.grain.model_copy(update={"max_epochs": 1, "batches": 1})
    recipe = recipe.model_copy(update={"images": recipe.images.model_copy(update={"grain": grain})})
    there = half_run(run, half)
    train_mini(recipe, data, there, resume=(there / RECIPE).exists())
    bundle = export(there, folder / f"bundle-{half}")
    classes = class_set(recipe.class_set)
    store = paired_store(there / "crops", folder / f"crops-{half}", proteins, classes, SOURCE)
    predictor = Predictor(bundle, mean=True)
    return evaluate(predictor, DatasetFiles(store), folder / f"report-{half}", on_progress=progress)


def figures(halves: list[Evaluation]) -> dict[str, dict[str, Metric]]:
    """Every row of the table, and the effect of the sequence, over the proteins of all halves."""
    groups = np.concatenate([each.subjects.groups + 1000 * k for k, each in enumerate(halves)])

    def column(kind: str, name: str) -> np.ndarray:
        return np.concatenate([each.measured.measure(kind, name) for each in halves if each.measured])

    found = {
        row: {
            "pearson": mean_interval(column(kind, "pearson"), groups),
            "psnr": mean_interval(column(kind, "psnr"), groups),
            "intranuclear_r": correlation_interval(
                column(REAL, "intranuclear"), column(kind, "intranuclear"), groups
            ),
        }
        for row, kind in ROWS.items()
    }
    effect = column(DRAWN, "pearson") - column(WRONG_CLASS, "pearson")
    return found | {"effect": {"sequence_effect": mean_interval(effect, groups)}}


def page(halves: list[Evaluation], rows: dict[str, dict[str, Metric]]) -> str:
    """The results as Markdown."""
    bundle = halves[0].predictor.bundle.metadata
    shown = "\n".join(f"- {name}: {row}" for name, row in sorted(by_protein(halves).items()))
    return f"""# Mean images of OpenCell's proteins, held out half by half

The recipe of {bundle.name} {bundle.version}, trained without the images of half of the proteins that
`{SOURCE}` shows (HEK293T), and the other way round; `python benchmarks/opencell_halves.py`. The label half
knows the proteins. {len(by_protein(halves))} proteins on contrast-stretched crops; means over crops, 95 %
bootstrap intervals over proteins. What the figures mean: `docs/reference/metrics.md`.

{table({name: row for name, row in rows.items() if name in ROWS}, COLUMNS)}

`sequence_effect` (Pearson r with the right protein less that with another class's):
{cell(rows["effect"]["sequence_effect"])}.

Pearson r of each protein: of the mean image, and of the very image's own two levels.

{shown}
"""


def by_protein(halves: list[Evaluation]) -> dict[str, str]:
    """What each protein's images reached, and what its own two levels."""
    found = {}
    for done in halves:
        subjects = done.subjects
        assert done.measured is not None and subjects.store is not None
        genes = subjects.store.index["group"]
        columns = [done.measured.measure(kind, "pearson") for kind in (DRAWN, MASK)]
        for number, subject in enumerate(subjects.subjects):
            mine = subjects.owner == number
            drawn, levels = (column[mine].mean() for column in columns)
            gene = genes[int(subjects.rows[mine][0])]
            found[gene] = f"{subject.class_name}, {drawn:.2f}, {levels:.2f} ({mine.sum()} crops)"
    return found


def quoted(rows: dict[str, dict[str, Metric]], proteins: int) -> dict[str, Metric]:
    """What the model card quotes."""
    head = f"OpenCell images of {proteins} proteins held out by halves, mean images"
    mean, levels = rows["mean image"], rows[MASK]
    return {
        f"{head}: Pearson r": mean["pearson"],
        f"{head}: Pearson r of the baseline '{MASK}'": levels["pearson"],
        f"{head}: intranuclear r": mean["intranuclear_r"],
        f"{head}: PSNR (dB)": mean["psnr"],
        f"{head}: PSNR (dB) of the baseline 'own mean'": rows["own mean"]["psnr"],
        f"{head}: PSNR (dB) of the baseline '{MASK}'": levels["psnr"],
        f"{head}: sequence_effect": rows["effect"]["sequence_effect"],
    }


def main() -> None:
    options = arguments(__doc__, model=False)
    proteins = load_labelled_proteins(options.data, class_set("mini"))
    with tempfile.TemporaryDirectory() as folder:
        halves = [
            evaluated(options.run, options.data, half, proteins, Path(folder)) for half in range(HALVES)
        ]
        rows = figures(halves)
        keep(
            options.out,
            "opencell_halves",
            page(halves, rows),
            quoted(rows, sum(len(each.subjects.subjects) for each in halves)),
        )


if __name__ == "__main__":
    main()
