import csv
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deepgps.cli.app import run as deepgps
from deepgps.datasets.crops.reference import READERS
from deepgps.errors import InputError
from deepgps.training.mini import train as training
from deepgps.training.mini.image_pack import ImagePack
from deepgps.training.mini.train import IMAGE_WEIGHTS, PACKED, train_mini
from deepgps.training.recipe import RECIPE, load_recipe
from deepgps.training.run_folder import INPUTS, RUN_MANIFEST

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tiny_run):
    return load_recipe(str(tiny_run.parent / "recipe.yaml"))


@pytest.fixture
def data(tiny_run):
    return tiny_run.parent / "data"


@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "copy")


@pytest.fixture
def idle(monkeypatch):
    """Every stage refuses to be run."""

    def refuse(*_, **__):
        raise AssertionError

    for stage in ("fit_labels", "reference_pack", "fit_stage"):
        monkeypatch.setattr(training, stage, refuse)


def test_a_run_leaves_all_that_it_made(tiny_run):
    for name in (
        *(RECIPE, INPUTS, RUN_MANIFEST),
        *("labels/encoder.safetensors", "labels/neighbours.npz", "labels/held_out.safetensors"),
        *(f"images/{name}" for name in (*PACKED.values(), *IMAGE_WEIGHTS.values())),
        *("images/structure/checkpoints/last.ckpt", "images/structure/samples/epoch-0002.png"),
        "images/grain/metrics.csv",
    ):
        assert (tiny_run / name).is_file(), name
    assert not list(tiny_run.rglob("*.part"))
    assert load_recipe(str(tiny_run / RECIPE)) == load_recipe(str(tiny_run.parent / "recipe.yaml"))
    packed = ImagePack.load(tiny_run / "images" / PACKED["structure"])
    assert set(packed.arrays["source"]) == set(READERS)


def test_the_manifest_holds_the_sha256_of_every_table(tiny_run, data):
    manifest = json.loads((tiny_run / RUN_MANIFEST).read_text())
    assert manifest["proteins"] == 30
    assert len(manifest["inputs"]) == 3 + 7
    for name, sha256 in manifest["inputs"].items():
        assert hashlib.sha256((data / name).read_bytes()).hexdigest() == sha256


def test_a_finished_run_is_resumed_by_doing_nothing(copy, recipe, data, idle):
    (copy / RUN_MANIFEST).unlink()
    train_mini(recipe, data, copy, resume=True)
    assert (copy / RUN_MANIFEST).exists()


def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(tiny_run, copy, recipe, data, monkeypatch):
    for path in (IMAGE_WEIGHTS["structure"], IMAGE_WEIGHTS["grain"], PACKED["grain"]):
        (copy / "images" / path).unlink()
    shutil.rmtree(copy / "images" / "grain")
    monkeypatch.setattr(training, "fit_labels", None)  # that stage is finished
    train_mini(recipe, data, copy, resume=True)
    for name in IMAGE_WEIGHTS.values():
        first, second = (load_file(each / "images" / name) for each in (tiny_run, copy))
        assert all(torch.equal(first[key], second[key]) for key in first)


def refused(capsys, *tokens) -> str:
    assert deepgps([str(token) for token in tokens]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_a_second_run_in_the_same_folder_needs_a_word(tiny_run, data, idle, capsys):
    said = refused(capsys, "train", tiny_run.parent / "recipe.yaml", "--data", data, "--out", tiny_run)
    assert f"'{tiny_run}' already holds a run; add --resume to continue it" in said


def test_a_run_is_not_resumed_by_another_recipe(tiny_run, data, idle, capsys):
    said = refused(capsys, "train", "mini", "--data", data, "--out", tiny_run, "--resume")
    assert f"'{tiny_run}' was started with another recipe than 'deepgps-mini'" in said


def test_a_run_is_not_resumed_with_other_data(tiny_run, data, recipe, idle, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    table = other / "sequences" / "hpa_localizations.csv.gz"
    lines = gzip.decompress(table.read_bytes()).splitlines()[:-1]
    table.write_bytes(gzip.compress(b"\n".join(lines)))
    with pytest.raises(InputError, match=r"was started with other data; use another folder"):
        train_mini(recipe, other, tiny_run, resume=True)


@pytest.mark.parametrize("part", ["sequences", "images"])
def test_missing_data_are_named_and_nothing_is_begun(part, tmp_path, capsys):
    other = "images" if part == "sequences" else "sequences"
    (tmp_path / "data" / other).mkdir(parents=True)
    said = refused(capsys, "train", "mini", "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert f"has no '{part}' folder; give the folder that holds both" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_refused(tmp_path, capsys):
    said = refused(capsys, "train", "maxi", "--data", tmp_path, "--out", tmp_path / "run")
    assert "Recipe 'maxi' is neither a file nor one of all, mini, " in said


def test_a_trained_model_predicts_from_the_command_line(tiny_export, tmp_path):
    (tmp_path / "in.fasta").write_text(">basic\nMKRGKRSALKGKRSALKKRG\n>acidic\nMDEGDESALEGDESALEEDG\n")
    command = [Path(sys.executable).with_name("deepgps"), "predict", tmp_path / "in.fasta"]
    options = ["--model", tiny_export.path, "--out", tmp_path / "out"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["Protein_ID"], row["Model"], row["Version"]) for row in rows] == [
        ("basic", "toy", "0.0"),
        ("acidic", "toy", "0.0"),
    ]
    assert (tmp_path / "out" / "images" / "basic.ome.tif").exists()
