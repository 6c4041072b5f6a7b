"""What a model bundle says of itself in ``bundle.json``."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EncoderSpec(_Strict):
    """What the encoder graph is told of a protein."""

    kind: Literal["features", "esm2", "structure"]
    """What is looked at: features of the sequence, its embedding by ESM2, or the structure alone."""
    name: str
    """Name and version of the features, the language model or the points."""
    dimension: int = Field(ge=1)
    """Numbers of a vector, or of a point."""
    max_length: int | None = Field(ge=1)
    """Longest stretch encoded at once, in residues; longer sequences are windowed. None for a structure."""
    level: Literal["protein", "residue"] = "protein"
    """Whether the graph takes one vector of a protein, or one of each residue."""
    fingerprint: str | None = None
    """Identity of the language model's weights, which lie outside of the bundle."""
    structure_points: int | None = Field(None, ge=1)
    """Atoms that a structure is sampled to; None where no structure is looked at."""


class CropSpec(_Strict):
    """The square of the field that the generator sees and draws."""

    size_px: int = Field(ge=1)
    """Edge in pixels."""
    pixel_size_um: float = Field(gt=0)
    """Edge of a pixel in micrometres."""


class PercentileSpec(_Strict):
    """Percentile normalisation of an image into [0, 1]."""

    low: float
    """Percentile that becomes 0."""
    high: float
    """Percentile that becomes 1."""


class Metric(_Strict):
    """One measured figure; ``low`` and ``high`` bound its 95 % bootstrap interval where there is one."""

    value: float
    """The figure itself."""
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""
    n: int | None = None
    """Number of proteins, or of images, that it was measured on."""


class ClassSetSpec(_Strict):
    """Another class set, read off the logits of the model's own classes and the votes for them."""

    classes: tuple[str, ...]
    """Class slugs in order."""
    multi_label: bool
    """Whether a protein may belong to several."""
    thresholds: tuple[float, ...]
    """Per class, the probability from which it is named."""
    weights: tuple[tuple[float, ...], ...]
    """Per class, what the logit of each of the model's own classes weighs."""
    votes: tuple[tuple[float, ...], ...] = ()
    """Per class, what the nearest annotated proteins' vote for each of the model's own classes weighs; none
    where they are not asked."""
    bias: tuple[float, ...]
    """Per class, what is added."""
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
    """Class slugs in the order of the logits; none for a model that only draws."""
    multi_label: bool
    """Whether a protein may belong to several classes: sigmoid if so, softmax if not."""
    thresholds: tuple[float, ...]
    """Per class, the probability from which it is named (used by multi-label models only)."""
    unclear_below: float = Field(0, ge=0, le=1)
    """Highest probability below which a protein is unclear."""
    unlike_below: float = Field(0, ge=0, le=1)
    """Similarity of the nearest annotated protein below which a sequence is like nothing known."""
    class_sets: Mapping[str, ClassSetSpec] = {}
    """Further class sets, by name."""
    cell_line: str
    """The cells the images were learned from."""
    encoder: EncoderSpec
    """How a sequence becomes input."""
    crop: CropSpec
    """Size and scale of the images."""
    normalisation: PercentileSpec
    """How a nucleus image becomes input."""
    calibration: str
    """How the probabilities were calibrated, in a sentence."""
    metrics: Mapping[str, Metric]
    """Measured quality, by name."""
    training_data: Mapping[str, str]
    """What the model was trained on, by source."""
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
