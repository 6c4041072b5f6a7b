"""A Hugging Face Space: a protein sequence and a nucleus in, localizations and an image out."""

import os

import gradio as gr
from PIL import Image

from deepgps import InputError, Predictor
from deepgps.images.cell import DEFAULT_CELLS
from deepgps.localization import display_name
from deepgps.results.labelled_images import labelled_image

MODEL = os.environ.get("DEEPGPS_MODEL", "deepgps-mini")
predictor = Predictor.load(MODEL)


def predict(
    sequence: str, nucleus: str, file: str | None, seed: float
) -> tuple[dict[str, float], Image.Image, str]:
    """Predict one protein and draw it.

    Parameters
    ----------
    sequence
        The sequence, with or without a FASTA header.
    nucleus
        Name of a default nucleus.
    file
        An image of a nuclear stain to draw into instead; None for the default nucleus.
    seed
        Chooses one of the possible images.

    Returns
    -------
    probabilities : dict
        By localization.
    image : Image
        Nucleus, predicted protein and overlay, stretched for display.
    text : str
        What to know.

    Raises
    ------
    Error
        If an input cannot be used; it says why.
    """
    lines = [line for line in sequence.splitlines() if not line.startswith(">")]
    predictor.seed = int(seed)
    try:
        cell = predictor.load_cell(file or nucleus)
        prediction = predictor.predict_one("".join(lines), cell)
    except InputError as error:
        raise gr.Error(str(error)) from None
    probabilities = {display_name(slug): float(value) for slug, value in prediction.probabilities.items()}
    return probabilities, labelled_image(prediction), "\n\n".join((*cell.warnings, *prediction.warnings))


app = gr.Interface(
    predict,
    inputs=[
        gr.Textbox(label="Sequence", lines=6),
        gr.Dropdown(list(DEFAULT_CELLS), value=DEFAULT_CELLS[0], label="Nucleus"),
        gr.File(label="My own nucleus image (TIFF, PNG)", type="filepath"),
        gr.Number(0, label="Seed", precision=0, minimum=0),
    ],
    outputs=[gr.Label(label="Localization"), gr.Image(label="Prediction"), gr.Markdown()],
    title="deepGPS",
    description=(
        "Where in the cell does this protein go? Probabilities, which need not sum to 1, and an image that "
        "is true to the predicted localization, not to the one protein."
    ),
    flagging_mode="never",
)

if __name__ == "__main__":
    app.launch()
