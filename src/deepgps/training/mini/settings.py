"""What a recipe of the bundled model may say."""

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from deepgps.bundle import CropSpec
from deepgps.datasets.crops.settings import Source
from deepgps.localization import CLASS_SETS


class LabelSettings(BaseModel):
    """The recipe of the sequence half."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    seed: int = 0
    """Seed of the folds, the initial weights, the dropout and the order of the batches."""
    folds: int = Field(5, ge=2)
    """Parts that the homology clusters are dealt into for out-of-fold logits."""
    members: int = Field(1, ge=1)
    """MLPs whose logits are averaged; each fold trains as many."""
    widths: tuple[int, ...] = (512, 256)
    """Hidden sizes of each MLP."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of hidden units left out in training."""
    input_dropout: float = Field(0.5, ge=0, lt=1)
    """Share of the standardised features left out in training."""
    epochs: int = Field(6, ge=1)
    """Passes over the proteins."""
    batch_size: int = Field(128, ge=1)
    """Proteins in a step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the one-cycle schedule of AdamW."""
    weight_decay: float = Field(1e-2, ge=0)
    """AdamW's weight decay."""
    curated_weight: float = Field(0.1, gt=0, le=1)
    """What a Swiss-Prot label weighs in head and calibration where no microscope has looked: the question is
    what one would see."""
    head_penalty: float = Field(1e-3, ge=0)
    """Weight of the squared head weights in its loss."""


class GrainSettings(BaseModel):
    """How the generator learns what the grain of the images is like."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: PositiveInt = 40
    """Epochs of ``batches`` batches; a checkpoint follows each."""
    batches: PositiveInt = 40
    """Batches in an epoch."""
    batch_size: PositiveInt = 8
    """Crops in a batch."""
    learning_rate: PositiveFloat = 3e-3
    """Peak learning rate; it warms up and falls to zero along a cosine."""
    energy: NonNegativeFloat = 1
    """Weight of the error of the grain's energies."""
    crowded: float = Field(0.2, ge=0, le=1)
    """As that of the first stage."""
    sure: float = Field(0.5, ge=0, le=1)
    """As that of the first stage."""
    source_shares: dict[Source, NonNegativeFloat] = {
        "hpa_u2os_cells": 0.65,
        "hpa_fields": 0.15,
        "opencell_tiles": 0.1,
        "hpa_dictionary": 0.1,
    }
    """As those of the first stage."""


class ImageSettings(BaseModel):
    """How the generator is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    widths: tuple[PositiveInt, ...] = Field((64, 128, 256), min_length=1)
    """Channels of the U-Net, first level to bottleneck."""
    fold: PositiveInt = 4
    """Pixels folded into channels at the stem, along each edge."""
    margin: int = Field(8, ge=0)
    """Pixels of mirror image around the nucleus image while drawing, against a frame at the border."""
    latent_dim: PositiveInt = 64
    """Size of a localization token."""
    epochs: PositiveInt = 100
    """Epochs of ``batches`` batches; a checkpoint follows each."""
    batches: PositiveInt = 40
    """Batches in an epoch."""
    batch_size: PositiveInt = 16
    """Crops in a batch."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate; it warms up and falls to zero along a cosine."""
    weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of AdamW."""
    source_shares: dict[Source, NonNegativeFloat] = {
        "hpa_u2os_cells": 0.45,
        "hpa_fields": 0.15,
        "opencell_tiles": 0.2,
        "hpa_dictionary": 0.2,
    }
    """Share of each image source in a batch."""
    crowded: float = Field(0, ge=0, le=1)
    """Share of the cells cut out of their surroundings that are shown several to a crop."""
    sure: float = Field(0, ge=0, le=1)
    """Share of the crops drawn from their localizations themselves instead of a protein's probabilities."""
    grain: GrainSettings = GrainSettings()
    """The second stage, in which what draws smoothly stays as it is."""
    threads: PositiveInt = 1
    """Threads of the CPU; on machines shared with others one is often faster than two."""
    seed: int = 1
    """Seed of weights, sampling and augmentation."""


class MiniRecipe(BaseModel):
    """A model of two halves, one trained on labelled sequences and one on images."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["mini"]
    """The kind of recipe."""
    name: str
    """Name of the bundle."""
    version: str
    """Version of the bundle."""
    class_set: str
    """Name of the class set that it predicts; one in which a protein may have several classes."""
    cell_line: str
    """The cells the images show."""
    crop: CropSpec
    """Size and scale of the images."""
    labels: LabelSettings = LabelSettings()
    """The sequence half."""
    images: ImageSettings = ImageSettings()
    """The image half."""

    @field_validator("class_set")
    @classmethod
    def _multi_label(cls, name: str) -> str:
        # Both halves are trained class by class; a softmax over their logits would not be calibrated.
        known = [each.name for each in CLASS_SETS.values() if each.multi_label]
        if name not in known:
            raise ValueError(f"'{name}' is unknown or of one class a protein; use one of {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def _crop_fits_the_network(self) -> Self:
        multiple = self.images.fold * 2 ** (len(self.images.widths) - 1)
        drawn = self.crop.size_px + 2 * self.images.margin
        if drawn % multiple:
            raise ValueError(f"a crop and its margins, {drawn} px, are no multiple of {multiple} px")
        return self
