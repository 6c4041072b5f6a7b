"""Whether a job's images are the mean of all that could be."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it; the images of earlier jobs are not."""
    op.add_column("jobs", sa.Column("mean", sa.Boolean(), nullable=False, server_default=sa.false()))
