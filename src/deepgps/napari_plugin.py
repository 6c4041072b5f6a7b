"""A plugin for napari (extra ``napari``): a nucleus layer in, a protein layer out.

napari finds it through ``napari.yaml`` and makes a widget of `predict_protein`. This module imports neither
napari nor Qt.
"""

import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from deepgps.bundle import DEFAULT_MODEL
from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.images.pixel_size import UNIT_UM
from deepgps.localization import display_name
from deepgps.prediction import Predictor

if TYPE_CHECKING:
    import napari.layers
    import napari.types

_load = lru_cache(maxsize=2)(Predictor.load)


def predict_protein(
    nucleus: "napari.layers.Image",
    sequence: str,
    pixel_size_um: float = 0.0,
    mean: bool = False,
    seed: int = 0,
    model: str = DEFAULT_MODEL,
) -> "napari.types.LayerDataTuple":
    """Draw a protein into all nuclei of a layer.

    Parameters
    ----------
    nucleus
        A layer with one plane of a nuclear stain.
    sequence
        Amino acids in one-letter code.
    pixel_size_um
        Pixel size in micrometres. 0: the scale of the layer, if its unit is a length; else an estimate from
        the nuclei.
    mean
        Draw the mean of all possible images: smooth, to measure in.
    seed
        Which of the possible images to draw.
    model
        Name or path of a model.

    Returns
    -------
    LayerDataTuple
        An image layer as large as the nucleus layer and in its place, named after the localizations; its
        metadata hold the probabilities, known places, warnings, model and version.

    Raises
    ------
    InputError
        If the layer is a stack or shows no nuclear stain, or the sequence cannot be used.
    """
    pixels = np.squeeze(np.asarray(nucleus.data[0] if nucleus.multiscale else nucleus.data))
    if pixels.ndim != 2 or nucleus.rgb:
        raise InputError(
            f"Layer '{nucleus.name}' has {pixels.ndim} dimensions; deepGPS reads one plane of one channel: "
            "give a maximum projection or a single slice, with its channels split."
        )
    predictor = _load(model)
    predictor.mean, predictor.seed = mean, seed
    size: float | Literal["auto"] = pixel_size_um or _pixel_size(nucleus) or "auto"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.tif"
        _write(path, pixels)
        field = predictor.load_field(path, image_pixel_size_um=size)
    prediction = predictor.predict_one(sequence, field.cell)
    assert prediction.image is not None
    names = ", ".join(map(display_name, prediction.localizations)) or "no label"
    metadata = {
        "probabilities": dict(prediction.probabilities),
        "known": [f"{each.source}: {each.word}" for each in prediction.known.statements]
        if prediction.known
        else [],
        "warnings": [*field.cell.warnings, *prediction.warnings],
        "model": prediction.model,
        "version": prediction.version,
        "seed": seed,
        "mean": mean,
    }
    settings = {
        "name": f"protein: {names}",
        "scale": tuple(nucleus.scale[-2:]),
        "translate": tuple(nucleus.translate[-2:]),
        "colormap": "yellow",
        "blending": "additive",
        "contrast_limits": (0.0, max(float(np.percentile(prediction.image, 99.9)), 1e-6)),
        "metadata": {"deepgps": metadata},
    }
    return field.as_stored(prediction.image), settings, "image"


def default_nucleus() -> "list[napari.types.LayerDataTuple]":
    """Open the first default nucleus.

    Returns
    -------
    list of LayerDataTuple
        One image layer, scaled in micrometres.
    """
    cell = Cell.load("hek-1")
    settings = {
        "name": "nucleus",
        "scale": (cell.pixel_size_um, cell.pixel_size_um),
        "units": ("um", "um"),
        "colormap": "blue",
    }
    return [(cell.nucleus, settings, "image")]


def _pixel_size(layer: Any) -> float | None:
    """Return the pixel size of a layer in micrometres; None if it is not a length."""
    unit = UNIT_UM.get(str(tuple(getattr(layer, "units", ("pixel",)))[-1]).lower())
    return None if unit is None else float(layer.scale[-1]) * unit


def _write(path: Path, pixels: Any) -> None:
    import tifffile

    kinds: Mapping[str, Any] = {"b": np.uint8, "i": np.float32, "f": np.float32}
    tifffile.imwrite(path, pixels.astype(kinds.get(pixels.dtype.kind, pixels.dtype)))
