"""From proteins and cells to predictions: every command, page and worker uses `Predictor`."""

from deepgps.prediction.prediction import Encoding, Prediction
from deepgps.prediction.predictor import Predictor

__all__ = ["Encoding", "Prediction", "Predictor"]
