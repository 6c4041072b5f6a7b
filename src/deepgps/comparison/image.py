"""One protein as several models draw it, side by side."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from deepgps.arrays import Floats
from deepgps.comparison.differences import ComparedModel, ComparedProtein
from deepgps.prediction.prediction import named_line
from deepgps.results.labelled_images import (
    BACKGROUND,
    FAINT_COLOUR,
    FOOTER,
    HEADER,
    MARGIN,
    PANEL,
    TEXT_COLOUR,
    draw_panel,
    draw_scale_bar,
    grey_image,
    overlay,
    stretch,
    write_text,
)

_LINE_HEIGHT = 19
_HEADLINES = {True: "labels agree", False: "labels differ", None: "labels cannot be compared"}
_LEGEND = (
    "control: the difference between two",
    "nuclei, within the same model",
    "",
    "right: nucleus blue, protein yellow",
    "every panel is stretched on its own",
)


def comparison_image(
    protein: ComparedProtein, models: Sequence[ComparedModel], images: Sequence[Floats]
) -> Image.Image:
    """Draw the nucleus and what each model draws into it; below, both overlaid.

    Parameters
    ----------
    protein
        What the models predict.
    models
        The models.
    images
        For each model (2, H, W) in [0, 1]: the nucleus at its scale and the protein image.

    Returns
    -------
    Image
        The panels with captions and a scale bar.
    """
    step = PANEL + MARGIN
    width, height = (len(models) + 1) * step + MARGIN, HEADER + 2 * (PANEL + FOOTER) + MARGIN
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    def panel(image: Image.Image, left: int, top: int, caption: str, field_um: float) -> None:
        draw_panel(canvas, draw, image, (left, top), caption)
        draw_scale_bar(draw, left + PANEL, top + PANEL, field_um / PANEL)

    headline = _HEADLINES[protein.all_labels_agree(models)]
    write_text(draw, (MARGIN, 7), protein.protein_id, 17, TEXT_COLOUR, width - 2 * MARGIN)
    write_text(draw, (MARGIN, 29), headline, 14, FAINT_COLOUR, width - 2 * MARGIN)
    panel(grey_image(stretch(images[0][0])), MARGIN, HEADER, "nucleus", models[0].field_um)
    lower = HEADER + PANEL + FOOTER
    _write_fractions(draw, protein, models, lower + MARGIN)
    for number, (model, record) in enumerate(zip(models, protein.records, strict=True)):
        nucleus, drawn = (stretch(pixels) for pixels in images[number])
        left = MARGIN + (number + 1) * step
        panel(grey_image(drawn), left, HEADER, f"{model.name}, {model.cell_line}", model.field_um)
        labels = named_line(record["localizations"], record["probabilities"]) or "image only, no label"
        panel(Image.fromarray(overlay(nucleus, drawn)), left, lower, labels, model.field_um)
    return canvas


def _write_fractions(
    draw: ImageDraw.ImageDraw, protein: ComparedProtein, models: Sequence[ComparedModel], top: int
) -> None:
    """Write the intranuclear fractions and their controls below the nucleus."""
    lines = [("intranuclear fraction, and its control:", FAINT_COLOUR)]
    for model, record, control in zip(models, protein.records, protein.controls, strict=True):
        values = (record["intranuclear_fraction"], control)
        text = ", ".join("none" if each is None else f"{each:.2f}" for each in values)
        lines.append((f"{text}   {model.name}", TEXT_COLOUR))
    lines += [("", FAINT_COLOUR), *((line, FAINT_COLOUR) for line in _LEGEND)]
    for number, (line, colour) in enumerate(lines):
        write_text(draw, (MARGIN, top + number * _LINE_HEIGHT), line, 13, colour, PANEL)
