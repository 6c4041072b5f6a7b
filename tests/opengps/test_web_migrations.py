"""Databases of every age, brought to the schema of today with what they hold."""

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
from sqlalchemy import create_engine, text
from visitor import visit

from deepgps.cli.app import run
from deepgps.errors import DeepGPSError, InputError
from opengps.database import connect
from opengps.migrations import alembic_config, schema_version
from opengps.settings import Settings
from opengps.tables import Base

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)]


@pytest.fixture(params=BOTH)
def settings(request, tmp_path):
    """Those of a site whose database is not made yet."""
    url = request.getfixturevalue("services").database() if request.param == "postgresql" else ""
    return Settings(data=tmp_path / "site", database_url=url)


def opened(settings):
    return connect(settings).kw["bind"]


def test_the_migrations_make_what_the_tables_say(settings):
    with opened(settings).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        missing = compare_metadata(context, Base.metadata)
    assert missing == [], "run: python -m opengps.migrations 'what changes'"
    assert "submissions" in Base.metadata.tables


# What the first schema cannot do without; a later one must be content with it, too.
HELD = {
    "jobs": {
        **dict.fromkeys(("created", "turn", "held_until", "predicted", "rejected", "attempts"), 0),
        **dict.fromkeys(("classes", "nuclei"), "[]"),
        "id": "one",
        "status": "finished",
        "model": "tiny",
        "version": "1",
        "sha256": "0",
        "images": False,
        "total": 1,
        "expires": 1e12,
    },
    "entries": {"job_id": "one", "number": 0, "protein_id": "p", "source": ""},
    "rows": {"job_id": "one", "number": 0, "protein_id": "p", "localizations": "|er|", "record": "{}"},
    "submissions": {
        "id": "two",
        "created": 0,
        "contributor": "A lab",
        "licence": "CC0-1.0",
        "consent": "yes",
        "rejected": "[]",
    },
}
ONE_EACH = dict.fromkeys(HELD, 1)
VERSIONS = [each.revision for each in ScriptDirectory.from_config(alembic_config()).walk_revisions()]


def test_what_the_first_schema_holds_is_kept(settings):
    old = database_of(settings, "0001")
    fill(old)
    with old.connect() as connection:
        # As before migrations: nothing tells the schema.
        connection.execute(text("DROP TABLE alembic_version"))
        connection.commit()
    found = everything(opened(settings))
    assert found == ONE_EACH
    with opened(settings).connect() as connection:
        assert schema_version(connection) == VERSIONS[0]
        assert connection.execute(text("SELECT model FROM submissions")).scalar() == ""
        assert not connection.execute(text("SELECT mean FROM jobs")).scalar()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_any_version_is_upgraded(settings, version):
    fill(database_of(settings, version))
    assert everything(opened(settings)) == ONE_EACH
    # Once more, with nothing to do.
    assert everything(opened(settings))["jobs"] == 1


def database_of(settings, version):
    """A database as an earlier version left it."""
    settings.data.mkdir()
    engine = create_engine(settings.database)
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        connection.commit()
    return engine


def fill(engine):
    with engine.begin() as connection:
        for name, held in HELD.items():
            slots = ", ".join(f":{column}" for column in held)
            connection.execute(text(f"INSERT INTO {name} ({', '.join(held)}) VALUES ({slots})"), held)


def everything(engine):
    with engine.connect() as connection:
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in HELD}


@pytest.mark.slow
def test_processes_that_start_at_once_do_not_get_in_each_others_way(settings):
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
    assert set(everything(opened(settings)).values()) == {0}


def test_a_new_file_that_another_process_begins_to_write_is_waited_for(tmp_path):
    settings = Settings(data=tmp_path)
    with closing(sqlite3.connect(tmp_path / "opengps.db", check_same_thread=False)) as other:
        other.execute("CREATE TABLE theirs (one)")
        other.execute("BEGIN IMMEDIATE")
        wait = threading.Timer(0.3, other.rollback)
        wait.start()
        assert set(everything(opened(settings)).values()) == {0}
        wait.join()


def test_a_newer_database_is_refused_in_a_sentence(tmp_path, visitor, capsys):
    with visitor.site.sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    data = visitor.site.settings.data
    with pytest.raises(InputError, match="'9999'"):
        connect(Settings(data=data))
    assert run(["submissions", "list", "--data", str(data)]) == 2
    said = capsys.readouterr().err
    assert "newer openGPS" in said and VERSIONS[0] in said


def test_a_migration_that_breaks_off_changes_nothing(settings, monkeypatch):
    fill(database_of(settings, "0001"))
    with monkeypatch.context() as patch:
        real = op.add_column
        patch.setattr(op, "add_column", lambda *args: [real(*args), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            connect(settings)
    with create_engine(settings.database).connect() as connection:
        assert schema_version(connection) == "0001"
    assert everything(opened(settings))["jobs"] == 1


def test_a_site_goes_on_with_its_jobs_after_an_upgrade(tmp_path, visitor):
    job = visitor.predict()
    with visitor.site.sessions.begin() as session:
        session.execute(text("ALTER TABLE submissions DROP COLUMN model"))
        session.execute(text("ALTER TABLE jobs DROP COLUMN mean"))
        session.execute(text("DROP TABLE alembic_version"))
    again = visit(visitor.site.settings.data)
    assert again.status(job)["status"] == "finished"
    assert again.rows(job)["total"] == 1


def test_a_database_that_cannot_be_opened_is_said_in_a_sentence(tmp_path):
    url = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/site"
    with pytest.raises(DeepGPSError, match="cannot be opened") as caught:
        connect(Settings(data=tmp_path, database_url=url))
    assert SECRET not in str(caught.value)
    with pytest.raises(InputError, match="OPENGPS_DATABASE_URL"):
        connect(Settings(data=tmp_path, database_url="nothing"))
