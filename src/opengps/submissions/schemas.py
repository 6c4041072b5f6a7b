"""Requests and responses of submissions."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from deepgps.localization import OPENCELL_CATEGORIES, localization_slug
from opengps.schemas import StrictModel

LICENCES = ("CC0-1.0", "CC-BY-4.0")
CONSENT = (
    "I made these images or may pass them on. They may be stored, shown and given to others under the "
    "licence chosen here, with the name I give, and models may be trained on them. They stay on this site "
    "until I delete them; data that were exported and models that were trained before do not change."
)
"""The text that a contributor agrees to; it is stored with the submission."""

_Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"
    ),
]


class SubmissionFields(StrictModel):
    """The fields of a submission: who sends, and under which terms."""

    contributor: _Text
    """The person or lab to name for the images."""
    licence: Literal["CC0-1.0", "CC-BY-4.0"]
    """Licence of the images."""
    consent: bool = False
    """Whether the sender agrees to the text on the form; required."""
    model: str = Field("", max_length=200)
    """The model to compare with, `NAME` or `NAME:SET`; the site's default if empty."""


class ImageFields(StrictModel):
    """The fields of one image; in a batch, a cell of the table takes precedence over the form."""

    protein: _Text = Field(examples=["P06748"])
    """UniProt accession or gene symbol; any name if the sequence is sent."""
    sequence: str = Field("", max_length=100_000)
    """Its amino acids; looked up by `protein` if empty."""
    localizations: list[Literal[OPENCELL_CATEGORIES]] = Field(min_length=1, max_length=17)  # type: ignore[valid-type]
    """Where the image shows it; separated by `|` in a table."""
    cell_line: _Text
    """The cells, such as HEK293T."""
    microscope: _Text
    """Microscope and objective."""
    pixel_size_um: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    """Pixel size in micrometres, if the image does not contain it."""
    nucleus_channel: int | None = Field(None, ge=0, le=15)
    """Channel of the nucleus, from 0, in an image with several."""
    protein_channel: int | None = Field(None, ge=0, le=15)
    """Channel of the protein."""
    image_checks: bool = True
    """Whether to refuse an image that shows no nuclear stain."""

    @field_validator("localizations", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        names = value.replace(";", "|").split("|") if isinstance(value, str) else value
        if not isinstance(names, list):
            return names
        # What a page shows is accepted, too: "plasma membrane" is 'membrane'.
        slugs = (localization_slug(each) or each.strip() if isinstance(each, str) else each for each in names)
        return list(dict.fromkeys(slugs))


class SubmissionForm(SubmissionFields):
    """A form (``multipart/form-data``): fields and files of one image, or a batch in ``files``."""

    protein: str = ""
    sequence: str = ""
    localizations: list[str] = Field([])
    cell_line: str = ""
    microscope: str = ""
    pixel_size_um: float | None = None
    nucleus_channel: int | None = None
    protein_channel: int | None = None
    image_checks: bool = True
    nucleus_image: str | None = Field(None, json_schema_extra={"format": "binary"})
    """TIFF, OME-TIFF, PNG or JPEG of the nuclear stain."""
    protein_image: str | None = Field(None, json_schema_extra={"format": "binary"})
    """The protein in the same cells; not needed if `nucleus_image` has both channels."""
    files: list[str] = Field([], json_schema_extra={"items": {"type": "string", "format": "binary"}})
    """A batch: images and one CSV or TSV that lists them, as files or in a ZIP."""


class RejectedRow(StrictModel):
    """An image of a batch that could not be used."""

    row: str
    """Its row in the table and its nucleus image."""
    reason: str


class ImageComparison(StrictModel):
    """The submitted image beside what the model draws of the protein in the same nucleus."""

    model: str
    version: str
    localizations: list[str]
    """What the model predicts for the protein."""
    psnr: float | None
    """Peak signal-to-noise ratio in dB."""
    ssim: float | None
    """Structural similarity."""
    r: float | None
    """Pearson correlation of the pixels."""
    intranuclear_real: float | None
    """Share of the submitted image's intensity inside the nuclei."""
    intranuclear_drawn: float | None
    """The same of the drawn image."""


class ImageStatus(StrictModel):
    """One image of a submission."""

    number: int
    status: Literal["pending", "accepted", "rejected"]
    reason: str | None
    """The moderator's reason."""
    protein: str
    localizations: list[str]
    cell_line: str
    microscope: str
    pixel_size_um: float
    sha256: str
    """Checksum of the pixels as sent, by which duplicates are recognised."""
    crops: int
    """Number of cells for training."""
    comparison: ImageComparison | None
    """Null until a worker has drawn it."""
    problem: str | None
    """Why it cannot be compared, or null."""
    links: dict[str, str]
    """Addresses of this image and its files."""


class SubmissionStatus(StrictModel):
    """A submission; its address gives access to it."""

    id: str
    created_at: str
    contributor: str
    licence: str
    images: list[ImageStatus]
    rejected: list[RejectedRow]
    """Rows of the batch that could not be used."""
    links: dict[str, str]


class DecisionFields(StrictModel):
    """What a moderator decides."""

    status: Literal["accepted", "rejected"]
    reason: str | None = Field(None, max_length=1000)
    """Shown to the contributor."""


class DecisionRecord(StrictModel):
    """A decision about an image: who decided what, and when."""

    status: Literal["accepted", "rejected"]
    reason: str | None
    moderator: str
    decided_at: str


class QueuedImage(StrictModel):
    """An image as its moderators see it."""

    contributor: str
    licence: str
    image: ImageStatus
    decisions: list[DecisionRecord]
    """The newest first."""


class ModerationQueue(StrictModel):
    """Submitted images of one status, the oldest first, 50 at most."""

    moderator: str
    """Who asks."""
    images: list[QueuedImage]
