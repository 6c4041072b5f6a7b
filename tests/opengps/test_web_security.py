import asyncio
import gzip
import io
import re
import time
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from visitor import API, SEQUENCE, error_of, fasta, visit


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_pages_of_other_sites_may_not_send(visitor, headers):
    answer = visitor.client.post(f"{API}/predictions", json={"proteins": "x"}, headers=headers)
    assert error_of(answer, 403)["code"] == "cross_site"
    answer = visitor.client.post("/predictions", data={"proteins": "x"}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert visitor.client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://testserver"}])
def test_own_pages_and_programs_may_send(visitor, headers):
    body = {"model": "tiny", "proteins": f">a\n{SEQUENCE}"}
    assert visitor.client.post(f"{API}/predictions", json=body, headers=headers).status_code == 202


def test_unknown_host_names_are_refused(tmp_path, visitor):
    local = visit(tmp_path / "local", allowed_hosts="lab.example, 127.0.0.1")
    assert error_of(local.client.get(API), 421)["field"] == "Host"
    assert local.client.get(API, headers={"Host": "lab.example:8000"}).status_code == 200


def test_every_response_has_security_headers(visitor):
    for address in ("/", API, "/static/site.js", "/nothing", "/api/assets/swagger-ui.css"):
        headers = visitor.client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_an_unexpected_error_shows_nothing_and_has_security_headers(visitor, monkeypatch):
    monkeypatch.setattr("opengps.api.default_cell_png", lambda _: 1 / 0)
    answer = visitor.client.get(f"{API}/nuclei/hek-1/image.png")
    assert error_of(answer, 500)["code"] == "internal_error"
    assert "ZeroDivision" not in answer.text
    assert "content-security-policy" in answer.headers


def test_the_rate_is_limited_by_address(tmp_path, visitor):
    slow = visit(tmp_path / "slow", requests_per_minute=3)
    answers = [slow.client.get(API) for _ in range(8)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert error_of(refused, 429)["code"] == "too_many_requests"
    assert 0 < int(refused.headers["retry-after"]) <= 60


def test_a_large_request_is_refused_announced_or_not(tmp_path, visitor):
    small = visit(tmp_path / "small", max_request_bytes=5000)
    body = b'{"proteins": "' + b"M" * 6000 + b'"}'
    kind = {"Content-Type": "application/json"}
    error_of(small.client.post(f"{API}/predictions", content=body, headers=kind), 413)
    pieces = (body[at : at + 500] for at in range(0, len(body), 500))
    assert (
        error_of(small.client.post(f"{API}/predictions", content=pieces, headers=kind), 413)["code"]
        == "payload_too_large"
    )


def send_file(visitor, name, content, field="file", **fields):
    data = {"model": "tiny", **fields}
    return visitor.client.post(f"{API}/predictions", data=data, files={field: (name, content)})


def test_a_gzip_bomb_is_not_unpacked(tmp_path, visitor):
    small = visit(tmp_path / "small", max_table_bytes=100_000)
    bomb = gzip.compress(b">a\n" + b"M" * 50_000_000)
    assert len(bomb) < 100_000
    assert error_of(send_file(small, "a.fasta.gz", bomb), 413)["field"] == "file"
    assert send_file(small, "a.fasta.gz", gzip.compress(fasta(2).encode())).status_code == 202


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x.fasta", "/abs/x.fasta", "a\x00b", "CON", "é" * 300]
)
def test_a_file_name_leads_nowhere(visitor, tmp_path, name):
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    answer = send_file(visitor, name, f">a\n{SEQUENCE}\n".encode())
    assert answer.status_code in (202, 422)
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all("opengps.db" in path.name for path in after - before)


def image(kind="PNG", size=(208, 208)):
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = (20 + 200 * (np.hypot(y - size[1] / 2, x - size[0] / 2) < 45)).astype(np.uint8)
    content = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(content, pixels, compression="zlib")
    else:
        Image.fromarray(pixels).save(content, format=kind)
    return content.getvalue()


def draw(visitor, name, content, **fields):
    return send_file(visitor, name, content, "nucleus_images", proteins=f">a\n{SEQUENCE}", **fields)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_content_decides_and_not_the_extension(visitor, kind):
    assert draw(visitor, "image.txt", image(kind)).status_code == 202


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='x'><script>1</script></svg>",
        b"GIF89a" + b"0" * 50,
        b"%PDF-1.4",
        b"",
        gzip.compress(b"II*\0", mtime=0),
    ],
)
def test_other_content_is_refused(visitor, content):
    assert error_of(draw(visitor, "nucleus.png", content), 422)["field"] == "nucleus_images"


def test_an_image_that_declares_too_many_pixels_is_refused_unread(tmp_path, visitor):
    small = visit(tmp_path / "small", max_image_pixels=50_000, max_image_bytes=20_000)
    assert draw(small, "a.png", image()).status_code == 202
    assert "pixels" in error_of(draw(small, "a.png", image(size=(300, 300))), 422)["message"]
    assert "pixels" in error_of(draw(small, "a.tif", image("TIFF", (300, 300))), 422)["message"]
    assert error_of(draw(small, "a.png", image() + b"0" * 20_000), 413)["code"] == "payload_too_large"
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", (60_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0]))
    error_of(draw(small, "bomb.png", header + chunk(b"IDAT", zlib.compress(bytes(1000)))), 422)


def chunk(name, data):
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def test_messages_name_no_command_line_options(visitor):
    answer = draw(visitor, "nucleus.png", image(size=(400, 400)))
    visitor.work()
    (row,) = visitor.rows(answer.json()["id"])["results"]
    assert any("pixel size" in warning for warning in row["warnings"])
    assert not any("--" in warning for warning in row["warnings"])


def test_uploads_are_never_served(visitor):
    """Also for an image that a browser could take for a page."""
    payload = b"<script>alert(document.domain)</script>"
    job = draw(visitor, "x.html", image() + payload).json()["id"]
    visitor.work()
    here = f"{API}/predictions/{job}"
    links = {**visitor.status(job)["links"], **visitor.rows(job)["results"][0]["links"]}
    del links["explanation"]  # not there until it is asked for
    assert len(links) > 10
    for address in links.values():
        answer = visitor.client.get(address)
        assert answer.status_code == 200
        assert payload not in answer.content
        shown = answer.headers["content-type"].startswith(("text/html", "application/json", "image/png"))
        assert shown or answer.headers["content-disposition"].startswith("attachment")
    for name in ("x.html", "nuclei/x.html", "..%2fopengps.db", "%2e%2e/%2e%2e/opengps.db"):
        assert visitor.client.get(f"{here}/{name}").status_code == 404


def test_an_id_leads_nowhere_in_a_zip(visitor):
    ids = ["../../up", "/etc/passwd", "C:\\win", "a/b", "..", "CON"]
    job = visitor.predict("".join(f">{name}\n{SEQUENCE}{'ACDEF'[:at]}\n" for at, name in enumerate(ids)))
    with zipfile.ZipFile(io.BytesIO(visitor.client.get(f"{API}/predictions/{job}/images.zip").content)) as it:
        names = it.namelist()
    assert len(set(names)) == 2 * len(ids)
    assert all(re.fullmatch(r"images/[A-Za-z0-9_-][A-Za-z0-9._-]*", name) for name in names)


@pytest.mark.parametrize(
    "address", ["/", "/predict", "/submit", "/privacy", "/health", "/metrics", API, "/nothing"]
)
def test_no_page_shows_where_data_are_stored(visitor, address):
    settings = visitor.site.settings
    message = visitor.client.get(address).text
    for secret in (settings.database, settings.storage_url, str(settings.data)):
        assert not secret or secret not in message
    assert all(not name.endswith("_url") for name in visitor.client.get(API).json()["limits"])


def test_an_xml_bomb_in_an_image_does_not_go_off(visitor):
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha" * 10}">' for n in range(12))
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    bomb = f'<?xml version="1.0"?><!DOCTYPE OME [{laughs}]><OME xmlns="{space}"><Image ID="&a11;"/></OME>'
    content = io.BytesIO()
    tifffile.imwrite(content, np.asarray(Image.open(io.BytesIO(image()))), description=bomb, metadata=None)
    begun = time.monotonic()
    assert draw(visitor, "a.ome.tif", content.getvalue()).status_code in (202, 422)
    assert time.monotonic() - begun < 20


def test_a_body_that_never_arrives_times_out(tmp_path, visitor):
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
    assert b"request_timeout" in sent[1]["body"]
