"""The connection to the database."""

import random
import sqlite3
import time
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from deepgps.errors import DeepGPSError, InputError
from opengps.migrations import NewerSchemaError, bring_up_to_date
from opengps.settings import Settings

Sessions = sessionmaker[Session]

# SQLite waits so long for another writer; turns write for milliseconds.
_BUSY_MS = 20_000
_ASK_AGAIN_S = 0.05


def connect(settings: Settings) -> Sessions:
    """Open the database, made or brought up to date; ``with sessions.begin() as session`` is one transaction.

    Raises
    ------
    DeepGPSError
        If it cannot be opened, or belongs to a newer version.
    """
    engine = _engine(settings)
    try:
        bring_up_to_date(engine)
    except NewerSchemaError as error:
        found, newest = error.args
        raise InputError(
            f"The database is of a newer openGPS: its schema is '{found}', the newest known here '{newest}'. "
            "Upgrade deepGPS, or give another database."
        ) from None
    except OperationalError as error:
        # The address holds a password.
        address = engine.url.render_as_string(hide_password=True)
        reason = str(error.orig).strip().partition("\n")[0].rstrip(".")
        raise DeepGPSError(f"The database '{address}' cannot be opened ({reason}).") from None
    return sessionmaker(engine, expire_on_commit=False)


def _engine(settings: Settings) -> Engine:
    try:
        # Without its parameters, an error tells no sequence to the log.
        engine = create_engine(settings.database, pool_pre_ping=True, hide_parameters=True)
    except ArgumentError:
        said = "Setting OPENGPS_DATABASE_URL is no address of a database; write postgresql+psycopg://…."
        raise InputError(said) from None
    if engine.dialect.name == "sqlite":
        settings.data.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    _write_ahead(connection)
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    # WAL: readers and one writer do not wait for each other, and a killed process leaves the file whole.
    # A new file changes to it once. For that SQLite itself does not wait: of processes that start at once,
    # one changes it and the others are refused, and ask again.
    until = time.monotonic() + _BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_ASK_AGAIN_S * random.random())
