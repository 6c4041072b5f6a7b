"""The page of metrics names every figure, and no other."""

import re

import numpy as np
import pytest
from documents import document, first_names, rows, section

from deepgps.evaluation.labels import LABEL_BASELINES, label_report
from deepgps.evaluation.peers.classes import PEERS
from deepgps.evaluation.peers.compare import COMPARISON_COLUMNS

PAGE = document("docs/reference/metrics.md")
CLASSES = ("cytoplasmic", "nucleoplasm")


def documented():
    """Names of the metrics, and which models have each."""
    table = rows(section(PAGE, "## Label metrics"))
    return {name: row[1] for row in table for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize(("multi_label", "left_out"), [(False, "multi-label"), (True, "one class")])
def test_the_figures_are_those_documented(multi_label, left_out):
    chances, targets = np.array([[0.9, 0.1], [0.3, 0.7]]), np.eye(2)
    report = label_report(chances, targets, CLASSES, multi_label=multi_label, proteins=["a", "b"])
    found = {name.split("/")[1] for name in report.metrics if name.count("/") == 1}
    wanted = {name for name, of in documented().items() if of != left_out}
    if multi_label:
        wanted = {name for name in wanted if "_" in name or name in ("ece", "brier")}
    else:
        wanted = {name for name in wanted if not name.endswith("_micro")}
    assert found == wanted
    by_class = {name.split("/")[1] for name in report.metrics if name.endswith("/cytoplasmic")}
    text = section(PAGE, "## Label metrics")
    assert by_class == set(re.findall(r"`(\w+)/…`", text))
    assert (
        set(report.baselines)
        == set(LABEL_BASELINES)
        == set(re.findall(r"^\| `([\w ]+)`", section(PAGE, "## Baselines"), re.M))
    )


def test_the_columns_of_a_comparison_are_those_documented():
    below = section(PAGE, "## Files of other tools")
    assert tuple(first_names(below)) == COMPARISON_COLUMNS


def test_every_tool_that_is_read_is_on_both_pages():
    below, why = section(PAGE, "## Files of other tools"), document("docs/explanation/peers.md")
    for tool in PEERS:
        assert f"| {tool} |" in below
        assert tool in why
