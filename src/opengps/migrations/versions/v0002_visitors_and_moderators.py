"""Visitors instead of addresses, what their files take of the disk, and who decided what."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change the schema."""
    # Addresses are not kept: those of the last hour are forgotten.
    op.execute("DELETE FROM usage")
    with op.batch_alter_table("usage") as table:
        table.drop_index("ix_usage_address_created_at")
        table.drop_column("address")
        table.add_column(sa.Column("visitor", sa.String(32), nullable=False))
        table.create_index("ix_usage_visitor_created_at", ["visitor", "created_at"])
    with op.batch_alter_table("submissions") as table:
        table.drop_column("address")
        table.add_column(sa.Column("visitor", sa.String(32)))
        table.add_column(sa.Column("disk_bytes", sa.BigInteger(), nullable=False, server_default="0"))
        table.create_index("ix_submissions_visitor", ["visitor"])
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("retry_at", sa.Double(), nullable=False, server_default="0"))
        table.add_column(sa.Column("visitor", sa.String(32)))
        table.add_column(sa.Column("disk_bytes", sa.BigInteger(), nullable=False, server_default="0"))
        table.create_index("ix_jobs_visitor", ["visitor"])
    with op.batch_alter_table("image_pairs") as table:
        table.add_column(sa.Column("decided_by", sa.Text()))
    op.create_table(
        "served_visitors",
        sa.Column("visitor", sa.String(32), primary_key=True),
        sa.Column("served_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("image", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("moderator", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
    )
    op.create_index("ix_decisions_image", "decisions", ["image"])
