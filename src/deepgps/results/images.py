"""A drawn prediction as images: a labelled PNG to look at and an OME-TIFF to measure."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepgps.arrays import Bytes, Floats
from deepgps.images.cell import Cell
from deepgps.images.write import ome_tiff, png
from deepgps.prediction import Prediction
from deepgps.prediction.prediction import named_line

# The whole image is as wide as a page of text; larger ones take longer to write than to compute.
PANEL = 260
MARGIN = 12
HEADER = 52
FOOTER = 26

# Blue and yellow stay apart for every common kind of colour blindness, and meet in white.
NUCLEUS_COLOUR = (70, 120, 255)
PROTEIN_COLOUR = (255, 196, 0)

PREDICTED, MEAN = "protein_predicted", "protein_mean"
"""Names of the protein's channel."""

INK = (238, 238, 238)
FAINT = (170, 170, 170)
GROUND = (16, 16, 18)
_BARS_UM = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5)


def stretched(pixels: Floats) -> Floats:
    """Stretch an image for display, so that its 99.9th percentile is white and black stays black.

    Parameters
    ----------
    pixels
        (H, W) in [0, 1].

    Returns
    -------
    (H, W) float32 in [0, 1]
    """
    top = float(np.percentile(pixels, 99.9))
    return np.asarray(np.clip(pixels / max(top, 1e-6), 0, 1), np.float32)


def overlay(nucleus: Floats, protein: Floats) -> Bytes:
    """Lay a protein image (yellow) over a nucleus image (blue).

    Parameters
    ----------
    nucleus, protein
        (H, W) in [0, 1].

    Returns
    -------
    (H, W, 3) uint8
    """
    blue = np.multiply.outer(nucleus, np.array(NUCLEUS_COLOUR, np.float32))
    yellow = np.multiply.outer(protein, np.array(PROTEIN_COLOUR, np.float32))
    return np.asarray(np.clip(blue + yellow, 0, 255), np.uint8)


def labelled_image(prediction: Prediction) -> Image.Image:
    """Draw the labelled image: nucleus, predicted protein and their overlay, side by side.

    Each panel is stretched for display; only the OME-TIFF holds intensities to measure.
    """
    cell, image = _drawn(prediction)
    shown = stretched(cell.nucleus), stretched(image)
    kind = "mean image" if prediction.mean else "predicted"
    panels = {
        "nucleus": Image.fromarray((shown[0] * 255).astype(np.uint8)),
        f"protein, {kind}": Image.fromarray((shown[1] * 255).astype(np.uint8)),
        "overlay: nucleus blue, protein yellow": Image.fromarray(overlay(*shown)),
    }
    size = (3 * PANEL + 4 * MARGIN, HEADER + PANEL + FOOTER)
    canvas = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(canvas)
    _write_header(draw, prediction, size[0] - 2 * MARGIN)
    for place, (label, panel) in enumerate(panels.items()):
        draw_panel(canvas, draw, panel, (MARGIN + place * (PANEL + MARGIN), HEADER), label)
    um_per_pixel = cell.pixel_size_um * image.shape[1] / PANEL
    draw_scale_bar(draw, size[0] - MARGIN, HEADER + PANEL, um_per_pixel)
    return canvas


def image_files(prediction: Prediction) -> tuple[bytes, bytes]:
    """Encode both images of a prediction: the content of its PNG, and of its OME-TIFF.

    The TIFF has the channels ``nucleus`` and `PREDICTED`, or `MEAN` of a mean image, unstretched, on the
    scale of `ome_tiff`, and the pixel size in micrometres.
    """
    cell, image = _drawn(prediction)
    channels = {"nucleus": cell.nucleus, MEAN if prediction.mean else PREDICTED: image}
    return png(np.asarray(labelled_image(prediction))), ome_tiff(channels, cell.pixel_size_um)


def headline(prediction: Prediction) -> str:
    """Say where the protein goes in a line, most probable first, or that the model does not say it."""
    named = named_line(prediction.localizations, prediction.probabilities)
    return named or "image only: this model predicts no label"


def bar_length_um(field_um: float) -> float:
    """Choose a round scale bar of at most a quarter of the field."""
    return next((bar for bar in _BARS_UM if bar <= field_um / 4), _BARS_UM[-1])


def _drawn(prediction: Prediction) -> tuple[Cell, Floats]:
    if prediction.cell is None or prediction.image is None:
        raise ValueError(f"prediction of '{prediction.protein.id}' holds no image")
    return prediction.cell, prediction.image


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load PIL's own font once: no font file is needed on the machine."""
    return ImageFont.load_default(size)


def _write_header(draw: ImageDraw.ImageDraw, prediction: Prediction, width: int) -> None:
    write_text(draw, (MARGIN, 7), prediction.protein.id, 17, INK, width)
    write_text(draw, (MARGIN, 29), headline(prediction), 14, FAINT, width)


def draw_panel(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, panel: Image.Image, place: tuple[int, int], label: str
) -> None:
    """Paste an image, `PANEL` pixels wide and high, with a line below it."""
    canvas.paste(panel.resize((PANEL, PANEL), Image.Resampling.BICUBIC), place)
    write_text(draw, (place[0], place[1] + PANEL + 5), label, 13, FAINT, PANEL)


def write_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: int | None = None,
) -> None:
    """Write a line, cut where it would be wider than ``width`` pixels."""
    font = _font(size)
    # PIL's own font draws ASCII; a question mark is better than a box.
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text[:300])
    if width is not None and draw.textlength(text, font) > width:
        while text and draw.textlength(f"{text}…", font) > width:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=colour, font=font)


def draw_scale_bar(
    draw: ImageDraw.ImageDraw, right: int, bottom: int, um_per_pixel: float, panel: int = PANEL
) -> None:
    """Draw a scale bar into the lower right corner of a panel of ``panel`` pixels."""
    length_um = bar_length_um(panel * um_per_pixel)
    length = round(length_um / um_per_pixel)
    left, low = right - 10 - length, bottom - 12
    draw.rectangle((left - 1, low - 4, left + length + 1, low + 1), fill=GROUND)
    draw.rectangle((left, low - 3, left + length, low), fill=INK)
    # PIL's own font has no micro sign.
    text, font = f"{length_um:g} um", _font(13)
    place = (left + (length - draw.textlength(text, font)) / 2, low - 21)
    draw.text(place, text, fill=INK, font=font, stroke_width=2, stroke_fill=GROUND)


def contact_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draw nuclei side by side, each with its name and a scale bar."""
    columns = min(4, len(cells))
    tile = PANEL + FOOTER
    rows = -(-len(cells) // columns)
    size = (columns * (PANEL + MARGIN) + MARGIN, rows * (tile + MARGIN) + MARGIN)
    sheet = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(sheet)
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        left, top = MARGIN + column * (PANEL + MARGIN), MARGIN + row * (tile + MARGIN)
        panel = Image.fromarray((stretched(cell.nucleus) * 255).astype(np.uint8))
        draw_panel(sheet, draw, panel, (left, top), cell.name)
        um_per_pixel = cell.pixel_size_um * cell.nucleus.shape[1] / PANEL
        draw_scale_bar(draw, left + PANEL, top + PANEL, um_per_pixel)
    return sheet
