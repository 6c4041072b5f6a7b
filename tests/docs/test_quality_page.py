"""The figures of quality are the same wherever they stand."""

import importlib
import re
import sys

import pytest
from documents import ROOT, SHIPPED_MODEL, document, section

from deepgps.bundle import open_bundle
from deepgps.training.card import metric_table

RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("quality")
    sys.modules.pop("quality", None)


def test_bundle_and_card_say_what_was_measured(quality):
    measured = quality.figures(RESULTS)
    metrics = open_bundle(SHIPPED_MODEL).metadata.metrics
    assert dict(metrics) == measured, "export again with --metrics of every file in FILES"
    assert metric_table(measured) in (SHIPPED_MODEL / "CARD.md").read_text("utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/reference/quality.md"])
def test_pages_say_what_was_measured(quality, page):
    heading = {"README.md": "## What it can and cannot tell you"}.get(page, "## How good it is")
    said = re.findall(r"\b0\.\d\d \[0\.\d\d, 0\.\d\d\]", section(document(page), heading))
    measured = {
        f"{each.value:.2f} [{each.low:.2f}, {each.high:.2f}]"
        for each in quality.figures(RESULTS).values()
        if each.low is not None and each.high is not None
    }
    assert said
    assert not set(said) - measured


def test_every_bar_is_of_a_figure_that_was_measured_or_says_so(quality):
    measured = quality.figures(RESULTS)
    lines = [quality.bar_line(bar, measured) for bar in quality.BARS]
    assert {line[1] for line in lines if line[0] not in measured} <= {"not measured"}
    labels = [
        line for bar, line in zip(quality.BARS, lines, strict=True) if not bar.figure.startswith("Held-out")
    ]
    assert all(line[3] in ("met", "met, stretch too", "missed") for line in labels)


def test_a_bar_is_met_or_missed(quality):
    bar = quality.Bar("x", 0.5, stretch=0.7)
    said = {value: quality.bar_line(bar, {"x": quality.Metric(value=value)})[3] for value in (0.4, 0.5, 0.7)}
    assert said == {0.4: "missed", 0.5: "met", 0.7: "met, stretch too"}
    above = quality.Bar("x", 0.1, above="base")
    figures = {"x": quality.Metric(value=0.55), "base": quality.Metric(value=0.5)}
    assert quality.bar_line(above, figures)[2:] == ("at least 0.60", "missed")
    assert quality.bar_line(above, {"x": figures["x"]})[1] == "not measured"
    less = quality.Bar("x", 0.05, below=True)
    assert quality.bar_line(less, {"x": quality.Metric(value=0.04)})[3] == "met"


def test_what_is_not_there_is_not_measured(quality, tmp_path):
    assert quality.figures(tmp_path) == {}
