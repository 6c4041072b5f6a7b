import sys
from itertools import cycle
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("beside_peers", "proteome"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import beside_peers

    yield beside_peers
    for name in ("beside_peers", "proteome"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("mean", [120, 315, 620, 800])
def test_the_chosen_proteins_have_the_mean_length(bench, monkeypatch, mean):
    lengths = cycle((90, 1100, 310, 450, 2000, 60, 700))
    monkeypatch.setattr(bench, "sequences", lambda: ((f"P{n}", "M" * n) for n in lengths))
    chosen = bench.proteins_of(mean, 500)
    assert len(chosen) == 500
    assert sum(len(sequence) for _, sequence in chosen) / 500 == pytest.approx(mean, rel=0.02)


def test_energy_and_cost_follow_from_core_time(bench):
    rows = bench.table([36.0, 360.0, 3600.0], 0.96325, watts=10, price=0.05).splitlines()
    assert rows[2] == "| 3,700 proteins | 36 s | 0.1 Wh | $0.0005 | 1.0 h | 10 Wh | $0.05 |"
    assert rows[4].startswith("| the human proteome, 20,400 proteins | 1.0 h | 10 Wh | $0.05 |")


def test_the_page_holds_a_measured_table(bench):
    text = bench.PAGE.read_text(encoding="utf-8")
    ((begin, end),) = (found.groups() for found in bench._BLOCK.finditer(text))
    block = text.partition(begin)[2].partition(end)[0]
    assert all(f"| {each.name} | " in block for each in bench.PROTEOMES)
    assert "both assumed" in block
