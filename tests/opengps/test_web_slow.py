"""Clients that send slowly, or far too much of a header."""

import asyncio

from visitor import API, visit


def test_a_body_that_never_comes_is_given_up(tmp_path, visitor):
    patient = visit(tmp_path / "patient", body_timeout_s=0.05)
    sent = []

    async def receive():
        await asyncio.sleep(30)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{API}/predictions",
        "raw_path": f"{API}/predictions".encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"content-type", b"application/json")],
        "client": ("203.0.113.7", 1),
        "server": ("testserver", 80),
        "scheme": "http",
        "root_path": "",
        "http_version": "1.1",
    }
    asyncio.run(patient.client.app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert b"too_slow" in sent[1]["body"]
