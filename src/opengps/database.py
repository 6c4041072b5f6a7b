"""The database: its tables, and how to connect to it. Times are seconds since 1970, UTC."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    BigInteger,
    Connection,
    Engine,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    create_engine,
    event,
)
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from deepgps.errors import DeepGPSError, InputError
from opengps.settings import Settings

Sessions = sessionmaker[Session]

OPEN_STATUSES = ("queued", "running")
"""Statuses of a job that still has something to compute."""


class Base(DeclarativeBase):
    """Base class of all tables."""


class Job(Base):
    """One request to predict proteins."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_status_queued_at", "status", "queued_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """22 random characters; whoever knows it may read and delete the job."""
    status: Mapped[str] = mapped_column(String(16), default="queued")
    """``queued``, ``running``, ``finished``, ``failed`` or ``cancelled``."""
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float]
    """When the job and its results are deleted."""
    queued_at: Mapped[float]
    """Since when the job has waited for its next chunk."""
    model: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(200))
    model_sha256: Mapped[str] = mapped_column(String(64))
    classes: Mapped[list[str]] = mapped_column(JSON)
    images: Mapped[bool]
    """Whether images are drawn."""
    mean: Mapped[bool] = mapped_column(default=False)
    """Whether each image is the mean of all possible images."""
    seed: Mapped[int] = mapped_column(default=0)
    """Which of the possible images are drawn."""
    nuclei: Mapped[list[str]] = mapped_column(JSON)
    """Names of the nucleus images; empty without images."""
    landmarks: Mapped[dict[str, list[str]]] = mapped_column(JSON, default=dict)
    """Names of the landmarks of each cell that has any, by the name of its nucleus image."""
    total: Mapped[int]
    """Number of input records, including rejected ones."""
    predicted: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    next_record: Mapped[int] = mapped_column(default=0)
    """Number of the first input record that is not done."""
    worker: Mapped[str | None] = mapped_column(String(200))
    """The worker that holds the lease, ``host:pid:token``."""
    lease_expires_at: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Chunks started since the last finished protein."""
    retry_at: Mapped[float] = mapped_column(default=0.0)
    """From when it may be tried again after its workers died."""
    visitor: Mapped[str | None] = mapped_column(String(32), index=True)
    """Who sent it, see `opengps.visitors`; None for jobs of an earlier version."""
    disk_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of its files and rows: reserved at first, measured when it is done."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why the job failed."""


def _job_id() -> Mapped[str]:
    return mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


class InputRecord(Base):
    """One record of a job's input: a protein, a rejected record, or a name that is not looked up yet."""

    __tablename__ = "input_records"

    job_id: Mapped[str] = _job_id()
    number: Mapped[int] = mapped_column(primary_key=True)
    """Place in the input, from 0."""
    protein_id: Mapped[str] = mapped_column(Text)
    sequence: Mapped[str | None] = mapped_column(Text)
    gene_symbol: Mapped[str | None] = mapped_column(Text)
    accession: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it is rejected. A record with neither sequence nor reason is still to be looked up."""


class UploadedNucleus(Base):
    """A visitor's nucleus image and the landmarks of the same cell, cropped and normalised."""

    __tablename__ = "uploaded_nuclei"

    job_id: Mapped[str] = _job_id()
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    pixels: Mapped[bytes] = mapped_column(LargeBinary)
    """float32 in [0, 1], row by row."""
    microtubules: Mapped[bytes | None] = mapped_column(LargeBinary)
    """As `pixels`; None if it is not given."""
    er: Mapped[bytes | None] = mapped_column(LargeBinary)
    """As `microtubules`."""
    size_px: Mapped[int]
    pixel_size_um: Mapped[float]
    warnings: Mapped[list[str]] = mapped_column(JSON)
    checked: Mapped[bool] = mapped_column(default=True)
    """Whether it was checked for a nuclear stain at a plausible scale."""


class Result(Base):
    """One protein in one nucleus: the record, and the columns it is sorted and filtered by."""

    __tablename__ = "results"

    job_id: Mapped[str] = _job_id()
    number: Mapped[int] = mapped_column(primary_key=True)
    """Place in the results, from 0."""
    protein_id: Mapped[str] = mapped_column(Text)
    localizations: Mapped[str] = mapped_column(Text)
    """``|a|b|``, so that a class is not found within another's name."""
    confidence: Mapped[float | None]
    """None for a model without classes."""
    intranuclear_fraction: Mapped[float | None]
    nucleus: Mapped[str | None] = mapped_column(Text)
    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    """A line of ``results.jsonl``."""


class Analysis(Base):
    """An explanation of a result, or a comparison of variants of its protein."""

    __tablename__ = "analyses"
    # The address of one must never lead to another.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    result: Mapped[int]
    """Number of the result."""
    kind: Mapped[str] = mapped_column(String(16))
    """``explanation`` or ``variants``."""
    changes: Mapped[list[str]] = mapped_column(JSON)
    """Changes of the sequence, as they were written."""
    scan: Mapped[str] = mapped_column(String(40), default="")
    """A region of which every substitution is made, or empty."""
    images: Mapped[bool] = mapped_column(default=False)
    """Whether variants are drawn."""
    status: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    """As of a job."""
    visitor: Mapped[str] = mapped_column(String(32))
    """Who sent it, see `opengps.visitors`."""
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    lease_expires_at: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    """Why it failed."""


class Usage(Base):
    """A job or an analysis that a visitor started; deleted after an hour."""

    __tablename__ = "usage"
    __table_args__ = (Index("ix_usage_visitor_created_at", "visitor", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    visitor: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[float]
    proteins: Mapped[int]


class ServedVisitor(Base):
    """When a worker last served a visitor; deleted after an hour."""

    __tablename__ = "served_visitors"

    visitor: Mapped[str] = mapped_column(String(32), primary_key=True)
    served_at: Mapped[float]


class Submission(Base):
    """The images that a contributor sent in one request."""

    __tablename__ = "submissions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """22 random characters; whoever knows it may read and delete the submission."""
    created_at: Mapped[float]
    visitor: Mapped[str | None] = mapped_column(String(32), index=True)
    """Who sent it, see `opengps.visitors`; deleted when a job of the same day would expire."""
    disk_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of its files."""
    contributor: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(200), default="")
    """The model to compare with; the default model if empty."""
    consent: Mapped[str] = mapped_column(Text)
    """The text the contributor agreed to."""
    rejected: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    """Rows of the batch that could not be used, and why."""


class ImagePair(Base):
    """A submitted image: nucleus and protein of the same cells; its files are named after its checksum."""

    __tablename__ = "image_pairs"
    # A moderator's number must never refer to another image than before.
    __table_args__ = ({"sqlite_autoincrement": True},)

    number: Mapped[int] = mapped_column(primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    """``pending``, ``accepted`` or ``rejected``."""
    decided_at: Mapped[float | None]
    decided_by: Mapped[str | None] = mapped_column(Text)
    """The moderator."""
    reason: Mapped[str | None] = mapped_column(Text)
    """The moderator's reason."""
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Checksum of the pixels of both channels as sent."""
    protein_id: Mapped[str] = mapped_column(Text)
    sequence: Mapped[str | None] = mapped_column(Text)
    gene_symbol: Mapped[str | None] = mapped_column(Text)
    accession: Mapped[str | None] = mapped_column(Text)
    localizations: Mapped[str] = mapped_column(Text)
    """Joined by ``|``."""
    cell_line: Mapped[str] = mapped_column(Text)
    microscope: Mapped[str] = mapped_column(Text)
    pixel_size_um: Mapped[float]
    provenance: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Names and checksums of the files as sent, and the version of deepGPS that read them."""
    crops: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """The row of each crop in the index of a crop store."""
    central_crop: Mapped[int]
    """The crop that is compared: the one closest to the centre of the field."""
    lease_expires_at: Mapped[float | None] = mapped_column(default=0.0, index=True)
    """From when a worker may compare it; None when there is nothing left to compare."""
    attempts: Mapped[int] = mapped_column(default=0)
    comparison: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    problem: Mapped[str | None] = mapped_column(Text)
    """Why it cannot be compared."""


class Decision(Base):
    """What a moderator decided of an image, and when; kept when the image is deleted or decided anew."""

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    image: Mapped[int] = mapped_column(index=True)
    """Its number."""
    sha256: Mapped[str] = mapped_column(String(64))
    """The checksum of its pixels."""
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    moderator: Mapped[str] = mapped_column(Text)
    decided_at: Mapped[float]


def iso_time(seconds: float) -> str:
    """Format a time: ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# How long SQLite waits for another writer; transactions take milliseconds.
_BUSY_MS = 5_000
_RETRY_S = 0.05
# Read in less than a second; 'opengps check' reads files of any size.
_CHECKED_BYTES = 500_000_000
_DAMAGED = "Put the last backup in its place with 'opengps restore BACKUP', or start with an empty folder."
# Any number, as long as all processes of a site use the same one.
_MIGRATION_LOCK = 6_021_023


def connect(settings: Settings) -> Sessions:
    """Open the database; create or migrate it if necessary.

    Returns
    -------
    Sessions
        ``with sessions.begin() as session`` is one transaction.

    Raises
    ------
    DeepGPSError
        If the database cannot be opened, or its schema is newer than this version of openGPS.
    """
    engine = _engine(settings)
    try:
        migrate(engine)
        if engine.dialect.name == "sqlite":
            _check_file(engine)
    except DatabaseError as error:
        # The address contains a password.
        address = engine.url.render_as_string(hide_password=True)
        reason = str(error.orig).strip().partition("\n")[0].rstrip(".")
        remedy = "" if isinstance(error, OperationalError) else f" {_DAMAGED}"
        raise DeepGPSError(f"The database '{address}' cannot be opened ({reason}).{remedy}") from None
    return sessionmaker(engine, expire_on_commit=False)


def _check_file(engine: Engine) -> None:
    """Look for damage in a SQLite file, unless that would take long.

    Raises
    ------
    DeepGPSError
        If it is damaged.
    """
    file = Path(engine.url.database or "")
    if file.stat().st_size > _CHECKED_BYTES if file.is_file() else True:
        return
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if found != "ok":
        reason = found.partition("\n")[0]
        raise DeepGPSError(f"The database '{file}' is damaged ({reason}). {_DAMAGED}")


def _engine(settings: Settings) -> Engine:
    try:
        # With hidden parameters, an error writes no sequence to the log.
        engine = create_engine(settings.database, pool_pre_ping=True, hide_parameters=True)
    except ArgumentError:
        raise InputError(
            "Setting OPENGPS_DATABASE_URL is not the address of a database; use postgresql+psycopg://…."
        ) from None
    if engine.dialect.name == "sqlite":
        settings.data.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: Any, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    _enable_wal(connection)
    # What is deleted is overwritten: see `forget_deleted`.
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _enable_wal(connection: Any) -> None:
    # WAL: readers and one writer do not block each other, and a killed process leaves the file intact.
    # A new file is switched once. SQLite does not wait for the lock this needs, so we retry.
    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_RETRY_S * random.random())


def forget_deleted(sessions: Sessions) -> None:
    """Remove what was deleted from SQLite's write-ahead log, too; PostgreSQL does so in its own time."""
    engine = sessions.kw["bind"]
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            # Where a reader needs the log, the worker tries again within a minute.
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def migrate(engine: Engine) -> None:
    """Bring a database to the newest schema; one process migrates while the others wait.

    Raises
    ------
    InputError
        If the schema is unknown to this version of openGPS.
    """
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    with engine.connect() as connection:
        if schema_version(connection) == newest:
            return
    with engine.connect() as connection, _exclusive(connection):
        found = schema_version(connection)
        if found not in {None, *(script.revision for script in scripts.walk_revisions())}:
            raise InputError(
                f"The database was created by a newer openGPS: its schema is '{found}', the newest one known "
                f"here is '{newest}'. Upgrade deepGPS, or use another database."
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Return the configuration of Alembic."""
    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    return config


def schema_version(connection: Connection) -> str | None:
    """Return the schema version of a database; None if it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Lock the database for one transaction that contains the whole migration."""
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # SQLite changes a table by copying it; rows that refer to it must not be deleted with the old one.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        if sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
