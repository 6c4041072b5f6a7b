"""A prediction as HTML, for notebooks: image, probabilities, and what is known beside what is predicted."""

import base64
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from deepgps.arrays import Floats
from deepgps.images.write import png
from deepgps.proteins.known import agreement, main_statements

if TYPE_CHECKING:
    from deepgps.prediction.prediction import Prediction

_IMAGE_PX = 208
_BAR_PX = 140
_MOST_CLASSES = 6


def prediction_html(prediction: "Prediction") -> str:
    """Lay out a prediction as HTML that needs no style sheet and works on a light or dark page.

    Parameters
    ----------
    prediction
        The prediction.

    Returns
    -------
    str
        A ``div``; every text from outside is escaped.
    """
    protein = prediction.protein
    names = [name for name in (protein.id, protein.gene_symbol, protein.accession) if name]
    title = " · ".join(dict.fromkeys(names))
    lines = [f"<b>{escape(title)}</b>, {len(protein.sequence):,} residues"]
    if prediction.known is not None:
        said = agreement(main_statements(prediction.known.statements))
        lines.append(f"Known ({escape(prediction.known.accession)}): {escape(said or 'no localization')}")
    if prediction.predicted:
        best = max(prediction.predicted, key=prediction.predicted.__getitem__)
        lines.append(f"Predicted: {escape(best)} {prediction.predicted[best]:.2f}")
    if prediction.localizations:
        lines.append(f"Together: {escape(', '.join(prediction.localizations))}")
    if prediction.image is not None and prediction.cell is not None:
        drawn = "Mean image" if prediction.mean else f"Image, seed {prediction.seed},"
        lines.append(f"{drawn} in {escape(prediction.cell.name)}")
    lines += [f"<i>{escape(warning)}</i>" for warning in prediction.warnings]
    text = "<br>".join(lines)
    parts = [_images(prediction), f"<div>{text}{_bars(prediction.probabilities)}</div>"]
    return f"<div style='display:flex;gap:1em;flex-wrap:wrap'>{''.join(parts)}</div>"


def _images(prediction: "Prediction") -> str:
    if prediction.image is None or prediction.cell is None:
        return ""
    images = {"nucleus": prediction.cell.nucleus, "protein": prediction.image}
    return "".join(
        f"<img width='{_IMAGE_PX}' height='{_IMAGE_PX}' alt='{name}' title='{name}' src='{_uri(pixels)}'>"
        for name, pixels in images.items()
    )


def _uri(pixels: Floats) -> str:
    # The brightest pixel is white: drawn proteins are dim.
    grey = np.round(255 * np.clip(pixels / max(float(pixels.max()), 1e-6), 0, 1)).astype(np.uint8)
    content = png(np.repeat(grey[..., None], 3, axis=2))
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _bars(probabilities: Mapping[str, float]) -> str:
    shown = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:_MOST_CLASSES]
    rows = (
        f"<tr><td>{escape(slug)}</td><td>{probabilities[slug]:.2f}</td><td><div style='height:.7em;"
        f"background:#2a78d6;width:{probabilities[slug] * _BAR_PX:.0f}px'></div></td></tr>"
        for slug in shown
    )
    return f"<table>{''.join(rows)}</table>" if shown else ""
