import subprocess
import sys

import pytest
import yaml

from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.training.recipe import (
    JointRecipe,
    field_help,
    fields,
    load_recipe,
    purpose,
    recipe_table,
    recipe_text,
    shipped_recipes,
)

SMALL = "kind: joint\nname: toy # not it\nversion: '1'\nclass_set: all\ncell_line: 'a: b # c'\n"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_with_every_field_reads_as_itself(name, tmp_path):
    path = tmp_path / "whole.yaml"
    path.write_text(recipe_text(name), encoding="utf-8")
    assert load_recipe(str(path)) == load_recipe(name)
    assert purpose(path) == purpose(shipped_recipes()[name])
    assert recipe_text(str(path)) == recipe_text(name)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_field_stands_below_its_description(name):
    _, *lines = recipe_text(name).splitlines()
    found, comments = [], []
    for line in (line.strip() for line in lines):
        if line.startswith("# "):
            comments.append(line[2:])
        else:
            found.append((line.partition(":")[0], " ".join(comments).rstrip(".")))
            comments = []
    schema = type(load_recipe(name))
    assert found == [(path.rpartition(".")[2], field_help(path, schema)) for path, _ in fields(schema)]
    assert max(map(len, lines)) <= 110


def test_a_recipe_without_a_purpose_has_none(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(SMALL)
    assert purpose(path) == ""
    whole = recipe_text(str(path))
    assert whole.startswith("# Kind of the recipe.\nkind: joint\n")
    assert yaml.safe_load(whole)["cell_line"] == "a: b # c"


def test_the_recipes_of_the_package_are_listed(capsys):
    assert run(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(shipped_recipes())
    listed = {name: (classes, inputs) for name, classes, inputs, _ in recipe_table()}
    assert listed["single-2"] == ("2, one a protein", "nucleus, sequence")
    assert listed["all"] == ("none", "nucleus, sequence")
    assert listed["mini"] == ("12, several a protein", "nucleus, sequence")
    assert listed["single-2-both"][1] == "nucleus, sequence, structure"
    assert all(what for *_, what in recipe_table())


def test_one_recipe_is_printed_to_be_saved(capsys, tmp_path):
    assert run(["recipes", "single-4"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(str(path), ["training.seed=1"]).training.seed == 1
    assert run(["recipes", "single-5"]) == 2
    assert "neither a file nor one of all, mini" in capsys.readouterr().err


def test_recipes_are_listed_without_torch():
    code = (
        "import sys; from deepgps.cli.app import run\n"
        "assert run(['recipes']) == 0 and run(['recipes', 'mini']) == 0\n"
        "sys.exit(bool({'torch', 'polars', 'lightning', 'skimage'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_recipes_of_the_paper_differ_as_named():
    assert load_recipe("all").losses.label == 0
    assert load_recipe("u2os-single-2").cell_line == "U-2 OS"
    assert load_recipe("single-2-structure").protein.inputs == ("structure",)
    assert load_recipe("single-2-both").protein.inputs == ("sequence", "structure")
    crops = {load_recipe(name).crop for name in shipped_recipes()}
    assert len(crops) == 1


def test_the_exact_recipe_is_the_papers():
    exact = load_recipe("paper-exact")
    assert isinstance(exact, JointRecipe)
    model, training, losses = exact.model, exact.training, exact.losses
    assert (model.widths, model.latent_dim) == ((64, 128, 256, 512, 1024), 1024)
    assert (model.fusion, model.latent_tokens, model.heads, model.fold) == ("paper", 1, 1, 1)
    assert (model.margin, model.dropout) == (0, 0)
    assert (losses.mae, losses.mse, losses.ssim, losses.label) == (1, 0, 0, 1)
    assert (training.learning_rate, training.schedule, training.gamma) == (2e-4, "exponential", 0.9)
    assert (training.warm_up, training.max_epochs, training.batch_size) == (0, 50, 32)
    assert (training.balanced, training.augment, training.patience) == (False, False, None)
    assert (training.keep, training.precision) == ("last", "float32")
    assert (training.weight_decay, training.eps, training.accumulate) == (0, 1e-6, 4)
    assert (model.conv_bias, model.initialisation, model.structure_encoder) == (True, "paper", "paper")
    assert (losses.label_softmax, losses.orthogonality, exact.split.validate_on) == (True, 0, "test")
    assert (exact.protein.encoder, exact.protein.standardise) == ("esm2_t33_650M_UR50D", False)


def test_a_field_of_another_kind_is_refused_when_printed(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(SMALL + "labels: {}\n")
    with pytest.raises(InputError, match="has no field 'labels'"):
        recipe_text(str(path))
