"""``report.html`` of a reproduction: the paper's values, ours, and why they differ, side by side."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from deepgps.bundle import Metric
from deepgps.reporting.charts import interval_chart, line_chart, unit_axis
from deepgps.reporting.images import image_file_uri
from deepgps.reporting.pages import write_page
from deepgps.reproduction import published

TITLES = {
    "single-2": "deepGPS-single-2",
    "single-4": "deepGPS-single-4",
    "all": "deepGPS-all",
    "u2os-single-2": "deepGPS-single-2, U-2 OS",
    "single-2-structure": "single-2 by structure",
    "single-2-both": "single-2 by sequence and structure",
}
"""Names of the models, in the order of the report."""
TABLE_NAMES = {"single-2": "Table 1", "u2os-single-2": "Table 2"}
VARIANTS = ("single-2", "single-2-structure", "single-2-both")
"""The models of figure 3."""
DRAWN, BASELINES = (
    "drawn",
    ("wrong class (control)", "constant mean", "class mean", "nuclear mask", "copied nucleus"),
)
IMAGE_COLUMNS = (
    ("psnr", "PSNR (dB)", 2),
    ("psnr_stacked", "PSNR, stacked (dB)", 2),
    ("ssim", "SSIM", 3),
    ("pearson", "Pearson r", 3),
)

_NOT_ONE_MATRIX = (
    "The paper's row is not of one confusion matrix: its accuracy is below both specificity and sensitivity."
)
_WEIGHTED = "The paper's sensitivity equals its accuracy, as only a mean weighted by class does."
_OTHER_TEST = "The paper names no test proteins, and chose its model on them; ours are others, seen once."
_FEW = "An interval on so few proteins is some ten points wide to either side."
_ONE_VS_REST = (
    "The paper's average accuracy is a mean of one-against-the-rest accuracies; the accuracy of its own "
    "matrix is 0.629."
)
_STACKED = "The paper's code computes the PSNR of all crops as one image; ours is printed in both ways."
_CONSTANT = "Read it beside a constant image, below."
_BAR = "The paper's value is read off a bar of the figure."

Results = Mapping[str, Mapping[str, Any]]


class Difference(NamedTuple):
    """A value of the paper, ours, and why they differ."""

    quantity: str
    paper: str
    by_protein: Metric | None
    by_crop: Metric | None
    why: str


def write_reproduction_report(
    path: Path, about: Mapping[str, Any], seconds: Mapping[str, float], results: Results
) -> Path:
    """Write the report; it loads nothing from elsewhere.

    Parameters
    ----------
    path
        The page; the folder ``cross`` of the cross-assay lies beside it.
    about
        Scale, recipes, encoder and data.
    seconds
        Time of each step.
    results
        By model, its ``results.json``.

    Returns
    -------
    Path
        ``path``.
    """
    cross = path.parent / "cross"
    return write_page(
        path,
        "reproduction.html",
        title="The paper, reproduced",
        facts=[
            f"scale {about['scale']}",
            "recipe paper-exact" if about["exact"] else "recipes of the package",
            f"encoder {Path(about['encoder']).name}",
            *(f"{TITLES[name]}: {each['proteins']:,} test proteins" for name, each in results.items()),
        ],
        small=about["scale"] == "small",
        exact=about["exact"],
        differences=list(differences(results)),
        tables=[_table(name, results[name]) for name in TABLE_NAMES],
        label_charts=_label_charts(results),
        image_charts=_image_charts(results),
        matrices=list(_matrices(results)),
        paper_matrices=published.CONFUSION,
        four_classes=published.FOUR_CLASSES,
        image_columns=IMAGE_COLUMNS,
        images=[(TITLES[name], list(_image_rows(each))) for name, each in results.items()],
        grid=image_file_uri(cross / "grid.png"),
        cross_assay=published.CROSS_ASSAY,
        cells=_read(cross / "cross.csv"),
        shares=_read(cross / "shares.csv"),
        steps=[(name, f"{taken:,.0f} s") for name, taken in seconds.items()],
    )


def metric(results: Mapping[str, Any], name: str) -> Metric | None:
    """Return a metric of a model by its whole name; None where it is undefined."""
    found = results["metrics"].get(name)
    return None if found is None else Metric.model_validate(found)


def differences(results: Results) -> Iterator[Difference]:
    """Yield every value that the paper gives of its own models, beside ours."""
    for model, table in TABLE_NAMES.items():
        reasons = {
            "accuracy": _NOT_ONE_MATRIX if model == "single-2" else _WEIGHTED,
            "sensitivity": _FEW if model == "single-2" else _WEIGHTED,
        }
        values = published.TABLES[model][published.OWN_ROW]
        for name, value in zip(published.TABLE_COLUMNS, values, strict=True):
            yield _label(results, model, name, f"{value:.3f}", f"{table}: ", reasons.get(name, _OTHER_TEST))
    for name, value in published.FOUR_CLASS_FIGURES.items():
        why = _ONE_VS_REST if name.startswith("one") else _OTHER_TEST
        yield _label(results, "single-4", name, f"{value:.2f}", "Figure 4: ", why)
    for model, figures in published.IMAGES.items():
        for name, value, digits in (("psnr", figures.psnr, 1), ("ssim", figures.ssim, 3)):
            bar = f" {_BAR}" if "bar" in figures.source else ""
            why = f"{_STACKED if name == 'psnr' else ''} {_CONSTANT}{bar}".strip()
            drawn = metric(results[model], f"images/{DRAWN}/{name}")
            unit = "PSNR (dB)" if name == "psnr" else "SSIM"
            yield Difference(f"{TITLES[model]}: {unit}", f"{value:.{digits}f}", None, drawn, why)


def _label(results: Results, model: str, name: str, value: str, where: str, why: str) -> Difference:
    by_protein, by_crop = (metric(results[model], f"labels/{level}/{name}") for level in ("protein", "crop"))
    return Difference(f"{where}{TITLES[model]}, {name.replace('_', ' ')}", value, by_protein, by_crop, why)


def _table(model: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return Table 1 or 2: published rows, ours by protein and by crop, and the most frequent class."""
    rows = {
        f"{name} (published)": {
            column: Metric(value=value) for column, value in zip(published.TABLE_COLUMNS, values, strict=True)
        }
        for name, values in published.TABLES[model].items()
    }
    for level in ("protein", "crop"):
        rows[f"ours, by {level}"] = {
            column: found
            for column in published.TABLE_COLUMNS
            if (found := metric(results, f"labels/{level}/{column}")) is not None
        }
    rows["most frequent class, by protein"] = {
        column: Metric.model_validate(results["baseline"][f"protein/{column}"])
        for column in published.TABLE_COLUMNS
        if f"protein/{column}" in results["baseline"]
    }
    return {
        "name": TABLE_NAMES[model],
        "model": TITLES[model],
        "columns": [(name, name, 3) for name in published.TABLE_COLUMNS],
        "rows": list(rows.items()),
    }


def _label_charts(results: Results) -> list[Markup]:
    axes = unit_axis("1 - specificity"), unit_axis("sensitivity")
    first = {
        TITLES[name]: results[name]["roc"]["cytoplasmic"]
        for name in (*VARIANTS, "u2os-single-2")
        if "cytoplasmic" in results[name].get("roc", {})
    }
    charts = [line_chart("ROC, cytoplasm against nucleoplasm", first, *axes, diagonal=True)]
    four = results["single-4"].get("roc", {})
    charts.append(line_chart("ROC of single-4, one class against the rest", four, *axes, diagonal=True))
    for name in ("accuracy", "specificity", "sensitivity", "f1"):
        found = _of_models(results, VARIANTS, f"labels/protein/{name}")
        charts.append(interval_chart(f"{name}, by protein", found, include=0))
    return charts


def _image_charts(results: Results) -> list[Markup]:
    return [
        interval_chart(heading, _of_models(results, TITLES, f"images/{DRAWN}/{name}"))
        for name, heading, _ in IMAGE_COLUMNS[:3]
    ]


def _of_models(results: Results, models: Mapping[str, str] | tuple[str, ...], name: str) -> dict[str, Metric]:
    metrics = {TITLES[model]: metric(results[model], name) for model in models}
    return {title: found for title, found in metrics.items() if found is not None}


def _matrices(results: Results) -> Iterator[tuple[str, Mapping[str, list[list[int]]], list[str]]]:
    for name, each in results.items():
        if "confusion" in each:
            yield TITLES[name], each["confusion"], each["classes"]


def _image_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Metric]]]:
    for kind in (DRAWN, *BASELINES):
        row = {name: metric(results, f"images/{kind}/{name}") for name, _, _ in IMAGE_COLUMNS}
        yield kind, {name: found for name, found in row.items() if found is not None}


def _read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
