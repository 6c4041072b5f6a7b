"""Settings for cutting fields into crops; the defaults are those of the paper."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.images.processing import HIGH, LOW

EMPTY_CONTRAST = 8.0
"""Protein images of a lower contrast, in units of the noise, count as empty."""

EMPTY_CROP_MEAN = 0.004
"""Protein crops of a lower mean, normalised to [0, 1], count as empty."""


Source = Literal[
    "hpa_u2os_cells",
    "hpa_fields",
    "hpa_dictionary",
    "hpa_landmark_fields",
    "opencell_crops",
    "opencell_tiles",
    "other_pairs",
]
"""Sources of the reference images of the bundled model."""


class PrepareSettings(BaseModel):
    """How fields are normalised, which nuclei are used and which crops are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    size_px: PositiveInt = 208
    """width and height of a crop in pixels"""
    pixel_size_um: PositiveFloat = OPENCELL_PIXEL_SIZE_UM
    """pixel size of the crops in micrometres; fields of another pixel size are resampled"""
    low: float = Field(LOW, ge=0, lt=100)
    """percentile of a channel of the field that becomes 0"""
    high: float = Field(HIGH, gt=0, le=100)
    """percentile of a channel of the field that becomes 1"""
    min_nucleus_px: NonNegativeInt = 1000
    """smallest nucleus, in pixels of 0.206349 µm; at other pixel sizes, the same area in µm²"""
    border: Literal["drop", "pad", "mirror"] = "drop"
    """crops that cross the border of their field: drop them, pad them with background, or mirror the field at
    its border and drop nuclei that touch the mirror image"""
    max_overlap: float = Field(1.0, ge=0, le=1)
    """drop a crop that shares more than this fraction of its area with an earlier one; 1 keeps all"""
    empty_protein: Literal["keep", "drop"] = "keep"
    """keep or drop fields and crops whose protein image is empty"""
    channel_order: Literal["check", "trust"] = "check"
    """check: leave out fields whose protein image looks far more like nuclei than their nucleus image"""
    image_checks: bool = True
    """leave out fields whose nucleus image shows no nuclear stain, and warn of implausible pixel sizes"""

    @model_validator(mode="after")
    def _check_percentiles(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    @property
    def min_area_um2(self) -> float:
        """Area of the smallest nucleus in square micrometres."""
        return self.min_nucleus_px * OPENCELL_PIXEL_SIZE_UM**2
