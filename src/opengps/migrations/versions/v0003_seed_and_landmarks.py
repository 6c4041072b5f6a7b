"""The seed of images, and the landmarks of uploaded nuclei."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change the schema."""
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("seed", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("landmarks", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("uploaded_nuclei") as table:
        table.add_column(sa.Column("microtubules", sa.LargeBinary()))
        table.add_column(sa.Column("er", sa.LargeBinary()))
        table.add_column(sa.Column("checked", sa.Boolean(), nullable=False, server_default=sa.true()))
