"""The model that a submission's images are compared with."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it; earlier submissions have the site's choice."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("submissions")}
    # A database from between this column and migrations has it.
    if "model" not in known:
        model = sa.Column("model", sa.String(200), nullable=False, server_default="")
        op.add_column("submissions", model)
