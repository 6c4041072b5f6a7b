"""The database's tables; times are seconds since 1970, UTC."""

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

OPEN = ("queued", "running")
"""States of a job that a worker still has something to do for."""


class Base(DeclarativeBase):
    """All tables."""


class Job(Base):
    """One request to predict."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_turn", "status", "turn"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """22 random letters."""
    status: Mapped[str] = mapped_column(String(16))
    """``queued``, ``running``, ``finished``, ``failed``, ``cancelled``; ``deleted`` until its files are."""
    created: Mapped[float]
    started: Mapped[float | None]
    finished: Mapped[float | None]
    expires: Mapped[float]
    turn: Mapped[float]
    """Since when it waits for its next turn."""
    model: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    """Fingerprint of the model it was asked of."""
    classes: Mapped[list[str]] = mapped_column(JSON)
    images: Mapped[bool]
    mean: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether images are the mean of all that could be."""
    nuclei: Mapped[list[str]] = mapped_column(JSON)
    total: Mapped[int]
    """Records given, rejected ones included."""
    predicted: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    holder: Mapped[str | None] = mapped_column(String(200))
    """The worker whose turn it is, ``host:pid:…``."""
    held_until: Mapped[float] = mapped_column(default=0.0)
    attempts: Mapped[int] = mapped_column(default=0)
    """Turns begun since the last finished protein."""
    message: Mapped[str | None] = mapped_column(Text)
    """Why it failed."""


def _job_key() -> Mapped[str]:
    return mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


class Entry(Base):
    """One record of a job's input: a protein, a rejected record, or a name still to be looked up."""

    __tablename__ = "entries"

    job_id: Mapped[str] = _job_key()
    number: Mapped[int] = mapped_column(primary_key=True)
    protein_id: Mapped[str] = mapped_column(Text)
    sequence: Mapped[str | None] = mapped_column(Text)
    gene_symbol: Mapped[str | None] = mapped_column(Text)
    accession: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it is rejected; a record with neither sequence nor reason is to be looked up."""


class OwnNucleus(Base):
    """A visitor's nucleus image, read, cut and normalised."""

    __tablename__ = "nuclei"

    job_id: Mapped[str] = _job_key()
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    pixels: Mapped[bytes] = mapped_column(LargeBinary)
    """float32, row by row."""
    edge_px: Mapped[int]
    pixel_size_um: Mapped[float]
    warnings: Mapped[list[str]] = mapped_column(JSON)


class Row(Base):
    """One protein in one nucleus: a line of ``results.jsonl`` and what it is sorted by."""

    __tablename__ = "rows"

    job_id: Mapped[str] = _job_key()
    number: Mapped[int] = mapped_column(primary_key=True)
    """Place in the results, from 0."""
    protein_id: Mapped[str] = mapped_column(Text)
    localizations: Mapped[str] = mapped_column(Text)
    confidence: Mapped[float | None]
    """None where the model draws only."""
    fraction: Mapped[float | None]
    nucleus: Mapped[str | None] = mapped_column(Text)
    record: Mapped[dict[str, Any]] = mapped_column(JSON)


class Visit(Base):
    """That an address started a job; forgotten after an hour."""

    __tablename__ = "visits"
    __table_args__ = (Index("visits_by_address", "address", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
    proteins: Mapped[int]
