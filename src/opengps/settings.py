"""Settings: each field is an environment variable, ``OPENGPS_`` and the name in capitals."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from deepgps.errors import InputError

PREFIX = "OPENGPS_"


class Settings(BaseSettings):
    """All settings of the site and its workers; ``docs/reference/web.md`` shows these docstrings.

    A visitor is an IPv4 address, or the /64 network of an IPv6 address.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    data: Path = Path("opengps-data")
    """Folder of the database, the stored files, and cached UniProt entries."""
    database_url: str = ""
    """SQLAlchemy URL of the database; if empty, SQLite in the data folder."""
    storage_url: str = ""
    """fsspec URL under which the files of jobs and submissions are stored, such as `s3://BUCKET/FOLDER` or
    `file:///FOLDER`; if empty, the data folder."""
    allowed_hosts: str = ""
    """Host names that the site answers to, separated by commas; if empty, any, or only those of this machine
    if the server listens on no other."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses, separated by commas, whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted."""
    root_path: str = Field("", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """Path below which the proxy serves the site, such as `/opengps`, whether it removes it or not."""
    api_token: str = ""
    """If set, programs need it for the API, as `Authorization: Bearer TOKEN`; pages stay open."""
    moderator_tokens: str = ""
    """Who may moderate on `/moderation`: pairs `NAME:TOKEN`, separated by commas."""
    moderator_header: str = ""
    """Header in which a trusted proxy names its user, such as `X-Remote-User`; if empty, none is believed."""
    moderators: str = ""
    """Users of the proxy who may moderate, separated by commas."""
    metrics: bool = True
    """Whether `/metrics` answers."""
    contact: str = ""
    """Who runs the site: a name and an address, shown on every page."""

    retention_days: float = Field(14, gt=0)
    """Days until a job and its results are deleted."""
    max_proteins: int = Field(500, ge=1)
    """Proteins of a job."""
    max_residues: int = Field(40_000, ge=10)
    """Residues of one protein."""
    max_total_residues: int = Field(1_000_000, ge=10)
    """Residues of all proteins of a job."""
    max_nuclei: int = Field(8, ge=1)
    """Nucleus images of a job."""
    max_images: int = Field(1_500, ge=1)
    """Images of a job: proteins times nucleus images."""
    max_explained_residues: int = Field(5_000, ge=10, le=10_000)
    """Residues of a protein that is explained, or whose variants are compared."""
    max_variants: int = Field(1_000, ge=1, le=20_000)
    """Variants that are compared at once; times the residues, no more than `max_total_residues`."""
    max_variant_images: int = Field(20, ge=1, le=100)
    """Variants that are drawn at once."""
    max_table_bytes: int = Field(5_000_000, ge=1)
    """Bytes of a protein file or text, unpacked."""
    max_image_bytes: int = Field(30_000_000, ge=1)
    """Bytes of one image file."""
    max_image_pixels: int = Field(25_000_000, ge=1)
    """Pixels of one image, all channels together."""
    max_image_planes: int = Field(64, ge=1)
    """Planes of one image: channels, z, time."""
    max_request_bytes: int = Field(64_000_000, ge=1)
    """Bytes of a request."""
    max_submission_images: int = Field(50, ge=1)
    """Images of a submission."""
    max_unpacked_bytes: int = Field(400_000_000, ge=1)
    """Bytes of a submission's files, unpacked."""
    body_timeout_s: float = Field(60, gt=0)
    """Seconds to wait for the next part of a request's body."""
    request_timeout_s: float = Field(300, gt=0)
    """Seconds in which the whole body of a request must arrive."""
    upload_memory_bytes: int = Field(2_000_000_000, ge=100_000_000)
    """Bytes of memory of the process that reads an uploaded file, beyond those of Python itself."""
    upload_timeout_s: float = Field(60, gt=0)
    """Seconds in which an uploaded file must be read."""
    uploads_at_once: int = Field(2, ge=1)
    """Requests whose uploads one server process reads at the same time; the others wait."""

    max_open_jobs: int = Field(1_000, ge=1)
    """Unfinished jobs of all visitors together."""
    jobs_per_hour: int = Field(120, ge=1)
    """Jobs that one visitor may start per hour."""
    proteins_per_hour: int = Field(5_000, ge=1)
    """Proteins that one visitor may send per hour."""
    images_per_hour: int = Field(200, ge=1)
    """Images that one visitor may submit per hour."""
    max_pending_images: int = Field(5_000, ge=0)
    """Submitted images that may wait for a moderator; 0 closes submission."""
    max_disk_bytes: int = Field(20_000_000_000, ge=0)
    """Bytes of the results and submissions of all visitors together; new ones are refused beyond."""
    max_visitor_bytes: int = Field(5_000_000_000, ge=0)
    """Bytes of the results and submissions of one visitor."""
    min_free_bytes: int = Field(1_000_000_000, ge=0)
    """Bytes of the disk of the data folder that stay free."""
    requests_at_once: int = Field(20, ge=1)
    """Requests with a body, such as uploads, that one visitor may send to one server process at once."""
    requests_per_minute: int = Field(3_000, ge=1)
    """Requests that one visitor may send to one server process per minute."""

    lookups: bool = True
    """Whether accessions and gene symbols are looked up in UniProt."""
    uniprot_url: str = "https://rest.uniprot.org"
    """The server to look them up at."""

    chunk_images: int = Field(8, ge=1)
    """Images that a worker draws for a job before it turns to the next job."""
    chunk_proteins: int = Field(128, ge=1)
    """Proteins that a worker predicts for a job without images before it turns to the next job."""
    chunk_lookup_s: float = Field(2, gt=0)
    """Seconds that a worker looks up names for a job before it turns to the next job."""
    lease_s: float = Field(120, gt=0)
    """Seconds without a finished protein after which another worker may take over a job."""
    retry_s: float = Field(60, ge=0)
    """Seconds that a job waits whose workers died twice without a finished protein."""
    max_attempts: int = Field(3, ge=1)
    """Times that a job may stop without a finished protein before it fails."""

    @classmethod
    def load(cls, **values: object) -> Self:
        """Read the settings from the environment; values that are passed and not None take precedence.

        Raises
        ------
        InputError
            If a value is invalid.
        """
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            name = f"{PREFIX}{str(first['loc'][0]).upper()}"
            raise InputError(f"Setting {name} = {first['input']!r}: {first['msg']}.") from None

    @property
    def database(self) -> str:
        """URL of the database in use."""
        return self.database_url or f"sqlite:///{self.data.absolute() / 'opengps.db'}"
