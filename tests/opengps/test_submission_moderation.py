"""Moderation, export, and training on the export."""

import csv

import numpy as np
import polars as pl
import pytest
from contributor import batch, packed, pair, submit, submit_files

from deepgps.cli.app import run
from deepgps.datasets.crops.store import open_crops, read_store_proteins

ON_SERVICES_TOO = True


@pytest.fixture
def data(visitor):
    """Folder of a website with three images."""
    assert submit_files(visitor, ("lab.zip", packed(batch(3)))).status_code == 201
    return visitor.site.settings.data


def submissions(*words, data):
    return run(["submissions", *map(str, words), "--data", str(data)])


def listed(capsys, data, *words):
    capsys.readouterr()
    assert submissions("list", *words, data=data) == 0
    header, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_images_are_listed_accepted_and_rejected(data, visitor, capsys):
    assert [row["number"] for row in listed(capsys, data)] == ["1", "2", "3"]
    assert submissions("accept", 1, 3, data=data) == 0
    assert submissions("reject", 2, "--reason", "Out of focus.", data=data) == 0
    assert listed(capsys, data) == []
    rows = listed(capsys, data, "--status", "all")
    assert [row["status"] for row in rows] == ["accepted", "rejected", "accepted"]
    page = visitor.page(rows[0]["page"])
    assert "Out of focus." in page


def test_unknown_images_are_refused(data, capsys):
    assert submissions("accept", 1, 9, data=data) == 2
    assert "no image 9" in capsys.readouterr().err
    assert len(listed(capsys, data)) == 3
    assert submissions("accept", data=data) == 2


def test_a_folder_without_a_website_is_refused(tmp_path, capsys):
    assert submissions("list", data=tmp_path / "typo") == 2
    assert "is not the folder of a website" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_the_export_contains_the_accepted_crops(data, tmp_path, capsys):
    out = tmp_path / "store"
    assert submissions("export", out, data=data) == 2
    assert "No image is accepted" in capsys.readouterr().err
    assert submissions("accept", 1, 3, data=data) == 0
    assert submissions("export", out, data=data) == 0
    assert "4 crops of 2 proteins from 2 images" in capsys.readouterr().out
    store = open_crops(out)
    assert store.index["protein_id"].to_list() == ["protein0"] * 2 + ["protein2"] * 2
    assert store.index["cell"].n_unique() == 4
    first = read_store_proteins(out).row(0, named=True)
    assert (first["localizations"], first["single_localized"]) == ("er", True)
    name = store.index["field"][0]
    (crops,) = (data / "submissions").glob(f"*/{name}*[0-9a-f].npy")
    np.testing.assert_array_equal(store.crops[:2], np.load(crops))
    with (out / "provenance.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["contributor"] for row in rows] == ["A lab", "A lab"]
    assert "n0.tif sha256:" in rows[0]["files"]


def test_different_exports_are_not_mixed(data, tmp_path, capsys):
    out = tmp_path / "store"
    submissions("accept", 1, data=data)
    assert submissions("export", out, data=data) == 0
    assert submissions("export", out, data=data) == 0
    submissions("accept", 2, data=data)
    assert submissions("export", out, data=data) == 2
    assert "another choice of accepted images" in capsys.readouterr().err
    assert submissions("export", out, "--overwrite", data=data) == 0
    assert len(open_crops(out).index) == 4


def test_images_of_one_protein_are_one_protein(visitor, tmp_path):
    other = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRV"
    submit(visitor, pair(0), protein="P06748", localizations="er")
    submit(visitor, pair(1), protein="p06748", localizations="golgi")
    submit(visitor, pair(2), protein="P06748", sequence=other)
    data = visitor.site.settings.data
    submissions("accept", 1, 2, 3, data=data)
    assert submissions("export", tmp_path / "store", data=data) == 0
    proteins = read_store_proteins(tmp_path / "store")
    ids = proteins["protein_id"].to_list()
    assert ids[0] == "P06748" and ids[1].startswith("P06748~")
    assert proteins["localizations"].to_list() == ["er|golgi", "nucleolus_gc"]
    assert proteins["single_localized"].to_list() == [False, True]
    index = open_crops(tmp_path / "store").index
    assert index.filter(pl.col("protein_id") == "P06748")["localizations"].unique().sort().to_list() == [
        "er",
        "golgi",
    ]


@pytest.mark.slow
def test_a_recipe_can_train_on_an_export(visitor, tmp_path):
    from deepgps.training.joint.data import load_training_data
    from deepgps.training.recipe import load_recipe

    assert submit_files(visitor, ("lab.zip", packed(batch(8)))).status_code == 201
    data = visitor.site.settings.data
    submissions("accept", *range(1, 9), data=data)
    submissions("export", tmp_path / "store", data=data)
    training = load_training_data(load_recipe("all"), tmp_path / "store")
    assert (len(training.protein_ids), training.left_out) == (8, ())
    assert all(training.sequences)
    assert all(len(training.rows[part]) for part in ("train", "validation", "test"))


@pytest.mark.slow
def test_a_model_is_finetuned_on_submitted_images(visitor, tiny_export, tmp_path, capsys):
    from deepgps.bundle import open_bundle
    from deepgps.prediction import Predictor

    assert submit_files(visitor, ("lab.zip", packed(batch(8)))).status_code == 201
    data, store, tuned = visitor.site.settings.data, tmp_path / "store", tmp_path / "run"
    assert submissions("accept", *range(1, 9), data=data) == 0
    assert submissions("export", store, data=data) == 0
    words = ["finetune", str(tiny_export.path), "--data", str(store), "--out", str(tuned)]
    few = [
        f"images.{stage}.{what}" for stage in ("structure", "grain") for what in ("max_epochs=1", "batches=2")
    ]
    assert run([*words, *(word for setting in few for word in ("--set", setting))]) == 0
    assert "Validation loss" in capsys.readouterr().out
    assert run(["export", str(tuned), "--to", str(tmp_path / "bundle")]) == 0
    predictor = Predictor(open_bundle(tmp_path / "bundle"), threads=1)
    assert predictor.predict_one("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRV").image is not None
