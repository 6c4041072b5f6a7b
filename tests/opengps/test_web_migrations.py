"""The database: created, upgraded with what it holds, and refused if it is newer."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from alembic import command, op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from services import SECRET
from sqlalchemy import create_engine, inspect, text

from deepgps.cli.app import run
from deepgps.errors import DeepGPSError, InputError
from opengps.database import Base, alembic_config, connect, schema_version
from opengps.settings import Settings

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]
VERSIONS = [each.revision for each in ScriptDirectory.from_config(alembic_config()).walk_revisions()]
# A row of each kind with what the first schema requires; later schemas must accept it.
ROWS = {
    "jobs": {
        **dict.fromkeys(("created_at", "queued_at", "lease_expires_at", "attempts"), 0),
        **dict.fromkeys(("predicted", "rejected", "next_record"), 0),
        **dict.fromkeys(("classes", "nuclei"), "[]"),
        **dict.fromkeys(("images", "mean"), False),
        "id": "one",
        "status": "finished",
        "model": "tiny",
        "version": "1",
        "model_sha256": "0",
        "total": 1,
        "expires_at": 1e12,
    },
    "input_records": {"job_id": "one", "number": 0, "protein_id": "p", "source": ""},
    "results": {"job_id": "one", "number": 0, "protein_id": "p", "localizations": "|er|", "record": "{}"},
    "submissions": {
        "id": "two",
        "created_at": 0,
        "contributor": "A lab",
        "licence": "CC0-1.0",
        "model": "",
        "consent": "yes",
        "rejected": "[]",
    },
}


@pytest.fixture(params=BOTH)
def settings(request, tmp_path):
    """The settings of a site whose database does not exist yet."""
    url = request.getfixturevalue("services").database() if request.param == "postgresql" else ""
    return Settings(data=tmp_path / "site", database_url=url)


def opened(settings):
    return connect(settings).kw["bind"]


def counts(engine):
    with engine.connect() as connection:
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in ROWS}


def test_the_migrations_create_the_tables(settings):
    with opened(settings).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        missing = compare_metadata(context, Base.metadata)
    assert missing == [], "run: python -m opengps.migrations 'what changes'"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_any_version_is_upgraded_with_its_rows(settings, version):
    settings.data.mkdir()
    engine = create_engine(settings.database)
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.commit()
    with engine.begin() as connection:
        for name, row in ROWS.items():
            slots = ", ".join(f":{column}" for column in row)
            connection.execute(text(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({slots})"), row)
    for _ in range(2):
        assert set(counts(opened(settings)).values()) == {1}
        with engine.connect() as connection:
            assert schema_version(connection) == VERSIONS[0]


@pytest.mark.slow
def test_processes_that_start_at_once_wait_for_each_other(settings):
    code = (
        "import sys, time; from pathlib import Path; from opengps.database import connect; "
        "from opengps.settings import Settings; "
        "settings = Settings(data=Path(sys.argv[1]), database_url=sys.argv[2]); "
        "print(flush=True); input(); connect(settings)"
    )
    words = [sys.executable, "-c", code, str(settings.data), settings.database_url]
    started = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for each in started:
        each.stdout.readline()
    for each in started:
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in started:
        each.communicate(timeout=60)
    assert [each.returncode for each in started] == [0] * 4
    assert set(counts(opened(settings)).values()) == {0}


def test_a_new_file_that_another_process_writes_is_waited_for(tmp_path):
    settings = Settings(data=tmp_path)
    with closing(sqlite3.connect(tmp_path / "opengps.db", check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (one)")
        other.execute("BEGIN IMMEDIATE")
        wait = threading.Timer(0.3, other.rollback)
        wait.start()
        assert set(counts(opened(settings)).values()) == {0}
        wait.join()


def test_a_newer_database_is_refused(visitor, capsys):
    with visitor.site.sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    data = visitor.site.settings.data
    with pytest.raises(InputError, match="'9999'"):
        connect(Settings(data=data))
    assert run(["submissions", "list", "--data", str(data)]) == 2
    message = capsys.readouterr().err
    assert "newer openGPS" in message and VERSIONS[0] in message


def test_a_migration_that_fails_changes_nothing(settings, monkeypatch):
    with monkeypatch.context() as patch:
        real = op.create_index
        patch.setattr(op, "create_index", lambda *args: [real(*args), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            connect(settings)
    with create_engine(settings.database).connect() as connection:
        assert inspect(connection).get_table_names() == []
    assert set(counts(opened(settings)).values()) == {0}


def test_a_database_that_cannot_be_opened_is_an_error_without_its_password(tmp_path):
    url = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/site"
    with pytest.raises(DeepGPSError, match="cannot be opened") as caught:
        connect(Settings(data=tmp_path, database_url=url))
    assert SECRET not in str(caught.value)
    with pytest.raises(InputError, match="OPENGPS_DATABASE_URL"):
        connect(Settings(data=tmp_path, database_url="nothing"))
