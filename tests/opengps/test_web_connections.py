"""A real server, and clients that send slowly or far too much of a header."""

import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest
from services import free_port
from uvicorn import Server

from opengps import connections
from opengps.serving import configuration

HEAD = b"GET /health HTTP/1.1\r\nHost: testserver\r\n"


@pytest.fixture
def port(visitor, monkeypatch):
    """Where a site listens whose patience is short."""
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    port = free_port()
    server = Server(configuration(visitor.client.app, visitor.site.settings, "127.0.0.1", port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join(10)


@contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        yield client


def heard(client):
    """All that is said until the server hangs up."""
    said = b""
    try:
        while piece := client.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said


def answered(client):
    """Status of an answer, read whole in however many packets it comes."""
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_a_whole_head_is_answered_and_the_next_one_too(port):
    with connected(port) as client:
        for _ in range(2):
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200


def test_who_says_nothing_is_hung_up_on(port):
    with connected(port) as client:
        assert heard(client) == b""


def test_who_sends_a_head_byte_by_byte_is_hung_up_on(port):
    begun = time.monotonic()
    with connected(port) as client, pytest.raises(OSError):
        for byte in HEAD * 100:
            client.sendall(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - begun < 10


def test_so_is_who_does_it_after_a_first_answer(port):
    with connected(port) as client:
        client.sendall(HEAD + b"\r\n")
        assert answered(client) == 200
        client.sendall(HEAD)
        assert heard(client) == b""


def test_a_head_that_is_too_large_is_refused(port):
    with connected(port) as client:
        client.sendall(HEAD + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\n")
        assert answered(client) == 200
    with connected(port) as client:
        try:
            client.sendall(HEAD + b"X-Long: " + b"a" * 70_000)
        except OSError:
            return
        assert heard(client).startswith(b"HTTP/1.1 400")


def test_a_slow_body_is_not_a_slow_head(port):
    body = b'{"proteins": ""}'
    head = b"POST /api/v1/predictions HTTP/1.1\r\nHost: testserver\r\nContent-Type: application/json\r\n"
    with connected(port) as client:
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
        time.sleep(1)
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 422")


def test_the_server_does_not_say_what_it_is(port):
    with connected(port) as client:
        client.sendall(HEAD + b"\r\n")
        assert b"uvicorn" not in client.recv(65536).lower()
