"""A comparison as text to read and as CSV to keep."""

import csv
import io
import math
from collections.abc import Sequence

from deepgps.evaluation.peers.compare import Comparison, ModelRow

COLUMNS = (
    *("model", "metric", "value", "low", "high", "n"),
    *("ours_less_it", "difference_low", "difference_high", "p", "mcnemar_p"),
)


def comparison_text(comparison: Comparison, names: Sequence[str]) -> str:
    """Lay the models out as lines of a table, value and 95 % interval in each cell, notes below.

    Parameters
    ----------
    comparison
        The models.
    names
        Figures to show; those that no model has are left out.
    """
    shown = [name for name in names if any(name in row.metrics for row in comparison.rows.values())]
    head = [f"n = {comparison.proteins}", *shown, "p (McNemar)"]
    lines = [head, *([name, *_cells(row, shown)] for name, row in comparison.rows.items())]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*(line.rstrip() for line in text), *comparison.notes])


def comparison_csv(comparison: Comparison) -> str:
    """Write every figure of every model, a line each, with the columns `COLUMNS`.

    ``ours_less_it`` and what follows compare our model with that of the line; ``p`` is of the paired
    bootstrap of that figure, ``mcnemar_p`` of McNemar's exact test, on the lines of accuracy and exact match.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, row in comparison.rows.items():
        for name, metric in row.metrics.items():
            apart = row.differences.get(name)
            paired = [apart.value, apart.low, apart.high, apart.p] if apart else [math.nan] * 4
            tested = row.mcnemar if name in ("accuracy", "exact_match") else None
            numbers = [metric.value, metric.low, metric.high, metric.n, *paired]
            writer.writerow([model, name, *map(_digits, [*numbers, tested.p if tested else math.nan])])
    return text.getvalue()


def _cells(row: ModelRow, names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        metric = row.metrics.get(name)
        known = metric is not None and not math.isnan(metric.value)
        cells.append(f"{metric.value:.3f} ({metric.low:.3f}–{metric.high:.3f})" if metric and known else "–")
    return [*cells, f"{row.mcnemar.p:.3g}" if row.mcnemar else ""]


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
