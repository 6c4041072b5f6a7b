"""The schema of the first release; what a database from before migrations has of it stays as it is."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables that are not there."""
    _jobs()
    _of_jobs()
    _submissions()


def _needed(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _job_key() -> sa.Column[Any]:
    return sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        _needed("status", sa.String(16)),
        _needed("created", sa.Double()),
        sa.Column("started", sa.Double()),
        sa.Column("finished", sa.Double()),
        _needed("expires", sa.Double()),
        _needed("turn", sa.Double()),
        _needed("model", sa.String(200)),
        _needed("version", sa.String(200)),
        _needed("sha256", sa.String(64)),
        _needed("classes", sa.JSON()),
        _needed("images", sa.Boolean()),
        _needed("nuclei", sa.JSON()),
        _needed("total", sa.Integer()),
        _needed("predicted", sa.Integer()),
        _needed("rejected", sa.Integer()),
        sa.Column("holder", sa.String(200)),
        _needed("held_until", sa.Double()),
        _needed("attempts", sa.Integer()),
        sa.Column("message", sa.Text()),
        if_not_exists=True,
    )
    op.create_index("jobs_by_turn", "jobs", ["status", "turn"], if_not_exists=True)
    op.create_table(
        "visits",
        sa.Column("id", sa.Integer(), primary_key=True),
        _needed("address", sa.String(64)),
        _needed("at", sa.Double()),
        _needed("proteins", sa.Integer()),
        if_not_exists=True,
    )
    op.create_index("visits_by_address", "visits", ["address", "at"], if_not_exists=True)


def _of_jobs() -> None:
    op.create_table(
        "entries",
        _job_key(),
        sa.Column("number", sa.Integer(), primary_key=True),
        _needed("protein_id", sa.Text()),
        *(sa.Column(name, sa.Text()) for name in ("sequence", "gene_symbol", "accession")),
        _needed("source", sa.Text()),
        sa.Column("reason", sa.Text()),
        if_not_exists=True,
    )
    op.create_table(
        "nuclei",
        _job_key(),
        sa.Column("name", sa.String(200), primary_key=True),
        _needed("pixels", sa.LargeBinary()),
        _needed("edge_px", sa.Integer()),
        _needed("pixel_size_um", sa.Double()),
        _needed("warnings", sa.JSON()),
        if_not_exists=True,
    )
    op.create_table(
        "rows",
        _job_key(),
        sa.Column("number", sa.Integer(), primary_key=True),
        _needed("protein_id", sa.Text()),
        _needed("localizations", sa.Text()),
        sa.Column("confidence", sa.Double()),
        sa.Column("fraction", sa.Double()),
        sa.Column("nucleus", sa.Text()),
        _needed("record", sa.JSON()),
        if_not_exists=True,
    )


def _submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(32), primary_key=True),
        _needed("created", sa.Double()),
        sa.Column("address", sa.String(64)),
        _needed("contributor", sa.Text()),
        _needed("licence", sa.String(40)),
        _needed("consent", sa.Text()),
        _needed("rejected", sa.JSON()),
        if_not_exists=True,
    )
    key = sa.ForeignKey("submissions.id", ondelete="CASCADE")
    op.create_table(
        "submitted_images",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("submission_id", sa.String(32), key, nullable=False),
        _needed("status", sa.String(16)),
        sa.Column("decided", sa.Double()),
        sa.Column("reason", sa.Text()),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        _needed("protein_id", sa.Text()),
        *(sa.Column(name, sa.Text()) for name in ("sequence", "gene_symbol", "accession")),
        *(_needed(name, sa.Text()) for name in ("localizations", "cell_line", "microscope")),
        _needed("pixel_size_um", sa.Double()),
        _needed("provenance", sa.JSON()),
        _needed("rows", sa.JSON()),
        _needed("shown", sa.Integer()),
        _needed("attempts", sa.Integer()),
        _needed("held_until", sa.Double()),
        sa.Column("comparison", sa.JSON(none_as_null=True)),
        sa.Column("problem", sa.Text()),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    name = "ix_submitted_images_submission_id"
    op.create_index(name, "submitted_images", ["submission_id"], if_not_exists=True)
