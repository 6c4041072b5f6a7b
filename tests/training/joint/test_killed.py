"""Killed at moments of chance, a run goes on to the same end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepgps.training.joint.train import train_joint
from joint_store import protein, recipe, write_store

SCRIPT = Path(__file__).with_name("killed_runs.py")
TRAINING = {"batch_size": 4, "max_epochs": 3, "learning_rate": 3e-3, "precision": "float32"}


def train_and_kill(store, run, seed):
    which = recipe(training=TRAINING | {"checkpoint_minutes": 1e-9}, losses={"ssim": 0.5})
    command = [sys.executable, SCRIPT, which.model_dump_json(), store, run, seed]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, command), capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_the_same(tmp_path):
    rows = [protein(number, ("cytoplasmic", "nucleoplasm")[number % 2]) for number in range(18)]
    store = write_store(tmp_path / "store", rows, crops=4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_joint(recipe(training=TRAINING, losses={"ssim": 0.5}), store, whole)
    places = train_and_kill(store, killed, seed=1)
    assert len(places) > 2
    assert any(place and place[1] for place in places), "no kill fell into an epoch"
    for name in ("metrics.csv", "weights.safetensors", "metrics.json", "calibration.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
