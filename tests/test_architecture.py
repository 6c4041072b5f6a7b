"""The house's own rules."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_rooms_look_only_downwards():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_torchvision_is_absent():
    # No build of it fits the torch that is used, and beside it torchmetrics breaks.
    assert importlib.util.find_spec("torchvision") is None
