"""The report of a run works from a folder: sorted and filtered without a server, printed, and fast."""

import numpy as np
import pytest
from PIL import Image

from browsing import chromium
from deepgps.results.labelled_images import FOOTER, HEADER, MARGIN, PANEL
from deepgps.results.records import Record, json_line
from deepgps.results.report import write_report

pytestmark = pytest.mark.browser

ROWS = 500
PATIENCE_MS = 120_000


def record(number):
    confidence = None if number == 7 else (number * 37 % ROWS) / ROWS
    return Record(
        protein_id=f"P{number}",
        accession="P06748",
        gene_symbol=f"GENE{number}",
        sequence_sha256="0" * 64,
        length=1000 + number,
        localizations=["nucleolus" if number % 5 == 0 else "er"],
        probabilities={"nucleolus": 0.9, "er": 0.1},
        confidence=confidence,
        known=None,
        predicted={"nucleolus": 0.9, "er": 0.1},
        intranuclear_fraction=0.5,
        model="tiny",
        version="1",
        nucleus="one",
        images=f"P{number}",
        evidence=[],
        warnings=[],
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "images").mkdir()
    # Smooth waves, of which a JPEG is as large as of a real image.
    rows, columns = np.mgrid[: HEADER + PANEL + FOOTER, : 3 * PANEL + 4 * MARGIN]
    for number in range(ROWS):
        wave = 120 + 60 * np.sin(rows / (3 + number % 7)) + 60 * np.sin(columns / (3 + number % 5))
        Image.fromarray(wave.astype(np.uint8)).convert("RGB").save(folder / f"images/P{number}.png")
    (folder / "results.jsonl").write_bytes(b"".join(json_line(record(number)) for number in range(ROWS)))
    return write_report(folder, {"nucleolus": 0.4, "er": 0.4})


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, report):
    page, errors = browser.new_page(), []
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    yield page
    page.close()
    assert errors == []


def test_a_gallery_of_500_proteins_opens_in_under_two_seconds(browser, report):
    seconds = []
    for _ in range(3):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        session = page.context.new_cdp_session(page)
        # Of the processor, so that what else is running counts little.
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(report.as_uri())
        page.wait_for_function("document.querySelector('.tiles img').complete")
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        seconds.append(metrics["TaskDuration"])
        assert page.locator(".tiles li").count() == ROWS
        page.close()
    assert 0 < min(seconds) < 2


def column(page, number):
    script = "n => [...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[n].textContent)"
    return page.evaluate(script, number)


def test_a_heading_sorts_the_table_and_what_is_missing_stays_last(page):
    page.get_by_text("Table of 500 rows").click()
    heading = page.get_by_role("columnheader", name="Confidence")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = column(page, 5)
    assert values[-1] == "" and values[:-1] == sorted(values[:-1], reverse=True)
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, 5)[:-1] == sorted(values[:-1]) and column(page, 5)[-1] == ""
    page.get_by_role("button", name="Protein", exact=True).click()
    assert column(page, 0) == [f"P{number}" for number in range(ROWS)]
    page.get_by_role("button", name="Length").click()
    assert column(page, 3)[0] == "1,499"


def test_one_field_filters_gallery_and_table(page):
    page.get_by_text("Table of 500 rows").click()
    page.get_by_label("Show only").fill("NUCLEOLUS gene10")
    names = [number for number in range(0, ROWS, 5) if str(number).startswith("10")]
    assert page.locator(".tiles li:visible").count() == page.locator("tbody tr:visible").count() == len(names)


def test_without_scripts_everything_is_there(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(report.as_uri())
    assert page.locator(".tiles li").count() == page.locator("table.sortable tbody tr").count() == ROWS
    assert not page.get_by_label("Show only").is_visible()
    context.close()


def test_it_prints_in_dark_mode_on_white(browser, report):
    page = browser.new_page(color_scheme="dark")
    page.set_default_timeout(PATIENCE_MS)
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_label("Show only").is_visible()
    page.close()
