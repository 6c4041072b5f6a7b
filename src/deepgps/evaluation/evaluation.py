"""What an evaluation found."""

from dataclasses import dataclass, field
from typing import Any

from deepgps.evaluation.images.figures import Figures, ImageFigures
from deepgps.evaluation.images.measuring import Measured, Trained
from deepgps.evaluation.label_figures import Labels
from deepgps.evaluation.subjects import Subjects
from deepgps.prediction import Predictor


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that was found.

    Attributes
    ----------
    predictor, subjects
        The model, and what it was evaluated on.
    labels
        Without figures for a model that only draws.
    images, measured, trained
        None without a crop store.
    notes
        What a reader must know before believing any figure; the gravest first.
    about
        Model, data, options and versions.
    """

    predictor: Predictor
    subjects: Subjects
    labels: Labels
    images: ImageFigures | None
    measured: Measured | None
    trained: Trained | None
    notes: tuple[str, ...]
    about: dict[str, Any] = field(repr=False)

    def metrics(self) -> Figures:
        """Every figure by name."""
        return self.labels.flat() | (self.images.flat() if self.images else {})
