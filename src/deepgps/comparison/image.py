"""One protein as several models draw it, side by side."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from deepgps.arrays import Floats
from deepgps.comparison.differences import Row
from deepgps.comparison.sides import Side
from deepgps.prediction.prediction import named_line
from deepgps.results.images import (
    FAINT,
    FOOTER,
    GROUND,
    HEADER,
    INK,
    MARGIN,
    PANEL,
    draw_panel,
    draw_scale_bar,
    overlay,
    stretched,
    write_text,
)

_LINE = 19
_LEGEND = (
    "control: how far it moves from one",
    "nucleus to another in the same model",
    "",
    "right: nucleus blue, protein yellow",
    "every panel is stretched on its own",
)


def image(row: Row, sides: Sequence[Side], images: Sequence[Floats]) -> Image.Image:
    """Draw the nucleus and what each model draws into it; below, both laid over each other.

    Parameters
    ----------
    row
        What the models say.
    sides
        The models.
    images
        Of each model (2, H, W) in [0, 1]: the nucleus at its scale and the protein image.
    """
    step = PANEL + MARGIN
    size = ((len(sides) + 1) * step + MARGIN, HEADER + 2 * (PANEL + FOOTER) + MARGIN)
    canvas = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(canvas)
    write_text(draw, (MARGIN, 7), row.records[0]["protein_id"], 17, INK, size[0] - 2 * MARGIN)
    write_text(draw, (MARGIN, 29), headline(row, sides), 14, FAINT, size[0] - 2 * MARGIN)
    _panel(draw, canvas, _grey(images[0][0]), (MARGIN, HEADER), "nucleus", sides[0].field_um)
    _write_facts(draw, row, sides, HEADER + PANEL + FOOTER)
    for number, (side, (nucleus, protein)) in enumerate(zip(sides, images, strict=True), 1):
        left = MARGIN + number * step
        both = Image.fromarray(overlay(stretched(nucleus), stretched(protein)))
        said = f"{side.name}, {side.cell_line}"
        _panel(draw, canvas, _grey(protein), (left, HEADER), said, side.field_um)
        low = HEADER + PANEL + FOOTER
        _panel(draw, canvas, both, (left, low), labels(row, number - 1), side.field_um)
    return canvas


def headline(row: Row, sides: Sequence[Side]) -> str:
    """Say in a line whether the models agree."""
    said = {True: "labels agree", False: "labels differ", None: "labels cannot be compared"}
    return said[row.agree(sides)]


def labels(row: Row, number: int) -> str:
    """What a model names, with probabilities, most probable first."""
    record = row.records[number]
    return named_line(record["localizations"], record["probabilities"]) or "image only, no label"


def _write_facts(draw: ImageDraw.ImageDraw, row: Row, sides: Sequence[Side], top: int) -> None:
    """Write the intranuclear fractions and their controls where no overlay is."""
    lines = [("intranuclear fraction, and its control:", FAINT)]
    for side, record, control in zip(sides, row.records, row.controls, strict=True):
        found = (record["intranuclear_fraction"], control)
        said = ", ".join("none" if each is None else f"{each:.2f}" for each in found)
        lines.append((f"{said}   {side.name}", INK))
    lines += [("", FAINT), *((line, FAINT) for line in _LEGEND)]
    for number, (line, colour) in enumerate(lines):
        write_text(draw, (MARGIN, top + MARGIN + number * _LINE), line, 13, colour, PANEL)


def _panel(
    draw: ImageDraw.ImageDraw,
    canvas: Image.Image,
    panel: Image.Image,
    place: tuple[int, int],
    label: str,
    field_um: float,
) -> None:
    draw_panel(canvas, draw, panel, place, label)
    draw_scale_bar(draw, place[0] + PANEL, place[1] + PANEL, field_um / PANEL)


def _grey(pixels: Floats) -> Image.Image:
    return Image.fromarray((stretched(pixels) * 255).astype(np.uint8))
