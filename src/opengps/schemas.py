"""What the API takes and gives; ``/api/v1/openapi.json`` is made of these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deepgps.bundle import DEFAULT_MODEL, Metric

Status = Literal["queued", "running", "finished", "failed", "cancelled"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PredictionRequest(_Strict):
    """What to predict, as JSON or as the fields of a form."""

    proteins: str = Field("", examples=["P04637 NPM1"])
    """FASTA, CSV or TSV with the columns ``id`` and ``sequence``, one bare sequence, or UniProt accessions
    and human gene symbols."""
    model: str = DEFAULT_MODEL
    """Name of an installed model, perhaps with one of its class sets: ``NAME`` or ``NAME:SET``."""
    nuclei: list[str] = Field(default=[], max_length=100)
    """Names of default nuclei to draw into; the first where neither these nor images are given."""
    images: bool = True
    """Whether to draw; without images there are labels only, many times faster."""
    mean: bool = False
    """Whether to draw the mean of all images that could be: smooth, as no single cell is."""
    pixel_size_um: float | None = Field(None, gt=0, le=10, allow_inf_nan=False)
    """Edge of a pixel of the nucleus images in micrometres, where they do not say it themselves."""
    channel: int | None = Field(None, ge=0, le=15)
    """Channel of the nucleus in images of several, counted from 0; guessed where it is not given."""


class PredictionForm(PredictionRequest):
    """The same as a form (``multipart/form-data``), which can carry files."""

    file: str | None = Field(None, json_schema_extra={"format": "binary"})
    """A FASTA, CSV or TSV file, perhaps gzipped, in place of ``proteins``."""
    nucleus_images: list[str] = Field([], json_schema_extra={"items": {"type": "string", "format": "binary"}})
    """TIFF, OME-TIFF, PNG or JPEG images of a nuclear stain to draw into."""


class JobStatus(_Strict):
    """A job and how far it is."""

    id: str
    status: Status
    model: str
    version: str
    nuclei: list[str]
    """Names of what is drawn into; empty without images."""
    mean: bool
    """Whether images are the mean of all that could be."""
    total: int
    """Records given, rejected ones included."""
    predicted: int
    rejected: int
    position: int | None
    """Place in the queue, from 1; null once it has begun."""
    created: str
    """When it was sent; ISO 8601, UTC."""
    started: str | None
    finished: str | None
    expires: str
    """When it and its results are deleted."""
    message: str | None
    """Why it failed, or null."""
    links: dict[str, str]
    """Addresses of its page, its results and its downloads."""


class Evidence(_Strict):
    """One annotated protein that resembles the query."""

    accession: str
    localizations: list[str]
    similarity: float


class ResultRow(_Strict):
    """One protein in one nucleus."""

    number: int
    """Its place in the results, from 0."""
    protein_id: str
    sequence_sha256: str
    length: int
    localizations: list[str]
    """The classes named, most probable first; ``unclear`` alone where none is probable enough."""
    probabilities: dict[str, float]
    confidence: float | None
    """Calibrated probability of the first localization, or of the most probable class where it is unclear;
    null for a model that draws only."""
    intranuclear_fraction: float | None
    model: str
    version: str
    nucleus: str | None
    images: str | None
    """Name of its images, without ending."""
    evidence: list[Evidence]
    warnings: list[str]
    links: dict[str, str]
    """Addresses of its page and images."""


class ResultPage(_Strict):
    """Some rows of the results, and how many there are."""

    total: int
    offset: int
    results: list[ResultRow]


class Model(_Strict):
    """A choice of model: an installed one, or one in another of its class sets."""

    name: str
    version: str
    sha256: str
    predicts: str
    """What it tells of a protein, in a phrase."""
    classes: list[str]
    multi_label: bool
    cell_line: str
    calibration: str
    licence: str
    crop_px: int
    pixel_size_um: float
    metrics: dict[str, Metric]
    training_data: dict[str, str]
    hindrance: str | None
    """What keeps it from being used here, or null."""


class DefaultNucleus(_Strict):
    """A nucleus that ships, as a model sees it."""

    name: str
    size_px: int
    pixel_size_um: float
    image: str
    """Address of its image."""


class Service(_Strict):
    """What this site is and takes."""

    name: str
    version: str
    limits: dict[str, int | float]
    links: dict[str, str]


def limits_of(settings: Any) -> dict[str, int | float]:
    """Name the limits that a visitor can run into."""
    names = (
        *("max_proteins", "max_residues", "max_total_residues", "max_nuclei", "max_rows"),
        *("max_table_bytes", "max_image_bytes", "max_image_pixels", "max_image_planes"),
        "max_request_bytes",
        *("max_submission_images", "max_unpacked_bytes", "images_per_hour"),
        *("jobs_per_hour", "proteins_per_hour", "requests_per_minute", "retention_days"),
    )
    return {name: getattr(settings, name) for name in names}
