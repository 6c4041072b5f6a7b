"""The rules by which fields become crops; the paper's are the defaults."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from deepgps.images.processing import HIGH, LOW

OPENCELL_UM = 0.206349
"""Edge of a pixel of the OpenCell fields in micrometres."""

EMPTY_CONTRAST = 8.0
"""Protein images whose brightest structures rise less than this many times the noise show nothing."""

EMPTY_CROP_MEAN = 0.004
"""Normalised protein crops, in [0, 1], that are darker than this on average show nothing."""


Source = Literal["hpa_u2os_cells", "hpa_fields", "opencell_tiles", "hpa_dictionary"]
"""Where the reference images of the bundled model are from."""


class PrepareSettings(BaseModel):
    """How fields are normalised, which nuclei count and which crops are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    size_px: PositiveInt = 208
    """edge of a crop in pixels"""
    pixel_size_um: PositiveFloat = OPENCELL_UM
    """edge of a pixel of the crops in micrometres; fields of another are resampled"""
    low: float = Field(LOW, ge=0, lt=100)
    """percentile of a field's channel that becomes 0"""
    high: float = Field(HIGH, gt=0, le=100)
    """percentile of a field's channel that becomes 1"""
    min_nucleus_px: NonNegativeInt = 1000
    """smallest nucleus, in pixels of 0.206349 µm; the same area counts at any other pixel size"""
    border: Literal["drop", "pad", "mirror"] = "drop"
    """a crop that reaches over the border of its field: drop it, pad it with background, or widen the field
    by its mirror image and drop nuclei that touch that"""
    max_overlap: float = Field(1.0, ge=0, le=1)
    """drop a crop that shares more than this part of its area with one kept before; 1 keeps all"""
    empty_protein: Literal["keep", "drop"] = "keep"
    """fields and crops whose protein image shows nothing above the noise"""
    channel_order: Literal["check", "trust"] = "check"
    """leave out fields whose protein image looks far more like nuclei than their nucleus image"""

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    @property
    def min_area_um2(self) -> float:
        """Area of the smallest nucleus that counts, in square micrometres."""
        return self.min_nucleus_px * OPENCELL_UM**2
