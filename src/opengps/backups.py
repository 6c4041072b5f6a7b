"""Backup and restore of a site on one machine: SQLite, and the files of submissions in its data folder."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from deepgps.errors import DeepGPSError, InputError
from deepgps.files import flush_to_disk
from opengps.settings import Settings
from opengps.visitors import KEY_FILE

DATABASE, SUBMISSIONS = "opengps.db", "submissions"
_LOG_FILES = (f"{DATABASE}-wal", f"{DATABASE}-shm")


def back_up(settings: Settings, folder: Path) -> int:
    """Copy the database and then the files of submissions; return how many files.

    Parameters
    ----------
    settings
        The settings of the site, which may run.
    folder
        Where to write; it must not exist.

    Raises
    ------
    InputError
        If the site has its data elsewhere, or the folder exists.
    DeepGPSError
        If the database is damaged.
    """
    database = _database(settings)
    if not database.is_file():
        raise InputError(f"'{settings.data}' is not the folder of a website; give it with --data.")
    if folder.exists():
        raise InputError(f"'{folder}' exists already; give a new folder.")
    folder.mkdir(parents=True, mode=0o700)
    # The database first: a file without a row is removed, but a row without its file is a gap.
    with closing(sqlite3.connect(database)) as connection:
        try:
            connection.execute("VACUUM INTO ?", (str(folder / DATABASE),))
        except sqlite3.DatabaseError as error:
            raise DeepGPSError(f"The database '{database}' cannot be copied ({error}).") from None
    flush_to_disk(folder / DATABASE)
    (folder / SUBMISSIONS).mkdir()
    if (submissions := settings.data / SUBMISSIONS).is_dir():
        shutil.copytree(submissions, folder / SUBMISSIONS, dirs_exist_ok=True)
    if (key := settings.data / KEY_FILE).is_file():
        shutil.copy2(key, folder / KEY_FILE)
    return sum(path.is_file() for path in (folder / SUBMISSIONS).rglob("*"))


def restore(settings: Settings, folder: Path) -> Path:
    """Put a copy in the place of a site's database and submissions.

    Results of predictions are not in a copy: jobs that were finished have no images any more, and expire.

    Parameters
    ----------
    settings
        The settings of the site, which must not run.
    folder
        A copy that `back_up` has made.

    Returns
    -------
    Path
        Where the files are that were there before.

    Raises
    ------
    InputError
        If the folder is no copy, or the site has its data elsewhere.
    DeepGPSError
        If the copy is damaged, or the site runs.
    """
    database, copy = _database(settings), folder / DATABASE
    if not copy.is_file():
        raise InputError(f"'{folder}' is not a backup: it has no {DATABASE}.")
    with closing(sqlite3.connect(copy)) as connection:
        try:
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            found = str(error)
    if found != "ok":
        raise DeepGPSError(f"The backup '{copy}' is damaged ({found}); use an earlier one.")
    settings.data.mkdir(parents=True, exist_ok=True)
    kept = settings.data / f"before-restore-{time.strftime('%Y%m%dT%H%M%S')}"
    kept.mkdir()
    for name in (DATABASE, *_LOG_FILES, SUBMISSIONS, KEY_FILE):
        if (path := settings.data / name).exists():
            path.rename(kept / name)
    shutil.copy2(copy, database)
    if (folder / SUBMISSIONS).is_dir():
        shutil.copytree(folder / SUBMISSIONS, settings.data / SUBMISSIONS)
    if (folder / KEY_FILE).is_file():
        shutil.copy2(folder / KEY_FILE, settings.data / KEY_FILE)
    return kept


def _database(settings: Settings) -> Path:
    if settings.database_url or settings.storage_url:
        raise InputError(
            "This site has its database or its files elsewhere; use pg_dump and the copies of your bucket."
        )
    return settings.data / DATABASE
