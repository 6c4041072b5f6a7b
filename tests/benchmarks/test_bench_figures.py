import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from bench_figures import BEGIN, END, PAGE, RECORDED, changed_ratios, record, summarize, tables  # noqa: E402


def test_overlapping_ranges_have_not_changed():
    quiet, loud = summarize([1.0, 1.0, 1.01], "x"), summarize([0.8, 1.2, 1.6], "x")
    assert changed_ratios({"x": quiet}, {"x": loud}) == []
    assert changed_ratios({"x": loud}, {"x": quiet}) == []
    assert changed_ratios({"x": quiet}, {"x": summarize([1.04, 1.05], "x")}) == []


def test_a_change_is_reported_with_its_direction():
    before = {"a": summarize([1.0, 1.1, 1.2], "a"), "b": summarize([4, 5], "b"), "c": summarize([1], "c")}
    now = {"a": summarize([1.5, 1.65, 1.7], "a"), "b": summarize([3, 2], "b"), "d": summarize([1], "d")}
    assert changed_ratios(before, now) == [
        "a: 1.1 → 1.65 (+50%)",
        "b: 4.5 → 2.5 (-44%)",
        "c: no longer measured",
        "d: new",
    ]


@pytest.fixture
def figures():
    return {
        "machine": "One core.",
        "peaks": {"float32": {"matrices": 200.4, "convolution": 1100}},
        "costs": {
            "generator": {"gflop": 2.65, "mb": 29, "nucleus_share": 0.38, "shortest_s": {"float32": 0.013}}
        },
        "ratios": {"share": summarize([0.5, 0.7, 0.6], "share of the peak", "≥ 0.5")},
        "rates": {"labels": ["405 a second", "≥ 100"]},
    }


def test_figures_are_recorded_and_shown(figures, tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text(f"Before.\n{BEGIN}old\n{END}After.\n", encoding="utf-8")
    record(figures, results, page)
    record(json.loads(results.read_text(encoding="utf-8")), results, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith(f"{END}After.\n")
    assert "old" not in text
    assert "| float32 | 200 | 1,100 |" in text
    assert "| generator | 2.65 | 29 | 38% | 13 ms | – |" in text
    assert "| share of the peak | 0.6 | 0.5 to 0.7 | ≥ 0.5 |" in text
    assert "| labels | 405 a second | ≥ 100 |" in text


def test_the_page_shows_the_recorded_figures():
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == tables(json.loads(RECORDED.read_text(encoding="utf-8")))
