"""The database's schema, step by step: each file of ``versions`` leads from one state of it to the next.

``python -m opengps.migrations 'what changes'`` writes the next one, from what the tables say.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

# Any number will do, as long as all processes of a site lock the same.
_LOCK = 6_021_023


class NewerSchemaError(Exception):
    """The database was brought to a schema that this version does not know; `args` are it and our newest."""


def bring_up_to_date(engine: Engine) -> None:
    """Bring a database to the newest schema; one process does it while the others wait.

    A database without a schema gets one. So does one that is older than migrations: the first of them passes
    over the tables that are there.

    Raises
    ------
    NewerSchemaError
        If a newer version of openGPS has been at it.
    """
    config = alembic_config()
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    with engine.connect() as connection:
        if schema_version(connection) == newest:
            return
    with engine.connect() as connection, _alone(connection):
        found = schema_version(connection)
        if found not in {None, *(each.revision for each in scripts.walk_revisions())}:
            raise NewerSchemaError(found, newest)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Tell Alembic where the migrations are."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    return config


def schema_version(connection: Connection) -> str | None:
    """Tell a database's schema; None if it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Lock the database for one transaction, which holds the whole migration."""
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # SQLite changes a table by copying it; its rows' children must not go with the old one.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        if sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys=ON")
