import csv

import numpy as np
import pytest
import torch
from PIL import Image

from deepgps.localization import WORDS
from deepgps.training.mini.image_pack import ImagePack
from deepgps.training.mini.images import (
    GrainTask,
    StructureTask,
    build_network,
    condition_size,
    fit_stage,
    held_out,
    read_network,
    write_network,
)
from deepgps.training.recipe import GrainSettings, StructureSettings
from mini_packs import CLASSES, small_pack

TINY = {"size_px": 16, "widths": (8, 8), "embedding": 8, "batch_size": 4, "batches": 2, "max_epochs": 2}
STRUCTURE = StructureSettings(**TINY, mean_share=0.25, warm_up_steps=2)
GRAIN = GrainSettings(**TINY)
KINDS = [(StructureTask, STRUCTURE), (GrainTask, GRAIN)]
SHARES = {"opencell_crops": 0.5, "hpa_u2os_cells": 0.5}


def task(kind=StructureTask, settings=STRUCTURE, **changes) -> StructureTask:
    return kind(small_pack(), settings.model_copy(update=changes), SHARES)


def weights(network) -> list[torch.Tensor]:
    return [each.clone() for each in network.state_dict().values()]


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


class KilledError(BaseException):
    """What no handler of ordinary errors sees."""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("minutes", [10, 1e-9])
def test_a_stage_killed_in_its_second_epoch_resumes_and_ends_with_the_same_weights(
    kind, settings, minutes, tmp_path, monkeypatch
):
    whole = weights(fit_stage(task(kind, settings), tmp_path / "whole"))
    losses, steps = kind.losses, []

    def dies_at_the_fourth(self, model, batch):
        steps.append(batch)
        if len(steps) == 4:
            raise KilledError
        return losses(self, model, batch)

    monkeypatch.setattr(kind, "losses", dies_at_the_fourth)
    with pytest.raises(KilledError):
        fit_stage(task(kind, settings, checkpoint_minutes=minutes), tmp_path / "killed")
    resumed = fit_stage(task(kind, settings), tmp_path / "killed")
    # The second epoch is repeated unless its first batch was kept; the first is not.
    assert len(steps) == (6 if minutes == 10 else 5)
    assert same(whole, weights(resumed))
    assert not same(whole, weights(build_network(settings, len(CLASSES))))


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_step_is_a_function_of_the_seed_and_its_number(kind, settings):
    def flat(step):
        return [*step.examples, step.noise, step.time, step.mean]

    one, again = task(kind, settings), task(kind, settings)
    assert same(flat(one.step(5)), flat(again.step(5)))
    assert not same(flat(one.step(5)), flat(one.step(6)))
    assert not same(flat(one.step(5)), flat(task(kind, settings, seed=1).step(5)))
    epoch = [step.noise for step in one.batches(1, 1)]
    assert same(epoch, [one.step(3).noise])


@pytest.mark.slow
def test_batches_of_other_processes_are_the_same():
    here, there = task(), task(workers=1)
    for one, other in zip(here.batches(0, 0), there.batches(0, 0), strict=True):
        assert same([*one.examples, one.noise], [*other.examples, other.noise])


def test_the_average_of_the_weights_follows_and_draws():
    made = task(average=0.9)
    optimizer = made.optimizer()
    module = made.module.train()
    for number in range(3):
        made.losses(module, made.step(number))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    network, average = weights(module.network), weights(module.average.module)
    assert not same(network, average)
    assert any(name.startswith("average.module.") for name in module.state_dict())
    step = made.step(0)
    inputs = (step.noise, step.time, *step.examples[1:], step.mean)
    with torch.no_grad():
        assert torch.equal(module.eval()(*inputs), module.average.module(*inputs))
        assert torch.equal(module.train()(*inputs), module.network(*inputs))


def test_kernels_of_the_blocks_are_trained_by_muon_and_all_else_by_adamw():
    made = task()
    kernels, others = made.optimizer().param_groups
    names = {id(each): name for name, each in made.module.network.named_parameters()}
    assert {names[id(each)].split(".")[0] for each in kernels["params"]} == {"down", "halve", "middle", "up"}
    assert all(each.ndim == 4 for each in kernels["params"])
    assert len(kernels["params"]) + len(others["params"]) == len(names)
    assert kernels["factor"] * STRUCTURE.learning_rate == pytest.approx(STRUCTURE.kernel_rate)


def test_the_learning_rate_rises_and_falls():
    made = task(warm_up_steps=10, cool_down=0.5, batches=50, max_epochs=2)
    rates = [made.schedule(step)["lr"] / STRUCTURE.learning_rate for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:51] == pytest.approx([1.0] * 41)
    assert rates[51:] == pytest.approx(np.arange(49, 0, -1) / 50)
    assert {task(warm_up_steps=1, cool_down=0).schedule(step)["lr"] for step in range(4)} == {1e-3}


def test_a_share_of_a_batch_learns_the_mean_image():
    made = task(batch_size=8)
    assert made.step(0).mean.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert not task(GrainTask, GRAIN).step(0).mean.any()
    loss, drawn, mean = made.losses(made.module.train(), made.step(0)).tolist()
    assert loss == pytest.approx((6 * drawn + 2 * STRUCTURE.mean_weight * mean) / 8, rel=1e-4)


@pytest.mark.slow
def test_a_network_learns_a_plain_grey_and_its_log_says_so(tmp_path):
    pack = small_pack()
    pack.arrays["pixels"][:] = 100
    settings = STRUCTURE.model_copy(update={"batches": 30, "max_epochs": 3, "kernel_rate": 0.05})
    network = fit_stage(StructureTask(pack, settings, SHARES), tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["train_loss"]) < 0.3 * float(rows[0]["train_loss"])
    assert {"train_loss_drawn", "train_loss_mean", "validation_loss", "validation_mean_r_hek293t"} <= set(
        rows[0]
    )
    assert sorted(path.name for path in (tmp_path / "samples").iterdir())[-1] == "epoch-0003.png"
    assert not any(each.requires_grad for each in network.parameters())


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_sample_sheets_show_held_out_cells(kind, settings):
    made = task(kind, settings)
    sheet = made.samples(made.module)
    assert isinstance(sheet, Image.Image)
    # One held-out cell: two lines of nucleus, real image and each class, or one of five images.
    columns, lines = (2 + len(CLASSES), 2) if kind is StructureTask else (5, 1)
    assert sheet.size == (16 * columns, 16 * lines)


def test_nothing_is_measured_or_shown_without_held_out_images():
    pack = small_pack()
    pack.arrays["split"][:] = "train"
    made = StructureTask(pack, STRUCTURE, SHARES)
    assert (made.validate(made.module), made.samples(made.module)) == ({}, None)


def test_validation_images_are_measured_rather_than_test_images():
    pack = small_pack()
    assert pack.fields(held_out(pack)).tolist() == [3]
    split = {"split": np.array(["validation", "train", "train", "test"])}
    pack = ImagePack(dict(pack.arrays) | split, pack.examples)
    assert pack.fields(held_out(pack)).tolist() == [0]


def test_a_network_is_read_as_it_was_written(tmp_path):
    for settings in (STRUCTURE, GRAIN):
        network = build_network(settings, 3)
        write_network(network, tmp_path / "weights.safetensors")
        assert same(weights(network), weights(read_network(tmp_path / "weights.safetensors", settings, 3)))


def test_the_condition_holds_classes_words_domain_and_what_is_known():
    assert condition_size(12) == 12 + len(WORDS) + 3 + 2
    assert task().step(0).examples.condition.shape[1] == condition_size(len(CLASSES))


class Knows(torch.nn.Module):
    """Predicts 3 for a known protein and 1 for an unknown one, everywhere."""

    def forward(self, noisy, time, images, given, condition, mean):
        known = condition[:, len(CLASSES)]
        return (1 + 2 * known)[:, None, None, None].expand_as(noisy)


def test_guidance_is_learned_where_the_protein_is_known():
    some = task(guidance=2.0)
    step = some.step(0)
    described = step.examples.condition.clone()
    described[:, len(CLASSES)] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    step = step._replace(
        examples=step.examples._replace(condition=described), mean=torch.tensor([1.0, 0.0, 0.0, 0.0])
    )
    inputs = (step.noise, step.time, step.examples.images, step.examples.given, described, step.mean)
    added = some.guiding(Knows(), step.noise, step, Knows()(*inputs))
    # Half of the difference: where the network predicts x + d, its target is x + d / 2, so that d is doubled.
    assert added[:, 0, 0, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert not task(guidance=1.0).guiding(Knows(), step.noise, step, step.noise).any()
