"""Write the next migration: ``python -m opengps.migrations 'what changes'``."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from opengps.database import alembic_config, migrate


def write_migration(message: str) -> None:
    """Compare the tables with the newest schema and write a migration with the difference."""
    config = alembic_config()
    newest = ScriptDirectory.from_config(config).get_current_head() or "0"
    with TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'empty.db'}")
        migrate(engine)
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=f"{int(newest) + 1:04d}")


if __name__ == "__main__":
    write_migration(sys.argv[1])
