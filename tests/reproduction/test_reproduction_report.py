"""The report puts the paper's values, ours and the reasons side by side."""

import re

import numpy as np
import pytest

from deepgps.reproduction import published
from deepgps.reproduction.report import TITLES, differences, write_reproduction_report

FOUR = list(published.FOUR_CLASSES)


def result(classes, **metrics):
    found = {
        name.replace("__", "/"): {"value": value, "low": None, "high": None, "n": 9}
        for name, value in metrics.items()
    }
    each = {"proteins": 9, "crops": 90, "metrics": found}
    if classes:
        counts = np.eye(len(classes), dtype=int).tolist()
        each |= {
            "classes": classes,
            "confusion": {"protein": counts, "crop": counts},
            "roc": {slug: [[0, 1], [0, 1]] for slug in classes},
            "baseline": {"protein/accuracy": {"value": 0.5, "n": 9}},
        }
    return each


@pytest.fixture
def results():
    two, four, none = ["cytoplasmic", "nucleoplasm"], FOUR, None
    kinds = {"single-4": four, "all": none}
    made = {name: result(kinds.get(name, two), images__drawn__psnr=12.5) for name in TITLES}
    made["single-2"] |= result(two, labels__protein__accuracy=0.8125, labels__crop__accuracy=0.6875)
    return made


@pytest.fixture
def page(results, tmp_path):
    (tmp_path / "cross").mkdir()
    for name in ("cross.csv", "shares.csv"):
        (tmp_path / "cross" / name).write_text("of,nucleus\npixels,0.25\n")
    about = {"scale": "small", "exact": False, "encoder": "segments-1"}
    return write_reproduction_report(tmp_path / "report.html", about, {"embed": 2}, results).read_text(
        "utf-8"
    )


def test_every_value_of_the_paper_stands_beside_ours_with_a_reason(results):
    rows = list(differences(results))
    assert len(rows) == 2 * len(published.TABLE_COLUMNS) + 2 + 2 * len(published.IMAGES)
    first = rows[0]
    assert (first.paper, first.by_protein.value, first.by_crop.value) == ("0.744", 0.8125, 0.6875)
    assert all(each.why for each in rows)
    assert {each.quantity.partition(":")[0] for each in rows} >= {"Table 1", "Table 2", "Figure 4"}


def test_a_value_that_is_not_there_is_a_dash(results):
    assert list(differences(results))[1].by_protein is None


def test_the_page_has_the_paper_and_ours(page):
    row = re.search(r"<tr><td>Table 1: deepGPS-single-2, accuracy</td>(.*?)</tr>", page)[1]
    cells = re.findall(r"<td>(.*?)</td>", row)
    assert cells[:3] == ["0.744", "0.812", "0.688"]
    assert "MULocDeep (published)" in page
    assert "ours, by crop" in page
    assert page.count('class="matrix"') == 2 * 5 + 2  # all but `all`, and the paper's
    assert "no value of it says anything about the paper" in page
    assert "1,197" in page
    assert "0.25" in page


def test_the_papers_rows_are_whole():
    for table in published.TABLES.values():
        assert published.OWN_ROW in table
        assert {len(row) for row in table.values()} == {len(published.TABLE_COLUMNS)}
    counts = {level: np.array(matrix) for level, matrix in published.CONFUSION.items()}
    protein = counts["protein"]
    assert protein.sum() == 105
    # The paper's text: 40 cytoplasmic and 23 nucleoplasmic test proteins, and 28 and 14.
    assert dict(zip(published.FOUR_CLASSES, protein.sum(1).tolist(), strict=True)) == {
        "cytoplasmic": 40,
        "vesicles": 28,
        "er": 14,
        "nucleoplasm": 23,
    }
    one_vs_rest = 1 - 2 * (1 - np.trace(protein) / protein.sum()) / 4
    assert one_vs_rest == pytest.approx(published.FOUR_CLASS_FIGURES["one_vs_rest_accuracy"], abs=0.005)
