"""The report of a comparison: differences, whether they exceed the controls, and the images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deepgps.comparison.differences import (
    CONTROL_SHARE,
    ComparedModel,
    ComparedProtein,
    difference_warnings,
    shared_classes,
    summarize,
)
from deepgps.reporting.images import image_file_uri
from deepgps.reporting.pages import write_page
from deepgps.results.folder import REPORT_FILE
from deepgps.results.image_storage import IMAGE_FOLDER
from deepgps.results.report import FOLD_FROM, MAX_CARDS, MAX_ROWS

# Of 17 classes most are improbable for any protein.
_LISTED_FROM = 0.05


def write_comparison_report(
    folder: Path,
    proteins: Sequence[ComparedProtein],
    models: Sequence[ComparedModel],
    cell_names: Sequence[str],
) -> Path:
    """Write ``report.html``, images embedded.

    Parameters
    ----------
    folder
        The comparison's folder, its images drawn.
    proteins
        All proteins, most different first; `MAX_CARDS` of them are shown in full, `MAX_ROWS` listed.
    models
        The models.
    cell_names
        Names of the cells: the one compared in first, the two of the control last.

    Returns
    -------
    Path
        The report.
    """
    summaries = [summarize(proteins, models, other) for other in range(1, len(models))]
    names = [model.name for model in models]
    notes = [
        note
        for summary, model in zip(summaries, models[1:], strict=True)
        for note in difference_warnings(summary, models[0], model)
    ]
    return write_page(
        folder / REPORT_FILE,
        "comparison.html",
        title=f"deepGPS: {' and '.join(names)}",
        protein_count=len(proteins),
        cell_name=cell_names[0],
        control_names=cell_names[-2:],
        control_share=CONTROL_SHARE,
        notes=notes,
        models=models,
        summaries=summaries,
        proteins=proteins[:MAX_ROWS],
        fold_from=FOLD_FROM,
        max_cards=MAX_CARDS,
        cards=(_card(protein, models, folder / IMAGE_FOLDER) for protein in proteins[:MAX_CARDS]),
        card_columns=["", *names, *(f"{name}, difference" for name in names[1:])],
    )


def _card(protein: ComparedProtein, models: Sequence[ComparedModel], images: Path) -> dict[str, Any]:
    name = f"{protein.image}.png"
    return {
        "protein": protein,
        "image": image_file_uri(images / name),
        "image_name": name,
        "table_rows": list(_table_rows(protein, models)),
    }


def _table_rows(protein: ComparedProtein, models: Sequence[ComparedModel]) -> Iterator[list[str]]:
    """Yield the rows of a protein's table: the value of each model, then differences from the first."""
    others = range(1, len(models))
    probabilities = [record["probabilities"] for record in protein.records]
    differences = [protein.probability_differences(other) for other in others]
    for slug in shared_classes(models):
        if max(each.get(slug, 0.0) for each in probabilities) >= _LISTED_FROM:
            values = map(_number, (each.get(slug) for each in probabilities))
            yield [slug, *values, *map(_signed, (each.get(slug) for each in differences))]
    fractions = [record["intranuclear_fraction"] for record in protein.records]
    changes = [protein.fraction_difference(other) for other in others]
    yield ["intranuclear fraction", *map(_number, fractions), *map(_signed, changes)]
    empty = [""] * len(others)
    yield ["its control", *map(_number, protein.controls), *empty]
    yield ["Pearson r of the images", "", *map(_number, protein.pearson), *empty]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
