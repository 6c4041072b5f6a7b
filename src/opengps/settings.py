"""What an operator may set: each field is an environment variable, ``OPENGPS_`` and the name in capitals."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from deepgps.errors import InputError

PREFIX = "OPENGPS_"


class Settings(BaseSettings):
    """All settings of the site and its workers."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    data: Path = Path("opengps-data")
    """Folder of the database, the queue and the files of jobs and submissions."""
    database_url: str = ""
    """SQLAlchemy address of the database; SQLite in the data folder where empty."""
    queue_url: str = ""
    """Address of a Redis server (``redis://…``) through which workers are woken; SQLite in the data folder
    where empty."""
    files_url: str = ""
    """Where the files of jobs and submissions are kept, as fsspec says it (``s3://…``, ``file:///…``), for
    several machines to share; the data folder where empty."""
    allowed_hosts: str = ""
    """Host names the site answers to, joined by commas; where empty, those of this machine if it listens to
    nobody else, and any if it does."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses, joined by commas, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed."""
    contact: str = ""
    """Who runs the site, shown on every page: a name, an address."""

    retention_days: float = Field(14, gt=0)
    """Days until a job and its results are deleted."""
    max_proteins: int = Field(500, ge=1)
    """Proteins in a job."""
    max_residues: int = Field(40_000, ge=10)
    """Residues of one protein."""
    max_total_residues: int = Field(1_000_000, ge=10)
    """Residues of all proteins of a job together."""
    max_nuclei: int = Field(8, ge=1)
    """Nuclei in a job, chosen and uploaded ones together."""
    max_rows: int = Field(1_500, ge=1)
    """Images in a job: proteins times nuclei."""
    max_table_bytes: int = Field(5_000_000, ge=1)
    """Bytes of a protein file or text, unpacked."""
    max_image_bytes: int = Field(30_000_000, ge=1)
    """Bytes of one nucleus image."""
    max_image_pixels: int = Field(25_000_000, ge=1)
    """Pixels of one nucleus image, all channels together."""
    max_image_planes: int = Field(64, ge=1)
    """Planes of one image: its channels, and whatever else it stacks."""
    max_request_bytes: int = Field(64_000_000, ge=1)
    """Bytes of a whole request."""
    max_submission_images: int = Field(50, ge=1)
    """Images in a submission."""
    max_unpacked_bytes: int = Field(400_000_000, ge=1)
    """Bytes of a submission's files, unpacked."""
    body_timeout_s: float = Field(60, gt=0)
    """Seconds to wait for the next piece of a request's body."""

    max_open_jobs: int = Field(1_000, ge=1)
    """Jobs that may wait or run at a time, of all visitors together."""
    jobs_per_hour: int = Field(120, ge=1)
    """Jobs that one address may start in an hour."""
    proteins_per_hour: int = Field(5_000, ge=1)
    """Proteins that one address may send in an hour."""
    images_per_hour: int = Field(200, ge=1)
    """Images that one address may submit in an hour."""
    max_pending: int = Field(5_000, ge=0)
    """Submitted images that may wait for a moderator, of all visitors together; 0 takes none."""
    requests_per_minute: int = Field(3_000, ge=1)
    """Requests that one address may make of one server process in a minute."""

    lookups: bool = True
    """Whether accessions and gene symbols are looked up in UniProt."""
    uniprot_url: str = "https://rest.uniprot.org"
    """The server they are looked up at."""

    turn_images: int = Field(8, ge=1)
    """Images that a job gets drawn before another job's turn."""
    turn_labels: int = Field(128, ge=1)
    """Proteins that a job without images gets predicted before another job's turn."""
    turn_lookup_s: float = Field(2, gt=0)
    """Seconds for which a job's names are looked up before another job's turn."""
    lease_s: float = Field(120, gt=0)
    """Seconds without a finished protein after which a worker's turn may be taken over by another."""
    max_attempts: int = Field(3, ge=1)
    """Turns in a row that may break off without a finished protein before the job counts as failed."""

    @classmethod
    def load(cls, **given: object) -> Self:
        """Read the environment; what is given and not None comes first.

        Raises
        ------
        InputError
            If a value cannot be used.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            name = f"{PREFIX}{str(first['loc'][0]).upper()}"
            raise InputError(f"Setting {name} = {first['input']!r}: {first['msg']}.") from None

    @property
    def database(self) -> str:
        """Address of the database in use."""
        return self.database_url or f"sqlite:///{self.data.absolute() / 'opengps.db'}"
