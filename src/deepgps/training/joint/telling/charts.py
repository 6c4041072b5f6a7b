"""Line charts as inline SVG, in the colours of the report."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 34

CHART_STYLE = """
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:1rem}
.charts svg{width:100%;height:auto;background:var(--panel);border:1px solid var(--line);border-radius:.6rem}
svg text{font:12px system-ui,sans-serif;fill:var(--faint)}
svg .title{font-weight:600;fill:var(--ink)}
svg .grid{stroke:var(--line)}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}
svg .training{stroke:var(--faint);stroke-dasharray:5 3}
svg .validation{stroke:var(--named)}
svg text.validation{stroke:none;fill:var(--named)}
svg text.training{stroke:none;fill:var(--faint)}
svg .kept{stroke:var(--bar);stroke-dasharray:2 3}
"""


def line_chart(title: str, series: Mapping[str, Sequence[float]], kept: int | None = None) -> str:
    """Draw figures over epochs, counted from 1.

    Parameters
    ----------
    title
        What is shown.
    series
        By name, ``training`` or ``validation``, a figure an epoch.
    kept
        The epoch whose weights were kept, marked by a line.
    """
    values = [value for each in series.values() for value in each if math.isfinite(value)]
    epochs = max(len(each) for each in series.values())
    ticks = round_ticks(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)

    def x(epoch: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / ((high - low) or 1)

    parts = [f'<text class="title" x="{_LEFT}" y="17">{escape(title)}</text>']
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for epoch in sorted({1, (epochs + 1) // 2, epochs}):
        parts.append(f'<text x="{x(epoch):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>')
    if kept:
        parts.append(
            f'<line class="kept" x1="{x(kept):.1f}" x2="{x(kept):.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        )
    for place, (name, each) in enumerate(series.items()):
        points = [(x(n), y(v)) for n, v in enumerate(each, start=1) if math.isfinite(v)]
        drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        # A single epoch is a point, which a line does not show.
        dot = (
            f'<circle class="{name}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
            if len(points) == 1
            else ""
        )
        parts.append(f'<polyline class="{name}" points="{drawn}"/>{dot}')
        parts.append(
            f'<text class="{name}" x="{WIDTH - _RIGHT - 80 * place}" y="17" text-anchor="end">{name}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def round_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Choose round numbers that span a range."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / count))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if span / (each * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 12) for number in range(first, max(last, first + 1) + 1)]
