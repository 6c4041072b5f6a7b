"""A contact sheet of crops: nucleus, protein and both, to see at a glance whether a dataset is right."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from deepgps.arrays import Floats
from deepgps.results.images import FAINT, GROUND, INK, MARGIN, draw_scale_bar, overlay, write_text

COLUMNS = 4
EDGE = 150
GAP = 2
CAPTION = 50


def crop_sheet(crops: Floats, captions: Sequence[tuple[str, str, str]], pixel_size_um: float) -> Image.Image:
    """Draw crops side by side, each as nucleus, protein and overlay; intensities as they are, unstretched.

    Parameters
    ----------
    crops
        (n, 2, S, S) in [0, 1]: nucleus and protein.
    captions
        Three lines for each.
    pixel_size_um
        Edge of a pixel in micrometres.
    """
    columns = max(1, min(COLUMNS, len(crops)))
    tile = 3 * EDGE + 2 * GAP
    rows = -(-len(crops) // columns)
    size = columns * (tile + MARGIN) + MARGIN, rows * (EDGE + CAPTION + MARGIN) + MARGIN
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    for place, (pair, lines) in enumerate(zip(crops, captions, strict=True)):
        row, column = divmod(place, columns)
        left, top = MARGIN + column * (tile + MARGIN), MARGIN + row * (EDGE + CAPTION + MARGIN)
        for number, panel in enumerate(_panels(pair)):
            sheet.paste(panel, (left + number * (EDGE + GAP), top))
        for number, line in enumerate(lines):
            at = (left, top + EDGE + 2 + 15 * number)
            write_text(draw, at, line, 12, FAINT if number else INK, tile)
        draw_scale_bar(draw, left + tile, top + EDGE, pixel_size_um * pair.shape[-1] / EDGE, EDGE)
    return sheet


def _panels(pair: Floats) -> list[Image.Image]:
    grey = [Image.fromarray((pixels * 255).astype(np.uint8)).convert("RGB") for pixels in pair]
    panels = [*grey, Image.fromarray(overlay(pair[0], pair[1]))]
    return [panel.resize((EDGE, EDGE), Image.Resampling.BICUBIC) for panel in panels]
