"""Submit in a browser, from the form to a crop store."""

import pytest
from contributor import FIELDS, batch, packed, pair

from deepgps.cli.app import run
from deepgps.datasets.crops.store import open_crops, read_store_proteins

pytestmark = pytest.mark.browser
COMPARED = "PSNR"


def fill_in(visit, **without):
    fields = ("cell_line", "microscope", "pixel_size_um", "contributor")
    for name in fields:
        visit.page.locator(f"input[name={name}]").fill(FIELDS[name])
    visit.page.get_by_label("Licence of the images").select_option(FIELDS["licence"])
    visit.page.get_by_label("Model to compare with").select_option(without.get("model", "tiny"))
    visit.page.get_by_label("I made these images").check()


def sent(visit):
    visit.page.get_by_role("button", name="Submit").click()
    visit.page.wait_for_url("**/submissions/*")
    return visit.path


def test_one_image_is_submitted_compared_and_deleted(window):
    visit = window()
    visit.go("/submit")
    for name, (file, content, kind) in pair(20).items():
        visit.page.locator(f"#{name}").set_input_files({"name": file, "mimeType": kind, "buffer": content})
    visit.page.get_by_label("UniProt accession").fill("NPM1")
    visit.page.get_by_label("Sequence").fill(FIELDS["sequence"])
    visit.page.get_by_label("nucleolus (granular component)").check()
    fill_in(visit, model="deepgps-mini:single-4")
    address = sent(visit)
    visit.page.get_by_text(COMPARED, exact=True).wait_for()
    text = visit.text()
    assert "pending" in text and "deepgps-mini:single-4" in text
    for measure in ("PSNR", "SSIM", "Pearson's r", "Intranuclear fraction, yours"):
        assert measure in text
    visit.page.locator("main img").last.scroll_into_view_if_needed()
    visit.page.wait_for_load_state("networkidle")
    sizes = visit.page.locator("main img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert sizes == [208] * 4
    visit.page.get_by_text("Delete this submission").click()
    visit.page.get_by_role("button", name="Delete now").click()
    assert "have been deleted" in visit.text()
    assert visit.go(address).status == 404


def test_errors_of_a_submission_are_beside_their_fields(window):
    visit = window()
    visit.go("/submit")
    # The browser's own check goes first; without it the server answers.
    visit.page.locator("form.form").evaluate("form => { form.noValidate = true }")
    visit.page.locator("#contributor").fill("A lab")
    visit.page.get_by_role("button", name="Submit").click()
    visit.page.get_by_role("alert").wait_for()
    assert "consent" in visit.page.locator("#consent-problems").inner_text()
    assert visit.page.locator("#licence").get_attribute("aria-invalid") == "true"
    assert visit.page.locator("#contributor").input_value() == "A lab"


def test_a_batch_goes_from_the_form_through_moderation_to_a_store(window, served, tmp_path, capsys):
    visit = window()
    visit.go("/submit/batch")
    archive = {"name": "lab.zip", "mimeType": "application/zip", "buffer": packed(batch(8))}
    visit.page.locator("#files").set_input_files(archive)
    fill_in(visit)
    address = sent(visit)
    visit.page.locator("section.card", has_text=COMPARED).nth(7).wait_for()
    data = ["--data", str(served.data)]
    assert run(["submissions", "list", *data]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    numbers = [line[0] for line in lines if address in line]
    assert len(numbers) == 8
    assert run(["submissions", "accept", *numbers[:-1], *data]) == 0
    assert run(["submissions", "reject", numbers[-1], "--reason", "Out of focus.", *data]) == 0
    visit.page.reload()
    assert visit.page.get_by_text("accepted", exact=True).count() == 7
    assert "Out of focus." in visit.text()
    store = tmp_path / "store"
    assert run(["submissions", "export", str(store), *data]) == 0
    assert len(open_crops(store).index) == 14
    assert read_store_proteins(store).height == 7
    # `deepgps train` and `deepgps finetune` begin with this; the rest of the loop needs no browser.
    from deepgps.training.joint.data import load_training_data
    from deepgps.training.recipe import load_recipe

    training = load_training_data(load_recipe("all"), store)
    assert (len(training.protein_ids), training.left_out) == (7, ())
