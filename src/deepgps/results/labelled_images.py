"""Labelled images: panels with captions and scale bars, to look at; and the image files of a prediction."""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deepgps.arrays import Bytes, Floats
from deepgps.images.cell import Cell
from deepgps.images.write import ome_tiff, png
from deepgps.prediction import Prediction
from deepgps.prediction.prediction import named_line

# Pixels. The whole image is as wide as a page of text; larger ones take longer to write than to predict.
PANEL = 260
MARGIN = 12
HEADER = 52
FOOTER = 26

CROP_PANEL = 150
CROP_COLUMNS = 4
CROP_CAPTION = 50
_CROP_GAP = 2

# Blue and yellow differ for every common kind of colour blindness, and add up to white.
NUCLEUS_COLOUR = (70, 120, 255)
PROTEIN_COLOUR = (255, 196, 0)

PREDICTED_CHANNEL, MEAN_CHANNEL = "protein_predicted", "protein_mean"
LOW_CHANNEL, HIGH_CHANNEL = "protein_low", "protein_high"

TEXT_COLOUR = (238, 238, 238)
FAINT_COLOUR = (170, 170, 170)
BACKGROUND = (16, 16, 18)
_SCALE_BARS_UM = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5)


def stretch(pixels: Floats) -> Floats:
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
    """Overlay a protein image (yellow) on a nucleus image (blue).

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


def grey_image(pixels: Floats) -> Image.Image:
    """Turn pixels (H, W) in [0, 1] into an 8-bit grey image."""
    return Image.fromarray((pixels * 255).astype(np.uint8))


def labelled_image(prediction: Prediction) -> Image.Image:
    """Draw nucleus, predicted protein and their overlay side by side, with captions and a scale bar.

    Each panel is stretched for display; only the OME-TIFF holds intensities to measure.

    Returns
    -------
    Image
        RGB.
    """
    cell, image = _cell_and_image(prediction)
    nucleus, protein = stretch(cell.nucleus), stretch(image)
    panels = {
        "nucleus": grey_image(nucleus),
        f"protein, {'mean image' if prediction.mean else 'predicted'}": grey_image(protein),
        "overlay: nucleus blue, protein yellow": Image.fromarray(overlay(nucleus, protein)),
    }
    width, height = 3 * PANEL + 4 * MARGIN, HEADER + PANEL + FOOTER
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    write_text(draw, (MARGIN, 7), prediction.protein.id, 17, TEXT_COLOUR, width - 2 * MARGIN)
    write_text(draw, (MARGIN, 29), _headline(prediction), 14, FAINT_COLOUR, width - 2 * MARGIN)
    for column, (caption, panel) in enumerate(panels.items()):
        draw_panel(canvas, draw, panel, (MARGIN + column * (PANEL + MARGIN), HEADER), caption)
    draw_scale_bar(draw, width - MARGIN, HEADER + PANEL, cell.pixel_size_um * image.shape[1] / PANEL)
    return canvas


def overlay_panel(path: Path) -> Image.Image:
    """Cut the overlay out of a file that `labelled_image` drew.

    Parameters
    ----------
    path
        The PNG.

    Returns
    -------
    Image
        RGB, `PANEL` pixels wide and high.

    Raises
    ------
    OSError
        If there is no such image.
    """
    left = 3 * MARGIN + 2 * PANEL
    with Image.open(path) as image:
        return image.convert("RGB").crop((left, HEADER, left + PANEL, HEADER + PANEL))


def image_files(prediction: Prediction) -> tuple[bytes, bytes]:
    """Encode the images of a prediction: the content of its PNG and of its OME-TIFF.

    The TIFF has the channels ``nucleus`` and `PREDICTED_CHANNEL`, or `MEAN_CHANNEL` for a mean image; the
    ends of the interval of each pixel, where there is one (`LOW_CHANNEL`, `HIGH_CHANNEL`); and the landmarks
    of the cell. They are not stretched, on the scale of `ome_tiff`, with the pixel size in micrometres.

    Returns
    -------
    tuple of bytes
        PNG and OME-TIFF.
    """
    cell, image = _cell_and_image(prediction)
    protein = MEAN_CHANNEL if prediction.mean else PREDICTED_CHANNEL
    channels = {"nucleus": cell.nucleus, protein: image}
    if prediction.low is not None and prediction.high is not None:
        channels |= {LOW_CHANNEL: prediction.low, HIGH_CHANNEL: prediction.high}
    channels |= cell.landmarks
    return png(np.asarray(labelled_image(prediction))), ome_tiff(channels, cell.pixel_size_um)


def contact_sheet(cells: Sequence[Cell]) -> Image.Image:
    """Draw nucleus images side by side, each with the cell's name and a scale bar."""
    columns = min(4, len(cells))
    sheet, draw, positions = _sheet(len(cells), columns, PANEL, PANEL + FOOTER)
    for cell, (left, top) in zip(cells, positions, strict=True):
        draw_panel(sheet, draw, grey_image(stretch(cell.nucleus)), (left, top), cell.name)
        um_per_pixel = cell.pixel_size_um * cell.nucleus.shape[1] / PANEL
        draw_scale_bar(draw, left + PANEL, top + PANEL, um_per_pixel)
    return sheet


def crop_sheet(crops: Floats, captions: Sequence[tuple[str, str, str]], pixel_size_um: float) -> Image.Image:
    """Draw crops side by side, each as nucleus, protein and overlay; intensities are not stretched.

    Parameters
    ----------
    crops
        (n, 2, S, S) in [0, 1]: nucleus and protein.
    captions
        Three lines for each crop.
    pixel_size_um
        Edge of a pixel in micrometres.

    Returns
    -------
    Image
        RGB.
    """
    columns = max(1, min(CROP_COLUMNS, len(crops)))
    width = 3 * CROP_PANEL + 2 * _CROP_GAP
    sheet, draw, positions = _sheet(len(crops), columns, width, CROP_PANEL + CROP_CAPTION)
    for crop, lines, (left, top) in zip(crops, captions, positions, strict=True):
        panels = [*(grey_image(pixels).convert("RGB") for pixels in crop), Image.fromarray(overlay(*crop))]
        for column, panel in enumerate(panels):
            resized = panel.resize((CROP_PANEL, CROP_PANEL), Image.Resampling.BICUBIC)
            sheet.paste(resized, (left + column * (CROP_PANEL + _CROP_GAP), top))
        for number, line in enumerate(lines):
            colour = FAINT_COLOUR if number else TEXT_COLOUR
            write_text(draw, (left, top + CROP_PANEL + 2 + 15 * number), line, 12, colour, width)
        um_per_pixel = pixel_size_um * crop.shape[-1] / CROP_PANEL
        draw_scale_bar(draw, left + width, top + CROP_PANEL, um_per_pixel, CROP_PANEL)
    return sheet


def image_table(
    images: Sequence[Sequence[Floats]],
    captions: Sequence[Sequence[str]],
    framed: Sequence[Sequence[bool]],
    pixel_size_um: float,
) -> Image.Image:
    """Draw a table of images, each with a caption below; intensities are not stretched.

    Parameters
    ----------
    images
        Rows of images, each (S, S) in [0, 1].
    captions
        A line for each image.
    framed
        Which images get a frame.
    pixel_size_um
        Edge of a pixel in micrometres.

    Returns
    -------
    Image
        RGB.
    """
    columns = len(images[0])
    sheet, draw, positions = _sheet(len(images) * columns, columns, CROP_PANEL, CROP_PANEL + FOOTER)
    cells = zip(*(chain.from_iterable(rows) for rows in (images, captions, framed)), positions, strict=True)
    for pixels, caption, is_framed, (left, top) in cells:
        panel = grey_image(pixels).resize((CROP_PANEL, CROP_PANEL), Image.Resampling.BICUBIC)
        sheet.paste(panel, (left, top))
        if is_framed:
            box = (left, top, left + CROP_PANEL - 1, top + CROP_PANEL - 1)
            draw.rectangle(box, outline=PROTEIN_COLOUR, width=2)
        write_text(draw, (left, top + CROP_PANEL + 5), caption, 12, FAINT_COLOUR, CROP_PANEL)
    right = MARGIN + CROP_PANEL
    um_per_pixel = pixel_size_um * images[0][0].shape[-1] / CROP_PANEL
    draw_scale_bar(draw, right, MARGIN + CROP_PANEL, um_per_pixel, CROP_PANEL)
    return sheet


def scale_bar_um(field_um: float) -> float:
    """Choose the length of a scale bar: a round number, at most a quarter of the field."""
    return next((bar for bar in _SCALE_BARS_UM if bar <= field_um / 4), _SCALE_BARS_UM[-1])


def draw_panel(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    panel: Image.Image,
    position: tuple[int, int],
    caption: str,
) -> None:
    """Paste an image, `PANEL` pixels wide and high, with a caption below it."""
    canvas.paste(panel.resize((PANEL, PANEL), Image.Resampling.BICUBIC), position)
    write_text(draw, (position[0], position[1] + PANEL + 5), caption, 13, FAINT_COLOUR, PANEL)


def write_text(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: int | None = None,
) -> None:
    """Write a line of text, cut off where it would be wider than ``width`` pixels."""
    font = _font(size)
    # The font that comes with PIL draws ASCII only; a question mark is better than a box.
    text = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text[:300])
    if width is not None and draw.textlength(text, font) > width:
        while text and draw.textlength(f"{text}…", font) > width:
            text = text[:-1]
        text += "…"
    draw.text(position, text, fill=colour, font=font)


def draw_scale_bar(
    draw: ImageDraw.ImageDraw, right: int, bottom: int, um_per_pixel: float, panel: int = PANEL
) -> None:
    """Draw a scale bar into the lower right corner of a panel of ``panel`` pixels."""
    length_um = scale_bar_um(panel * um_per_pixel)
    length = round(length_um / um_per_pixel)
    left, low = right - 10 - length, bottom - 12
    draw.rectangle((left - 1, low - 4, left + length + 1, low + 1), fill=BACKGROUND)
    draw.rectangle((left, low - 3, left + length, low), fill=TEXT_COLOUR)
    # The font has no micro sign.
    text, font = f"{length_um:g} um", _font(13)
    position = (left + (length - draw.textlength(text, font)) / 2, low - 21)
    draw.text(position, text, fill=TEXT_COLOUR, font=font, stroke_width=2, stroke_fill=BACKGROUND)


def _cell_and_image(prediction: Prediction) -> tuple[Cell, Floats]:
    if prediction.cell is None or prediction.image is None:
        raise ValueError(f"the prediction of '{prediction.protein.id}' has no image")
    return prediction.cell, prediction.image


def _headline(prediction: Prediction) -> str:
    named = named_line(prediction.localizations, prediction.probabilities)
    return named or "image only: this model predicts no label"


def _sheet(
    count: int, columns: int, width: int, height: int
) -> tuple[Image.Image, ImageDraw.ImageDraw, list[tuple[int, int]]]:
    """Make an empty sheet for tiles of a width and height; return it with the corner of each tile."""
    rows = -(-count // columns)
    size = columns * (width + MARGIN) + MARGIN, rows * (height + MARGIN) + MARGIN
    sheet = Image.new("RGB", size, BACKGROUND)
    corners = [
        (MARGIN + number % columns * (width + MARGIN), MARGIN + number // columns * (height + MARGIN))
        for number in range(count)
    ]
    return sheet, ImageDraw.Draw(sheet), corners


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font that comes with PIL once."""
    return ImageFont.load_default(size)
