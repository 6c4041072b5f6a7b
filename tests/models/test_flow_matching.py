"""Flow matching: the network, its loss, how it draws, and that training goes on where it stopped."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepgps.models.flow_matching import (
    FlowMatchingUNet,
    between,
    condition,
    decode,
    draw,
    encode,
    mean_image,
    noise,
    velocity_loss,
)

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "deepgps-mini" / "images"


@pytest.fixture(scope="module")
def network() -> FlowMatchingUNet:
    """A small network with weights that make every input count."""
    torch.manual_seed(0)
    made = FlowMatchingUNet(3, 6, (16, 24, 32), embedding=32)
    for weight in made.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.05)
    return made.eval()


def inputs(count: int = 2, size: int = 32) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "images": torch.rand(count, 3, size, size, generator=made),
        "given": torch.ones(count, 3),
        "condition": torch.rand(count, 6, generator=made),
    }


@pytest.mark.parametrize("size", [32, 52, 104])
def test_any_multiple_of_the_fold_keeps_its_size(network: FlowMatchingUNet, size: int) -> None:
    given = inputs(size=size)
    with torch.no_grad():
        drawn = network(noise([0, 1], size, size), torch.rand(2), mean=torch.zeros(2), **given)
    assert drawn.shape == (2, 1, size, size)


def test_a_landmark_that_is_not_given_does_not_count(network: FlowMatchingUNet) -> None:
    some = inputs()
    other = {**some, "images": some["images"].clone()}
    other["images"][:, 1:] = 0.5
    start = noise([0, 1], 32, 32)
    for given, counts in ((0.0, False), (1.0, True)):
        some["given"][:, 1:] = other["given"][:, 1:] = given
        drawn = [draw(network, start, **each, steps=2) for each in (some, other)]
        assert torch.equal(*drawn) != counts


def test_whether_a_landmark_is_given_counts(network: FlowMatchingUNet) -> None:
    some = inputs()
    some["images"][:, 1:] = 0.5  # what stands in its place is the same
    absent = {**some, "given": torch.tensor([[1.0, 0.0, 0.0]] * 2)}
    start = noise([0, 1], 32, 32)
    assert not torch.equal(draw(network, start, **some, steps=2), draw(network, start, **absent, steps=2))


def test_classes_that_are_unknown_do_not_count() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    words, domain = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    unknown = [
        condition(classes, zero, words, zero, domain) for classes in (torch.eye(3)[:1], torch.eye(3)[1:2])
    ]
    assert torch.equal(*unknown)
    known = condition(torch.eye(3)[:1], one, words, one, domain)
    assert known.tolist() == [[1, 0, 0, 1, 1, 0, 1, 0, 1]]


def test_the_loss_is_the_squared_error_of_the_velocity() -> None:
    clean, start = encode(torch.rand(3, 1, 8, 8)), noise(range(3), 8, 8)
    time = torch.tensor([0.0, 0.3, 0.8])
    predicted = clean + 0.1 * torch.randn(clean.shape)
    mixed = between(start, clean, time)
    left = (1 - time)[:, None, None, None]
    velocity = (predicted - mixed) / left
    expected = ((velocity - (clean - start)) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(velocity_loss(predicted, clean, time), expected, rtol=1e-4, atol=1e-5)
    assert velocity_loss(clean, clean, time).tolist() == [0, 0, 0]


def test_encoding_is_undone() -> None:
    image = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(decode(encode(image)), image)
    assert encode(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("steps", [1, 7])
def test_who_knows_the_image_draws_it(steps: int) -> None:
    image = torch.rand(2, 1, 32, 32)

    class Knows(nn.Module):
        def forward(self, *_: Tensor) -> Tensor:
            return encode(image)

    some = inputs()
    drawn = draw(
        Knows(), noise([0, 1], 32, 32), **some, unconditional=some["condition"], steps=steps, guidance=3
    )
    torch.testing.assert_close(drawn, image, rtol=1e-4, atol=1e-5)


def test_an_image_follows_from_its_seed(network: FlowMatchingUNet) -> None:
    some = inputs()
    second = {name: each[1:] for name, each in some.items()}
    drawn = draw(network, noise([3, 4], 32, 32), **some, steps=3)
    again = draw(network, noise([4], 32, 32), **second, steps=3)
    other = draw(network, noise([5], 32, 32), **second, steps=3)
    torch.testing.assert_close(drawn[1:], again, rtol=1e-4, atol=1e-5)
    assert (other - again).abs().max() > 0.01
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_guidance_goes_away_from_the_unconditional(network: FlowMatchingUNet) -> None:
    some, nothing = inputs(), torch.zeros(2, 6)
    start = noise([0, 1], 32, 32)
    plain = draw(network, start, **{**some, "condition": nothing}, steps=1)
    drawn = draw(network, start, **some, steps=1)
    guided = draw(network, start, **some, unconditional=nothing, steps=1, guidance=2)
    inside = (guided > 0) & (guided < 1) & (drawn > 0) & (plain > 0)
    expected = 2 * encode(drawn) - encode(plain)
    torch.testing.assert_close(encode(guided)[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_the_mean_image_knows_no_noise(network: FlowMatchingUNet) -> None:
    some, ones = inputs(), torch.ones(2)
    with torch.no_grad():
        means = [
            network(noise(seeds, 32, 32), torch.rand(2), mean=ones, **some) for seeds in ([0, 1], [2, 3])
        ]
    assert torch.equal(*means)
    torch.testing.assert_close(mean_image(network, **some), ((means[0] + 1) / 2).clamp(0, 1))


@pytest.fixture
def train() -> Iterator[ModuleType]:
    """The training script, imported from its folder."""
    sys.path.insert(0, str(EXPERIMENT))
    yield importlib.import_module("train_generator")
    sys.path.remove(str(EXPERIMENT))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Three drawn fields of 40 px, of which one has landmarks and one is held out."""
    rng = np.random.default_rng(0)
    present = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    sizes = present.sum(1) * 40 * 40
    arrays = {
        "pixels": rng.integers(0, 256, sizes.sum(), np.uint8),
        "offset": np.concatenate([[0], np.cumsum(sizes)[:-1]]),
        "shape": np.full((3, 2), 40),
        "present": present,
        "cells": np.array([[0, 20, 20], [1, 18, 22], [2, 20, 20]], np.int32),
        "classes": np.eye(3, dtype=np.float32),
        "words": np.eye(3, dtype=np.float32),
        "label_weight": np.ones(3, np.float32),
        "domain": np.array([0, 1, 0]),
        "masked": np.array([False, True, False]),
        "source": np.array(["opencell_crops", "hpa_u2os_cells", "opencell_crops"]),
        "split": np.array(["train", "train", "test"]),
        "class_names": np.array(["er", "cytoskeleton", "extracellular"]),
        "word_names": np.array(["er", "Microtubules", "Lysosomes"]),
        "domain_names": np.array(["one", "other"]),
    }
    np.savez(tmp_path / "packed.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path / "packed.npz"


def test_a_resumed_run_ends_with_the_same_weights(train: ModuleType, packed: Path, tmp_path: Path) -> None:
    settings = train.Settings(size=32, widths=(16, 16, 16), batch_size=8, warm_up=2, images=32)
    pack = train.Pack.load(packed)
    whole = train.train(pack, settings, tmp_path / "whole", device="cpu", every=0)
    half = replace(settings, images=16)
    train.train(pack, half, tmp_path / "parts", device="cpu", every=0)
    resumed = train.train(pack, settings, tmp_path / "parts", device="cpu", every=0)
    assert resumed.step == whole.step == 4
    for name in ("network", "averaged"):
        weights = (getattr(each, name).state_dict() for each in (whole, resumed))
        for one, other in zip(*(each.values() for each in weights), strict=True):
            assert torch.equal(one, other)


def test_measures_and_sheets_are_left_behind(train: ModuleType, packed: Path, tmp_path: Path) -> None:
    settings = train.Settings(size=32, widths=(16, 16, 16), batch_size=8, images=8)
    train.train(train.Pack.load(packed), settings, tmp_path / "run", device="cpu", every=8)
    assert (tmp_path / "run" / "sheet_0000008.png").exists()
    assert '"mean r hek"' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_channel_that_is_drawn_is_not_given(train: ModuleType, packed: Path) -> None:
    pack = train.Pack.load(packed)
    microtubules = np.flatnonzero((pack.examples == (1, 2)).all(1))
    batch = train.plain_batch(pack, microtubules, 32, landmarks=True)
    assert batch.given.tolist() == [[1, 0, 1]]
    assert torch.equal(batch.protein[0, 0], torch.from_numpy(pack.window(1, 32)[2]))


def test_the_fine_stage_is_given_the_coarse_image(train: ModuleType, packed: Path, tmp_path: Path) -> None:
    pack = train.Pack.load(packed)
    batch = train.plain_batch(pack, pack.rows("train")[:2], 32, fine=True)
    coarse = torch.nn.functional.avg_pool2d(batch.protein, 2)
    wide = torch.nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(batch.images[:, 1:], wide)
    settings = replace(train.FINE, size=16, widths=(16, 16), batch_size=8, images=8)
    train.train(pack, settings, tmp_path / "fine", device="cpu", every=8)
    assert (tmp_path / "fine" / "sheet_0000008.png").exists()
