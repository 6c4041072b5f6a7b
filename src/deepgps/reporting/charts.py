"""Charts as inline SVG, in the colours of the page: light, dark and on paper.

Every function returns markup that a template inserts as it is. Series get the colours ``--c0`` to ``--c11``
of the stylesheet in their order.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from deepgps.arrays import Doubles
from deepgps.bundle import Metric

COLOURS = 12
"""Number of colours; further series repeat them, dashed."""

_WIDTH, _HEIGHT = 360, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 350, 10, 222
_ROW = 22
_LABELS = 196

Series = Mapping[str, tuple[ArrayLike, ArrayLike]]
"""By name, the x and y values (n,) of points; points with a NaN are left out."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from its first to its last tick."""

    label: str
    ticks: Sequence[float]

    def positions(self, values: ArrayLike, start: float, end: float) -> Doubles:
        """Map values to pixels between ``start`` and ``end``; values outside of the axis are clipped."""
        low, high = self.ticks[0], self.ticks[-1]
        shares = (np.clip(np.asarray(values, np.float64), low, high) - low) / ((high - low) or 1)
        return np.asarray(start + shares * (end - start), np.float64)


def unit_axis(label: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(label, (0, 0.25, 0.5, 0.75, 1))


def round_axis(label: str, values: ArrayLike, *, include: float | None = None) -> Axis:
    """Return an axis that spans the finite values, and the value to include, with ticks at round numbers."""
    finite = np.asarray(values, np.float64).ravel()
    finite = np.append(finite[np.isfinite(finite)], [] if include is None else [include])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return Axis(label, round_ticks(low, high))


def epoch_axis(epochs: int) -> Axis:
    """Return an axis of epochs, counted from 1."""
    return Axis("epoch", sorted({1, (epochs + 1) // 2, epochs}))


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose equidistant round numbers that span a range, with about ``count`` steps at most."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if span / (each * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]


def line_chart(
    title: str,
    series: Series,
    x: Axis,
    y: Axis,
    *,
    dots: bool = False,
    diagonal: bool = False,
    mark_x: float | None = None,
) -> Markup:
    """Draw lines.

    Parameters
    ----------
    title
        Written above the chart.
    series
        Lines by name.
    x, y
        The axes.
    dots
        Whether to draw the points, too.
    diagonal
        Whether to draw a dotted line where x equals y.
    mark_x
        Where to draw a dotted vertical line.

    Returns
    -------
    Markup
        An SVG with its legend.
    """
    marks = [_guides(x, y, diagonal, mark_x)]
    for number, points in enumerate(_points(series, x, y)):
        dash = Markup(' stroke-dasharray="5 3"') if number >= COLOURS else ""
        marks.append(
            Markup('<polyline points="{}" style="stroke:{}"{}/>').format(
                " ".join(f"{across:.1f},{up:.1f}" for across, up in points), _colour(number), dash
            )
        )
        # A line does not show a single point.
        marks += _circles(points, number, 3) if dots or len(points) == 1 else []
    return _figure(title, _plot(title, x, y, marks), list(series))


def scatter_chart(title: str, series: Series, x: Axis, y: Axis, *, diagonal: bool = False) -> Markup:
    """Draw points; see `line_chart`."""
    marks = [_guides(x, y, diagonal, None)]
    for number, points in enumerate(_points(series, x, y)):
        marks += _circles(points, number, 2.2)
    return _figure(title, _plot(title, x, y, marks), list(series))


def reliability_chart(title: str, probability: ArrayLike, frequency: ArrayLike) -> Markup:
    """Draw the mean probability of each bin against the share that is true, both (bins,)."""
    axes = unit_axis("probability"), unit_axis("share that is true")
    return line_chart(title, {"": (probability, frequency)}, *axes, dots=True, diagonal=True)


def interval_chart(title: str, metrics: Mapping[str, Metric], *, include: float | None = None) -> Markup:
    """Draw metrics with their intervals, one below the other; the first stands out.

    Parameters
    ----------
    title
        What is measured.
    metrics
        By name; those that are not finite are left out.
    include
        A value that the axis must show.

    Returns
    -------
    Markup
        An SVG.
    """
    known = {name: metric for name, metric in metrics.items() if math.isfinite(metric.value)}
    ends = [end for each in known.values() for end in (each.value, each.low, each.high) if end is not None]
    axis = round_axis(title, ends, include=include)
    width, right, bottom = 420, 406, _ROW * len(known) + 6
    marks = [*_vertical_grid(axis, _LABELS, right, 2, bottom)]
    for number, (name, metric) in enumerate(known.items()):
        y, colour = _ROW * number + 14, _colour(0 if number == 0 else 5)
        low, middle, high = axis.positions(
            [end if end is not None else metric.value for end in (metric.low, metric.value, metric.high)],
            _LABELS,
            right,
        )
        marks.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="end">{}</text>'
                '<line class="interval" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}" style="stroke:{}"/>'
                '<circle cx="{:.1f}" cy="{}" r="4" style="fill:{}"/>'
            ).format(_LABELS - 8, y + 4, name, low, high, y, y, colour, middle, y, colour)
        )
    return _figure(title, _svg(title, width, bottom + 18, marks), [])


def bar(share: float, *, highlighted: bool = False, threshold: float | None = None) -> Markup:
    """Draw a share in [0, 1] as a bar, as wide as its place; a tick marks the threshold.

    It has no inline styles, so that pages with a strict content security policy can use it.

    Returns
    -------
    Markup
        An SVG.
    """
    tick = "" if threshold is None else Markup('<rect class="tick" x="{:.1f}" width="0.8" height="8"/>')
    return Markup(
        '<svg class="bar{}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" '
        'focusable="false"><rect class="rail" width="100" height="8"/>'
        '<rect class="fill" width="{:.1f}" height="8"/>{}</svg>'
    ).format(
        " highlighted" if highlighted else "",
        100 * share,
        tick and tick.format(100 * (threshold or 0) - 0.4),
    )


def _points(series: Series, x: Axis, y: Axis) -> list[Doubles]:
    """Return the finite points of each series in pixels, (n, 2)."""
    found = []
    for values in series.values():
        across, up = (np.asarray(each, np.float64) for each in values)
        finite = np.isfinite(across) & np.isfinite(up)
        pixels = x.positions(across[finite], _LEFT, _RIGHT), y.positions(up[finite], _BOTTOM, _TOP)
        found.append(np.stack(pixels, axis=1))
    return found


def _circles(points: Doubles, number: int, radius: float) -> list[Markup]:
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" style="fill:{}"/>')
    return [circle.format(across, up, radius, _colour(number)) for across, up in points]


def _guides(x: Axis, y: Axis, diagonal: bool, mark_x: float | None) -> Markup:
    ends = []
    if diagonal:
        both = [max(x.ticks[0], y.ticks[0]), min(x.ticks[-1], y.ticks[-1])]
        ends.append((both, both))
    if mark_x is not None:
        ends.append(([mark_x, mark_x], [y.ticks[0], y.ticks[-1]]))
    guide = Markup('<line class="guide" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    return Markup("").join(
        guide.format(*x.positions(across, _LEFT, _RIGHT), *y.positions(up, _BOTTOM, _TOP))
        for across, up in ends
    )


def _vertical_grid(axis: Axis, left: float, right: float, top: float, bottom: float) -> Iterable[Markup]:
    for tick, at in zip(axis.ticks, axis.positions(axis.ticks, left, right), strict=True):
        yield Markup(
            '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text x="{0:.1f}" y="{3}" text-anchor="middle">{4:g}</text>'
        ).format(at, top, bottom, bottom + 14, tick)


def _plot(title: str, x: Axis, y: Axis, marks: Iterable[Markup]) -> Markup:
    """Draw both axes, and marks between them."""
    grid = [*_vertical_grid(x, _LEFT, _RIGHT, _TOP, _BOTTOM)]
    for tick, at in zip(y.ticks, y.positions(y.ticks, _BOTTOM, _TOP), strict=True):
        grid.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text x="{3}" y="{4:.1f}" text-anchor="end">{5:g}</text>'
            ).format(_LEFT, _RIGHT, at, _LEFT - 5, at + 4, tick)
        )
    labels = Markup(
        '<text x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format((_LEFT + _RIGHT) / 2, _HEIGHT - 6, x.label, (_TOP + _BOTTOM) / 2, y.label)
    return _svg(title, _WIDTH, _HEIGHT, [*grid, labels, *marks])


def _svg(title: str, width: int, height: int, content: Iterable[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(content)
    )


def _figure(title: str, svg: Markup, names: Sequence[str]) -> Markup:
    """Put a title above a chart, and a legend below it if there are several series."""
    items = Markup("").join(
        Markup('<li><i style="background:{}"></i>{}</li>').format(_colour(number), name)
        for number, name in enumerate(names)
    )
    legend = Markup("<ul>{}</ul>").format(items) if len(names) > 1 else ""
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}{}</figure>').format(title, svg, legend)


def _colour(number: int) -> str:
    return f"var(--c{number % COLOURS})"
