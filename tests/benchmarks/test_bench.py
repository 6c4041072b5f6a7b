import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[2] / "benchmarks" / "bench.py"
    spec = importlib.util.spec_from_file_location("bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["bench"] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_prints_every_figure_beside_its_aim(bench, tiny_bundle, capsys):
    bench.main(["--quick", "--model", str(tiny_bundle.path)])
    out = capsys.readouterr().out
    for said in (
        "--help, cold",
        "aim: < 0.5 s",
        "one protein",
        "labels only",
        "share of the convolution",
        "recorded figures",
        "peak memory",
        "U-Net",
    ):
        assert said.lower() in out.lower()


def test_its_proteins_are_the_same_each_time_and_of_natural_length(bench):
    first, again = (list(bench.random_proteins(500)) for _ in range(2))
    assert first == again
    assert 400 < sum(len(protein.sequence) for protein in first) / 500 < 500
