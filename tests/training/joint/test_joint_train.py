import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepgps.datasets.splits import read_split
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import lock_folder
from deepgps.training import loop
from deepgps.training.joint import train as training
from deepgps.training.joint.task import JointTask, build_model
from deepgps.training.joint.train import train_joint
from deepgps.training.loop import BEST, LAST, Trainer, read_checkpoint, save_checkpoint
from deepgps.training.recipe import load_recipe
from joint_store import protein, recipe, write_store

TRAINING = {"batch_size": 4, "max_epochs": 3, "learning_rate": 3e-3, "precision": "float32"}
PLACES = ("cytoplasmic", "nucleoplasm")


def two_class(**training):
    return recipe(training=TRAINING | training, losses={"ssim": 0.5})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops") / "store"
    rows = [protein(number, PLACES[number % 2]) for number in range(12)]
    return write_store(folder, [*rows, protein(12, "cytoplasmic|nucleoplasm")], crops=2)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    train_joint(two_class(), store, run)
    return run


def same(run, other) -> bool:
    return all((run / name).read_bytes() == (other / name).read_bytes() for name in SAME)


SAME = ("metrics.csv", "weights.safetensors", "calibration.json", "metrics.json", "split.csv", "recipe.yaml")


def test_a_run_leaves_what_its_page_says(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        *("recipe.yaml", "inputs.json", "encoder.json", "split.csv", "left_out.csv"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt", "weights.safetensors", "calibration.json"),
        *("metrics.csv", "metrics.json", "report.html", "manifest.json", ".deepgps.lock"),
        *(f"samples/epoch-000{epoch}.png" for epoch in (1, 2, 3)),
    }


def test_metrics_csv_has_a_row_an_epoch_that_adds_up(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    steps = len(read_rows(finished, "train")) * 2 // 4
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["steps"] for row in rows] == [steps, 2 * steps, 3 * steps]
    for row in rows:
        for kind in ("train", "validation"):
            parts = [row[f"{kind}_loss_{name}"] for name in ("mae", "ssim", "label")]
            assert row[f"{kind}_loss"] == pytest.approx(parts[0] + 0.5 * parts[1] + parts[2], rel=1e-5)
        assert row["validation_ssim"] == pytest.approx(1 - row["validation_loss_ssim"], abs=1e-6)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def read_rows(run, part):
    return [id for id, its in read_split(run / "split.csv").items() if its == part]


def test_the_weights_are_those_of_the_best_epoch_and_fit_the_network(finished):
    with (finished / "metrics.csv").open(newline="") as file:
        losses = [float(row["validation_loss_image"]) for row in csv.DictReader(file)]
    best = read_checkpoint(finished / BEST)
    assert best["epoch"] == int(np.argmin(losses)) + 1
    weights = load_file(finished / "weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in best["model"].items())
    encoder = json.loads((finished / "encoder.json").read_text())
    model = build_model(two_class(), encoder["dimension"])
    model.load_state_dict(weights)
    assert not torch.equal(model.sequence.mean, torch.zeros_like(model.sequence.mean))


def test_the_last_weights_are_kept_where_the_recipe_says_so(store, tmp_path):
    train_joint(two_class(keep="last", max_epochs=2, learning_rate=0.3), store, tmp_path / "run")
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    last = read_checkpoint(tmp_path / "run" / LAST)["model"]
    assert all(torch.equal(weights[name], last[name]) for name in weights)


def test_figures_stand_beside_trivial_ones(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in (
        *("validation/protein/accuracy (model)", "validation/crop/accuracy (majority class)"),
        *("validation/image/psnr (drawn)", "validation/image/psnr (constant mean)"),
        *("validation/image/pearson (drawn as another protein)", "validation/image/psnr (class mean)"),
    ):
        assert {"value", "low", "high", "n"} == metrics[name].keys()
    assert metrics["validation/protein/accuracy (model)"]["n"] == len(read_rows(finished, "validation"))


def test_what_is_left_out_is_named(finished):
    with (finished / "left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["protein_id"] for row in rows] == ["ENSG012"]
    assert rows[0]["reason"].startswith("It is multi-localized")


def test_tensorboard_has_the_curves_and_the_samples(finished):
    events = EventAccumulator(str(finished / "tensorboard")).Reload()
    assert {"train/loss", "validation/loss", "learning/rate"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("validation/loss")) == 3
    assert events.Tags()["images"] == ["samples"]


def test_two_runs_end_with_the_same_bytes(finished, store, tmp_path):
    train_joint(two_class(), store, tmp_path / "run")
    assert same(finished, tmp_path / "run")


def test_another_seed_ends_otherwise(finished, store, tmp_path):
    train_joint(two_class(seed=1), store, tmp_path / "run")
    assert not same(finished, tmp_path / "run")


class Killed(BaseException):
    """The process is gone."""


def dies(monkeypatch, where, name, count):
    """Let a function end the process at its ``count``-th call."""
    real, calls = getattr(where, name), iter(range(1, 1000))

    def dying(*args, **kwargs):
        if next(calls) == count:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, dying)


@pytest.mark.parametrize(
    ("where", "name", "count"),
    [
        (Trainer, "_train_batch", 1),
        (Trainer, "_train_batch", 3),
        (Trainer, "_train_batch", 6),
        (JointTask, "evaluate", 1),
        (JointTask, "evaluate", 2),
        (loop, "save_last", 2),
        (loop, "save_checkpoint", 1),
        (training, "save_file", 1),
        (training, "write_training_report", 1),
    ],
)
def test_a_run_killed_anywhere_goes_on_to_the_same_end(
    where, name, count, finished, store, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies(patch, where, name, count)
        train_joint(two_class(checkpoint_minutes=1e-9), store, run)
    assert not (run / "manifest.json").exists()
    train_joint(two_class(), store, run, resume=True)
    assert same_but_for_the_machine(finished, run)


def same_but_for_the_machine(run, other):
    """A recipe says how often a run is kept, and nothing depends on it."""
    return all(
        (run / name).read_bytes() == (other / name).read_bytes() for name in SAME if name != "recipe.yaml"
    )


def test_accumulated_parts_go_on_after_a_whole_batch(store, tmp_path, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    train_joint(two_class(accumulate=2), store, whole)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies(patch, Trainer, "_train_batch", 6)
        train_joint(two_class(accumulate=2, checkpoint_minutes=1e-9), store, run)
    assert read_checkpoint(run / LAST)["progress"]["batch"] == 4
    train_joint(two_class(accumulate=2), store, run, resume=True)
    assert same_but_for_the_machine(whole, run)


def test_a_finished_run_is_resumed_by_doing_nothing(finished, store, tmp_path, monkeypatch):
    copy = shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.delattr(JointTask, "evaluate")
    train_joint(two_class(), store, copy, resume=True)
    assert same(finished, copy)


def test_what_a_full_disk_cut_off_leaves_the_checkpoint_before(tmp_path):
    import resource

    path = tmp_path / "checkpoints" / "last.ckpt"
    save_checkpoint({"model": torch.zeros(10)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_checkpoint({"model": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_a_half_written_checkpoint_of_a_killed_run_is_cleared_away(finished, store, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "manifest.json").unlink()
    draft = copy / "checkpoints" / ".deepgps-last.ckpt"
    draft.write_bytes((copy / LAST).read_bytes()[:1000])
    train_joint(two_class(), store, copy, resume=True)
    assert not draft.exists()
    assert same(finished, copy)


def refused(run, store, which=None, **options):
    with pytest.raises(InputError) as caught:
        train_joint(which or two_class(), store, run, **options)
    return str(caught.value)


def test_a_folder_with_a_run_needs_a_word(finished, store):
    assert refused(finished, store) == (
        f"'{finished}' already holds a run; add --resume to continue it, or use another folder."
    )


def test_a_run_is_not_resumed_by_another_recipe(finished, store):
    said = refused(finished, store, two_class(learning_rate=1e-5), resume=True)
    assert said == f"'{finished}' was started with another recipe than 'toy'; use another folder."


def test_a_run_is_resumed_on_another_machine(finished, store):
    before = (finished / "manifest.json").stat().st_mtime
    train_joint(two_class(workers=1, checkpoint_minutes=5), store, finished, resume=True)
    assert (finished / "manifest.json").stat().st_mtime == before


@pytest.mark.parametrize("change", ["crops", "split"])
def test_a_run_is_not_resumed_with_other_data(change, finished, store, tmp_path):
    other = shutil.copytree(store, tmp_path / "store")
    if change == "crops":
        crops = np.load(other / "crops.npy")
        np.save(other / "crops.npy", crops[::-1])
    else:
        shutil.copy(finished / "split.csv", other / "split.csv")
    assert "was started with other data; use another folder" in refused(finished, other, resume=True)


def test_a_run_is_not_resumed_with_another_encoder(finished, store, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "manifest.json").unlink()
    spec = json.loads((copy / "encoder.json").read_text())
    (copy / "encoder.json").write_text(json.dumps(spec | {"fingerprint": "another"}))
    said = refused(copy, store, resume=True)
    assert "was started with other weights of the encoder 'segments-1'; use another folder" in said


def test_two_processes_do_not_write_into_one_run(store, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    handle = lock_folder(run)
    try:
        assert "Another deepGPS process is writing to" in refused(run, store)
    finally:
        os.close(handle)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_checkpoint_is_refused(damage, finished, store, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "manifest.json").unlink()
    content = (copy / LAST).read_bytes()
    (copy / LAST).write_bytes(content[: len(content) // 2])
    if damage == "other":
        save_checkpoint({"model": {}, "optimizer": {}, "progress": {}}, copy / LAST)
    said = refused(copy, store, resume=True)
    assert ("cannot be read" if damage == "cut" else "is of another model") in said


def test_a_loss_that_is_no_number_ends_the_run_and_is_not_kept(store, tmp_path):
    with pytest.raises(DeepGPSError, match=r"is not finite in epoch \d; lower learning_rate"):
        train_joint(
            two_class(learning_rate=1e30, warm_up=0, checkpoint_minutes=1e-9), store, tmp_path / "run"
        )
    kept = tmp_path / "run" / LAST
    if kept.exists():
        assert all(torch.isfinite(value).all() for value in read_checkpoint(kept)["model"].values())


def test_more_gpus_than_there_are_are_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    said = refused(tmp_path / "run", store, two_class(devices=2))
    assert said == "training.devices is 2, and this machine has 1 GPUs; set training.devices=1."


def test_it_stops_early_and_says_so(store, tmp_path, capfd):
    run = tmp_path / "run"
    train_joint(two_class(max_epochs=9, patience=1, learning_rate=0.5, warm_up=0), store, run)
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row["validation_loss_image"]) for row in csv.DictReader(file)]
    assert len(losses) < 9
    assert losses[-1] >= min(losses[:-1])
    assert losses[-2] == min(losses[:-1])
    assert f"stopped after {len(losses)} of 9 epochs" in (run / "report.html").read_text()


def test_it_tells_of_every_epoch_on_stderr_and_of_nothing_else(store, tmp_path, capfd):
    train_joint(two_class(max_epochs=2), store, tmp_path / "run")
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"epoch {n}/2: training loss ") for n, line in enumerate(lines, start=1))
    assert "crops/s" in lines[0]


def test_mixed_precision_trains(store, tmp_path):
    train_joint(two_class(precision="bfloat16", max_epochs=1), store, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["precision"] == "bfloat16"
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(value.dtype != torch.bfloat16 for value in weights.values())


def test_a_model_that_only_draws_has_no_labels(store, tmp_path):
    run = tmp_path / "run"
    train_joint(
        recipe(training=TRAINING | {"max_epochs": 1}, losses={"label": 0}, class_set="all"), store, run
    )
    assert not (run / "calibration.json").exists()
    assert all(name.startswith("validation/image") for name in json.loads((run / "metrics.json").read_text()))
    assert "<h2>Labels</h2>" not in (run / "report.html").read_text()


def test_several_classes_a_protein(store, tmp_path):
    run = tmp_path / "run"
    train_joint(recipe(training=TRAINING | {"max_epochs": 1}, class_set="all"), store, run)
    calibration = json.loads((run / "calibration.json").read_text())
    assert {len(calibration[name]) for name in ("classes", "scale", "bias", "thresholds")} == {17}
    assert "Class by class" in (run / "report.html").read_text()


def test_readers_of_crops_change_nothing(finished, store, tmp_path):
    train_joint(two_class(workers=1), store, tmp_path / "run")
    assert same_but_for_the_machine(finished, tmp_path / "run")


def test_the_recipe_in_the_folder_is_the_one_that_was_given(finished):
    assert load_recipe(str(finished / "recipe.yaml")) == two_class()
