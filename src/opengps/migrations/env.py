"""What Alembic runs: the migrations, on the connection that `opengps.migrations` gives it."""

from alembic import context

from opengps.submissions.tables import Submission

context.configure(
    connection=context.config.attributes["connection"],
    # Of all tables, those of submissions and the others.
    target_metadata=Submission.metadata,
    # SQLite changes a table by copying it; a migration written so runs on PostgreSQL, too.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
