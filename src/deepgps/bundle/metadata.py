"""The fields of ``bundle.json``."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EncoderSpec(_Strict):
    """The input of the encoder graph."""

    kind: Literal["features", "esm2", "structure"]
    """Kind of input: features of the sequence, its embedding by ESM2, or only the structure."""
    name: str
    """Name and version of the features, the language model or the points."""
    dimension: int = Field(ge=1)
    """Size of a vector, or of a point."""
    max_length: int | None = Field(ge=1)
    """Residues in a window; longer sequences are encoded in several. None for a structure."""
    level: Literal["protein", "residue"] = "protein"
    """Whether the graph takes one vector per protein or one per residue."""
    fingerprint: str | None = None
    """Identity of the language model's weights, which are not in the bundle."""
    structure_points: int | None = Field(None, ge=1)
    """Number of atoms sampled from a structure; None if structures are not used."""


class CropSpec(_Strict):
    """Size and scale of the generator's input and output."""

    size_px: int = Field(ge=1)
    """Edge in pixels."""
    pixel_size_um: float = Field(gt=0)
    """Edge of a pixel in micrometres."""


class FlowMatchingSpec(_Strict):
    """How images are drawn step by step, for models whose generator was trained by flow matching."""

    classes: tuple[str, ...]
    """Class slugs of the latent, in order."""
    words: tuple[str, ...]
    """Finer annotations that the networks know, in order."""
    domains: tuple[str, ...]
    """Cell lines that the networks know, in order."""
    landmarks: tuple[str, ...]
    """Images of the cell that may be given beside the nucleus, in order."""
    steps: int = Field(ge=1)
    """Steps of ``generator.onnx``, which draws the structure at twice the pixel size."""
    grain_steps: int = Field(ge=1)
    """Steps of ``grain.onnx``, which adds what is finer."""


class PercentileSpec(_Strict):
    """Percentile normalisation of an image to [0, 1]."""

    low: float
    """Percentile that becomes 0."""
    high: float
    """Percentile that becomes 1."""


class Metric(_Strict):
    """A metric, with its 95 % bootstrap interval if there is one."""

    value: float
    """Its value."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    n: int | None = None
    """Number of proteins or images that it was measured on."""


class ClassSetSpec(_Strict):
    """Another class set: a linear function of the model's own logits and votes."""

    classes: tuple[str, ...]
    """Class slugs in order."""
    multi_label: bool
    """Whether a protein may belong to several."""
    thresholds: tuple[float, ...]
    """Per class, its lowest probability to be reported."""
    weights: tuple[tuple[float, ...], ...]
    """Per class, the weights of the logits of the model's own classes."""
    votes: tuple[tuple[float, ...], ...] = ()
    """Per class, the weights of the votes for the model's own classes; empty if votes are not used."""
    bias: tuple[float, ...]
    """Per class, the bias."""
    unclear_below: float = Field(0, ge=0, le=1)
    """Highest probability below which a protein is unclear."""


class BundleMetadata(_Strict):
    """The contents of ``bundle.json``."""

    schema_version: int
    """Version of this description."""
    name: str
    """Name of the model."""
    version: str
    """Version of the model."""
    classes: tuple[str, ...]
    """Class slugs in the order of the logits; empty for a model that predicts images only."""
    multi_label: bool
    """Whether a protein may belong to several classes: sigmoid if so, softmax if not."""
    thresholds: tuple[float, ...]
    """Per class, its lowest probability to be reported; used by multi-label models only."""
    unclear_below: float = Field(0, ge=0, le=1)
    """Highest probability below which a protein is unclear."""
    unlike_below: float = Field(0, ge=0, le=1)
    """Similarity of the nearest annotated protein below which a sequence gets a warning."""
    class_sets: Mapping[str, ClassSetSpec] = {}
    """Other class sets, by name."""
    cell_line: str
    """Cell line of the training images."""
    encoder: EncoderSpec
    """Input of the encoder graph."""
    crop: CropSpec
    """Size and scale of the images."""
    normalisation: PercentileSpec
    """Normalisation of nucleus images."""
    flow_matching: FlowMatchingSpec | None = None
    """How images are drawn step by step; None for a generator that draws them in one pass."""
    calibration: str
    """How the probabilities were calibrated, in a sentence."""
    metrics: Mapping[str, Metric]
    """Measured quality, by name."""
    training_data: Mapping[str, str]
    """Training data, by source."""
    licence: str
    """Licence of the weights."""
    files: Mapping[str, str]
    """sha256 of every other file, by name."""

    @field_validator("thresholds")
    @classmethod
    def _one_per_class(cls, thresholds: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        classes = info.data.get("classes", thresholds)
        if len(thresholds) != len(classes):
            raise ValueError(f"{len(thresholds)} thresholds do not fit {len(classes)} classes")
        return thresholds
