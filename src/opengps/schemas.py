"""Requests and responses of the API; ``/api/v1/openapi.json`` is generated from these classes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from deepgps.bundle import DEFAULT_MODEL, Metric
from opengps.settings import Settings

API = "/api/v1"
MAX_INTEGER = 2**31 - 1
"""The largest integer of the database."""

PixelSize = Annotated[
    Annotated[float, Field(gt=0, le=10, allow_inf_nan=False), Tag("micrometres")]
    | Annotated[Literal["auto"], Tag("auto")],
    Discriminator(lambda value: "auto" if value == "auto" else "micrometres"),
]
"""Micrometres per pixel, or ``auto``; discriminated, so that a wrong number has one error and not two."""

Status = Literal["queued", "running", "finished", "failed", "cancelled"]


class StrictModel(BaseModel):
    """A model that refuses unknown fields and describes fields by their docstrings."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class PredictionRequest(StrictModel):
    """What to predict, as JSON or as the fields of a form."""

    proteins: str = Field("", examples=["P04637 NPM1"])
    """FASTA, CSV or TSV with the columns `id` and `sequence`, one bare sequence, or UniProt accessions and
    human gene symbols."""
    model: str = DEFAULT_MODEL
    """Name of an installed model, or `NAME:SET` for one of its class sets."""
    nuclei: list[str] = Field(default=[], max_length=100)
    """Names of default nuclei to draw into; the first one if neither these nor images are sent."""
    images: bool = True
    """Whether to draw images; labels alone are many times faster."""
    mean: bool = False
    """Whether to draw the mean of all possible images, which is smoother than any single cell."""
    seed: int = Field(0, ge=0, le=MAX_INTEGER)
    """Which of the possible images to draw; the same seed gives the same image."""
    pixel_size_um: PixelSize | None = None
    """Pixel size of the nucleus images in micrometres, if the files do not contain it; `auto` estimates it
    from the nuclei. Landmarks have the same."""
    channel: int | None = Field(None, ge=0, le=15)
    """Channel of the nucleus in images with several, from 0; guessed if missing."""
    image_checks: bool = True
    """Whether to refuse images that show no nuclear stain or whose nuclei have an impossible size."""


class PredictionForm(PredictionRequest):
    """The same as a form (``multipart/form-data``), which can contain files."""

    file: str | None = Field(None, json_schema_extra={"format": "binary"})
    """A FASTA, CSV or TSV file, plain or gzip, instead of `proteins`."""
    nucleus_images: list[str] = Field([], json_schema_extra={"items": {"type": "string", "format": "binary"}})
    """TIFF, OME-TIFF, PNG or JPEG images of a nuclear stain to draw into. Channels that are named like
    microtubules or ER are taken for landmarks."""
    microtubules_image: list[str] = Field(
        [], json_schema_extra={"items": {"type": "string", "format": "binary"}}
    )
    """Images of the microtubules of the same fields, one for each nucleus image, in that order."""
    er_image: list[str] = Field([], json_schema_extra={"items": {"type": "string", "format": "binary"}})
    """Images of the endoplasmic reticulum, likewise."""


class JobStatus(StrictModel):
    """A job and its progress."""

    id: str
    status: Status
    model: str
    version: str
    nuclei: list[str]
    """Names of the nucleus images; empty without images."""
    mean: bool
    """Whether images are mean images."""
    seed: int
    """Which of the possible images are drawn."""
    landmarks: dict[str, list[str]]
    """Landmarks of each cell that has any (`microtubules`, `er`), by the name of its nucleus image."""
    total: int
    """Number of input records, including rejected ones."""
    predicted: int
    rejected: int
    queue_position: int | None
    """Place in the queue, from 1; null once it has started."""
    created_at: str
    """ISO 8601, UTC, as all times."""
    started_at: str | None
    finished_at: str | None
    expires_at: str
    """When the job and its results are deleted."""
    error: str | None
    """Why it failed."""
    links: dict[str, str]
    """Addresses of its page, its results and its downloads."""


class EvidenceRow(StrictModel):
    """An annotated protein that is similar to the query."""

    accession: str
    localizations: list[str]
    similarity: float


class KnownStatementRow(StrictModel):
    """What one source says of a protein."""

    source: str
    reliability: str
    word: str
    """In the words of the source."""
    localizations: list[str]
    """The same in the vocabulary; empty if it has no word for it."""
    part: str
    """The isoform or chain; empty for the whole protein."""


class KnownRow(StrictModel):
    """The known protein that a sequence is."""

    accession: str
    gene_symbol: str | None
    human: bool
    identity: float
    """Share of the sequence's residues that the known protein has, too."""
    coverage: float
    """Share of the known protein's residues that the sequence has."""
    match: str
    """How the sequence relates to it, in words; empty if it is identical."""
    others: list[str]
    """Accessions of other entries with the same sequence."""
    localizations: list[str]
    """Classes that sources say, the one of most sources first."""
    agreement: str
    """What the sources say, in a line."""
    statements: list[KnownStatementRow]


class PredictionResult(StrictModel):
    """One protein in one nucleus."""

    number: int
    """Place in the results, from 0."""
    protein_id: str
    accession: str | None = None
    gene_symbol: str | None = None
    sequence_sha256: str
    length: int
    localizations: list[str]
    """Classes of the overall answer, the most probable first; `unclear` alone if none is probable enough."""
    probabilities: dict[str, float]
    """Overall: what is known and what is predicted, combined."""
    confidence: float | None
    """Overall probability of the first localization, or of the most probable class if it is unclear; null for
    a model without classes."""
    prediction_set: list[str] | None = None
    """Classes that the protein may be in, the most probable first: class by class, 90 % of the proteins that
    are there have it in their set; null where this was not calibrated for the model."""
    known: KnownRow | None = None
    """What is known of the protein; null if nothing is."""
    predicted: dict[str, float] = {}
    """Predicted from the sequence and its relatives, without the protein's own record."""
    intranuclear_fraction: float | None
    model: str
    version: str
    nucleus: str | None
    landmarks: list[str]
    """Landmarks of the cell it is drawn into: `microtubules`, `er`."""
    images: str | None
    """File name of its images, without extension."""
    evidence: list[EvidenceRow]
    warnings: list[str]
    links: dict[str, str]
    """Addresses of its page and images."""


class ResultPage(StrictModel):
    """Some results of a job, and how many there are."""

    total: int
    offset: int
    results: list[PredictionResult]


class ModelInfo(StrictModel):
    """An installed model, or one of its class sets."""

    name: str
    version: str
    sha256: str
    predicts: str
    """What it predicts, in a phrase."""
    classes: list[str]
    multi_label: bool
    cell_line: str
    calibration: str
    licence: str
    crop_px: int
    pixel_size_um: float
    metrics: dict[str, Metric]
    training_data: dict[str, str]
    unavailable_reason: str | None
    """Why it cannot be used on this site, or null."""


class NucleusInfo(StrictModel):
    """A default nucleus, at the size and scale of a model's crops."""

    name: str
    size_px: int
    pixel_size_um: float
    image: str
    """Address of its image."""


class SiteInfo(StrictModel):
    """The site and its limits."""

    name: str
    version: str
    limits: dict[str, int | float]
    links: dict[str, str]


LIMITS = (
    *("max_proteins", "max_residues", "max_total_residues", "max_nuclei", "max_images"),
    *("max_explained_residues", "max_variants", "max_variant_images"),
    *("max_table_bytes", "max_image_bytes", "max_image_pixels", "max_image_planes", "max_request_bytes"),
    *("max_submission_images", "max_unpacked_bytes", "images_per_hour"),
    *("jobs_per_hour", "proteins_per_hour", "requests_per_minute", "retention_days"),
)
"""The settings that limit visitors."""


def limits_of(settings: Settings) -> dict[str, int | float]:
    """Return the limits of a site by name."""
    return {name: getattr(settings, name) for name in LIMITS}
