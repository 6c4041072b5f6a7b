import csv
import errno
import json
import os
import time
from dataclasses import replace

import pytest

from conftest import round_nucleus
from deepgps.errors import InputError
from deepgps.files import AppendFile
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.predict import predict_to_folder

CELLS = (round_nucleus("one"), round_nucleus("two", 30))


@pytest.fixture(scope="module")
def predictor(tiny_bundle):
    return Predictor(tiny_bundle, threads=1)


def proteins(n, prefix="P"):
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return [
        Protein(f"{prefix}{i}", "M" + "".join(letters[(i * 7 + k * k + i * k) % 20] for k in range(40)))
        for i in range(n)
    ]


def rows_of(path, delimiter=","):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def ids(folder):
    return [row["Protein_ID"] for row in rows_of(folder / "results.csv")]


def results(folder):
    """Everything but the clock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in {"run.json", "report.html", "ro-crate-metadata.json"}
        and path.suffix != ".tif"
    }


def stopping_after(n, things):
    """A stream that breaks off, as a kill would."""
    yield from things[:n]
    raise KeyboardInterrupt


def test_the_table_has_the_promised_columns_and_the_input_order(predictor, tmp_path):
    predict_to_folder(predictor, proteins(40), tmp_path, images=False)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n").split(",")
    assert header == [
        *("Protein_ID", "Accession", "Gene", "Length", "Localizations", "Confidence"),
        *("Prediction_Set", "Known", "Known_Sources", *predictor.classes, "Nearest", "Similarity"),
        *("Intranuclear_Fraction", "Model", "Version", "Nucleus", "Warnings"),
    ]
    assert ids(tmp_path) == [f"P{i}" for i in range(40)]


def test_a_row_holds_what_was_predicted(predictor, tmp_path):
    (protein,) = proteins(1)
    (expected,) = predictor.predict([protein], CELLS[:1])
    predict_to_folder(predictor, [protein], tmp_path, cells=CELLS[:1])
    (row,) = rows_of(tmp_path / "results.csv")
    assert row["Localizations"].split("|") == list(expected.localizations)
    assert {slug: float(row[slug]) for slug in predictor.classes} == pytest.approx(
        expected.probabilities, abs=1e-4
    )
    assert float(row["Intranuclear_Fraction"]) == pytest.approx(
        expected.readouts["intranuclear_fraction"], abs=1e-4
    )
    assert (row["Model"], row["Version"], row["Nucleus"]) == ("tiny", "0.0.1", "one")


def test_ids_come_back_unchanged_from_a_table(predictor, tmp_path):
    nasty = ['a,"b"', "=1+1", "tab\there", "line\nbreak", "sp|P1|X", "β", " lead"]
    given = [replace(protein, id=name) for protein, name in zip(proteins(7), nasty, strict=True)]
    predict_to_folder(predictor, given, tmp_path / "csv", images=False)
    predict_to_folder(predictor, given, tmp_path / "tsv", images=False, table="tsv")
    predict_to_folder(predictor, given, tmp_path / "json", images=False, table="json")
    assert ids(tmp_path / "csv") == nasty
    assert [row["Protein_ID"] for row in rows_of(tmp_path / "tsv/results.tsv", "\t")] == nasty
    lines = (tmp_path / "json/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["protein_id"] for line in lines] == nasty
    assert not (tmp_path / "json/results.csv").exists()


def test_images_are_named_after_the_protein_and_where_several_the_nucleus(predictor, tmp_path):
    predict_to_folder(predictor, proteins(2), tmp_path / "a", cells=CELLS[:1])
    assert {path.name for path in (tmp_path / "a/images").iterdir()} == {
        *("P0.png", "P0.ome.tif", "P1.png", "P1.ome.tif")
    }
    predict_to_folder(predictor, proteins(1), tmp_path / "b", cells=CELLS)
    assert {path.name for path in (tmp_path / "b/images").iterdir()} == {
        *("P0__one.png", "P0__one.ome.tif", "P0__two.png", "P0__two.ome.tif")
    }
    assert [row["Nucleus"] for row in rows_of(tmp_path / "b/results.csv")] == ["one", "two"]


def test_rejected_records_are_listed_and_the_others_predicted(predictor, tmp_path):
    bad = Rejection("X", "in.fasta", "Sequence 'X' has 'J' at residue 1, and, a comma.")
    heard = []
    summary = predict_to_folder(
        predictor, [bad, *proteins(2)], tmp_path, images=False, on_rejection=lambda r: heard.append(r.id)
    )
    assert (summary.predicted, summary.rejected, heard) == (2, 1, ["X"])
    assert rows_of(tmp_path / "rejected.csv") == [
        {"Protein_ID": "X", "Source": "in.fasta", "Reason": bad.reason}
    ]


def test_without_rejected_records_there_is_no_list_of_them(predictor, tmp_path):
    predict_to_folder(predictor, [Rejection("X", "f", "r"), *proteins(1)], tmp_path, images=False)
    predict_to_folder(predictor, proteins(1), tmp_path, images=False)
    assert not (tmp_path / "rejected.csv").exists()


@pytest.mark.parametrize("done", [0, 1, 5, 9])
def test_an_interrupted_run_resumes_to_the_same_files(predictor, tmp_path, done, monkeypatch):
    monkeypatch.setattr("deepgps.prediction.predictor.PROTEIN_BATCH", 2)
    monkeypatch.setattr("deepgps.prediction.predictor.IMAGE_BATCH", 3)
    monkeypatch.setattr("deepgps.results.rows.MAX_WAITING", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = {"cells": CELLS}
    given = [*proteins(2), Rejection("X", "f", "r"), *proteins(7, "Q")]
    predict_to_folder(predictor, given, whole, **options)
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, stopping_after(done, given), broken, **options)
    predict_to_folder(predictor, given, broken, **options)
    assert results(broken) == results(whole)


def test_what_is_done_is_not_computed_again(predictor, tmp_path, monkeypatch):
    predict_to_folder(predictor, proteins(5), tmp_path, images=False)
    heard = []
    monkeypatch.setattr(Predictor, "encode", lambda *_: pytest.fail("computed again"))
    summary = predict_to_folder(predictor, proteins(5), tmp_path, images=False, on_protein=heard.append)
    assert (summary.predicted, summary.resumed) == (5, 5)
    assert heard == [f"P{i}" for i in range(5)]


@pytest.mark.parametrize("file", ["results.csv", "results.jsonl"])
@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_torn_file_is_cut_back_to_its_last_whole_protein(predictor, tmp_path, file, cut):
    predict_to_folder(predictor, proteins(6), tmp_path, cells=CELLS)
    before = results(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-cut])
    predict_to_folder(predictor, proteins(6), tmp_path, cells=CELLS)
    assert results(tmp_path) == before


def test_what_a_kill_left_half_written_is_swept_up(predictor, tmp_path):
    predict_to_folder(predictor, proteins(1), tmp_path, cells=CELLS[:1])
    (tmp_path / "images/.deepgps-P0.png").write_bytes(b"half")
    (tmp_path / "images/..deepgps-P0.ome.tif.123.tmp").write_bytes(b"half")
    predict_to_folder(predictor, proteins(1), tmp_path, cells=CELLS[:1])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["P0.ome.tif", "P0.png"]


@pytest.mark.parametrize(
    ("changed", "different"),
    [
        ({"table": "tsv"}, "choice of options"),
        ({"images": True, "cells": CELLS[:1]}, "choice of options and nuclei"),
        ({"inputs": [("a.fasta", "2" * 64)]}, "input"),
    ],
)
def test_results_of_other_options_are_not_continued(predictor, tmp_path, changed, different):
    options = {"images": False, "inputs": [("a.fasta", "1" * 64)]}
    predict_to_folder(predictor, proteins(2), tmp_path, **options)
    before = results(tmp_path)
    with pytest.raises(InputError, match=f"another {different}; use --overwrite"):
        predict_to_folder(predictor, proteins(2), tmp_path, **{**options, **changed})
    assert results(tmp_path) == before


def test_an_input_that_only_moved_is_the_same_input(predictor, tmp_path):
    predict_to_folder(predictor, proteins(2), tmp_path, images=False, inputs=[("a.fasta", "1" * 64)])
    assert (
        predict_to_folder(
            predictor, proteins(2), tmp_path, images=False, inputs=[("b/a.fa", "1" * 64)]
        ).resumed
        == 2
    )


@pytest.mark.parametrize(
    "other", [proteins(2)[::-1], proteins(1), [replace(proteins(1)[0], sequence="MKLV")]]
)
def test_another_stream_of_proteins_is_noticed(predictor, tmp_path, other):
    predict_to_folder(predictor, proteins(2), tmp_path, images=False)
    with pytest.raises(InputError, match="from another input"):
        predict_to_folder(predictor, other, tmp_path, images=False)


def test_overwrite_removes_our_files_and_no_others(predictor, tmp_path):
    predict_to_folder(predictor, proteins(3), tmp_path, cells=CELLS[:1])
    (tmp_path / "images/mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    predict_to_folder(predictor, proteins(1, "Q"), tmp_path, images=False, table="tsv", overwrite=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        *("images/mine.png", "notes.txt", ".deepgps.lock"),
        *("results.tsv", "results.jsonl", "run.json", "report.html", "ro-crate-metadata.json"),
    }


def test_overwrite_never_follows_a_name_out_of_the_folder(predictor, tmp_path):
    out = tmp_path / "out"
    predict_to_folder(predictor, proteins(1), out, cells=CELLS[:1])
    victim = tmp_path / "victim.png"
    victim.write_bytes(b"precious")
    records = out / "results.jsonl"
    records.write_text(records.read_text().replace('"images": "P0"', '"images": "../../victim"'))
    predict_to_folder(predictor, proteins(1), out, cells=CELLS[:1], overwrite=True)
    assert victim.exists()


def test_a_table_without_a_run_record_is_left_alone(predictor, tmp_path):
    (tmp_path / "results.csv").write_text("somebody's\n")
    with pytest.raises(InputError, match=r"holds results\.csv but no run\.json"):
        predict_to_folder(predictor, proteins(1), tmp_path, images=False)
    assert (tmp_path / "results.csv").read_text() == "somebody's\n"


def test_two_runs_in_one_folder_do_not_mix(predictor, tmp_path):
    def intruding():
        yield proteins(1)[0]
        with pytest.raises(InputError, match="Another deepGPS process"):
            predict_to_folder(predictor, proteins(1), tmp_path, images=False)

    assert predict_to_folder(predictor, intruding(), tmp_path, images=False).predicted == 1
    assert predict_to_folder(predictor, proteins(1), tmp_path, images=False).resumed == 1


def test_a_file_in_place_of_the_folder_is_refused(predictor, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        predict_to_folder(predictor, proteins(1), tmp_path / "out", images=False)


def test_input_that_cannot_be_read_leaves_no_folder(predictor, tmp_path):
    def broken():
        raise InputError("empty")
        yield

    with pytest.raises(InputError, match="empty"):
        predict_to_folder(predictor, broken(), tmp_path / "out", images=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_what_was_written_and_the_run_resumes(predictor, tmp_path, monkeypatch):
    append = AppendFile.append

    def full(self, record):
        if record.startswith(b"P7,"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", full)
        with pytest.raises(OSError, match="No space"):
            predict_to_folder(predictor, proteins(10), tmp_path, images=False)
    assert ids(tmp_path) == [f"P{i}" for i in range(7)]
    predict_to_folder(predictor, proteins(10), tmp_path, images=False)
    assert ids(tmp_path) == [f"P{i}" for i in range(10)]


def test_an_image_that_cannot_be_written_stops_the_run_before_its_row(predictor, tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        predict_to_folder(predictor, proteins(3), tmp_path, cells=CELLS[:1])
    assert ids(tmp_path) == []


def test_proteins_are_read_only_a_little_ahead_of_what_is_written(predictor, tmp_path):
    read, lead = 0, 0

    def counted():
        nonlocal read
        for protein in proteins(400):
            read += 1
            yield protein

    def written(_):
        nonlocal lead
        lead = max(lead, read - written.count)
        written.count += 1

    written.count = 0
    predict_to_folder(predictor, counted(), tmp_path, images=False, on_protein=written)
    assert lead < 100


def test_the_run_record_says_what_was_done_with_what(predictor, tmp_path):
    predict_to_folder(
        predictor, [Rejection("X", "f", "r"), *proteins(2)], tmp_path, cells=CELLS, inputs=[("f", "0" * 64)]
    )
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["model"] == {"name": "tiny", "version": "0.0.1", "sha256": predictor.bundle.sha256}
    assert run["inputs"] == [{"source": "f", "sha256": "0" * 64}]
    assert run["proteins"] == {"predicted": 2, "rejected": 1}
    assert run["started"] <= run["finished"]
    assert "onnxruntime" in run["packages"]


def test_two_cells_of_one_name_are_refused(predictor, tmp_path):
    with pytest.raises(InputError, match="Two cells are called 'one'"):
        predict_to_folder(predictor, proteins(1), tmp_path, cells=[CELLS[0], CELLS[0]])


def test_a_run_killed_before_its_first_row_can_be_resumed(predictor, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AppendFile, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_to_folder(predictor, proteins(1), tmp_path, images=False)
    assert predict_to_folder(predictor, proteins(1), tmp_path, images=False).predicted == 1


def test_an_input_without_a_single_good_record_still_says_why(predictor, tmp_path):
    summary = predict_to_folder(predictor, [Rejection("X", "f", "r")], tmp_path, images=False)
    assert (summary.predicted, summary.rejected) == (0, 1)
    assert ids(tmp_path) == []
    assert (tmp_path / "report.html").exists()


def test_an_interrupted_run_is_not_recorded_as_finished(predictor, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, stopping_after(1, proteins(2)), tmp_path, images=False)
    started = json.loads((tmp_path / "run.json").read_text())
    assert started["finished"] is None
    time.sleep(0.01)
    predict_to_folder(predictor, proteins(2), tmp_path, images=False)
    assert json.loads((tmp_path / "run.json").read_text())["started"] == started["started"]


def test_folder_is_unlocked_after_a_refusal(predictor, tmp_path):
    predict_to_folder(predictor, proteins(1), tmp_path, images=False)
    with pytest.raises(InputError, match="--overwrite"):
        predict_to_folder(predictor, proteins(1), tmp_path, images=False, table="tsv")
    assert predict_to_folder(predictor, proteins(1), tmp_path, images=False).resumed == 1


def test_turns_make_the_same_files_as_one_call(predictor, tmp_path):
    things = [*proteins(3), Rejection("bad", "x.fasta", "It is no good."), *proteins(2, "Q")]
    predict_to_folder(predictor, things, tmp_path / "whole", cells=CELLS)
    turns = []
    while not (turns and turns[-1].finished):
        turns.append(predict_to_folder(predictor, things, tmp_path / "turns", cells=CELLS, limit=2))
    assert [turn.predicted for turn in turns] == [2, 4, 5]
    assert results(tmp_path / "turns") == results(tmp_path / "whole")
    assert (tmp_path / "turns" / "report.html").exists()


def test_a_turn_that_leaves_something_is_not_the_end(predictor, tmp_path):
    turn = predict_to_folder(predictor, proteins(3), tmp_path, images=False, limit=2)
    assert not turn.finished
    assert not (tmp_path / "report.html").exists()
    assert json.loads((tmp_path / "run.json").read_text())["finished"] is None
