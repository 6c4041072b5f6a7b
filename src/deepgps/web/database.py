"""The connection to the database."""

from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from deepgps.web.settings import Settings
from deepgps.web.submissions.tables import Submission

Sessions = sessionmaker[Session]

# SQLite waits so long for another writer; turns write for milliseconds.
_BUSY_MS = 20_000


def connect(settings: Settings) -> Sessions:
    """Open the database, made if missing; ``with sessions.begin() as session`` is one transaction."""
    engine = create_engine(settings.database, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        settings.data.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _set_up_sqlite)
    # Of all tables, those of submissions and the others.
    Submission.metadata.create_all(engine)
    return sessionmaker(engine, expire_on_commit=False)


def _set_up_sqlite(connection: Any, _: object) -> None:
    # WAL: readers and one writer do not wait for each other, and a killed process leaves the file whole.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")
