"""The table of differences: one row a protein, what each model says and how it differs from the first."""

from collections.abc import Sequence

from deepgps.comparison.differences import Row, control_bound
from deepgps.comparison.sides import Side
from deepgps.results.table import table_line


def shared_classes(sides: Sequence[Side]) -> tuple[str, ...]:
    """Classes of the first model that another has too."""
    others = {slug for side in sides[1:] for slug in side.classes}
    return tuple(slug for slug in sides[0].classes if slug in others)


def columns(sides: Sequence[Side]) -> list[str]:
    """Columns of the table, in order; differences are a model's value less the first one's."""
    names = [side.name for side in sides]
    found = ["Protein_ID", "Agree", "Largest_Difference", *(f"Localizations/{name}" for name in names)]
    for slug in shared_classes(sides):
        having = [side.name for side in sides if slug in side.classes]
        found += [f"{slug}/{name}" for name in having] + [f"{slug}/{name}/Difference" for name in having[1:]]
    found += [f"Intranuclear_Fraction/{name}" for name in names]
    found += [f"Intranuclear_Fraction/{name}/Difference" for name in names[1:]]
    found += [f"Control/{name}" for name in names]
    found += [f"{what}/{name}" for what in ("Beyond_Control", "Pearson") for name in names[1:]]
    return [*found, "Image", "Warnings"]


def cells(row: Row, sides: Sequence[Side], bounds: Sequence[float | None]) -> list[str]:
    """One row of the table; ``bounds`` of every model but the first, see `control_bound`."""
    others = range(1, len(sides))
    records = row.records
    found = [records[0]["protein_id"], yes_no(row.agree(sides)), _number(row.largest())]
    found += ["|".join(record["localizations"]) for record in records]
    for slug in shared_classes(sides):
        having = [k for k in range(len(sides)) if slug in sides[k].classes]
        found += [_number(records[k]["probabilities"][slug]) for k in having]
        found += [_number(row.probability_differences(k)[slug]) for k in having[1:]]
    found += [_number(record["intranuclear_fraction"]) for record in records]
    found += [_number(row.fraction_difference(k)) for k in others]
    found += [_number(control) for control in row.controls]
    found += [yes_no(row.beyond(k, bounds[k - 1])) for k in others]
    found += [_number(likeness) for likeness in row.likeness]
    return [*found, f"{row.image}.png", " | ".join(warnings(row))]


def table(rows: Sequence[Row], sides: Sequence[Side], delimiter: str) -> bytes:
    """Render the whole table."""
    bounds = [control_bound(rows, other) for other in range(1, len(sides))]
    lines = [columns(sides), *(cells(row, sides, bounds) for row in rows)]
    return b"".join(table_line(line, delimiter) for line in lines)


def warnings(row: Row) -> tuple[str, ...]:
    """Whatever any of the models warns of, each once."""
    return tuple(dict.fromkeys(warning for record in row.records for warning in record["warnings"]))


def yes_no(answer: bool | None) -> str:
    """``yes``, ``no``, or nothing where there is no answer."""
    return "" if answer is None else "yes" if answer else "no"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
