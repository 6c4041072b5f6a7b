"""The figures are the same wherever they are quoted."""

import re

import pytest
from documents import ROOT, SHIPPED_MODEL, document, section

import figures
import quality
from deepgps.bundle import Metric, open_bundle
from deepgps.training.card import metric_table
from deepgps.training.export import read_metrics

MEASURED = figures.read_figures()


def test_bundle_and_card_have_the_measured_figures():
    metrics = open_bundle(SHIPPED_MODEL).metadata.metrics
    assert dict(metrics) == MEASURED, "export again with --metrics experiments/deepgps-mini/figures.json"
    assert metric_table(MEASURED) in (SHIPPED_MODEL / "CARD.md").read_text("utf-8")


def test_export_reads_the_file_of_figures():
    assert read_metrics(figures.FIGURES) == MEASURED


@pytest.mark.parametrize("page", ["README.md", "docs/reference/quality.md"])
def test_pages_quote_the_measured_figures(page):
    heading = {"README.md": "## What to expect"}.get(page, "## How good the prediction is")
    quoted = re.findall(r"\b0\.\d\d \[0\.\d\d, 0\.\d\d\]", section(document(page), heading))
    measured = {
        f"{each.value:.2f} [{each.low:.2f}, {each.high:.2f}]"
        for each in MEASURED.values()
        if each.low is not None and each.high is not None
    }
    assert quoted
    assert not set(quoted) - measured


def test_every_target_is_of_a_measured_figure():
    rows = [quality.target_row(target, MEASURED) for target in quality.TARGETS]
    assert {row[3] for row in rows} <= {"met", "met, stretch too", "missed"}


def test_a_target_is_met_or_missed():
    target = quality.Target("x", 0.5, stretch=0.7)
    verdicts = {value: quality.target_row(target, {"x": Metric(value=value)})[3] for value in (0.4, 0.5, 0.7)}
    assert verdicts == {0.4: "missed", 0.5: "met", 0.7: "met, stretch too"}
    above = quality.Target("x", 0.1, above="base")
    measured = {"x": Metric(value=0.55), "base": Metric(value=0.5)}
    assert quality.target_row(above, measured)[2:] == ("at least 0.60", "missed")
    assert quality.target_row(above, {"x": measured["x"]})[1] == "not measured"
    below = quality.Target("x", 0.05, below=True)
    assert quality.target_row(below, {"x": Metric(value=0.04)})[3] == "met"


def test_a_target_may_be_a_share_of_another_figure():
    half = quality.Target("x", 0.5, below=True, times="before")
    measured = {"x": Metric(value=0.3), "before": Metric(value=0.8)}
    assert quality.target_row(half, measured)[2:] == ("at most 0.40", "met")
    assert quality.target_row(half, {"x": measured["x"]})[1] == "not measured"


def test_image_targets_stand_beside_the_real_images_and_the_model_before():
    name = "HEK293T images, LMNB1: rim ratio"
    measured = {
        name: Metric(value=1.5),
        f"{name} of the baseline 'real images'": Metric(value=8),
        f"{name} of the baseline 'deepgps-mini 0.4'": Metric(value=1),
    }
    (row,) = quality.image_rows(measured)
    assert row == (name, "1.500", "at least 2.00", "missed", "8.00", "1.00", "–")
    assert not list(quality.image_rows({}))


def test_recorded_figures_are_read_back_and_keep_their_place(tmp_path):
    path = tmp_path / "figures.json"
    assert figures.read_figures(path) == {}
    first, second = Metric(value=0.5, low=0.4, high=0.6, n=9), Metric(value=0.25, n=9)
    figures.record({"a": first, "b": second}, "labels", path=path)
    figures.record({"c": second}, "benchmark", on_card=False, path=path)
    figures.record({"a": second}, "labels", path=path)
    assert figures.read_figures(path) == {"a": second, "b": second}
    assert list(figures.read_figures(path)) == ["a", "b"]
    text = path.read_text("utf-8")
    assert '"command": "measure.py labels"' in text
    assert re.search(r'"date": "\d{4}-\d\d-\d\d"', text)


def test_every_figure_has_its_command_and_date():
    entries = figures._entries(figures.FIGURES)
    for entry in (*entries["metrics"].values(), *entries["more"].values()):
        assert entry["command"].startswith("measure.py ")
        assert entry["date"] >= "2026"
        assert (ROOT / "experiments" / "deepgps-mini" / "measure.py").exists()
