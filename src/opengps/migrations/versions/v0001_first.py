"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    _create_jobs()
    _create_job_data()
    _create_submissions()


def _required(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _job_id() -> sa.Column[Any]:
    return sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        _required("status", sa.String(16)),
        _required("created_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        _required("expires_at", sa.Double()),
        _required("queued_at", sa.Double()),
        _required("model", sa.String(200)),
        _required("version", sa.String(200)),
        _required("model_sha256", sa.String(64)),
        _required("classes", sa.JSON()),
        _required("images", sa.Boolean()),
        _required("mean", sa.Boolean()),
        _required("nuclei", sa.JSON()),
        *(_required(name, sa.Integer()) for name in ("total", "predicted", "rejected", "next_record")),
        sa.Column("worker", sa.String(200)),
        _required("lease_expires_at", sa.Double()),
        _required("attempts", sa.Integer()),
        sa.Column("error", sa.Text()),
    )
    op.create_index("ix_jobs_status_queued_at", "jobs", ["status", "queued_at"])
    op.create_table(
        "usage",
        sa.Column("id", sa.Integer(), primary_key=True),
        _required("address", sa.String(64)),
        _required("created_at", sa.Double()),
        _required("proteins", sa.Integer()),
    )
    op.create_index("ix_usage_address_created_at", "usage", ["address", "created_at"])


def _create_job_data() -> None:
    op.create_table(
        "input_records",
        _job_id(),
        sa.Column("number", sa.Integer(), primary_key=True),
        _required("protein_id", sa.Text()),
        *(sa.Column(name, sa.Text()) for name in ("sequence", "gene_symbol", "accession")),
        _required("source", sa.Text()),
        sa.Column("reason", sa.Text()),
    )
    op.create_table(
        "uploaded_nuclei",
        _job_id(),
        sa.Column("name", sa.String(200), primary_key=True),
        _required("pixels", sa.LargeBinary()),
        _required("size_px", sa.Integer()),
        _required("pixel_size_um", sa.Double()),
        _required("warnings", sa.JSON()),
    )
    op.create_table(
        "results",
        _job_id(),
        sa.Column("number", sa.Integer(), primary_key=True),
        _required("protein_id", sa.Text()),
        _required("localizations", sa.Text()),
        sa.Column("confidence", sa.Double()),
        sa.Column("intranuclear_fraction", sa.Double()),
        sa.Column("nucleus", sa.Text()),
        _required("record", sa.JSON()),
    )


def _create_submissions() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(32), primary_key=True),
        _required("created_at", sa.Double()),
        sa.Column("address", sa.String(64)),
        _required("contributor", sa.Text()),
        _required("licence", sa.String(40)),
        _required("model", sa.String(200)),
        _required("consent", sa.Text()),
        _required("rejected", sa.JSON()),
    )
    submission_id = sa.ForeignKey("submissions.id", ondelete="CASCADE")
    op.create_table(
        "image_pairs",
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("submission_id", sa.String(32), submission_id, nullable=False),
        _required("status", sa.String(16)),
        sa.Column("decided_at", sa.Double()),
        sa.Column("reason", sa.Text()),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        _required("protein_id", sa.Text()),
        *(sa.Column(name, sa.Text()) for name in ("sequence", "gene_symbol", "accession")),
        *(_required(name, sa.Text()) for name in ("localizations", "cell_line", "microscope")),
        _required("pixel_size_um", sa.Double()),
        _required("provenance", sa.JSON()),
        _required("crops", sa.JSON()),
        _required("central_crop", sa.Integer()),
        sa.Column("lease_expires_at", sa.Double()),
        _required("attempts", sa.Integer()),
        sa.Column("comparison", sa.JSON(none_as_null=True)),
        sa.Column("problem", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_image_pairs_submission_id", "image_pairs", ["submission_id"])
    op.create_index("ix_image_pairs_lease_expires_at", "image_pairs", ["lease_expires_at"])
