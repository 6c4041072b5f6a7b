"""File storage, and a site whose files are elsewhere: in memory, as far as a test in one process allows."""

import io
import json
import time
import zipfile
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from contributor import pair, submit
from test_web_worker import KilledError, change, expected, killed_after, proteins
from visitor import API, fasta, visit

from deepgps.errors import DeepGPSError, InputError
from opengps import worker
from opengps.jobs import purge_jobs
from opengps.storage import Storage
from opengps.submissions.comparison import compare_next
from opengps.submissions.export import export_accepted
from opengps.submissions.store import moderate, purge_submissions


@pytest.fixture(params=["memory", "a folder"])
def storage(request, tmp_path):
    return Storage(f"memory://{uuid4().hex}" if request.param == "memory" else str(tmp_path / "its files"))


def test_files_are_written_read_listed_and_removed(storage):
    storage.write({"jobs/a/images/x.png": b"1"})
    storage.write({"jobs/a/images/x.png": b"22", "jobs/b/run.json": b"3"})
    assert storage.read("jobs/a/images/x.png") == b"22"
    assert storage.read_existing(["jobs/b/run.json", "jobs/b/none"]) == {"jobs/b/run.json": b"3"}
    assert (storage.names("jobs"), storage.names("jobs/a")) == (["a", "b"], ["images"])
    assert time.time() - storage.modified("jobs/a") < 60
    storage.remove("jobs/a")
    assert storage.names("jobs") == ["b"]
    with pytest.raises(FileNotFoundError):
        storage.read("jobs/a/images/x.png")


def test_missing_files_are_no_error(storage):
    storage.remove("jobs/none")
    assert (storage.names("jobs"), storage.modified("jobs/none")) == ([], 0.0)
    assert storage.read_existing([]) == {}


def test_a_folder_holds_no_half_written_file(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    storage.write({"a/b": b"whole"})
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            storage.write({"a/b": b"new"})
    assert storage.read("a/b") == b"whole"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_an_unusable_address_is_an_error(tmp_path):
    for url in ("nothing://x", "gibberish::x"):
        with pytest.raises(InputError, match="OPENGPS_STORAGE_URL"):
            Storage(url)
    (tmp_path / "file").touch()
    with pytest.raises(DeepGPSError, match="cannot be written"):
        Storage(str(tmp_path / "file" / "below")).check()


@pytest.fixture
def away(tmp_path, visitor):
    """A site whose files are not in a folder of this machine."""
    return visit(tmp_path / "away", storage_url=f"memory://{uuid4().hex}", chunk_images=4)


def files(away):
    url = away.site.settings.storage_url
    return sorted(
        path
        for path in fsspec.filesystem("memory").find(url)
        if not path.endswith(("openGPS.txt", "visitors.key"))
    )


def results_zip(away, job):
    content = away.client.get(f"{API}/predictions/{job}/results.zip").content
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


def test_chunks_continue_each_other(away):
    job = away.predict(fasta(5), nuclei=["hek-1", "u2os-1"])
    assert away.status(job)["status"] == "finished"
    archive = results_zip(away, job)
    assert sum(name.startswith("images/") for name in archive.namelist()) == 20
    # The images of all chunks, each in the gallery and on its card.
    assert archive.read("report.html").count(b"data:image/jpeg") == 20
    run = json.loads(archive.read("run.json"))
    assert run["finished"] and run["proteins"] == {"predicted": 5, "rejected": 0}
    records = [json.loads(line) for line in archive.read("results.jsonl").splitlines()]
    assert [record["protein_id"] for record in records][::2] == expected(5)
    for name in ("image.png", "image.ome.tif", "overlay.png"):
        assert away.client.get(f"{API}/predictions/{job}/results/9/{name}").status_code == 200
    assert not (away.site.settings.data / "jobs").exists()


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_killed_worker_loses_and_doubles_nothing(away, monkeypatch, at):
    job = away.send(fasta(8), nuclei=["hek-1"]).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "save_progress", killed_after(at, worker.save_progress))
        with pytest.raises(KilledError):
            away.work()
    change(away, job, worker=None)
    away.work()
    assert proteins(away, job) == expected(8)
    assert sum(path.endswith(".png") for path in files(away)) == 8


def test_a_deleted_job_leaves_no_file(away):
    job = away.predict(fasta(2), nuclei=["hek-1"])
    assert len(files(away)) == 6
    away.client.delete(f"{API}/predictions/{job}")
    assert files(away) == []


def test_labels_alone_store_no_image(away):
    job = away.predict(fasta(3), images=False)
    assert proteins(away, job) == expected(3)
    assert [path.rpartition("/")[2] for path in files(away)] == ["report.html", "run.json"]


def test_submissions_are_compared_exported_and_deleted(away, tmp_path):
    sent = submit(away).json()
    while compare_next(away.site):
        pass
    image = away.client.get(f"{API}/submissions/{sent['id']}").json()["images"][0]
    assert image["comparison"] is not None
    assert away.client.get(image["links"]["drawn.png"]).status_code == 200
    moderate(away.site.sessions, [image["number"]], "accepted", None, "a moderator")
    assert export_accepted(away.site, tmp_path / "store").images == 1
    assert np.load(tmp_path / "store" / "crops.npy").any()
    assert len(files(away)) == 3
    away.client.delete(f"{API}/submissions/{sent['id']}")
    assert files(away) == []


def test_a_comparison_of_a_deleted_image_leaves_no_file(away, monkeypatch):
    sent = submit(away, pair(3)).json()
    from opengps.submissions import comparison

    real = comparison.load_predictor

    def deleted(name):
        away.client.delete(f"{API}/submissions/{sent['id']}")
        return real(name)

    monkeypatch.setattr(comparison, "load_predictor", deleted)
    assert compare_next(away.site)
    assert files(away) == []


def test_files_without_a_row_are_removed_after_an_hour(away, monkeypatch):
    job = away.predict(fasta(1), nuclei=["hek-1"])
    kept = files(away)
    away.site.storage.write({"submissions/orphan/a.npy": b"x", "jobs/orphan/images/a.png": b"x"})
    purge_submissions(away.site), purge_jobs(away.site)
    assert len(files(away)) == len(kept) + 2
    monkeypatch.setattr("opengps.jobs.HOUR_S", -60)
    purge_submissions(away.site), purge_jobs(away.site)
    assert files(away) == kept
    assert away.status(job)["status"] == "finished"
