import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import deepgps
from conftest import round_nucleus
from deepgps.errors import BundleError, DeepGPSError, InputError
from deepgps.parallel import WorkerDiedError
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results import rows as module
from deepgps.results.predict import predict_to_folder
from deepgps.results.rows import PredictionTask, _predict_chunk, chunks

CELLS = (round_nucleus("one"), round_nucleus("two", 30))
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def protein(number, length=40):
    return Protein(f"P{number}", "M" + "".join(LETTERS[(number * 7 + k * k) % 20] for k in range(length - 1)))


def proteins(count):
    return [protein(number) for number in range(count)]


def files(folder):
    """Everything but the clock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in {"run.json", "report.html", "ro-crate-metadata.json"}
    }


def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_RESIDUES", 120)


def test_workers_draw_mean_images_where_the_model_does(predictor, tmp_path):
    means = predictor.with_mean_images()
    predict_to_folder(means, proteins(2), tmp_path / "here", cells=CELLS)
    predict_to_folder(means, proteins(2), tmp_path / "there", cells=CELLS, workers=2)
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert json.loads((tmp_path / "here/run.json").read_text())["options"]["mean"] is True
    with pytest.raises(InputError, match="another choice of options"):
        predict_to_folder(predictor, proteins(2), tmp_path / "here", cells=CELLS)


def test_chunks_are_limited_by_residues_and_by_images(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_RESIDUES", 100)
    lengths = [30, 30, 30, 30, 250, 10, 90]
    given = [protein(number, length) for number, length in enumerate(lengths)]
    found = [[len(each.sequence) for each in chunk] for chunk in chunks(given, 0)]
    assert found == [[30, 30, 30], [30], [250], [10, 90]]
    monkeypatch.setattr(module, "CHUNK_IMAGES", 4)
    assert [len(chunk) for chunk in chunks(given, 2)] == [2, 2, 1, 2]
    assert [len(chunk) for chunk in chunks(given, 9)] == [1] * 7


def test_chunks_are_read_as_they_are_taken(monkeypatch):
    small_chunks(monkeypatch)
    read = []
    found = chunks((read.append(each) or each for each in proteins(100)), 0)
    next(found)
    assert len(read) == 4


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"images": False}, {"cells": CELLS}])
def test_workers_write_what_one_process_writes(predictor, tmp_path, monkeypatch, options):
    small_chunks(monkeypatch)
    given = [*proteins(12), Rejection("X", "f", "It is no good."), protein(50, 700)]
    predict_to_folder(predictor, given, tmp_path / "one", **options)
    heard = []
    predict_to_folder(predictor, given, tmp_path / "two", workers=2, on_protein=heard.append, **options)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert heard == [*(f"P{number}" for number in range(12)), "P50"]


def test_workers_continue_what_one_process_began(predictor, tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    predict_to_folder(predictor, proteins(9), tmp_path / "whole", cells=CELLS)
    assert not predict_to_folder(predictor, proteins(9), tmp_path / "a", cells=CELLS, limit=4).finished
    summary = predict_to_folder(predictor, proteins(9), tmp_path / "a", cells=CELLS, workers=2)
    assert (summary.predicted, summary.resumed) == (9, 4)
    assert files(tmp_path / "a") == files(tmp_path / "whole")


def task(predictor, **changed):
    return replace(PredictionTask(predictor.bundle, None, False, (), False, "files", 1), **changed)


def test_a_worker_loads_its_model_once(predictor, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "_loaded", {})
    monkeypatch.setattr(module, "Predictor", lambda *_, **__: loaded.append(1) or predictor)
    for chunk in (proteins(2), proteins(3)):
        assert [row.record["protein_id"] for row in _predict_chunk(task(predictor), chunk)] == [
            p.id for p in chunk
        ]
    assert loaded == [1]
    _predict_chunk(task(predictor, threads=2), proteins(1))
    assert loaded == [1, 1]


def test_a_worker_of_another_version_is_refused(predictor):
    with pytest.raises(DeepGPSError, match=f"has deepGPS {deepgps.__version__} and not 0.0.0"):
        _predict_chunk(task(predictor, version="0.0.0"), proteins(1))


def test_a_bundle_at_another_path_is_found_by_its_name(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_loaded", {})
    monkeypatch.setenv("DEEPGPS_MODELS", str(predictor.bundle.path.parent))
    moved = replace(predictor.bundle, path=tmp_path / "gone")
    assert len(_predict_chunk(task(predictor, bundle=moved), proteins(1))) == 1


def test_a_worker_with_other_weights_is_refused(predictor, monkeypatch):
    monkeypatch.setattr(module, "_loaded", {})
    files = {**predictor.bundle.metadata.files, "encoder.onnx": "0" * 64}
    metadata = predictor.bundle.metadata.model_copy(update={"files": files})
    with pytest.raises(BundleError, match="wrong sha256"):
        _predict_chunk(
            task(predictor, bundle=replace(predictor.bundle, metadata=metadata, sha256="1")), proteins(1)
        )


@pytest.mark.slow
def test_an_error_names_the_chunk_that_kills_its_workers(predictor, tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    real = module.parallel_map

    def deadly(function, items, **options):
        for number, item in enumerate(items):
            yield WorkerDiedError("dead") if number == 1 else function(item)

    monkeypatch.setattr(module, "parallel_map", deadly)
    with pytest.raises(DeepGPSError, match="each time they tried 'P3'"):
        predict_to_folder(predictor, proteins(9), tmp_path / "out", images=False, workers=2)
    monkeypatch.setattr(module, "parallel_map", real)
    assert predict_to_folder(predictor, proteins(9), tmp_path / "out", images=False, workers=2).resumed == 3


SCRIPT = """
import sys
from pathlib import Path
from deepgps.cli.app import run
from deepgps.results import rows

if __name__ == "__main__":
    rows.CHUNK_RESIDUES = 400
    sys.exit(run(sys.argv[1:]))
"""


def begin(tmp_path, tiny_bundle, *options):
    """The command in a process of its own, on 120 proteins."""
    script, fasta = tmp_path / "script.py", tmp_path / "in.fasta"
    script.write_text(SCRIPT)
    fasta.write_text("".join(f">{each.id}\n{each.sequence}\n" for each in proteins(120)))
    command = [sys.executable, str(script), "predict", str(fasta), "--model", str(tiny_bundle.path)]
    command += ["--out", str(tmp_path / "out"), "--nucleus", "hek-1", *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_rows(out, count):
    ends = time.monotonic() + 60
    path = out / "results.jsonl"
    while time.monotonic() < ends:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    pytest.fail("nothing was written")


def children(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (path / "stat").read_text(), (path / "cmdline").read_text()
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == pid and "spawn_main" in line:
            found.append(int(path.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_and_a_killed_run_lose_nothing(tiny_bundle, tmp_path):
    killed = begin(tmp_path, tiny_bundle, "--workers", "2", "--threads", "1")
    wait_for_rows(tmp_path / "out", 10)
    workers = children(killed.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    seen = (tmp_path / "out" / "results.jsonl").read_bytes().count(b"\n")
    wait_for_rows(tmp_path / "out", seen + 15)
    workers = children(killed.pid)
    killed.kill()
    killed.communicate()
    ends = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)

    interrupted = begin(tmp_path, tiny_bundle, "--workers", "2", "--threads", "1")
    seen = (tmp_path / "out" / "results.jsonl").read_bytes().count(b"\n")
    wait_for_rows(tmp_path / "out", seen + 10)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, said = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert "Finished work is kept: the same command continues." in said
    assert "Traceback" not in said

    ended = begin(tmp_path, tiny_bundle)
    said, _ = ended.communicate(timeout=120)
    assert ended.returncode == 0
    assert "120 predicted (" in said
    whole = Predictor(tiny_bundle, threads=1)
    cells = [whole.load_cell("hek-1")]
    predict_to_folder(whole, proteins(120), tmp_path / "whole", cells=cells)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
