"""Predict in a browser."""

import io
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from visitor import SEQUENCE, fasta

from conftest import round_nucleus

pytestmark = pytest.mark.browser


def nucleus_png():
    content = io.BytesIO()
    pixels = (round_nucleus("own", 40).nucleus * 255).astype(np.uint8)
    Image.fromarray(pixels).save(content, format="PNG")
    return {"name": "my nucleus.png", "mimeType": "image/png", "buffer": content.getvalue()}


def loaded(page):
    """Return the width of each image of the page, once all are loaded."""
    page.wait_for_load_state("networkidle")
    return page.locator("main img").evaluate_all("all => all.map(each => each.naturalWidth)")


def test_the_example_is_one_click_away_and_done_in_seconds(window):
    visit = window()
    visit.go("/")
    begun = time.monotonic()
    visit.page.get_by_role("button", name="Try it with six proteins").click()
    visit.wait_for("finished")
    assert time.monotonic() - begun < 30
    rows = visit.page.locator("table.results tbody tr")
    assert rows.count() == 6
    assert "nucleoplasm" in rows.filter(has_text="PCNA").inner_text()
    assert "will be deleted" in visit.text()


def test_a_pasted_protein_from_the_form_to_its_images(window):
    visit = window()
    job = visit.predict(f">mine\n{SEQUENCE}\n", nuclei="u2os-1", model="deepgps-mini:single-2")
    visit.wait_for("finished")
    assert visit.page.locator("table.results tbody tr").count() == 2
    visit.page.get_by_role("link", name="mine").first.click()
    assert visit.path == f"{job}/results/0"
    assert loaded(visit.page)[:4] == [208] * 4
    probabilities = visit.page.locator("table.bars tbody tr")
    assert sorted(probabilities.locator("th").all_inner_texts()) == ["cytoplasm", "nucleoplasm"]
    text = visit.text()
    assert "confidence" in text and "intranuclear fraction" in text and "will be deleted" in text
    visit.page.get_by_role("link", name="Next").click()
    assert visit.path == f"{job}/results/1"


def test_sliders_change_how_an_image_looks(window):
    visit = window()
    visit.predict(f">mine\n{SEQUENCE}\n", model="tiny")
    visit.wait_for("finished")
    visit.page.get_by_role("link", name="mine").click()

    def look(layer, what):
        return visit.page.locator(layer).evaluate(f"each => getComputedStyle(each).{what}")

    before = look(".panels .lit >> nth=0", "filter")
    visit.page.get_by_label("Contrast").fill("2")
    assert look(".panels .lit >> nth=0", "filter") == "brightness(2)" != before
    visit.page.get_by_label("Protein in the overlay").fill("0.5")
    assert look(".stack .yellow", "opacity") == "0.5"
    visit.page.get_by_role("button", name="Reset").click()
    assert (look(".panels .lit >> nth=0", "filter"), look(".stack .yellow", "opacity")) == (before, "1")


def test_a_file_is_drawn_into_an_uploaded_nucleus(window):
    visit = window()
    visit.go("/predict")
    visit.page.get_by_label("… or a file").set_input_files(
        {"name": "two.fasta", "mimeType": "text/plain", "buffer": fasta(2).encode()}
    )
    visit.page.get_by_label("Your own nucleus images").set_input_files(nucleus_png())
    visit.page.get_by_label("Pixel size in µm").fill("0.206")
    visit.page.get_by_label("hek-1").uncheck()
    visit.page.get_by_role("button", name="Predict").click()
    visit.wait_for("finished")
    visit.page.get_by_role("link", name="p1").click()
    assert "nucleus my_nucleus" in visit.text()
    assert len(visit.page.locator("form.slim img").all()) == 6


def test_a_batch_is_sorted_filtered_and_downloaded(window):
    visit = window()
    visit.predict(fasta(30) + ">bad\nMK1\n", model="tiny")
    visit.wait_for("finished")
    assert "30 results" in visit.text() and "One record could not be used" in visit.text()
    visit.page.get_by_role("link", name="Protein", exact=True).click()
    visit.page.get_by_role("link", name="Protein").click()
    assert visit.page.locator("table.results tbody th").first.inner_text() == "p9"
    visit.page.get_by_label("Text").fill("p1")
    visit.page.get_by_role("button", name="Filter").click()
    assert "11 results" in visit.text()
    visit.page.get_by_label("Text").fill("nobody")
    visit.page.get_by_role("button", name="Filter").click()
    assert "No result matches" in visit.text()
    with visit.page.expect_download() as table:
        visit.page.get_by_role("link", name="CSV").click()
    assert table.value.path().read_text(encoding="utf-8").count("\n") == 31
    with visit.page.expect_download() as everything:
        visit.page.get_by_role("link", name="Everything").click()
    with zipfile.ZipFile(everything.value.path()) as archive:
        names = archive.namelist()
    assert {"results.csv", "report.html", "run.json", "rejected.csv"} <= set(names)
    assert sum(name.endswith(".ome.tif") for name in names) == 30


def test_progress_is_shown_and_a_job_is_cancelled_and_deleted(window):
    visit = window()
    job = visit.predict(fasta(400))
    # The page follows its job without being loaded anew.
    visit.page.evaluate("window.stayed = true")
    visit.page.locator("table.results").wait_for()
    assert visit.page.evaluate("window.stayed")
    visit.page.get_by_role("button", name="Cancel").click()
    visit.wait_for("cancelled")
    assert "of 400 proteins were finished" in visit.text()
    visit.page.get_by_text("Delete this prediction").click()
    visit.page.get_by_role("button", name="Delete it now").click()
    assert "have been deleted" in visit.text()
    assert visit.go(job).status == 404


def test_errors_are_beside_their_fields(window):
    visit = window()
    visit.go("/predict")
    visit.page.locator("#proteins").fill(">x\nMK1\n")
    visit.page.get_by_label("Channel of the nucleus").fill("2")
    visit.page.get_by_role("button", name="Predict").click()
    alert = visit.page.get_by_role("alert")
    alert.wait_for()
    assert alert.evaluate("each => each === document.activeElement")
    assert visit.page.locator("#proteins").input_value() == ">x\nMK1\n"
    for field, message in (("proteins", "residue 3"), ("nucleus_images", "needs a nucleus image")):
        beside = visit.page.locator(f"#{field}")
        assert beside.get_attribute("aria-invalid") == "true"
        ids = (beside.get_attribute("aria-describedby") or "").split()
        assert message in " ".join(visit.page.locator(f"#{each}").inner_text() for each in ids)
        problem = visit.page.locator(f"#{field} + .problems").bounding_box()
        box = beside.bounding_box()
        assert problem and box and 0 <= problem["y"] - (box["y"] + box["height"]) < 20


def test_previews_follow_the_model_that_is_chosen(window):
    visit = window()
    visit.go("/predict")
    preview = visit.page.locator("img[data-nucleus]").first

    def size():
        visit.page.wait_for_load_state("networkidle")
        return preview.evaluate("each => fetch(each.src).then(got => got.blob()).then(blob => blob.size)")

    before = size()
    visit.page.locator("input[value='deepgps-mini:all']").check()
    assert "tiny" not in (preview.get_attribute("src") or "")
    visit.page.locator("input[value='tiny']").check()
    assert "model=tiny" in (preview.get_attribute("src") or "")
    assert size() != before
