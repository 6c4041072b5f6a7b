"""Tables of figures as HTML."""

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from deepgps.bundle import Metric

Rows = Iterable[tuple[str, Mapping[str, Metric]]]


def cell(metric: Metric | None, digits: int = 2) -> str:
    """A figure with its interval; a dash for one that is not defined."""
    if metric is None or not np.isfinite(metric.value):
        return "–"
    value = f"{metric.value:.{digits}f}"
    if metric.low is None or metric.high is None:
        return value
    return f"{value} <small>[{metric.low:.{digits}f},&nbsp;{metric.high:.{digits}f}]</small>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, marked: int | None = 0) -> str:
    """Set rows whose cells are HTML already; the row ``marked`` is set bold."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    lines = []
    for number, row in enumerate(rows):
        kind = ' class="marked"' if number == marked else ""
        lines.append(f"<tr{kind}>{''.join(f'<td>{value}</td>' for value in row)}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{chr(10).join(lines)}\n'
        "</tbody></table></div>\n"
    )


def figures_table(
    first: str, columns: Mapping[str, tuple[str, int]], rows: Rows, *, marked: int | None = 0
) -> str:
    """Set figures by row and column; columns by key with their heading and number of digits."""
    return table(
        [first, *(heading for heading, _ in columns.values())],
        (
            [text(name), *(cell(metrics.get(key), digits) for key, (_, digits) in columns.items())]
            for name, metrics in rows
        ),
        marked=marked,
    )


def text(value: object) -> str:
    """Escape for HTML, attributes included."""
    return html.escape(str(value), quote=True)
