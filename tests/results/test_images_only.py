"""A model that draws and names nothing, from the command to the report."""

import csv
import json

import pytest

from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.prediction import Predictor

FASTA = ">P1\nMKVLAAGIVGLCAKWDEYHR\n>P2\nMRRKRSPEEDDLKKAAQWYF\n"


@pytest.fixture(scope="module")
def model(joint_export) -> str:
    return str(joint_export("image only")[1].path)


@pytest.fixture(scope="module")
def proteins(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("in") / "two.fasta"
    path.write_text(FASTA)
    return str(path)


@pytest.fixture(scope="module")
def out(model, proteins, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    assert run(["predict", proteins, "--model", model, "--out", str(folder), "--threads", "1"]) == 0
    return folder


def test_the_table_has_no_classes_and_empty_localizations(out):
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["Protein_ID"] for row in rows] == ["P1", "P2"]
    assert list(rows[0]) == [
        *("Protein_ID", "Accession", "Gene", "Length", "Localizations", "Confidence"),
        *("Prediction_Set", "Known", "Known_Sources", "Nearest", "Similarity", "Intranuclear_Fraction"),
        *("Model", "Version", "Nucleus", "Warnings"),
    ]
    assert {row["Localizations"] for row in rows} == {""}
    assert all(0 < float(row["Intranuclear_Fraction"]) < 1 for row in rows)


def test_a_record_has_no_label_and_no_confidence(out):
    record = json.loads((out / "results.jsonl").read_text().splitlines()[0])
    assert (record["localizations"], record["probabilities"], record["confidence"]) == ([], {}, None)
    assert (out / "images" / f"{record['images']}.png").exists()


def test_the_report_says_plainly_that_there_is_no_label(out):
    page = (out / "report.html").read_text()
    assert "This model draws images and predicts no label" in page
    assert "<strong>no label</strong>" in page
    assert "<h4>Probability</h4>" not in page
    assert "None" not in page.partition("<main>")[2]


def test_the_console_says_so_and_the_same_command_finds_all_done(out, model, proteins, capsys):
    assert run(["predict", proteins, "--model", model, "--out", str(out), "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "This model draws images and predicts no label." in said
    assert "2 predicted (2 by an earlier run), 0 rejected" in said
    assert "None" not in said


def test_without_images_nothing_is_left_and_no_folder_is_made(model, proteins, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["predict", proteins, "--model", model, "--out", str(out), "--no-images"]
    assert run(command) == 2
    said = "Model 'toy' draws images and predicts no label, so that --no-images leaves nothing; leave it out."
    assert said in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InputError, match="predicts no label"):
        Predictor.load(model, threads=1).predict_one("MKVLAAGIVGLCAKWDEYHR", images=False)


def test_models_info_says_that_it_only_draws(model, capsys):
    assert run(["models", "info", model]) == 0
    assert "none: it draws images and predicts no label" in capsys.readouterr().out
