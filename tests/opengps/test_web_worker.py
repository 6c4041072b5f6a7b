"""The queue and the worker: fair between jobs, and nothing is lost or doubled when a worker stops."""

import socket
import time

import pytest
from visitor import SEQUENCE, fasta, stored_images, visit

from deepgps.errors import InputError
from deepgps.proteins.protein import Protein
from opengps import queue, worker
from opengps.database import InputRecord, Job, Result, UploadedNucleus, Usage
from opengps.jobs import purge_jobs

ON_SERVICES_TOO = True


def change(visitor, job_id, **values):
    with visitor.site.sessions.begin() as session:
        session.query(Job).filter_by(id=job_id).update(values)


def job(visitor, job_id):
    with visitor.site.sessions() as session:
        return session.get(Job, job_id)


def proteins(visitor, job_id):
    return [row["protein_id"] for row in visitor.rows(job_id, limit=500)["results"]]


def expected(count):
    return [f"p{i}" for i in range(count)]


class KilledError(BaseException):
    """Ends a process, as far as a test in one process can."""


def killed(*_, **__):
    raise KilledError


def killed_after(count, real):
    calls = 0

    def call(*args, **options):
        nonlocal calls
        calls += 1
        if calls == count:
            raise KilledError
        return real(*args, **options)

    return call


def test_a_batch_does_not_block_a_single_protein(visitor):
    batch = visitor.send(fasta(60)).json()["id"]
    visitor.chunk()
    single = visitor.send().json()["id"]
    assert visitor.status(single)["queue_position"] == 2
    visitor.chunk()
    assert visitor.status(single)["queue_position"] == 1
    visitor.chunk()
    assert visitor.status(single)["status"] == "finished"
    assert visitor.status(batch)["predicted"] == 16
    visitor.work()
    assert proteins(visitor, batch) == expected(60)


def test_jobs_are_computed_in_rotation(visitor):
    first, second = (visitor.send(fasta(40)).json()["id"] for _ in range(2))
    for _ in range(4):
        visitor.chunk()
    assert [visitor.status(each)["predicted"] for each in (first, second)] == [16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 7, 16])
def test_a_worker_killed_at_any_protein_loses_and_doubles_nothing(visitor, monkeypatch, at):
    batch = visitor.send(fasta(24), nuclei=["hek-1", "u2os-1"], images=True).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "save_progress", killed_after(at, worker.save_progress))
        with pytest.raises(KilledError):
            visitor.work()
    assert job(visitor, batch).worker is not None
    assert not visitor.chunk()
    change(visitor, batch, worker=f"{socket.gethostname()}:999999999:gone")
    queue.release_dead_workers(visitor.site)
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"
    assert visitor.status(batch)["predicted"] == 24
    assert proteins(visitor, batch) == [each for each in expected(24) for _ in range(2)]
    assert len(stored_images(visitor, batch)) == 96


def test_a_worker_killed_before_the_report_leaves_it_to_the_next_one(visitor, monkeypatch):
    batch = visitor.send(fasta(3)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_write_report", killed)
        with pytest.raises(KilledError):
            visitor.work()
    assert visitor.status(batch)["status"] == "running"
    change(visitor, batch, worker=None)
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"
    assert proteins(visitor, batch) == expected(3)
    assert (visitor.job_folder(batch) / "report.html").exists()


def test_a_job_whose_report_kills_every_worker_fails(visitor, monkeypatch):
    batch = visitor.send(fasta(1)).json()["id"]
    monkeypatch.setattr(worker, "_write_report", killed)
    for _ in range(visitor.site.settings.max_attempts + 1):
        with pytest.raises(KilledError):
            visitor.chunk()
        change(visitor, batch, worker=None)
    assert not visitor.chunk()
    assert visitor.status(batch)["status"] == "failed"


def test_images_are_stored_before_their_results(visitor, monkeypatch):
    batch = visitor.send(fasta(20)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "save_progress", killed)
        with pytest.raises(KilledError):
            visitor.chunk()
    assert visitor.rows(batch)["total"] == 0
    assert len(stored_images(visitor, batch)) == 2
    change(visitor, batch, worker=None)
    visitor.work()
    assert proteins(visitor, batch) == expected(20)
    assert len(stored_images(visitor, batch)) == 40


def test_an_expired_lease_is_taken_over(visitor):
    batch = visitor.send(fasta(3)).json()["id"]
    change(visitor, batch, status="running", worker="elsewhere:1:x", lease_expires_at=time.time() + 60)
    queue.release_dead_workers(visitor.site)
    assert not visitor.chunk()
    change(visitor, batch, lease_expires_at=time.time() - 1)
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"


def test_a_worker_that_wakes_up_after_its_lease_was_taken_over_adds_nothing(visitor, monkeypatch):
    batch = visitor.send(fasta(4)).json()["id"]
    real = worker.save_progress

    def sleeping(*args, **options):
        """Meanwhile another worker takes the job over and finishes it."""
        monkeypatch.setattr(worker, "save_progress", real)
        change(visitor, batch, worker=None)
        visitor.work()
        real(*args, **options)

    monkeypatch.setattr(worker, "save_progress", sleeping)
    visitor.chunk()
    status = visitor.status(batch)
    assert (status["status"], status["predicted"]) == ("finished", 4)
    assert proteins(visitor, batch) == expected(4)
    assert len(stored_images(visitor, batch)) == 8


def test_a_worker_that_lost_its_lease_stops(visitor, monkeypatch):
    batch = visitor.send(fasta(5)).json()["id"]
    real = worker.save_progress

    def robbed(*args, **options):
        change(visitor, batch, worker="elsewhere:1:x", lease_expires_at=time.time() + 60)
        real(*args, **options)

    monkeypatch.setattr(worker, "save_progress", robbed)
    visitor.chunk()
    assert job(visitor, batch).worker == "elsewhere:1:x"
    assert visitor.rows(batch)["total"] == 0


def test_a_job_that_kills_every_worker_fails(visitor, monkeypatch):
    batch = visitor.send(fasta(3)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "encode_rows", killed)
        for _ in range(visitor.site.settings.max_attempts):
            with pytest.raises(KilledError):
                visitor.chunk()
            change(visitor, batch, worker=None)
    assert not visitor.chunk()
    status = visitor.status(batch)
    assert status["status"] == "failed"
    assert "stopped 3 times" in status["error"]


def test_a_full_disk_is_tried_again(visitor, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    batch = visitor.send(fasta(3)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(type(visitor.site.storage), "write", full)
        visitor.chunk()
        assert visitor.status(batch)["status"] == "running"
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"
    batch = visitor.send(fasta(3)).json()["id"]
    monkeypatch.setattr(type(visitor.site.storage), "write", full)
    visitor.work()
    assert "No space left on device" in visitor.status(batch)["error"]


def test_a_model_that_was_replaced_fails_the_job(visitor):
    batch = visitor.send(fasta(3)).json()["id"]
    change(visitor, batch, model_sha256="0" * 64)
    visitor.work()
    assert "was replaced" in visitor.status(batch)["error"]


def test_cancelling_in_the_middle_of_a_chunk_stops_it(visitor, monkeypatch):
    batch = visitor.send(fasta(10)).json()["id"]
    real = worker.save_progress

    def cancelled(*args, **options):
        change(visitor, batch, status="cancelled")
        real(*args, **options)

    monkeypatch.setattr(worker, "save_progress", cancelled)
    visitor.work()
    assert visitor.status(batch)["status"] == "cancelled"
    assert visitor.rows(batch)["total"] == 1
    assert job(visitor, batch).worker is None


def test_deleting_in_the_middle_of_a_chunk_leaves_nothing(visitor, monkeypatch):
    batch = visitor.send(fasta(10)).json()["id"]
    real = worker.save_progress

    def deleted(*args, **options):
        visitor.client.delete(f"/api/v1/predictions/{batch}")
        # The worker stores another image after the files were removed.
        visitor.site.storage.write({f"jobs/{batch}/images/late.png": b"x"})
        real(*args, **options)

    monkeypatch.setattr(worker, "save_progress", deleted)
    visitor.work()
    assert visitor.client.get(f"/api/v1/predictions/{batch}").status_code == 404
    assert not visitor.job_folder(batch).exists()
    assert job(visitor, batch) is None


def test_expired_jobs_are_deleted(visitor):
    from test_web_security import draw, image

    old, new = draw(visitor, "a.png", image()).json()["id"], visitor.predict()
    visitor.work()
    change(visitor, old, expires_at=time.time() - 1)
    assert visitor.client.get(f"/predictions/{old}").status_code == 404
    purge_jobs(visitor.site)
    assert not visitor.job_folder(old).exists()
    with visitor.site.sessions() as session:
        for table in (Job, InputRecord, UploadedNucleus, Result):
            key = table.id if table is Job else table.job_id
            assert session.query(table).filter(key == old).count() == 0
    assert visitor.rows(new)["total"] == 1


def test_retention_is_a_setting_and_shown(tmp_path, visitor):
    short = visit(tmp_path / "short", retention_days=0.5)
    batch = short.send().json()
    assert short.client.get("/privacy").text.count("0.5") >= 2
    stored = job(short, batch["id"])
    assert stored.expires_at - stored.created_at == pytest.approx(43_200)


def test_addresses_are_deleted_after_an_hour(visitor):
    visitor.send()
    with visitor.site.sessions.begin() as session:
        session.query(Usage).update({Usage.created_at: time.time() - 3700})
    purge_jobs(visitor.site)
    with visitor.site.sessions() as session:
        assert session.query(Usage).count() == 0


def test_names_are_looked_up_once_and_a_failure_stays(visitor, monkeypatch):
    asked = []

    def look_up(_, name, __):
        asked.append(name)
        if name == "GONE1":
            raise InputError("UniProt has no entry 'GONE1'; check its spelling.")
        return Protein(name, SEQUENCE + "ACDE" * len(asked), "SYMBOL", "P12345")

    monkeypatch.setattr(worker, "look_up", look_up)
    names = [f"SYM{i}" for i in range(20)]
    batch = visitor.predict(" ".join(["GONE1", *names]))
    assert sorted(asked) == sorted(["GONE1", *names])
    status = visitor.status(batch)
    assert (status["status"], status["predicted"], status["rejected"]) == ("finished", 20, 1)
    assert proteins(visitor, batch) == names
    assert 'SYMBOL · <a href="https://www.uniprot.org/uniprotkb/P12345"' in visitor.page(
        f"/predictions/{batch}/results/0"
    )


def test_slow_lookups_do_not_block_other_jobs(tmp_path, visitor, monkeypatch):
    monkeypatch.setattr(worker, "look_up", lambda _, name, __: Protein(name, SEQUENCE))
    hasty = visit(tmp_path / "hasty", chunk_lookup_s=1e-9)
    names = [f"SYM{i}" for i in range(6)]
    batch = hasty.send(" ".join(names)).json()["id"]
    single = hasty.send().json()["id"]
    hasty.chunk()
    hasty.chunk()
    assert hasty.status(single)["status"] == "finished"
    assert (hasty.status(batch)["status"], hasty.status(batch)["predicted"]) == ("running", 1)
    hasty.work()
    assert hasty.status(batch)["status"] == "finished"
    assert proteins(hasty, batch) == names


def test_a_worker_that_lost_its_lease_saves_no_lookup(visitor, monkeypatch):
    batch = visitor.send("GONE1 GONE2").json()["id"]

    def look_up(_, name, __):
        change(visitor, batch, worker="elsewhere:1:x", lease_expires_at=time.time() + 60)
        raise InputError(f"UniProt has no entry '{name}'; check its spelling.")

    monkeypatch.setattr(worker, "look_up", look_up)
    visitor.chunk()
    assert visitor.status(batch)["rejected"] == 0


def test_a_job_of_unknown_names_finishes(visitor, monkeypatch):
    def look_up(_, name, __):
        raise InputError(f"UniProt has no entry '{name}'; check its spelling.")

    monkeypatch.setattr(worker, "look_up", look_up)
    batch = visitor.predict("GONE1 GONE2")
    status = visitor.status(batch)
    assert (status["status"], status["predicted"], status["rejected"]) == ("finished", 0, 2)
    assert "GONE2" in visitor.client.get(f"/api/v1/predictions/{batch}/rejected.csv").text
    assert visitor.client.get(f"/predictions/{batch}").status_code == 200
