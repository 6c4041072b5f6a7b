"""The report of a comparison: what differs, how much of it to believe, and the images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deepgps.comparison.differences import CONTROL_SHARE, Row, totals, verdict
from deepgps.comparison.sides import Side, frame_note
from deepgps.comparison.table import shared_classes, warnings
from deepgps.reporting.images import image_file_uri
from deepgps.reporting.pages import write_page as render
from deepgps.results.folder import REPORT_FILE
from deepgps.results.image_files import IMAGES
from deepgps.results.report import FOLD_FROM, MAX_CARDS, MAX_ROWS

# Of 17 classes most are improbable for any protein.
_LISTED_FROM = 0.05


def write_page(folder: Path, rows: Sequence[Row], sides: Sequence[Side], nuclei: Sequence[str]) -> Path:
    """Write ``report.html``, images embedded.

    Parameters
    ----------
    folder
        The comparison's folder, its images drawn.
    rows
        All proteins, most different first; `MAX_CARDS` of them are shown in full, `MAX_ROWS` listed.
    sides
        The models.
    nuclei
        Names of the nuclei: the one compared in first, the control last.
    """
    sums = [totals(rows, sides, other) for other in range(1, len(sides))]
    notes = [verdict(each, sides[0].name) for each in sums] + [frame_note(sides[0], side) for side in sides]
    names = [side.name for side in sides]
    return render(
        folder / REPORT_FILE,
        "comparison.html",
        title=f"deepGPS: {' and '.join(names)}",
        row_count=len(rows),
        nucleus=nuclei[0],
        controls=nuclei[-2:],
        control_share=CONTROL_SHARE,
        notes=[note for note in notes if note],
        models=sides,
        totals=sums,
        bounds=[each.bound for each in sums],
        rows=rows[:MAX_ROWS],
        fold_from=FOLD_FROM,
        max_cards=MAX_CARDS,
        cards=(_card(row, sides, folder / IMAGES) for row in rows[:MAX_CARDS]),
        card_columns=["", *names, *(f"{name}, difference" for name in names[1:])],
    )


def _card(row: Row, sides: Sequence[Side], images: Path) -> dict[str, Any]:
    name = f"{row.image}.png"
    return {
        "protein_id": row.records[0]["protein_id"],
        "image": image_file_uri(images / name),
        "image_name": name,
        "table_rows": list(_values(row, sides)),
        "warnings": warnings(row),
    }


def _values(row: Row, sides: Sequence[Side]) -> Iterator[list[str]]:
    """Yield the rows of a protein's table: a value of each model, then differences from the first."""
    others = range(1, len(sides))
    probabilities = [record["probabilities"] for record in row.records]
    differences = [row.probability_differences(other) for other in others]
    for slug in shared_classes(sides):
        if max(each.get(slug, 0.0) for each in probabilities) >= _LISTED_FROM:
            values, changes = ([each.get(slug) for each in many] for many in (probabilities, differences))
            yield [slug, *map(_number, values), *map(_signed, changes)]
    fractions = [record["intranuclear_fraction"] for record in row.records]
    changes = [row.fraction_difference(other) for other in others]
    yield ["intranuclear fraction", *map(_number, fractions), *map(_signed, changes)]
    nothing = [""] * len(others)
    yield ["its control", *map(_number, row.controls), *nothing]
    yield ["Pearson r of the images", "", *map(_number, row.likeness), *nothing]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
