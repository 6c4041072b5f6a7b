"""Two minutes of `make soak`."""

from pathlib import Path

import pytest
from soak import soak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc and prlimit"),
]


def test_honest_jobs_come_out_right_among_attacks_and_accidents():
    figures = soak(seed=2, seconds=120)
    assert figures["problems"] == []
    assert figures["honest"]["jobs"] > 0
