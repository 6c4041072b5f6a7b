from contributor import FIELDS, batch, packed, pair, submit, submit_files
from visitor import API, Page, text_of

from opengps.submissions.comparison import compare_next


def compare(visitor):
    while compare_next(visitor.site):
        pass


def test_the_form_sends_and_shows_errors_beside_their_fields(visitor):
    form = {**FIELDS, "cell_line": ""}
    answer = visitor.client.post("/submissions", data=form, files=pair(), follow_redirects=False)
    assert answer.status_code == 422
    page = Page(answer.text)
    (field_,) = [each for each in page.all("input") if each.get("name") == "cell_line"]
    assert field_["aria-invalid"] == "true"
    values = {each.get("name"): each.get("value") for each in page.all("input")}
    assert values["microscope"] == FIELDS["microscope"]
    answer = visitor.client.post("/submissions", data=FIELDS, files=pair(), follow_redirects=False)
    assert answer.status_code == 303
    address = answer.headers["location"]
    compare(visitor)
    shown = text_of(visitor.page(address))
    assert "pending" in shown and "PSNR" in shown and "deepgps-mini" in shown
    assert "have been deleted" in text_of(visitor.client.post(f"{address}/delete").text)
    visitor.page(address, 404)


def test_one_image_of_several_is_deleted(visitor):
    found = submit_files(visitor, ("lab.zip", packed(batch(2)))).json()
    number = found["images"][0]["number"]
    here = f"/submissions/{found['id']}/images/{number}"
    answer = visitor.client.post(f"{here}/delete", follow_redirects=False)
    assert answer.status_code == 303
    shown = visitor.client.get(f"{API}{here.partition('/images')[0]}").json()
    assert [each["number"] for each in shown["images"]] == [found["images"][1]["number"]]
    files = list(visitor.submission_folder(found["id"]).iterdir())
    assert len(files) == 2


def test_input_is_escaped_on_the_page(visitor):
    sent = submit(visitor, contributor="<script>alert(1)</script>", protein="<b>x").json()
    page = visitor.page(f"/submissions/{sent['id']}")
    assert "<script>alert" not in page and "<b>x" not in page
