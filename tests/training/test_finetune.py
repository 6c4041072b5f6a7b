"""Fine-tuning, from a run and from a bundle, of a paper's model and of one like the bundled."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from deepgps.bundle import open_bundle, write_bundle
from deepgps.cli.app import run as deepgps
from deepgps.errors import BundleError, InputError
from deepgps.prediction import Predictor
from deepgps.training.finetune import open_pretrained, tuned_recipe
from deepgps.training.joint.task import build_model
from deepgps.training.mini.images import build_network
from joint_store import PLACES, SIZE, UM, proteins, recipe, write_store

pytestmark = pytest.mark.slow

FEW = ["--set", "training.max_epochs=1"]
FEW_MINI = [
    word
    for stage in ("structure", "grain")
    for word in ("--set", f"images.{stage}.max_epochs=1", "--set", f"images.{stage}.batches=2")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run, its bundle, and a lab's crops of other cells."""
    folder = tmp_path_factory.mktemp("finetune")
    write_store(folder / "store", proteins(), crops=2)
    write_store(folder / "lab", [row | {"cell_line": "HeLa"} for row in proteins(8)], crops=2)
    (folder / "toy.yaml").write_text(yaml.safe_dump(recipe().model_dump(mode="json")))
    tokens = [
        "train",
        str(folder / "toy.yaml"),
        "--data",
        str(folder / "store"),
        "--out",
        str(folder / "run"),
    ]
    assert deepgps(tokens) == 0
    assert deepgps(["export", str(folder / "run"), "--to", str(folder / "bundle")]) == 0
    return folder


@pytest.fixture(scope="module")
def lab_208(tmp_path_factory):
    """A lab's crops at the scale of the bundled model."""
    rows = [row | {"cell_line": "HeLa"} for row in proteins(3)]
    return write_store(tmp_path_factory.mktemp("lab"), rows, crops=1, size=208, um=0.206349)


def finetune(source, data, out, *options):
    return deepgps(["finetune", str(source), "--data", str(data), "--out", str(out), *options])


def last_validation_loss(run):
    with (run / "metrics.csv").open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["validation_loss"])


def before(run):
    return json.loads((run / "base.json").read_text())["before"]


@pytest.mark.parametrize("source", ["run", "bundle"])
def test_training_goes_on_where_the_model_stood(folder, source, tmp_path, capsys):
    out = tmp_path / "out"
    assert finetune(folder / source, folder / "store", out, *FEW) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    exact = 1e-6 if source == "run" else 5e-3
    assert before(out)["validation_loss"] == pytest.approx(last_validation_loss(folder / "run"), rel=exact)
    assert said.startswith(f"Validation loss: {before(out)['validation_loss']:.4g} before, ")
    assert ("It is not better" in said) == (last_validation_loss(out) >= before(out)["validation_loss"])
    first, tuned = (load_file(each / "weights.safetensors") for each in (folder / "run", out))
    assert set(first) == set(tuned)
    moved = {name for name in first if not torch.equal(first[name], tuned[name])}
    assert "classifier.0.weight" in moved
    # What the encoder's vectors were standardised by is a part of the weights.
    assert "sequence.mean" not in moved


def test_the_cells_are_the_labs_and_steps_are_small(folder, tmp_path):
    out = tmp_path / "out"
    assert finetune(folder / "bundle", folder / "lab", out, *FEW) == 0
    tuned = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (tuned["name"], tuned["cell_line"]) == ("toy-finetuned", "HeLa")
    assert tuned["training"]["learning_rate"] == pytest.approx(recipe().training.learning_rate / 10)
    assert tuned["class_set"] == "single-2"
    assert finetune(folder / "bundle", folder / "lab", out, *FEW) == 2
    assert finetune(folder / "bundle", folder / "lab", out, *FEW, "--resume") == 0
    assert finetune(folder / "run", folder / "lab", out, *FEW, "--resume") == 2


def test_a_fine_tuned_run_becomes_a_bundle_that_says_where_it_is_from(folder, tmp_path):
    out, bundle = tmp_path / "out", tmp_path / "bundle"
    assert finetune(folder / "bundle", folder / "lab", out, *FEW) == 0
    assert deepgps(["export", str(out), "--to", str(bundle)]) == 0
    metadata = open_bundle(bundle).metadata
    assert metadata.training_data["fine-tuned from"].startswith("toy 1 (sha256 ")
    assert metadata.cell_line == "HeLa"
    assert open_pretrained(str(bundle)).recipe.name == "toy-finetuned"


def test_defaults_are_few_epochs(folder):
    base = open_pretrained(str(folder / "run"))
    tuned = tuned_recipe(base, [], ["HeLa", "U-2 OS"])
    assert (tuned.training.max_epochs, tuned.cell_line) == (10, None)
    assert tuned_recipe(base, ["name=mine", "protein.encoder=x"], []).name == "mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("class_set=single-4", "'class_set' is 'single-2' in 'toy 1'; leave it as it is."),
        ("model.widths=[4, 16]", "'model.widths' is [4, 8] in 'toy 1'; leave it as it is."),
        ("crop.pixel_size_um=0.4", "'crop.pixel_size_um' is 0.8 in"),
        ("protein.inputs=[structure]", "'protein.inputs' is ['sequence'] in"),
        ("losses.label=0", "'toy 1' has a classifier, and fine-tuning keeps that"),
        ("training.epochs=3", "Recipe 'toy 1' has no field 'training.epochs'; the nearest is"),
    ],
)
def test_the_network_and_its_classes_are_kept(folder, change, said):
    with pytest.raises(InputError) as error:
        tuned_recipe(open_pretrained(str(folder / "run")), [change], [])
    assert said in str(error.value)


@pytest.mark.parametrize(("size", "um"), [(SIZE, UM / 2), (2 * SIZE, UM)])
def test_crops_of_another_scale_are_refused(folder, size, um, tmp_path, capsys):
    store = write_store(tmp_path / "store", proteins(), crops=1, size=size, um=um)
    assert finetune(folder / "bundle", store, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert f"has crops of {size} px of {um:g} µm, and recipe 'toy-finetuned' takes 32 px of 0.8 µm" in said
    assert not (tmp_path / "out").exists()


def test_another_encoder_is_refused(folder, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    about = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps(about | {"fingerprint": "abc"}))
    assert finetune(run, folder / "store", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "'toy 1' was trained with the encoder 'segments-1', whose fingerprint is abc, not None" in said


def test_weights_of_another_network_are_refused(folder, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    weights = load_file(run / "weights.safetensors")
    weights.pop("classifier.0.weight")
    save_file(weights, run / "weights.safetensors")
    assert finetune(run, folder / "store", tmp_path / "out") == 2
    assert f"The weights of '{run}' do not fit the network of its recipe" in capsys.readouterr().err


def test_what_is_no_finished_model_is_refused(folder, tmp_path, capsys):
    assert finetune("nothing", folder / "store", tmp_path / "out") == 2
    assert "Model 'nothing' is neither installed" in capsys.readouterr().err
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    (run / "manifest.json").unlink()
    assert finetune(run, folder / "store", tmp_path / "out") == 2
    assert f"'{run}' holds no finished run" in capsys.readouterr().err
    assert finetune(folder / "run", tmp_path, tmp_path / "out") == 2
    assert "is not a complete crop store" in capsys.readouterr().err


def test_the_images_of_a_model_like_the_bundled_are_trained_and_its_labels_stay(
    tiny_export, lab_208, tmp_path, capsys
):
    out, bundle = tmp_path / "out", tmp_path / "bundle"
    assert finetune(tiny_export.path, lab_208, out, *FEW_MINI) == 0, capsys.readouterr().err
    assert 0 < before(out)["validation_mse"] < 1
    assert deepgps(["export", str(out), "--to", str(bundle)]) == 0
    tuned = open_bundle(bundle)
    assert tuned.metadata.cell_line == "HeLa"
    assert tuned.metadata.training_data["fine-tuned from"].startswith("toy 0.0 (sha256 ")
    assert tuned.metadata.thresholds == tiny_export.metadata.thresholds
    assert tuned.metadata.class_sets == tiny_export.metadata.class_sets != {}
    first, then = (
        Predictor(each, threads=1).predict_one("MKVLAAGIVGLCAKWDEYHR") for each in (tiny_export, tuned)
    )
    for slug, value in first.probabilities.items():
        assert then.probabilities[slug] == pytest.approx(value, abs=1e-5)
    assert [each.accession for each in then.evidence] == [each.accession for each in first.evidence]
    assert np.abs(then.image - first.image).max() > 1e-4


def test_going_on_from_a_bundle_begins_with_its_images(tiny_run, tiny_export, lab_208, tmp_path):
    for name, path in (("a", tiny_run), ("b", tiny_export.path)):
        assert finetune(path, lab_208, tmp_path / name, *FEW_MINI) == 0
    first, second = (before(tmp_path / name)["validation_mse"] for name in "ab")
    assert second == pytest.approx(first, rel=1e-2)
    halves = [(tmp_path / name / "labels" / "encoder.json").read_text() for name in "ab"]
    kept = ("features_name", "features", "votes", "classes", "thresholds", "unclear_below", "unlike_below")
    kept += ("widths", "members", "proteins")
    whole, rebuilt = (json.loads(text) for text in halves)
    assert rebuilt == {name: whole[name] for name in kept}


@pytest.mark.parametrize("option", [["--structures", "x"], ["--cache", "x"], ["--offline"]])
def test_a_model_like_the_bundled_has_no_use_for_some_options(tiny_run, lab_208, tmp_path, option, capsys):
    assert finetune(tiny_run, lab_208, tmp_path / "out", *option) == 2
    assert f"'toy 0.0' does not use {option[0]}; leave it out." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_crops_of_no_class_or_of_no_part_are_left_out(tiny_run, tmp_path, capsys):
    rows = [row | {"localizations": PLACES[n % 4]} for n, row in enumerate(proteins(2))]
    rows[0]["localizations"] = "plastid"
    store = write_store(tmp_path / "store", rows, crops=1, size=208, um=0.206349)
    parts = ["train"] * 3 + ["validation"] * 4
    lines = [f"{row['protein_id']},{part}" for row, part in zip(rows, parts, strict=False)]
    (store / "split.csv").write_text("\n".join(["protein_id,split", *lines]) + "\n")
    assert finetune(tiny_run, store, tmp_path / "out", *FEW_MINI) == 0, capsys.readouterr().err
    said = (tmp_path / "out" / "left_out.csv").read_text().splitlines()
    assert said[1:] == [
        "ENSG000,It is in no class of 'mini' (plastid).",
        "ENSG007,It is in no part of the split.",
    ]
    (store / "split.csv").write_text("\n".join(["protein_id,split", *lines[:3]]) + "\n")
    assert finetune(tiny_run, store, tmp_path / "other", *FEW_MINI) == 2
    assert "is in the part 'validation'; give another --split" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["structure", "grain"])
def test_a_model_like_the_bundled_is_loaded_by_the_names_of_its_weights(tiny_run, tiny_export, stage):
    networks = []
    for source in (tiny_run, tiny_export.path):
        base = open_pretrained(str(source))
        networks.append(build_network(getattr(base.recipe.images, stage), 12))
        base.load_into(networks[-1], stage)
    for one, other in zip(*(each.state_dict().values() for each in networks), strict=True):
        torch.testing.assert_close(other, one, atol=2e-3, rtol=1e-3)


def test_learning_rates_of_a_model_like_the_bundled_are_a_tenth_of_the_first(tiny_run):
    base = open_pretrained(str(tiny_run))
    first, tuned = base.recipe.images, tuned_recipe(base, [], ["HeLa"]).images
    for stage in ("structure", "grain"):
        one, other = getattr(first, stage), getattr(tuned, stage)
        for rate in ("learning_rate", "kernel_rate"):
            assert getattr(other, rate) == pytest.approx(getattr(one, rate) / 10)
        assert other.max_epochs == 10
    with pytest.raises(InputError, match=r"'images.structure.widths' is \[8, 8\] in 'toy 0.0'; leave it"):
        tuned_recipe(base, ["images.structure.widths=[16, 16]"], [])


def test_a_bundle_that_draws_in_one_pass_is_refused(tiny_export, tmp_path):
    files = {name: tiny_export.read(name) for name in tiny_export.metadata.files}
    fields = tiny_export.metadata.model_dump(exclude={"schema_version", "files", "flow_matching"})
    path = write_bundle(tmp_path / "old", fields, files).path
    with pytest.raises(BundleError, match=r"old' draws images in one pass, .* start from a newer one"):
        open_pretrained(str(path))


def with_recipe(bundle, content, folder):
    files = {name: bundle.read(name) for name in bundle.metadata.files if name != "recipe.yaml"}
    fields = bundle.metadata.model_dump(exclude={"schema_version", "files"})
    return write_bundle(folder, fields, files | ({"recipe.yaml": content} if content else {}))


def test_a_bundle_without_its_recipe_is_refused(joint_export, tmp_path):
    path = with_recipe(joint_export("sequence")[1], None, tmp_path / "bare").path
    with pytest.raises(BundleError, match=r"has no 'recipe.yaml'; export it again from its run"):
        open_pretrained(str(path))


@pytest.mark.parametrize("widths", [[4, 16], [4, 8, 8]])
def test_a_bundle_with_another_recipe_is_refused(joint_export, tmp_path, widths):
    bundle = joint_export("sequence")[1]
    content = yaml.safe_load(bundle.read("recipe.yaml"))
    content["model"]["widths"] = widths
    base = open_pretrained(
        str(with_recipe(bundle, yaml.safe_dump(content).encode(), tmp_path / "other").path)
    )
    with pytest.raises(InputError, match="do not fit the network of its recipe"):
        base.load_into(build_model(base.recipe, base.encoder["dimension"]))
