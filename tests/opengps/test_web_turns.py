import socket
import time

import pytest
from visitor import SEQUENCE, fasta, jsonl, visit

from deepgps.errors import InputError
from deepgps.files import lock_folder
from deepgps.proteins.protein import Protein
from opengps import claims, lookups, turns
from opengps.store import purge
from opengps.tables import Entry, Job, OwnNucleus, Row, Visit

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
    """What ends a process, as far as a test in one process can."""


def test_a_batch_does_not_starve_a_single_protein(visitor):
    batch = visitor.send(fasta(60)).json()["id"]
    visitor.turn()
    single = visitor.send().json()["id"]
    assert visitor.status(single)["position"] == 2
    visitor.turn()
    assert visitor.status(single)["position"] == 1
    visitor.turn()
    assert visitor.status(single)["status"] == "finished"
    assert visitor.status(batch)["predicted"] == 16
    visitor.work()
    assert proteins(visitor, batch) == expected(60)


def test_turns_go_round(visitor):
    first, second = (visitor.send(fasta(40)).json()["id"] for _ in range(2))
    for _ in range(4):
        visitor.turn()
    assert [visitor.status(each)["predicted"] for each in (first, second)] == [16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 7, 16])
def test_a_worker_killed_at_any_protein_loses_and_doubles_nothing(visitor, monkeypatch, at):
    batch = visitor.send(fasta(24), nuclei=["hek-1", "u2os-1"], images=True).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(turns, "keep_on", dying_after(at, turns.keep_on))
        with pytest.raises(KilledError):
            visitor.work()
    assert job(visitor, batch).holder is not None
    assert not visitor.turn()
    change(visitor, batch, holder=f"{socket.gethostname()}:999999999:gone")
    claims.free_the_dead(visitor.site.sessions)
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"
    wanted = [each for each in expected(24) for _ in range(2)]
    assert proteins(visitor, batch) == wanted
    folder = visitor.job_folder(batch)
    assert [record["protein_id"] for record in jsonl(folder / "results.jsonl")] == wanted
    assert len(list((folder / "images").glob("*.png"))) == 48


def dying_after(count, real):
    calls = 0

    def renew(*args):
        nonlocal calls
        calls += 1
        if calls == count:
            raise KilledError
        real(*args)

    return renew


def test_rows_on_disk_that_the_database_missed_are_copied_once(visitor, monkeypatch):
    batch = visitor.send(fasta(20)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(turns, "_row", lambda *_: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            visitor.turn()
    assert visitor.rows(batch)["total"] == 0
    assert len(jsonl(visitor.job_folder(batch) / "results.jsonl")) == 1
    change(visitor, batch, holder=None)
    visitor.work()
    assert proteins(visitor, batch) == expected(20)


def test_a_lease_that_runs_out_is_taken_over(visitor):
    batch = visitor.send(fasta(3)).json()["id"]
    change(visitor, batch, status="running", holder="elsewhere:1:x", held_until=time.time() + 60)
    claims.free_the_dead(visitor.site.sessions)
    assert not visitor.turn()
    change(visitor, batch, held_until=time.time() - 1)
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"


def test_a_worker_taken_for_dead_that_still_writes_is_left_alone(visitor):
    import os

    batch = visitor.send(fasta(3)).json()["id"]
    folder = visitor.job_folder(batch)
    folder.mkdir(parents=True)
    held = lock_folder(folder)
    assert visitor.turn()
    assert visitor.rows(batch)["total"] == 0
    assert visitor.status(batch)["status"] == "running"
    os.close(held)
    change(visitor, batch, held_until=0)
    visitor.work()
    assert proteins(visitor, batch) == expected(3)


def test_a_turn_that_was_taken_over_stops(visitor, monkeypatch):
    batch = visitor.send(fasta(5)).json()["id"]
    real = turns.keep_on

    def robbed(*args):
        change(visitor, batch, holder="elsewhere:1:x", held_until=time.time() + 60)
        real(*args)

    monkeypatch.setattr(turns, "keep_on", robbed)
    visitor.turn()
    assert job(visitor, batch).holder == "elsewhere:1:x"
    assert visitor.rows(batch)["total"] == 0


def test_a_job_that_kills_every_worker_is_given_up(visitor, monkeypatch):
    batch = visitor.send(fasta(3)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(turns, "save", lambda *_, **__: (_ for _ in ()).throw(KilledError))
        for _ in range(visitor.site.settings.max_attempts):
            with pytest.raises(KilledError):
                visitor.turn()
            change(visitor, batch, holder=None)
    assert not visitor.turn()
    status = visitor.status(batch)
    assert status["status"] == "failed"
    assert "broke off 3 times" in status["message"]


def test_a_full_disk_is_tried_again_and_then_told(visitor, monkeypatch):
    batch = visitor.send(fasta(3)).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(
            turns, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        visitor.turn()
        assert visitor.status(batch)["status"] == "running"
    visitor.work()
    assert visitor.status(batch)["status"] == "finished"


def test_a_model_that_was_replaced_fails_the_job(visitor):
    batch = visitor.send(fasta(3)).json()["id"]
    change(visitor, batch, sha256="0" * 64)
    visitor.work()
    assert "was replaced" in visitor.status(batch)["message"]


def test_cancelling_in_the_middle_of_a_turn_stops_it(visitor, monkeypatch):
    batch = visitor.send(fasta(10)).json()["id"]
    real = turns.keep_on

    def cancelled(*args):
        change(visitor, batch, status="cancelled")
        real(*args)

    monkeypatch.setattr(turns, "keep_on", cancelled)
    visitor.work()
    assert visitor.status(batch)["status"] == "cancelled"
    assert visitor.rows(batch)["total"] == 1
    assert job(visitor, batch).holder is None


def test_deleting_in_the_middle_of_a_turn_leaves_nothing(visitor, monkeypatch):
    batch = visitor.send(fasta(10)).json()["id"]
    real = turns.keep_on

    def deleted(*args):
        visitor.client.delete(f"/api/v1/predictions/{batch}")
        real(*args)

    monkeypatch.setattr(turns, "keep_on", deleted)
    visitor.work()
    assert visitor.client.get(f"/api/v1/predictions/{batch}").status_code == 404
    purge(visitor.site.sessions, visitor.site.settings)
    assert not visitor.job_folder(batch).exists()
    assert job(visitor, batch) is None


def test_what_is_past_its_time_is_gone(visitor):
    from test_web_guard import draw, image

    old, new = draw(visitor, "a.png", image()).json()["id"], visitor.predict()
    visitor.work()
    change(visitor, old, expires=time.time() - 1)
    assert visitor.client.get(f"/predictions/{old}").status_code == 404
    purge(visitor.site.sessions, visitor.site.settings)
    assert not visitor.job_folder(old).exists()
    with visitor.site.sessions() as session:
        for table in (Job, Entry, OwnNucleus, Row):
            key = table.id if table is Job else table.job_id
            assert session.query(table).filter(key == old).count() == 0
    assert visitor.rows(new)["total"] == 1


def test_retention_is_a_setting_and_printed(tmp_path, visitor):
    short = visit(tmp_path / "short", retention_days=0.5)
    batch = short.send().json()
    assert short.client.get("/privacy").text.count("0.5") >= 2
    assert job(short, batch["id"]).expires - job(short, batch["id"]).created == pytest.approx(43_200)


def test_addresses_are_forgotten(visitor):
    visitor.send()
    with visitor.site.sessions.begin() as session:
        session.query(Visit).update({Visit.at: time.time() - 3700})
    purge(visitor.site.sessions, visitor.site.settings)
    with visitor.site.sessions() as session:
        assert session.query(Visit).count() == 0


def test_names_are_looked_up_once_and_a_failure_stays(visitor, monkeypatch):
    asked = []

    def fetch_protein(name, **_):
        asked.append(name)
        if name == "GONE1":
            raise InputError("UniProt has no entry 'GONE1'; check its spelling.")
        return Protein(name, SEQUENCE + "ACDE" * len(asked), "SYMBOL", "P12345")

    monkeypatch.setattr(lookups, "fetch_protein", fetch_protein)
    names = [f"SYM{i}" for i in range(20)]
    batch = visitor.predict(" ".join(["GONE1", *names]))
    assert sorted(asked) == sorted(["GONE1", *names])
    status = visitor.status(batch)
    assert (status["status"], status["predicted"], status["rejected"]) == ("finished", 20, 1)
    assert proteins(visitor, batch) == names
    assert "SYMBOL · P12345" in visitor.page(f"/predictions/{batch}/results/0")


def test_slow_lookups_keep_nobody_waiting(tmp_path, visitor, monkeypatch):
    monkeypatch.setattr(lookups, "fetch_protein", lambda name, **_: Protein(name, SEQUENCE))
    hasty = visit(tmp_path / "hasty", turn_lookup_s=1e-9)
    names = [f"SYM{i}" for i in range(6)]
    batch = hasty.send(" ".join(names)).json()["id"]
    single = hasty.send().json()["id"]
    hasty.turn()
    hasty.turn()
    assert hasty.status(single)["status"] == "finished"
    assert (hasty.status(batch)["status"], hasty.status(batch)["predicted"]) == ("running", 1)
    hasty.work()
    assert hasty.status(batch)["status"] == "finished"
    assert proteins(hasty, batch) == names


def test_names_that_nobody_knows_end_the_job_in_order(visitor, monkeypatch):
    def fetch_protein(name, **_):
        raise InputError(f"UniProt has no entry '{name}'; check its spelling.")

    monkeypatch.setattr(lookups, "fetch_protein", fetch_protein)
    batch = visitor.predict("GONE1 GONE2")
    status = visitor.status(batch)
    assert (status["status"], status["predicted"], status["rejected"]) == ("finished", 0, 2)
    assert "GONE2" in visitor.client.get(f"/api/v1/predictions/{batch}/rejected.csv").text
    assert visitor.client.get(f"/predictions/{batch}").status_code == 200
