"""Steps are done once, in order, and continue; settings make each recipe the model that it should be."""

import json

import polars as pl
import pytest

from deepgps.cli.app import run
from deepgps.datasets.splits import read_split
from deepgps.errors import InputError
from deepgps.reproduction import estimate, published, steps
from deepgps.reproduction.steps import MODELS, SCALES, Reproduction, Sources
from joint_store import proteins, write_store

NOWHERE = Sources(*["http://127.0.0.1:9"] * 6)


class Quiet:
    """A progress that collects messages."""

    def __init__(self):
        self.messages = []

    def begin(self, *_): ...
    def advance(self, *_): ...
    def update(self, *_): ...
    def add_bytes(self, *_): ...

    def print(self, message):
        self.messages.append(message)


@pytest.fixture
def reproduction(tmp_path):
    return Reproduction(tmp_path / "data", tmp_path / "out", NOWHERE)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_each_recipe_is_the_model_of_its_name(model, scale, exact, tmp_path):
    recipe = Reproduction(tmp_path, tmp_path, NOWHERE, scale, exact).recipe(model)
    classes = {"single-4": "single-4", "all": "all"}.get(model.name, "single-2")
    assert recipe.class_set == classes
    assert bool(recipe.losses.label) == (classes != "all")
    assert ("structure" in recipe.protein.inputs) == model.structures
    assert ("sequence" in recipe.protein.inputs) == (model.name != "single-2-structure")
    assert (recipe.cell_line == "U-2 OS") == (model.source == "hpa")
    assert (recipe.model.fusion == "paper") == exact
    assert recipe.protein.encoder == SCALES[scale].encoder
    assert (recipe.model.widths == (64, 128, 256, 512, 1024)) == (scale == "paper")


def test_steps_that_are_done_are_not_done_again(reproduction, monkeypatch):
    ran, broken = [], {"split hpa"}

    def fake(name):
        def step():
            if name in broken:
                raise InputError("stopped")
            ran.append(name)

        return name, step

    names = ["fetch opencell", "split hpa", "embed"]
    monkeypatch.setattr(steps, "_steps", lambda *_: map(fake, names))
    monkeypatch.setattr(steps, "_results", lambda _: {})
    monkeypatch.setattr(steps, "write_reproduction_report", lambda path, *_: path)
    with pytest.raises(InputError, match="stopped"):
        steps.reproduce(reproduction, None, Quiet())
    broken.clear()
    assert steps.reproduce(reproduction, None, progress := Quiet()) == reproduction.out / "report.html"
    assert ran == names
    assert progress.messages == ["step 2 of 3: split hpa", "step 3 of 3: embed"]
    assert list(json.loads((reproduction.out / "reproduction.json").read_text())["seconds"]) == names


def test_another_reproduction_is_refused(reproduction, monkeypatch, tmp_path):
    monkeypatch.setattr(steps, "_steps", lambda *_: [("embed", lambda: None)])
    monkeypatch.setattr(steps, "_results", lambda _: {})
    monkeypatch.setattr(steps, "write_reproduction_report", lambda path, *_: path)
    steps.reproduce(reproduction, None, Quiet())
    other = Reproduction(tmp_path / "data", tmp_path / "out", NOWHERE, exact=True)
    with pytest.raises(InputError, match="holds a reproduction with exact 'False', not 'True'"):
        steps.reproduce(other, None, Quiet())


def test_the_proteins_of_the_cross_assay_are_tested_on(tmp_path):
    rows = proteins(8)
    for row, gene in zip(rows, published.CROSS_ASSAY, strict=False):
        row["gene_symbol"] = gene
    store = write_store(tmp_path / "store", rows, crops=1)
    steps._split(store)
    parts = read_split(store / "split.csv")
    genes = dict(pl.DataFrame(rows).select("protein_id", "gene_symbol").iter_rows())
    assert {parts[id] for id, gene in genes.items() if gene in published.CROSS_ASSAY} == {"test"}
    assert {"train", "validation", "test"} == set(parts.values())


def test_the_estimate_is_of_all_steps_and_of_this_machine(reproduction, monkeypatch):
    monkeypatch.setattr(estimate, "time_of_a_crop", lambda _: (0.5, 1000))
    found = {each.step: each for each in estimate.estimate(reproduction)}
    assert list(found)[-len(MODELS) :] == [f"train {model.name}" for model in MODELS]
    crops = published.TRAINING_CROPS["single-4"] * 60 / 1301 * 3
    assert found["train single-4"].seconds == pytest.approx(crops / 2)
    whole = Reproduction(reproduction.data, reproduction.out, NOWHERE, "paper")
    more = {each.step: each for each in estimate.estimate(whole)}
    assert more["train all"].seconds == pytest.approx(published.TRAINING_CROPS["all"] * 50 / 2)
    assert more["prepare opencell"].bytes == published.CROPS["opencell"] * 2 * 208**2
    lines = list(estimate.estimate_lines(list(more.values())))
    assert any(line.startswith("together") and "days" in line for line in lines)


def test_a_disk_that_is_too_small_is_refused(reproduction):
    with pytest.raises(InputError, match=r"needs about 1,000,000 GB more, .* give --data a folder"):
        estimate.check_disk(reproduction, [estimate.Estimate("fetch", 1, 1e15)])


def test_a_step_of_a_small_network_is_timed(reproduction):
    seconds, weights = estimate.time_of_a_crop(reproduction)
    assert 0 < seconds < 60
    assert weights > 10_000


def test_the_command_estimates_and_stops(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "time_of_a_crop", lambda _: (0.5, 1000))
    folders = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert run(["reproduce", *folders, "--estimate"]) == 0
    printed = capsys.readouterr().out
    assert "train single-2-both" in printed
    assert "hours on a GPU" in printed
    assert not (tmp_path / "out").exists()
