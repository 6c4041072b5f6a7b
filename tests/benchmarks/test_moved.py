import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from moved import BEGIN, END, PAGE, RESULTS, moved, ratio, tables, written  # noqa: E402


def test_what_stays_within_the_noise_of_either_run_has_not_moved():
    quiet, loud = ratio([1.0, 1.0, 1.01], "x"), ratio([0.8, 1.2, 1.6], "x")
    assert moved({"x": quiet}, {"x": loud}) == []
    assert moved({"x": loud}, {"x": quiet}) == []
    assert moved({"x": quiet}, {"x": ratio([1.04, 1.05], "x")}) == []


def test_what_moved_is_told_with_its_direction():
    before = {"a": ratio([1.0, 1.1, 1.2], "a"), "b": ratio([4, 5], "b"), "c": ratio([1], "c")}
    now = {"a": ratio([1.5, 1.65, 1.7], "a"), "b": ratio([3, 2], "b"), "d": ratio([1], "d")}
    assert moved(before, now) == [
        "a: 1.1 → 1.65 (+50%)",
        "b: 4.5 → 2.5 (-44%)",
        "c: not measured now",
        "d: measured for the first time",
    ]


@pytest.fixture
def figures():
    return {
        "machine": "One core.",
        "peaks": {"float32": {"matrices": 200.4, "convolution": 1100}},
        "costs": {"generator": {"gflop": 2.65, "mb": 29, "of_nucleus": 0.38, "floors": {"float32": 0.013}}},
        "ratios": {"share": ratio([0.5, 0.7, 0.6], "share of the peak", "≥ 0.5")},
        "rates": {"labels": ["405 a second", "≥ 100"]},
    }


def test_figures_are_kept_and_shown(figures, tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text(f"Before.\n{BEGIN}old\n{END}After.\n", encoding="utf-8")
    written(figures, results, page)
    written(json.loads(results.read_text(encoding="utf-8")), results, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith(f"{END}After.\n")
    assert "old" not in text
    assert "| float32 | 200 | 1,100 |" in text
    assert "| generator | 2.65 | 29 | 38% | 13 ms | – |" in text
    assert "| share of the peak | 0.6 | 0.5 to 0.7 | ≥ 0.5 |" in text
    assert "| labels | 405 a second | ≥ 100 |" in text


def test_the_page_shows_the_figures_that_were_kept():
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == tables(json.loads(RESULTS.read_text(encoding="utf-8")))
