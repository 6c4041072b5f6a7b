"""Write the next migration: ``python -m opengps.migrations 'what changes'``."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from opengps.migrations import alembic_config, bring_up_to_date


def write_next(words: str) -> None:
    """Hold the tables against what all migrations so far make, and write down what is missing."""
    config = alembic_config()
    newest = ScriptDirectory.from_config(config).get_current_head() or "0"
    with TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'empty.db'}")
        bring_up_to_date(engine)
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, words, autogenerate=True, rev_id=f"{int(newest) + 1:04d}")


if __name__ == "__main__":
    write_next(sys.argv[1])
