"""A resumed run is a right run: whatever happened to the folder, it ends as an uninterrupted one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_predict_to_folder import CELLS, predictor, proteins, results  # noqa: F401

from deepgps import files
from deepgps.cli.app import run
from deepgps.results.predict import predict_to_folder

COUNT = 4


def finish(predictor, folder, **options):  # noqa: F811
    return predict_to_folder(predictor, proteins(COUNT), folder, **{"cells": CELLS, **options})


@pytest.fixture(scope="module")
def whole(predictor, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("whole")
    finish(predictor, folder)
    return results(folder)


def lines_of(folder):
    return (folder / "results.jsonl").read_bytes().splitlines(keepends=True)


def changed(number, **fields):
    def change(lines):
        lines[number] = json.dumps({**json.loads(lines[number]), **fields}).encode() + b"\n"

    return change


def without(field):
    def change(lines):
        record = json.loads(lines[2])
        del record[field]
        lines[2] = json.dumps(record).encode() + b"\n"

    return change


def replaced(number, line):
    def change(lines):
        lines[number] = line

    return change


@pytest.mark.parametrize(
    "change",
    [
        replaced(2, b"null\n"),
        replaced(2, b"\n"),
        replaced(3, b"{}\n"),
        replaced(2, b"[" * 100_000 + b"\n"),
        replaced(4, b"\0" * 500 + b"\n"),
        lambda lines: lines.insert(2, lines[0]),
        lambda lines: lines.insert(3, lines[2]),
        lambda lines: lines.pop(3),
        changed(2, protein_id=None),
        changed(2, confidence="0.5"),
        changed(2, model="another"),
        changed(3, nucleus="one"),
        changed(2, images="../elsewhere"),
        changed(2, probabilities={}),
        changed(2, surprise=1),
        without("warnings"),
    ],
)
def test_a_line_that_is_no_result_of_the_run_is_predicted_anew(predictor, tmp_path, whole, change):  # noqa: F811
    finish(predictor, tmp_path)
    lines = lines_of(tmp_path)
    change(lines)
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines))
    summary = finish(predictor, tmp_path)
    assert summary.predicted == COUNT
    assert summary.resumed < COUNT
    assert results(tmp_path) == whole


@pytest.mark.parametrize("content", [b"", b"Protein_ID,Localizations\n", b"\xff\xfe", None])
def test_a_table_that_is_not_that_of_the_records_is_made_again(predictor, tmp_path, whole, content):  # noqa: F811
    finish(predictor, tmp_path)
    table = tmp_path / "results.csv"
    table.write_bytes(table.read_bytes().replace(b"P1", b"P9") if content is None else content)
    summary = finish(predictor, tmp_path)
    assert summary.resumed < summary.predicted == COUNT
    assert results(tmp_path) == whole


@pytest.mark.parametrize("name", ["P0__one.png", "P2__two.ome.tif"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut off", "zeros"])
def test_missing_images_are_drawn_again(predictor, tmp_path, whole, name, damage):  # noqa: F811
    finish(predictor, tmp_path)
    path = tmp_path / "images" / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut off" and name.endswith(".tif"):
        pytest.skip("a TIFF has no mark at its end")
    else:
        path.write_bytes({"empty": b"", "cut off": content[:-9], "zeros": bytes(len(content))}[damage])
    told = []
    summary = finish(predictor, tmp_path, on_protein=told.append)
    assert summary.resumed == summary.predicted == COUNT
    assert sorted(told) == [f"P{number}" for number in range(COUNT)]
    assert path.stat().st_size > 0
    assert results(tmp_path) == whole


def test_images_of_a_run_that_stopped_are_drawn_again_and_it_goes_on(predictor, tmp_path, whole):  # noqa: F811
    finish(predictor, tmp_path, limit=3)
    for path in (tmp_path / "images").glob("P1*"):
        path.unlink()
    assert finish(predictor, tmp_path).resumed == 3
    assert results(tmp_path) == whole


@pytest.mark.parametrize("damage", ["missing", "empty", "shorter"])
def test_missing_chunks_of_a_store_are_drawn_again(predictor, tmp_path, damage):  # noqa: F811
    zarr = pytest.importorskip("zarr")
    predict_to_folder(predictor, proteins(20), tmp_path, cells=CELLS[:1], image_format="zarr")
    store = tmp_path / "images.zarr"
    expected = np.asarray(zarr.open_group(store, mode="r")["protein"])
    assert expected[:16].any()
    chunk = store / "protein" / "c" / "0" / "0" / "0"
    if damage == "missing":
        chunk.unlink()
    elif damage == "empty":
        chunk.write_bytes(b"")
    else:
        zarr.open_group(store, mode="a")["protein"].resize((7, *expected.shape[1:]))
    summary = predict_to_folder(predictor, proteins(20), tmp_path, cells=CELLS[:1], image_format="zarr")
    assert summary.predicted == 20
    assert np.array_equal(np.asarray(zarr.open_group(store, mode="r")["protein"]), expected)


def test_images_and_then_rows_are_on_the_disk(predictor, tmp_path, monkeypatch):  # noqa: F811
    synced = []
    real = os.fsync

    def fsync(handle):
        real(handle)
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    monkeypatch.setattr(files.os, "fsync", fsync)
    if not Path("/proc/self/fd").exists():
        pytest.skip("finds the names of open files in /proc")
    finish(predictor, tmp_path)
    rows = len(synced) - synced[::-1].index("results.jsonl")
    for extension in (".png", ".ome.tif"):
        assert sum(name.endswith(extension) for name in synced[:rows]) == COUNT * len(CELLS)


@pytest.mark.parametrize(
    "text",
    [
        '{"deepgps": null}',
        '{"deepgps": "1", "nuclei": [1, null, []], "inputs": [{"source": 1}], "options": null, "model": 3}',
        '{"deepgps": "1", "nuclei": {"a": 1}, "inputs": "x"}',
        "[" * 100_000,
        '{"deepgps": ' + "[" * 100_000,
    ],
)
def test_a_hostile_run_record_is_a_sentence(tmp_path, capsys, text):
    (tmp_path / "run.json").write_text(text)
    sequence = "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"
    code = run(["predict", "--sequence", sequence, "--no-images", "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert code in (0, 2)
    assert code == 0 or "--overwrite" in captured.err


def test_a_batch_of_one_is_nearly_a_batch_of_eight():
    """What docs/reference/files.md promises of images in batches of other sizes."""
    from deepgps import Predictor

    model = Predictor.load(threads=1)
    eight = list(model.predict(proteins(8)))
    for together, protein in zip(eight, proteins(8), strict=True):
        (alone,) = model.predict([protein])
        assert alone.localizations == together.localizations
        assert np.abs(alone.image - together.image).max() < 1e-4
