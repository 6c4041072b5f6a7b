"""What a submission takes and gives."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from deepgps.localization import OPENCELL_CATEGORIES

LICENCES = ("CC0-1.0", "CC-BY-4.0")
CONSENT = (
    "I made these images or may pass them on. They may be kept, shown and given to others under the licence "
    "chosen here, with the name I give, and models may be trained on them. Until I delete them they stay on "
    "this site; what was exported or trained before stays as it is."
)
"""The words a contributor agrees to, kept with the submission."""

_Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$"
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SenderFields(_Strict):
    """Who sends, and under which terms."""

    contributor: _Text
    """Whom to name for the images: a person, a lab."""
    licence: Literal["CC0-1.0", "CC-BY-4.0"]
    """Licence of the images."""
    consent: bool = False
    """Whether the sender agrees to what the form says; nothing is taken without."""
    model: str = Field("", max_length=200)
    """The model that draws beside the images, ``NAME`` or ``NAME:SET``; the site's choice where empty."""


class ImageFields(_Strict):
    """What is known of one image; in a batch, a cell of the table comes before the form's own."""

    protein: _Text = Field(examples=["P06748"])
    """UniProt accession or gene symbol; any name where the sequence is given."""
    sequence: str = Field("", max_length=100_000)
    """Its amino acids; looked up by ``protein`` where it is empty."""
    localizations: list[Literal[OPENCELL_CATEGORIES]] = Field(min_length=1, max_length=17)  # type: ignore[valid-type]
    """Where the image shows it; joined by ``|`` in a table."""
    cell_line: _Text
    """The cells, such as HEK293T."""
    microscope: _Text
    """Microscope and objective."""
    pixel_size_um: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    """Edge of a pixel in micrometres, where the image does not say it."""
    nucleus_channel: int | None = Field(None, ge=0, le=15)
    """Channel of the nucleus, counted from 0, in an image of several."""
    protein_channel: int | None = Field(None, ge=0, le=15)
    """Channel of the protein."""

    @field_validator("localizations", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        words = value.replace(";", "|").split("|") if isinstance(value, str) else value
        if not isinstance(words, list):
            return words
        return list(dict.fromkeys(each.strip() if isinstance(each, str) else each for each in words))


class SubmissionForm(SenderFields):
    """A form (``multipart/form-data``): fields and files of one image, or a batch in ``files``."""

    protein: str = ""
    sequence: str = ""
    localizations: list[str] = []
    cell_line: str = ""
    microscope: str = ""
    pixel_size_um: float | None = None
    nucleus_channel: int | None = None
    protein_channel: int | None = None
    nucleus_image: str | None = Field(None, json_schema_extra={"format": "binary"})
    """TIFF, OME-TIFF, PNG or JPEG of the nuclear stain."""
    protein_image: str | None = Field(None, json_schema_extra={"format": "binary"})
    """The protein in the same cells; left out where ``nucleus_image`` has both channels."""
    files: list[str] = Field([], json_schema_extra={"items": {"type": "string", "format": "binary"}})
    """A batch: images and one CSV that lists them, as they are or in a ZIP."""


class Refusal(_Strict):
    """An image of a batch that was not taken."""

    row: str
    """Its row of the table and its nucleus image."""
    reason: str


class Comparison(_Strict):
    """The real image beside what the model draws of the protein in the same nucleus."""

    model: str
    version: str
    localizations: list[str]
    """What the model says of the protein."""
    psnr: float | None
    """Peak signal-to-noise ratio in dB."""
    ssim: float | None
    """Structural similarity."""
    r: float | None
    """Pearson correlation over the pixels."""
    intranuclear_real: float | None
    """Share of the real image's intensity inside the nuclei."""
    intranuclear_drawn: float | None
    """The same of the drawn one."""


class ImageStatus(_Strict):
    """One image of a submission."""

    number: int
    status: Literal["pending", "accepted", "rejected"]
    reason: str | None
    """What the moderator said."""
    protein: str
    localizations: list[str]
    cell_line: str
    microscope: str
    pixel_size_um: float
    sha256: str
    """Of the pixels as sent; by it duplicates are recognised."""
    crops: int
    """Cells that training would see."""
    comparison: Comparison | None
    """Null until a worker has drawn it."""
    problem: str | None
    """Why it cannot be compared, or null."""
    links: dict[str, str]
    """Addresses of this and of its images."""


class SubmissionStatus(_Strict):
    """A submission; its address is the key to it."""

    id: str
    created: str
    contributor: str
    licence: str
    image_pairs: list[ImageStatus]
    rejected: list[Refusal]
    """Images of the batch that could not be taken."""
    links: dict[str, str]
