"""Several processes learn what one does."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import distributed, nn

from deepgps.errors import DeepGPSError
from deepgps.training.joint.train import train_joint
from deepgps.training.loop import _peers_alive
from deepgps.training.sync_batch_norm import synchronise
from joint_store import protein, recipe, write_store

# Small steps: AdamW turns the last digit of a first gradient into a step of full size.
TRAINING = {"batch_size": 8, "max_epochs": 2, "learning_rate": 1e-4, "precision": "float32", "warm_up": 0.3}


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    store = distributed.FileStore(str(tmp_path / "group"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        made[1].weight.uniform_(0.5, 2)
        made[1].bias.uniform_(-1, 1)
    return made.double()


def test_alone_it_is_batch_normalisation(alone):
    ours, theirs = layers(), layers()
    synchronise(ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(3):
        batch = torch.randn(4, 2, 6, 6, dtype=torch.float64)
        found, wanted = ours(batch), theirs(batch)
        assert torch.allclose(found, wanted, atol=1e-12)
        for drawn in (found, wanted):
            drawn.square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-9)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    ours.eval()
    theirs.eval()
    assert torch.allclose(ours(batch), theirs(batch), atol=1e-12)


def test_points_and_single_numbers_are_normalised_too(alone):
    ours, theirs = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    synchronise(ours)
    for batch in (torch.randn(5, 3, 7), torch.randn(5, 3)):
        assert torch.allclose(ours(batch), theirs(batch), atol=1e-5)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rows = [protein(number, ("cytoplasmic", "nucleoplasm")[number % 2]) for number in range(22)]
    # As many crops that the validation part does not fall into two equal halves.
    return write_store(tmp_path_factory.mktemp("crops") / "store", rows, crops=3)


def columns(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_end_as_one_does(store, tmp_path):
    which = recipe(training=TRAINING | {"accumulate": 2}, losses={"ssim": 0.5})
    train_joint(which, store, tmp_path / "one")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(which.model_dump(mode="json")))
    command = [Path(sys.executable).with_name("deepgps"), "train", tmp_path / "recipe.yaml", "--data", store]
    options = ["--out", tmp_path / "two", "--set", "training.devices=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, [*command, *options]), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The run is in") == 1
    assert [line[:9] for line in done.stderr.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2
    for one, two in zip(columns(tmp_path / "one"), columns(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=2e-3, abs=2e-4)
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) < 2e-4


def test_a_process_whose_fellow_is_gone_says_so_and_nothing_else():
    with pytest.raises(DeepGPSError, match=r"Another process of the run has ended"), _peers_alive():
        raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:25799")
    with pytest.raises(RuntimeError, match="out of memory"), _peers_alive():
        raise RuntimeError("out of memory")
