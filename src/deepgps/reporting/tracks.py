"""Pictures along a sequence: an explanation as tracks, a scan as a heat map; as SVG, and as PNG.

Both forms are drawn from one list of shapes, so that they show the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from deepgps.arrays import Floats
from deepgps.explain.explanation import Explanation
from deepgps.explain.variants import VariantComparison
from deepgps.proteins.check import AMINO_ACIDS
from deepgps.reporting.charts import round_ticks

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 960
_LEFT, _RIGHT = 150, 940
_ROW, _PLOT = 20, 70
_INK, _FAINT, _LINE = "#3b4252", "#6b7280", "#b8bcc6"
_BARS = ("#2f5fd0", "#d9731a", "#16855f", "#8a4fc7", "#b4365f")
_RELATIVE = "#9db4e8"
_COLOURS = {
    "SP": "#16855f",
    "MT": "#d9731a",
    "CH": "#3b7a1e",
    "TH": "#8fce6b",
    "TM": "#8a6d00",
    "PTS": "#9a3a9a",
    "NLS": "#2f5fd0",
    "NES": "#b4365f",
    "GPI": "#0e7fa8",
    "ER": "#8a4fc7",
    "LIPID": "#b0471c",
}
_GAIN, _LOSS = np.array([176, 71, 28]), np.array([47, 95, 208])
# Twice as many pixels as units, for print.
_SCALE = 2


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes in the order in which they are drawn.

    Attributes
    ----------
    title
        What it shows, for those who cannot see it.
    height
        In units; it is `WIDTH` wide.
    rectangles
        Left, top, width, height and colour of each.
    texts
        Place, text and anchor (``start``, ``middle`` or ``end``) of each.
    """

    title: str
    height: float
    rectangles: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, str]] = field(default_factory=list)

    def svg(self) -> Markup:
        """Return the picture as an SVG document, which a page can hold as well."""
        parts = [
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.1f}" fill="{}"/>').format(*each)
            for each in self.rectangles
        ]
        parts += [
            Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}">{}</text>').format(
                x, y, anchor, _FAINT, text
            )
            for x, y, text, anchor in self.texts
        ]
        return Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}" '
            'font-family="sans-serif" font-size="11">{}</svg>'
        ).format(WIDTH, self.height, self.title, Markup("").join(parts))

    def png(self) -> "Image":
        """Return the picture as an image, on white."""
        from PIL import Image, ImageDraw, ImageFont

        image = Image.new("RGB", (WIDTH * _SCALE, round(self.height * _SCALE)), "white")
        draw, font = ImageDraw.Draw(image), ImageFont.load_default(11 * _SCALE)
        for left, top, width, height, colour in self.rectangles:
            end = (
                max(left * _SCALE, (left + width) * _SCALE - 1),
                max(top * _SCALE, (top + height) * _SCALE - 1),
            )
            draw.rectangle((left * _SCALE, top * _SCALE, *end), fill=colour)
        anchors = {"start": "ls", "middle": "ms", "end": "rs"}
        for x, y, text, anchor in self.texts:
            draw.text((x * _SCALE, y * _SCALE), text, fill=_FAINT, font=font, anchor=anchors[anchor])
        return image


def explanation_picture(explanation: Explanation) -> Picture:
    """Draw an explanation: importance by localization, signals, and what its relatives share.

    Parameters
    ----------
    explanation
        What to draw.

    Returns
    -------
    Picture
        One track below the other, residues from left to right.
    """
    length = len(explanation.protein.sequence)
    unit = (_RIGHT - _LEFT) / length
    kinds = list(dict.fromkeys(each.kind for each in explanation.signals))
    near = [place for place, each in enumerate(explanation.evidence) if 0.02 <= each.similarity < 0.999]
    plots = len(explanation.localizations)
    top = 8.0
    height = top + plots * (_PLOT + 12) + _ROW * (len(kinds) + len(near)) + 34
    picture = Picture(f"Importance and signals along {explanation.protein.id}", height)
    for number, slug in enumerate(explanation.localizations):
        values, floor = explanation.importance[number], float(explanation.floor[number])
        _importance_track(picture, slug, values, floor, top, unit, _BARS[number % len(_BARS)])
        top += _PLOT + 12
    for kind in kinds:
        picture.texts.append((_LEFT - 8, top + 13, kind, "end"))
        picture.rectangles.append((_LEFT, top + 9, _RIGHT - _LEFT, 0.6, _LINE))
        for each in explanation.signals:
            if each.kind == kind:
                left, width = _LEFT + (each.start - 1) * unit, (each.end - each.start + 1) * unit
                picture.rectangles.append((left, top + 3, max(width, 2.0), 13, _COLOURS[kind]))
        top += _ROW
    for place in near:
        picture.texts.append((_LEFT - 8, top + 13, f"shared {explanation.evidence[place].accession}", "end"))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], explanation.shared[place].astype(int), [0]])))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            picture.rectangles.append((_LEFT + start * unit, top + 5, (end - start) * unit, 8, _RELATIVE))
        top += _ROW
    _residue_axis(picture, 1, length, top, unit)
    return picture


def scan_picture(comparison: VariantComparison) -> Picture:
    """Draw a scan as a heat map: the change of the most changed probability of each substitution.

    Parameters
    ----------
    comparison
        Of single substitutions; other variants are left out.

    Returns
    -------
    Picture
        Residues from left to right, new residues from top to bottom; orange where the probability that
        changes most rises, blue where it falls.
    """
    cells = {
        each.variant.substitution: float(each.change[each.largest])
        for each in comparison.effects
        if each.variant.substitution is not None
    }
    positions = [position for position, _ in cells]
    first, last = min(positions), max(positions)
    unit, row = (_RIGHT - _LEFT) / (last - first + 1), 13.0
    picture = Picture(f"Change by each substitution of {comparison.name}", 8 + row * len(AMINO_ACIDS) + 46)
    largest = max((abs(value) for value in cells.values()), default=0) or 1.0
    for number, residue in enumerate(AMINO_ACIDS):
        picture.texts.append((_LEFT - 8, 18 + row * number, residue, "end"))
        for position in range(first, last + 1):
            value = cells.get((position, residue))
            own = comparison.sequence[position - 1] == residue
            colour = _LINE if own else "#ffffff" if value is None else _heat(value / largest)
            picture.rectangles.append(
                (_LEFT + (position - first) * unit, 8 + row * number, max(unit - 0.3, 0.5), row - 1, colour)
            )
    bottom = 8 + row * len(AMINO_ACIDS)
    _residue_axis(picture, first, last, bottom, unit)
    picture.texts.append(
        (_RIGHT, bottom + 36, f"blue -{largest:.2f}, orange +{largest:.2f}; grey: unchanged", "end")
    )
    return picture


def _importance_track(
    picture: Picture, slug: str, values: Floats, floor: float, top: float, unit: float, colour: str
) -> None:
    low, high = min(0.0, float(values.min())), max(float(values.max()), floor, 1e-3)
    scale = _PLOT / (high - low)
    zero = top + high * scale
    picture.texts.append((_LEFT - 8, zero + 4, slug.replace("_", " "), "end"))
    # Of a long protein, the most extreme residue of each stretch that is a pixel wide is drawn.
    step = max(1, int(1 / unit))
    for start in range(0, len(values), step):
        part = values[start : start + step]
        value = float(part[np.abs(part).argmax()])
        shown = colour if value > floor else _LINE
        size = max(abs(value) * scale, 0.3)
        picture.rectangles.append(
            (_LEFT + start * unit, zero - size if value > 0 else zero, max(unit * step, 0.6), size, shown)
        )
    picture.rectangles.append((_LEFT, zero - floor * scale, _RIGHT - _LEFT, 0.7, _FAINT))
    picture.rectangles.append((_LEFT, zero, _RIGHT - _LEFT, 0.7, _INK))


def _residue_axis(picture: Picture, first: int, last: int, top: float, unit: float) -> None:
    picture.rectangles.append((_LEFT, top + 4, _RIGHT - _LEFT, 0.8, _INK))
    ticks: Sequence[float] = [tick for tick in round_ticks(first, last, 10) if first <= tick <= last]
    for tick in dict.fromkeys([first, *ticks]):
        x = _LEFT + (tick - first + 0.5) * unit
        picture.rectangles.append((x, top + 4, 0.8, 4, _INK))
        picture.texts.append((x, top + 20, f"{tick:g}", "middle"))


def _heat(share: float) -> str:
    strength = min(1.0, abs(share))
    colour = 255 + (strength * ((_GAIN if share > 0 else _LOSS) - 255))
    return "#{:02x}{:02x}{:02x}".format(*(round(float(each)) for each in colour))
