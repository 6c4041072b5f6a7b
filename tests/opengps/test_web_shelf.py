"""A site whose files are elsewhere: in a shared memory, as far as a test in one process can be elsewhere."""

import io
import json
import os
import time
import zipfile
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from contributor import pair, submit
from test_web_turns import KilledError, change, dying_after, expected, proteins
from visitor import API, fasta, visit

from deepgps.errors import DeepGPSError, InputError
from opengps import turns, workplace
from opengps.settings import Settings
from opengps.shelf import Shelf, shelf_of
from opengps.submissions.comparing import compare_next
from opengps.submissions.export import export_accepted
from opengps.submissions.moderation import decide
from opengps.submissions.store import purge_submissions


@pytest.fixture(params=["memory", "a folder"])
def shelf(request, tmp_path):
    return Shelf(f"memory://{uuid4().hex}" if request.param == "memory" else str(tmp_path / "its shelf"))


def test_a_file_is_written_read_listed_and_removed(shelf):
    shelf.write("jobs/a/images/x.png", b"1")
    shelf.write("jobs/a/images/x.png", b"22")
    shelf.write("jobs/b/run.json", b"3")
    assert shelf.read("jobs/a/images/x.png") == b"22"
    assert (shelf.names("jobs"), shelf.names("jobs/a")) == (["a", "b"], ["images"])
    assert time.time() - shelf.changed("jobs/a") < 60
    shelf.remove("jobs/a")
    assert shelf.names("jobs") == ["b"]
    with pytest.raises(FileNotFoundError):
        shelf.read("jobs/a/images/x.png")


def test_what_is_not_there_is_nothing(shelf):
    shelf.remove("jobs/nobody")
    assert (shelf.names("jobs"), shelf.changed("jobs/nobody")) == ([], 0.0)


def test_a_folder_holds_no_half_written_file(tmp_path, monkeypatch):
    shelf = Shelf(str(tmp_path))
    shelf.write("a/b", b"whole")
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shelf.write("a/b", b"new")
    assert shelf.read("a/b") == b"whole"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_an_address_that_cannot_be_used_is_said(tmp_path):
    for url in ("nothing://x", "gibberish::x"):
        with pytest.raises(InputError, match="OPENGPS_FILES_URL"):
            Shelf(url)
    (tmp_path / "file").touch()
    with pytest.raises(DeepGPSError, match="cannot be written"):
        Shelf(str(tmp_path / "file" / "below")).check()


@pytest.fixture
def away(tmp_path, visitor):
    """A site with its files elsewhere, whose every worker is on another machine."""
    return visit(tmp_path / "away", files_url=f"memory://{uuid4().hex}", turn_images=4)


def kept(away):
    url = away.site.settings.files_url
    return sorted(path for path in fsspec.filesystem("memory").find(url) if not path.endswith("openGPS.txt"))


def zipped(away, job):
    content = away.client.get(f"{API}/predictions/{job}/results.zip").content
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


def test_turns_go_on_from_each_others_files(away):
    job = away.predict(fasta(5), nuclei=["hek-1", "u2os-1"])
    assert away.status(job)["status"] == "finished"
    archive = zipped(away, job)
    assert sum(name.startswith("images/") for name in archive.namelist()) == 20
    # Of all turns, though each had a folder of its own.
    assert archive.read("report.html").count(b"data:image/jpeg") == 10
    assert b"is not there" not in archive.read("report.html")
    run = json.loads(archive.read("run.json"))
    assert run["finished"] and run["proteins"] == {"predicted": 5, "rejected": 0}
    assert [json.loads(line)["protein_id"] for line in archive.read("results.jsonl").splitlines()][
        ::2
    ] == expected(5)
    for name in ("image.png", "image.ome.tif", "overlay.png"):
        assert away.client.get(f"{API}/predictions/{job}/results/9/{name}").status_code == 200
    assert list((away.site.settings.data / "scratch").iterdir()) == []
    assert not (away.site.settings.data / "jobs").exists()


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_killed_worker_loses_and_doubles_nothing(away, monkeypatch, at):
    job = away.send(fasta(8), nuclei=["hek-1"]).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(turns, "keep_on", dying_after(at, turns.keep_on))
        with pytest.raises(KilledError):
            away.work()
    change(away, job, holder=None)
    away.work()
    assert proteins(away, job) == expected(8)
    assert sum(path.endswith(".png") for path in kept(away)) == 8


def test_a_turn_that_was_taken_over_adds_nothing(away, monkeypatch):
    """A worker that was taken for dead goes on to write; the one that took over does not stumble over it."""
    job = away.send(fasta(4), nuclei=["hek-1"]).json()["id"]
    real = turns.keep_on

    def robbed(*args):
        monkeypatch.setattr(turns, "keep_on", real)
        change(away, job, holder=None, held_until=0)
        away.turn()
        real(*args)

    monkeypatch.setattr(turns, "keep_on", robbed)
    away.turn()
    away.work()
    assert proteins(away, job) == expected(4)


def test_a_job_that_is_deleted_leaves_no_file(away):
    job = away.predict(fasta(2), nuclei=["hek-1"])
    assert len(kept(away)) == 6
    away.client.delete(f"{API}/predictions/{job}")
    assert kept(away) == []


def test_labels_alone_need_no_image(away):
    job = away.predict(fasta(3), images=False)
    assert proteins(away, job) == expected(3)
    assert [path.rpartition("/")[2] for path in kept(away)] == ["report.html", "run.json"]


def test_a_failure_names_the_job_and_no_folder(away, monkeypatch):
    job = away.send(fasta(3), nuclei=["hek-1"]).json()["id"]

    def refused(_predictor, _proteins, out, **_):
        raise InputError(f"'{out}' is a file; give --out a folder.")

    monkeypatch.setattr(turns, "save", refused)
    away.turn()
    found = away.client.get(f"{API}/predictions/{job}").json()
    assert found["message"].startswith(f"'{job}' is a file")


def test_submissions_are_compared_exported_and_deleted_there(away, tmp_path):
    sent = submit(away).json()
    while compare_next(away.site.sessions, away.site.settings):
        pass
    shown = away.client.get(f"{API}/submissions/{sent['id']}").json()["images"][0]
    assert shown["comparison"] is not None
    assert away.client.get(shown["links"]["drawn.png"]).status_code == 200
    decide(away.site.sessions, [shown["number"]], "accepted", None)
    assert export_accepted(away.site.sessions, away.site.settings, tmp_path / "store").images == 1
    assert np.load(tmp_path / "store" / "crops.npy").any()
    assert len(kept(away)) == 3
    away.client.delete(f"{API}/submissions/{sent['id']}")
    assert kept(away) == []


def test_a_comparison_of_what_was_deleted_leaves_no_file(away, monkeypatch):
    sent = submit(away, pair(3)).json()
    from opengps.submissions import comparing

    real = comparing.load_model

    def deleted(name):
        away.client.delete(f"{API}/submissions/{sent['id']}")
        return real(name)

    monkeypatch.setattr(comparing, "load_model", deleted)
    assert compare_next(away.site.sessions, away.site.settings)
    assert kept(away) == []


def test_what_was_left_half_submitted_is_swept_once_it_is_old(away, monkeypatch):
    shelf_of(away.site.settings).write("submissions/orphan/a.npy", b"x")
    purge_submissions(away.site.sessions, away.site.settings)
    assert len(kept(away)) == 1
    monkeypatch.setattr("opengps.submissions.store._ORPHAN_S", -60)
    purge_submissions(away.site.sessions, away.site.settings)
    assert kept(away) == []


def test_what_a_killed_worker_left_in_scratch_is_swept_once_it_is_old(tmp_path):
    settings = Settings(data=tmp_path)
    old, new = tmp_path / "scratch" / "old", tmp_path / "scratch" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    workplace.sweep_scratch(settings)
    assert (old.exists(), new.exists()) == (False, True)
