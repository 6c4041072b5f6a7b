"""Logs contain nothing that a visitor sent."""

import io
import logging
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from visitor import API, SEQUENCE

from opengps import worker
from opengps.security import PrivateFormatter


@contextmanager
def logged():
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(PrivateFormatter("%(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.stream
    finally:
        root.removeHandler(handler)


def test_an_error_is_logged_by_place_and_type():
    def broken():
        try:
            raise KeyError(SEQUENCE)
        except KeyError as error:
            raise ValueError(f"cannot use {SEQUENCE}") from error

    with logged() as log:
        try:
            broken()
        except ValueError:
            logging.getLogger("opengps").exception("The worker continues after an error.")
    message = log.getvalue()
    assert SEQUENCE not in message
    assert "in broken" in message and __file__ in message
    assert message.index("KeyError") < message.index("ValueError")


def test_a_request_that_fails_leaves_no_sequence_in_the_log(visitor, monkeypatch, caplog):
    def broken(*_):
        raise ValueError(SEQUENCE)

    monkeypatch.setattr("opengps.requests.check_request", broken)
    with caplog.at_level(logging.DEBUG, logger="opengps"):
        assert visitor.send().status_code == 500
    assert "ValueError" in caplog.text and f"{API}/predictions" in caplog.text
    assert SEQUENCE not in caplog.text


def test_errors_of_the_database_contain_no_values(visitor):
    with pytest.raises(SQLAlchemyError) as caught, visitor.site.sessions.begin() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:sequence)"), {"sequence": SEQUENCE})
    assert SEQUENCE not in str(caught.value)


def test_a_failing_worker_leaves_no_sequence_in_job_or_log(visitor, monkeypatch):
    def broken(*_, **__):
        raise ValueError(SEQUENCE)

    job = visitor.send().json()["id"]
    monkeypatch.setattr(worker, "encode_rows", broken)
    with logged() as log:
        for _ in range(visitor.site.settings.max_attempts):
            try:
                visitor.chunk()
            except ValueError:
                logging.getLogger("opengps").exception("The worker continues after an error.")
    status = visitor.status(job)
    assert status["status"] == "failed"
    assert SEQUENCE not in log.getvalue() + status["error"]
