"""The tables of submissions, beside those of `opengps.tables`."""

from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from opengps.tables import Base


class Submission(Base):
    """What a contributor sent at once."""

    __tablename__ = "submissions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """22 random letters: who has them may look and delete."""
    created: Mapped[float]
    address: Mapped[str | None] = mapped_column(String(64))
    """Whence it came; forgotten after an hour."""
    contributor: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(200), default="")
    """What its images are compared with; the site's choice where empty."""
    consent: Mapped[str] = mapped_column(Text)
    """The words agreed to."""
    rejected: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    """Rows of the batch that could not be taken, and why."""


class ImagePair(Base):
    """A nucleus image and a protein image of the same cells; its files are named after its checksum."""

    __tablename__ = "submitted_images"
    # A moderator's number must never mean another image than it did.
    __table_args__ = ({"sqlite_autoincrement": True},)

    number: Mapped[int] = mapped_column(primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submissions.id", ondelete="CASCADE"), index=True)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    decided: Mapped[float | None]
    reason: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the pixels as sent, both channels."""
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
    """Names and checksums of the files as sent, and the version that read them."""
    rows: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """Of each crop, its row of a crop store's index."""
    shown: Mapped[int]
    """The crop that is compared: that nearest to the middle of the field."""
    attempts: Mapped[int] = mapped_column(default=0)
    held_until: Mapped[float] = mapped_column(default=0.0)
    """Until when a worker compares it."""
    comparison: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    problem: Mapped[str | None] = mapped_column(Text)
    """Why it cannot be compared."""
