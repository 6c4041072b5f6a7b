"""A real server, and clients that send headers slowly or too much of them."""

import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest
from services import free_port
from uvicorn import Server

from opengps import security
from opengps.server import server_config

HEAD = b"GET /health HTTP/1.1\r\nHost: testserver\r\n"


@pytest.fixture
def port(visitor, monkeypatch):
    """The port of a site with a short timeout."""
    monkeypatch.setattr(security, "HEADER_TIMEOUT_S", 0.5)
    port = free_port()
    server = Server(server_config(visitor.client.app, visitor.site.settings, "127.0.0.1", port))
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


def received(client):
    """Return everything until the server closes the connection."""
    message = b""
    try:
        while piece := client.recv(65536):
            message += piece
    except ConnectionResetError:
        pass
    return message


def answered(client):
    """Return the status of a response, which may come in several packets."""
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_complete_headers_are_answered_twice(port):
    with connected(port) as client:
        for _ in range(2):
            client.sendall(HEAD + b"\r\n")
            assert answered(client) == 200


def test_an_idle_connection_is_closed(port):
    with connected(port) as client:
        assert received(client) == b""


def test_headers_sent_byte_by_byte_are_cut_off(port):
    begun = time.monotonic()
    with connected(port) as client, pytest.raises(OSError):
        for byte in HEAD * 100:
            client.sendall(bytes([byte]))
            time.sleep(0.02)
    assert time.monotonic() - begun < 10


def test_slow_headers_after_a_first_response_are_cut_off(port):
    with connected(port) as client:
        client.sendall(HEAD + b"\r\n")
        assert answered(client) == 200
        client.sendall(HEAD)
        assert received(client) == b""


def test_too_large_headers_are_refused(port):
    with connected(port) as client:
        client.sendall(HEAD + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\n")
        assert answered(client) == 200
    with connected(port) as client:
        try:
            client.sendall(HEAD + b"X-Long: " + b"a" * 70_000)
        except OSError:
            return
        assert received(client).startswith(b"HTTP/1.1 400")


def test_a_slow_body_is_not_cut_off(port):
    body = b'{"proteins": ""}'
    head = b"POST /api/v1/predictions HTTP/1.1\r\nHost: testserver\r\nContent-Type: application/json\r\n"
    with connected(port) as client:
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
        time.sleep(1)
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 422")


def test_the_server_does_not_show_its_name(port):
    with connected(port) as client:
        client.sendall(HEAD + b"\r\n")
        assert b"uvicorn" not in client.recv(65536).lower()
