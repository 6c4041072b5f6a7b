"""deepGPS predicts where in the cell a protein is: a label with probabilities, and an image.

Examples
--------
>>> from deepgps import Predictor
>>> predictor = Predictor.load()
>>> prediction = predictor.predict_one("MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
>>> prediction.image.shape
(208, 208)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepgps.bundle import Bundle, open_model
    from deepgps.comparison.compare import compare_cells
    from deepgps.errors import BundleError, DeepGPSError, InputError
    from deepgps.evaluation.evaluate import evaluate
    from deepgps.images.cell import Cell
    from deepgps.prediction import Encoding, Prediction, Predictor
    from deepgps.proteins.protein import Protein, Rejection
    from deepgps.proteins.reading import read_proteins
    from deepgps.results.frames import predict_table
    from deepgps.results.predict import predict_to_folder

__version__ = "0.1.0"

__all__ = [
    "Bundle",
    "BundleError",
    "Cell",
    "DeepGPSError",
    "Encoding",
    "InputError",
    "Prediction",
    "Predictor",
    "Protein",
    "Rejection",
    "compare_cells",
    "evaluate",
    "open_model",
    "predict_table",
    "predict_to_folder",
    "read_proteins",
]

# Imported on first use, so that `import deepgps` and `deepgps --help` load neither NumPy nor ONNX Runtime.
_MODULES = {
    "Bundle": "deepgps.bundle",
    "BundleError": "deepgps.errors",
    "Cell": "deepgps.images.cell",
    "DeepGPSError": "deepgps.errors",
    "Encoding": "deepgps.prediction",
    "InputError": "deepgps.errors",
    "Prediction": "deepgps.prediction",
    "Predictor": "deepgps.prediction",
    "Protein": "deepgps.proteins.protein",
    "Rejection": "deepgps.proteins.protein",
    "compare_cells": "deepgps.comparison.compare",
    "evaluate": "deepgps.evaluation.evaluate",
    "open_model": "deepgps.bundle",
    "predict_table": "deepgps.results.frames",
    "predict_to_folder": "deepgps.results.predict",
    "read_proteins": "deepgps.proteins.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'deepgps' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
