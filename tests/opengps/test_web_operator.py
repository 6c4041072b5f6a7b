"""What an operator sets: moderators, the API's token, a path of the proxy; checks, backup and restore."""

import base64
import sqlite3
from contextlib import closing

import pytest
from contributor import submit
from starlette.testclient import TestClient
from test_web_security import draw, image
from visitor import ADDRESS, API, SEQUENCE, Page, error_of, fasta, visit

from deepgps.cli.app import run, run_app
from deepgps.cli.opengps import app as opengps
from deepgps.errors import DeepGPSError, InputError
from opengps.backups import back_up, restore
from opengps.checks import check_site
from opengps.database import Decision
from opengps.security import PeerMiddleware
from opengps.settings import Settings

TOKENS = "ada:first-token-of-the-site, ben:second-token-of-the-site"


def basic(token, name="anyone"):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()}


@pytest.fixture
def moderated(tmp_path, visitor):
    site = visit(tmp_path / "moderated", moderator_tokens=TOKENS)
    assert submit(site).status_code == 201
    return site


def test_nobody_moderates_a_site_without_moderators(visitor):
    assert visitor.client.get("/moderation").status_code == 404
    assert error_of(visitor.client.get(f"{API}/moderation"), 404)["code"] == "not_found"


@pytest.mark.parametrize(
    "headers", [{}, basic("wrong"), basic(""), {"Authorization": "Basic ?"}, basic("ada")]
)
def test_a_moderator_needs_a_token(moderated, headers):
    for path in ("/moderation", f"{API}/moderation"):
        answer = moderated.client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert (
        moderated.client.post("/moderation/1", data={"status": "accepted"}, headers=headers).status_code
        == 401
    )
    body = {"status": "accepted"}
    assert error_of(moderated.client.post(f"{API}/moderation/1", json=body, headers=headers), 401)


def test_who_decided_what_and_when_is_recorded(moderated, capsys):
    first, second = basic("first-token-of-the-site"), {"Authorization": "Bearer second-token-of-the-site"}
    page = moderated.client.get("/moderation", headers=first).text
    assert "NPM1" in page and "You are ada" in page
    sent = {"status": "rejected", "reason": "Out of focus."}
    answer = moderated.client.post("/moderation/1", data=sent, headers=first, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/moderation")
    answer = moderated.client.post(f"{API}/moderation/1", json={"status": "accepted"}, headers=second)
    assert [(each["moderator"], each["status"], each["reason"]) for each in answer.json()] == [
        ("ben", "accepted", None),
        ("ada", "rejected", "Out of focus."),
    ]
    queue = moderated.client.get(f"{API}/moderation?status=accepted", headers=second).json()
    assert (queue["moderator"], queue["images"][0]["image"]["status"]) == ("ben", "accepted")
    assert run(["submissions", "reject", "1", "--data", str(moderated.site.settings.data)]) == 0
    with moderated.site.sessions() as session:
        found = session.query(Decision).order_by(Decision.id).all()
    assert "on the command line" in found[2].moderator
    assert all(each.decided_at > 1e9 and len(each.sha256) == 64 for each in found)
    assert error_of(moderated.client.post(f"{API}/moderation/9", json=sent, headers=first), 404)
    assert moderated.client.post("/moderation/1", data={"status": "odd"}, headers=first).status_code == 422


def test_decisions_stay_when_an_image_is_deleted(moderated):
    headers = basic("first-token-of-the-site")
    moderated.client.post("/moderation/1", data={"status": "accepted"}, headers=headers)
    submission = moderated.client.get(f"{API}/moderation?status=accepted", headers=headers).json()
    moderated.client.delete(submission["images"][0]["image"]["links"]["self"])
    with moderated.site.sessions() as session:
        assert session.query(Decision).one().moderator == "ada"


def behind_proxy(site, client, trusted="127.0.0.1"):
    return TestClient(PeerMiddleware(site.client.app, trusted), client=(client, 1))


def test_a_trusted_proxy_names_its_user(tmp_path, visitor):
    site = visit(tmp_path / "proxy", moderator_header="X-Remote-User", moderators="ada, ben")
    headers = {"X-Remote-User": "ben", "X-Forwarded-For": "203.0.113.9"}
    proxy, direct = behind_proxy(site, "127.0.0.1"), behind_proxy(site, ADDRESS)
    assert "You are ben" in proxy.get("/moderation", headers=headers).text
    assert proxy.get("/moderation", headers={"X-Remote-User": "eve"}).status_code == 403
    assert direct.get("/moderation", headers=headers).status_code == 401
    assert site.client.get("/moderation", headers=headers).status_code == 401


def test_the_api_may_need_a_token(tmp_path, visitor):
    site = visit(tmp_path / "closed", api_token="token-of-the-api")
    for path in (API, f"{API}/models", f"{API}/predictions/x", f"{API}/nuclei"):
        answer = site.client.get(path)
        assert error_of(answer, 401)["code"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(site.send(), 401)
    assert site.client.get(API, headers={"Authorization": "Bearer other"}).status_code == 401
    assert site.client.get(API, headers={"Authorization": "Bearer token-of-the-api"}).status_code == 200
    for path in ("/", "/predict", "/nuclei", f"{API}/nuclei/hek-1/image.png", f"{API}/openapi.json", "/api"):
        assert site.client.get(path).status_code == 200
    assert site.form({"proteins": SEQUENCE, "model": "tiny"}).headers["location"].startswith("/predictions/")


def test_metrics_can_be_closed(tmp_path, visitor):
    assert visit(tmp_path / "closed", metrics=False).client.get("/metrics").status_code == 404


@pytest.mark.parametrize("stripped", [True, False])
def test_every_address_is_below_the_path_of_the_proxy(tmp_path, visitor, stripped):
    site = visit(tmp_path / "below", root_path="/lab/gps")
    prefix = "" if stripped else "/lab/gps"
    answer = site.client.post(
        f"{prefix}/predictions",
        data={"proteins": fasta(2), "model": "tiny", "images": "true", "nuclei": "hek-1"},
        follow_redirects=False,
    )
    job = answer.headers["location"]
    assert job.startswith("/lab/gps/predictions/")
    site.work()
    created = site.client.post(f"{prefix}{API}/predictions", json={"proteins": SEQUENCE, "model": "tiny"})
    assert created.headers["location"].startswith(f"/lab/gps{API}/predictions/")
    assert all(link.startswith("/lab/gps/") for link in created.json()["links"].values())
    sent = submit(site).json()
    pages = ["/", "/predict", "/submit", "/submit/batch", "/models", "/models/tiny", "/nuclei", "/privacy"]
    own = [job.removeprefix("/lab/gps"), sent["links"]["page"].removeprefix("/lab/gps"), "/api", "/nothing"]
    for path in [*pages, *own, f"{own[0]}/results/0"]:
        text = site.client.get(f"{prefix}{path}").text
        page = Page(text)
        links = [
            each.get(name) for _, each in page.elements for name in ("href", "src", "action", "data-spec")
        ]
        inner = [link for link in links if link and link.startswith("/")]
        assert inner and all(link == "/lab/gps/" or link.startswith("/lab/gps/") for link in inner), path
        assert "/lab/gps/lab/gps" not in text
        posted = ("/delete", "/cancel", "/explanation")
        for link in {link for link in inner if not link.endswith(posted)}:
            below = link if not stripped else link.removeprefix("/lab/gps") or "/"
            assert site.client.get(below).status_code in (200, 303, 404 if path == "/nothing" else 200), link
    described = site.client.get(f"{prefix}{API}/openapi.json").json()
    assert described["servers"] == [{"url": "/lab/gps"}]


# Checks.


def findings(settings):
    return {(each.topic, each.level) for each in check_site(settings)}


def test_a_site_is_checked(visitor, capsys):
    data = visitor.site.settings.data
    data.chmod(0o755)
    found = findings(Settings(data=data, trusted_proxies="*", api_token="short"))
    for topic in ("host names", "contact", "trusted proxies", "tokens", "data folder"):
        assert (topic, "wrong") in found
    data.chmod(0o700)
    good = Settings(data=data, allowed_hosts="lab.example", contact="The lab", metrics=False)
    assert not [each for each in findings(good) if each[1] == "wrong"]
    assert run_app(opengps, ["check", "--data", str(data)]) == 1
    shown = capsys.readouterr().out
    for word in ("limits: max_proteins 500", "versions: Python", "/metrics", "GB free", "models: tiny"):
        assert word in shown
    visitor.site.sessions.kw["bind"].dispose()
    for name in ("opengps.db-wal", "opengps.db-shm"):
        (data / name).unlink(missing_ok=True)
    (data / "opengps.db").write_bytes(b"damaged" * 1000)
    assert ("database and files", "wrong") in findings(good)


# Backup and restore.


def test_a_site_is_backed_up_and_restored(visitor, tmp_path, capsys):
    data, copy = visitor.site.settings.data, tmp_path / "copy"
    sent, job = submit(visitor).json(), visitor.predict(fasta(2), images=False)
    assert run_app(opengps, ["backup", str(copy), "--data", str(data)]) == 0
    visitor.client.delete(f"{API}/submissions/{sent['id']}")
    visitor.client.delete(f"{API}/predictions/{job}")
    later = draw(visitor, "a.png", image()).json()["id"]
    visitor.site.sessions.kw["bind"].dispose()
    assert run_app(opengps, ["restore", str(copy), "--data", str(data)]) == 0
    assert "what was there before is in" in capsys.readouterr().out
    again = visit(data)
    assert again.client.get(f"{API}/submissions/{sent['id']}").json()["images"] == sent["images"]
    picture = sent["images"][0]["links"]["nucleus.png"]
    assert again.client.get(picture).content.startswith(b"\x89PNG")
    assert again.rows(job)["total"] == 2
    assert again.client.get(f"{API}/predictions/{later}").status_code == 404
    assert again.site.visitor_key == visitor.site.visitor_key
    (before,) = data.glob("before-restore-*")
    with closing(sqlite3.connect(before / "opengps.db")) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


def test_what_is_no_backup_is_refused(visitor, tmp_path):
    settings = visitor.site.settings
    with pytest.raises(InputError, match="not a backup"):
        restore(settings, tmp_path / "nothing")
    copy = tmp_path / "copy"
    back_up(settings, copy)
    with pytest.raises(InputError, match="exists already"):
        back_up(settings, copy)
    (copy / "opengps.db").write_bytes((copy / "opengps.db").read_bytes()[:5000] + bytes(3000))
    with pytest.raises(DeepGPSError, match="is damaged"):
        restore(settings, copy)
    with pytest.raises(InputError, match="elsewhere"):
        back_up(Settings(data=tmp_path, storage_url="memory://x"), tmp_path / "other")
    with pytest.raises(InputError, match="not the folder of a website"):
        back_up(Settings(data=tmp_path / "empty"), tmp_path / "other")
