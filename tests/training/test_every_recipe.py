"""Every recipe of the package trains: a few steps of a tiny network, by its own losses and schedule."""

import csv
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from deepgps.cli.app import run
from deepgps.training.recipe import JointRecipe, load_recipe, shipped_recipes
from image_sources import write_data
from joint_store import PLACES, SIZE, UM, protein, proteins, write_store
from structure_files import helix, pdb, save

pytestmark = pytest.mark.slow

JOINT = [name for name in shipped_recipes() if isinstance(load_recipe(name), JointRecipe)]
TINY = {
    "crop": {"size_px": SIZE, "pixel_size_um": UM},
    "model.widths": [4, 8],
    "model.latent_dim": 8,
    "protein.structure_points": 16,
    "training.batch_size": 4,
    "training.max_epochs": 1,
}
TINY_MINI = {
    "labels": {"folds": 2, "widths": [8], "epochs": 1},
    "images.structure": {
        "widths": [8, 8],
        "embedding": 8,
        "size_px": 32,
        "max_epochs": 1,
        "batches": 2,
        "batch_size": 2,
    },
    "images.grain": {
        "widths": [8],
        "embedding": 8,
        "size_px": 32,
        "max_epochs": 1,
        "batches": 2,
        "batch_size": 2,
    },
}


def changes(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Crops of two cell lines, eight proteins of two classes in U-2 OS, sixteen of four in HEK293T."""
    there = [row | {"cell_line": "U-2 OS"} for row in proteins(4, PLACES[:2])]
    here = [protein(20 + number, PLACES[number % 4]) for number in range(16)]
    return write_store(tmp_path_factory.mktemp("store"), [*there, *here, protein(40, "er|golgi")], crops=2)


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    for number in range(41):
        save(folder / f"AF-P{number:05d}-F1-model_v4.pdb", pdb(helix(["ALA", "LYS", "ARG"] * (number + 2))))
    return folder


@pytest.mark.parametrize("name", JOINT)
def test_a_recipe_trains_for_two_steps(name, store, structures, tiny_esm2, tmp_path, capsys):
    recipe, out = load_recipe(name), tmp_path / "run"
    looks = recipe.protein.inputs
    options = ["--structures", str(structures)] if "structure" in looks else []
    settings = TINY | ({"protein.encoder": str(tiny_esm2)} if "sequence" in looks else {})
    tokens = ["train", name, "--data", str(store), "--out", str(out), "--cache", str(tmp_path), "--offline"]
    code = run([*tokens, *options, *changes(settings)])
    assert code == 0, capsys.readouterr().err
    assert f"deepgps export {out}" in capsys.readouterr().out
    assert (out / "manifest.json").exists()
    trained = load_recipe(str(out / "recipe.yaml"))
    kept = {"losses", "class_set", "cell_line", "split"}
    assert trained.model_dump(include=kept) == recipe.model_dump(include=kept)
    assert trained.model.fusion == recipe.model.fusion
    weights = load_file(out / "weights.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["steps"]) >= 2
    assert float(rows[-1]["train_loss"]) > 0
    # What is left out is said.
    left = (out / "left_out.csv").read_text()
    assert ("ENSG040" in left) == (recipe.class_set != "all")
    assert ("Its crops are of other cells than U-2 OS (HEK293T)." in left) == (name == "u2os-single-2")


def test_the_bundled_models_recipe_trains(tmp_path, capsys):
    data, out = write_data(tmp_path / "data"), tmp_path / "run"
    tokens = ["train", "mini", "--data", str(data), "--out", str(out), *changes(TINY_MINI)]
    assert run(tokens) == 0, capsys.readouterr().err
    assert (out / "manifest.json").exists()
    assert yaml.safe_load((out / "recipe.yaml").read_text())["images"]["grain"]["max_epochs"] == 1


@pytest.mark.parametrize("option", [["--split", "x"], ["--structures", "x"], ["--cache", "x"], ["--offline"]])
def test_the_bundled_models_recipe_refuses_what_it_has_no_use_for(option, tmp_path, capsys):
    assert run(["train", "mini", "--data", str(tmp_path), "--out", str(tmp_path / "run"), *option]) == 2
    said = f"deepgps: Recipe 'mini' does not use {option[0]}; leave it out.\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.max_epoch=3", "has no field 'training.max_epoch'; the nearest is 'training.max_epochs'."),
        ("training.max_epochs=0", "field 'training.max_epochs' cannot be 0"),
        ("nonsense", "is not KEY=VALUE"),
    ],
)
def test_a_setting_that_cannot_be_changed_is_refused_before_anything_is_written(
    change, said, tmp_path, capsys
):
    tokens = ["train", "single-2", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--set", change]
    assert run(tokens) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
