"""Run the migrations on the connection that `opengps.database.migrate` passes."""

from alembic import context

from opengps.database import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a table by copying it; such a migration also runs on PostgreSQL.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
