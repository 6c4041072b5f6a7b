"""The page on the public benchmark quotes the measured figures, and the published ones as published."""

import csv

import pytest
from documents import ROOT, document

import benchmark_page
import figures

PAGE = document("docs/explanation/benchmark.md")
MEASURED = {**figures.read_figures(), **figures.read_figures(on_card=False)}


def test_the_tables_are_those_of_the_figures():
    assert benchmark_page.with_tables(PAGE, MEASURED) == PAGE, (
        "run experiments/deepgps-mini/benchmark_page.py"
    )


def test_a_row_has_the_figure_of_its_name():
    name = "Public benchmark, seven classes, A: macro-F1"
    (row,) = [row for row in benchmark_page.hou_test(MEASURED) if row[0] == "**deepgps-mini**, A"]
    assert row[1].startswith(f"{MEASURED[name].value:.3f} [")
    without = {key: metric for key, metric in MEASURED.items() if key != name}
    (row,) = [row for row in benchmark_page.hou_test(without) if row[0] == "**deepgps-mini**, A"]
    assert row[1] == "not measured"


def test_the_page_needs_a_place_for_each_table():
    with pytest.raises(ValueError, match="0 places for the table 'hou_test'"):
        benchmark_page.with_tables("# Empty\n", MEASURED)


def test_published_values_of_level_3_are_those_of_the_shared_data():
    path = ROOT.parent / "shared" / "data" / "peers" / "hou_level3_published.csv"
    if not path.exists():
        pytest.skip(f"no '{path}'")
    with path.open(newline="", encoding="utf-8") as file:
        found = sorted(float(row["macro_f1"]) for row in csv.DictReader(file))
    assert found == sorted(values[0] for values in benchmark_page.PUBLISHED.values())
