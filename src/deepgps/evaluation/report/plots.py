"""Small plots as inline SVG, in the colours of the page: light, dark, on paper."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Doubles
from deepgps.bundle import Metric

WIDTH, HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38
COLOURS = 12
"""Number of colours of series; further ones begin again, dashed."""

PLOT_STYLE = """
:root{--c0:#2f5fd0;--c1:#d9731a;--c2:#16855f;--c3:#8a4fc7;--c4:#b4365f;--c5:#6b7280;--c6:#0e7fa8;--c7:#8a6d00;
--c8:#4b3fb5;--c9:#b0471c;--c10:#3b7a1e;--c11:#9a3a9a}
@media (prefers-color-scheme:dark){:root{--c0:#7fa2ff;--c1:#f2a65e;--c2:#4fc79a;--c3:#bd93f0;--c4:#ee7f9f;
--c5:#a0a4af;--c6:#5cc3e6;--c7:#d6b84a;--c8:#a39bff;--c9:#f08a61;--c10:#8fce6b;--c11:#e08be0}}
svg.plot{width:100%;max-width:26rem;height:auto;display:block}
svg.plot text{font:11px system-ui,sans-serif;fill:var(--faint)}
svg.plot .axis{stroke:var(--line);fill:none}
svg.plot .guide{stroke:var(--faint);stroke-dasharray:2 3;fill:none}
svg.plot polyline{fill:none;stroke-width:1.8}
svg.plot .whisker{stroke-width:1.5}
.legend{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.8rem;color:var(--faint);margin:.2rem 0 .6rem}
.legend i{display:inline-block;width:1.1rem;height:.2rem;vertical-align:middle;margin-right:.3rem;
border-radius:.1rem}
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it says, from where to where, and at which values it is marked."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]

    def place(self, values: NDArray[np.floating], start: float, end: float) -> Doubles:
        """Places on the page, between ``start`` and ``end``."""
        share = (np.clip(values, self.low, self.high) - self.low) / max(self.high - self.low, 1e-9)
        return np.asarray(start + share * (end - start), np.float64)


UNIT_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def unit_axis(label: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(label, 0, 1, UNIT_TICKS)


def round_axis(label: str, values: NDArray[np.floating], *, include: float | None = None) -> Axis:
    """An axis around the finite values, marked at round numbers."""
    finite = np.asarray(values, np.float64).ravel()
    finite = np.append(finite[np.isfinite(finite)], [] if include is None else [include])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = max(high - low, 1e-6)
    steps = 10 ** np.floor(np.log10(span)) * np.array([0.2, 0.5, 1, 2])
    step = float(next(each for each in steps if span / each <= 6))
    first, last = np.floor(low / step), np.ceil(high / step)
    ticks = [float(round(k * step, 10)) for k in range(int(first), int(last) + 1)]
    return Axis(label, ticks[0], ticks[-1], ticks)


def lines(
    series: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    x: Axis,
    y: Axis,
    *,
    diagonal: bool = False,
    guide_x: float | None = None,
) -> str:
    """Draw lines, with a legend; NaN breaks nothing: such points are passed over."""
    drawn = [_guide(x, y, diagonal=diagonal, guide_x=guide_x)]
    for number, (across, up) in enumerate(series.values()):
        known = np.isfinite(across) & np.isfinite(up)
        points = _points(x, y, np.asarray(across)[known], np.asarray(up)[known])
        dash = ' stroke-dasharray="5 3"' if number >= COLOURS else ""
        drawn.append(f'<polyline points="{points}" style="stroke:{_colour(number)}"{dash}/>')
    return _svg(x, y, "".join(drawn)) + legend(list(series))


def scatter(
    groups: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    x: Axis,
    y: Axis,
    *,
    diagonal: bool = False,
) -> str:
    """Draw points, a colour a group, with a legend."""
    drawn = [_guide(x, y, diagonal=diagonal, guide_x=None)]
    for number, (across, up) in enumerate(groups.values()):
        known = np.isfinite(across) & np.isfinite(up)
        for pair in _points(x, y, np.asarray(across)[known], np.asarray(up)[known]).split():
            cx, cy = pair.split(",")
            drawn.append(f'<circle cx="{cx}" cy="{cy}" r="2.2" style="fill:{_colour(number)}" opacity=".6"/>')
    return _svg(x, y, "".join(drawn)) + legend(list(groups))


def whiskers(rows: Mapping[str, Metric], label: str, *, include: float | None = None) -> str:
    """Draw figures with their intervals, one under the other."""
    ends = [end for m in rows.values() for end in (m.value, m.low, m.high) if end is not None]
    axis = round_axis(label, np.array(ends, np.float64), include=include)
    height = 22 * len(rows) + 34
    left, right = 168, 480
    parts = [
        f'<svg class="plot" style="max-width:34rem" viewBox="0 0 500 {height}" role="img" '
        f'aria-label="{_text(label)}">'
    ]
    for tick in axis.ticks:
        at = axis.place(np.array(tick), left, right)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - 30}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 18}" text-anchor="middle">{tick:g}</text>')
    for number, (name, metric) in enumerate(rows.items()):
        y, colour = 15 + 22 * number, _colour(0 if number == 0 else 5)
        at = axis.place(np.array([metric.value, metric.low or 0, metric.high or 0]), left, right)
        if metric.low is not None and metric.high is not None:
            parts.append(
                f'<line class="whisker" x1="{at[1]:.1f}" x2="{at[2]:.1f}" y1="{y}" y2="{y}" '
                f'style="stroke:{colour}"/>'
            )
        parts.append(f'<circle cx="{at[0]:.1f}" cy="{y}" r="4" style="fill:{colour}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{_text(name)}</text>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{_text(label)}</text></svg>')
    return "".join(parts)


def matrix(
    counts: NDArray[np.integer] | NDArray[np.floating], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """Set a matrix as a table, shaded by its share of the row."""
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = []
    for name, row in zip(rows, np.asarray(counts, np.float64), strict=True):
        shares = row / max(row.sum(), 1)
        cells = "".join(_shaded(count, share) for count, share in zip(row, shares, strict=True))
        body.append(f"<tr><th>{_text(name)}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><th>true \\ named</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>\n"
    )


def _shaded(count: float, share: float) -> str:
    ground = f"color-mix(in srgb,var(--bar) {90 * share:.0f}%,transparent)"
    return f'<td style="background:{ground}">{count:,.0f}</td>'


def legend(names: Sequence[str]) -> str:
    """Name the colours of series; nothing for a single one."""
    if len(names) < 2:
        return ""
    items = "".join(
        f'<span><i style="background:{_colour(number)}"></i>{_text(name)}</span>'
        for number, name in enumerate(names)
    )
    return f'<div class="legend">{items}</div>\n'


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS})"


def _points(x: Axis, y: Axis, across: NDArray[np.floating], up: NDArray[np.floating]) -> str:
    xs = x.place(across, _LEFT, WIDTH - _RIGHT)
    ys = y.place(up, HEIGHT - _BOTTOM, _TOP)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))


def _guide(x: Axis, y: Axis, *, diagonal: bool, guide_x: float | None) -> str:
    found = []
    if diagonal:
        ends = np.array([max(x.low, y.low), min(x.high, y.high)])
        found.append(f'<polyline class="guide" points="{_points(x, y, ends, ends)}"/>')
    if guide_x is not None:
        across = np.array([guide_x, guide_x])
        found.append(f'<polyline class="guide" points="{_points(x, y, across, np.array([y.low, y.high]))}"/>')
    return "".join(found)


def _svg(x: Axis, y: Axis, content: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    marks = []
    for tick in x.ticks:
        at = x.place(np.array(tick), _LEFT, right)
        marks.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        marks.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks:
        at = y.place(np.array(tick), bottom, _TOP)
        marks.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        marks.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle, centre = (_LEFT + right) / 2, (_TOP + bottom) / 2
    turned = f"translate(11 {centre:.0f}) rotate(-90)"
    labels = (
        f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{_text(x.label)}</text>'
        f'<text transform="{turned}" text-anchor="middle">{_text(y.label)}</text>'
    )
    name = _text(f"{y.label} against {x.label}")
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(marks)}{labels}{content}</svg>\n"
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)
