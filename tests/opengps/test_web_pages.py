import io
import re

import numpy as np
import pytest
from PIL import Image
from visitor import SEQUENCE, Page, fasta, text_of

from conftest import round_nucleus
from deepgps.bundle import DEFAULT_MODEL
from opengps.models import load_predictor

FORM = {"model": "tiny", "nuclei": "hek-1", "images": "true"}
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", re.I)


def nucleus_png(mode="L"):
    pixels = (round_nucleus("own", 40).nucleus * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def job(visitor):
    """A finished job of three proteins in two nuclei."""
    return visitor.predict(fasta(3), nuclei=["hek-1", "u2os-1"])


def addresses(job):
    return [
        *("/", "/predict", "/predict?example=true", "/models", "/models/tiny", "/models/deepgps-mini"),
        *("/nuclei", "/privacy", "/submit", "/submit/batch"),
        *("/api", f"/predictions/{job}", f"/predictions/{job}/results/0"),
    ]


def test_every_page_is_accessible_and_carries_no_inline_code(visitor, job):
    for address in addresses(job):
        text = visitor.page(address)
        page = Page(text)
        assert not INLINE.search(text), address
        assert all("alt" in image for image in page.all("img")), address
        assert len(page.all("h1")) == 1, address
        assert page.all("html")[0]["lang"] == "en"
        labels = {label.get("for") for label in page.all("label")}
        inside = set(re.findall(r"<label[^>]*>\s*(?:[^<]*)<input[^>]*name=\"(\w+)\"", text))
        for field in page.all("input") + page.all("textarea") + page.all("select"):
            named = field.get("id") in labels or field.get("name") in inside or field.get("type") == "range"
            assert named or field.get("type") == "hidden", (address, field)


def test_nothing_is_loaded_from_other_sites(visitor, job):
    for address in addresses(job):
        page = Page(visitor.page(address))
        loaded = [each.get("src") for each in page.all("script") + page.all("img")]
        loaded += [each["href"] for each in page.all("link")]
        for source in loaded:
            assert source.startswith("/"), address
            assert visitor.client.get(source).status_code == 200, source


def test_links_between_pages_work(visitor, job):
    for address in addresses(job):
        for link in Page(visitor.page(address)).all("a"):
            target = link["href"].partition("#")[0]
            if target.startswith("/"):
                assert visitor.client.get(target).status_code == 200, (address, target)


def test_the_example_is_one_click_away(visitor):
    home = Page(visitor.page("/"))
    sent = next(each["value"] for each in home.all("input") if each.get("name") == "proteins")
    answer = visitor.form({"proteins": sent, "model": "tiny"})
    visitor.work()
    page = visitor.page(answer.headers["location"])
    assert all(name in page for name in ("GAPDH", "PCNA", "NPM1", "CALR", "TUBA1A", "COX4I1"))


def test_a_job_page_shows_progress_and_then_results(visitor):
    answer = visitor.form({**FORM, "proteins": fasta(3)})
    waiting = visitor.page(answer.headers["location"])
    assert "Place 1 in the queue" in waiting
    assert 'http-equiv="refresh"' in waiting
    assert "Cancel" in waiting
    visitor.work()
    done = visitor.page(answer.headers["location"])
    assert "Cancel" not in done
    assert 'http-equiv="refresh"' not in done
    assert [f"p{i}" in done for i in range(3)] == [True] * 3


def test_errors_are_beside_their_fields_and_values_stay(visitor):
    answer = visitor.form(
        {**FORM, "proteins": ">x\nMK1\n", "pixel_size_um": "-1", "channel": "2"}, status=422
    )
    page = answer.text
    assert 'id="size-problems"' in page
    assert "&gt;x\nMK1" in page
    assert 'value="-1"' in page
    answer = visitor.form({**FORM, "proteins": ">x\nMK1\n"}, status=422)
    assert "residue 3" in text_of(answer.text)
    described = next(each for each in Page(answer.text).all("textarea"))["aria-describedby"].split()
    assert "proteins-problems" in described
    assert 'id="proteins-problems"' in answer.text


def test_an_uploaded_nucleus_is_drawn_into(visitor):
    files = {"nucleus_images": ("my nucleus.png", nucleus_png(), "image/png")}
    fields = {"proteins": f">a\n{SEQUENCE}", "model": "tiny", "pixel_size_um": "0.206", "images": "true"}
    answer = visitor.form(fields, files)
    visitor.work()
    page = visitor.page(f"{answer.headers['location']}/results/0")
    assert "nucleus my_nucleus" in text_of(page)
    assert "does not say its pixel size" not in page


def test_the_pixel_size_is_estimated_where_that_is_ticked(visitor):
    files = {"nucleus_images": ("my nucleus.png", nucleus_png(), "image/png")}
    # A browser sends both the empty number and the ticked box.
    fields = {"proteins": f">a\n{SEQUENCE}", "model": "tiny", "pixel_size_um": ["", "auto"], "images": "true"}
    answer = visitor.form(fields, files)
    visitor.work()
    page = text_of(visitor.page(f"{answer.headers['location']}/results/0"))
    assert "was estimated from its nuclei" in page
    refused = visitor.form({**fields, "proteins": ">x\nMK1\n"}, files, status=422)
    boxes = [each for each in Page(refused.text).all("input") if each.get("name") == "pixel_size_um"]
    assert [("checked" in each, each.get("value")) for each in boxes] == [(False, ""), (True, "auto")]


def test_labels_only_show_no_images(visitor):
    answer = visitor.form({**FORM, "proteins": fasta(2), "images": "false"})
    visitor.work()
    page = visitor.page(answer.headers["location"])
    assert "Intranuclear" not in page
    assert "images.zip" not in page


def test_mean_images_are_requested_by_form_and_labelled(visitor):
    form = {"model": "tiny", "proteins": f">one\n{SEQUENCE}\n", "nuclei": "hek-1", "mean": "true"}
    address = visitor.form(form).headers["location"]
    visitor.work()
    assert "mean images" in visitor.page(address)
    page = visitor.page(f"{address}/results/0")
    assert "Protein, mean image" in page
    # And so are those of the same protein in other nuclei.
    assert '<input type="hidden" name="mean" value="true">' in page
    labels = visitor.form({**form, "images": "false"}).headers["location"]
    assert "labels only" in visitor.page(labels)


def test_the_table_is_sorted_and_filtered_without_javascript(visitor, job):
    def first(**query):
        return re.findall(r'<th scope="row"><a [^>]*>(\w+)</a>', visitor.page(f"/predictions/{job}", **query))

    assert first() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert first(sort="protein", order="desc")[:2] == ["p2", "p2"]
    assert first(q="p1") == ["p1", "p1"]
    assert first(q="u2os") == ["p0", "p1", "p2"]
    assert first(q="%") == []
    assert first(confidence="1") == []
    assert first(sort="nonsense", order="sideways", confidence="much") == first()


def test_ids_are_shown_as_text_and_never_as_html(visitor):
    evil = "<img/src=x/onerror=alert(1)>"
    job = visitor.predict(f"id,sequence\n{evil},{SEQUENCE}\n")
    for address in (f"/predictions/{job}", f"/predictions/{job}/results/0"):
        page = visitor.page(address)
        assert evil not in page
        assert "&lt;img/src=x" in page


def test_a_result_offers_the_same_protein_in_other_nuclei(visitor, job):
    page = Page(visitor.page(f"/predictions/{job}/results/2"))
    fields = {
        each.get("name"): each.get("value") for each in page.all("input") if each.get("type") == "hidden"
    }
    offered = [each["value"] for each in page.all("input") if each.get("type") == "checkbox"]
    assert offered == ["hek-2", "hek-3", "hek-sparse", "hek-crowded"]
    answer = visitor.form({**fields, "nuclei": offered})
    visitor.work()
    again = visitor.client.get(f"/api/v1{answer.headers['location']}/results").json()["results"]
    assert [(row["protein_id"], row["nucleus"]) for row in again] == [("p1", name) for name in offered]


@pytest.mark.parametrize("name", ["two words", 'a "quoted", name', "β<b>", ">x"])
def test_any_id_comes_back_from_another_nucleus_unchanged(visitor, name):
    quoted = name.replace('"', '""')
    job = visitor.predict(f'id,sequence\n"{quoted}",{SEQUENCE}\n')
    page = Page(visitor.page(f"/predictions/{job}/results/0"))
    fields = {each.get("name"): each["value"] for each in page.all("input") if each.get("type") == "hidden"}
    answer = visitor.form({**fields, "nuclei": "hek-2"})
    visitor.work()
    (row,) = visitor.client.get(f"/api/v1{answer.headers['location']}/results").json()["results"]
    assert row["protein_id"] == name


def test_cancelling_and_deleting_by_form(visitor):
    address = visitor.form({**FORM, "proteins": fasta(40)}).headers["location"]
    visitor.chunk()
    assert visitor.client.post(f"{address}/cancel", follow_redirects=False).status_code == 303
    assert "was cancelled; 8 of 40" in visitor.page(address)
    assert not visitor.chunk()
    assert "have been deleted" in visitor.client.post(f"{address}/delete").text
    visitor.page(address, status=404)


def test_rejected_records_are_shown(visitor):
    job = visitor.predict(f">good\n{SEQUENCE}\n>bad\nMK1\n")
    page = text_of(visitor.page(f"/predictions/{job}"))
    assert "One record could not be used" in page
    assert "Sequence 'bad'" in page.replace("&#39;", "'")


def test_a_missing_page_is_a_page(visitor):
    page = visitor.page("/nothing", status=404)
    assert "There is nothing at this address" in page
    assert visitor.page("/predictions/none", status=404)
    assert visitor.page("/models/none", status=404)


def test_a_table_shows_small_images(visitor, job):
    shown = [each["src"] for each in Page(visitor.page(f"/predictions/{job}")).all("img")]
    (small, *_) = [each for each in shown if "/results/" in each]
    content = visitor.client.get(small).content
    assert Image.open(io.BytesIO(content)).size == (128, 128)
    large = visitor.client.get(f"/predictions/{job}/results/0/overlay.png").content
    assert len(content) < len(large) / 2


def test_styles_and_scripts_are_cached_until_they_change(visitor):
    from opengps.rendering import templates

    mark = templates.env.globals["static_hash"]
    head = Page(visitor.page("/api"))
    for address in [each["src"] for each in head.all("script")] + [head.all("link")[1]["href"]]:
        assert address.endswith(f"?{mark}")
        assert "max-age" in visitor.client.get(address).headers["cache-control"]
    assert "max-age" not in visitor.client.get("/static/none.css").headers.get("cache-control", "")
    assert visitor.client.get("/").headers["cache-control"] == "no-store"


def test_jobs_cannot_be_listed(visitor, job):
    answer = visitor.client.get("/predictions", follow_redirects=False)
    assert answer.headers["location"] == "/predict"
    assert visitor.client.get("/api/v1/predictions").status_code == 405


def test_the_limits_are_shown_on_the_form(visitor):
    page = text_of(visitor.page("/predict"))
    for message in ("At most 500 proteins", "40,000 residues each", "1,000,000 together", "5 MB", "30 MB",
                 "25,000,000 pixels", "At most 8 nuclei", "1,500 images", "after 14 days"):  # fmt: skip
        assert message in page


def test_the_gallery_shows_what_the_model_predicts():
    from deepgps.localization import display_name
    from deepgps.prediction import Predictor
    from deepgps.proteins.reading import read_protein_file
    from opengps.examples import GALLERY, example_path
    from opengps.rendering import PACKAGE

    found = Predictor.load(threads=1).predict(read_protein_file(example_path()), images=False)
    message = {each.protein.id: {display_name(slug) for slug in each.localizations} for each in found}
    assert set(message) == set(GALLERY) == {path.stem for path in PACKAGE.glob("static/gallery/*.webp")}
    assert all(place in message[name] for name, place in GALLERY.items())


def test_the_gallery_is_drawn_by_the_model_in_the_package(tmp_path):
    from opengps.examples import draw_gallery
    from opengps.rendering import PACKAGE

    for file in draw_gallery(tmp_path):
        now, shown = (
            np.asarray(Image.open(each), np.float32)
            for each in (file, PACKAGE / "static" / "gallery" / file.name)
        )
        # WebP loses a little, and processors differ in the last digit.
        assert np.abs(now - shown).mean() < 3, "draw it anew: python -m opengps.examples"


def test_a_known_protein_shows_what_is_known_predicted_and_overall(visitor):
    lamin = load_predictor(DEFAULT_MODEL).known.named("LMNB1")
    sent = f">sp|P20700|LMNB1_HUMAN GN=LMNB1\n{lamin.sequence}\n>mine\n{'MKRPAATKKAGQAKKKKLDK' * 3}\n"
    job = visitor.predict(sent, model=DEFAULT_MODEL, images=False)
    known, unknown = (text_of(visitor.page(f"/predictions/{job}/results/{place}")) for place in (0, 1))
    said = "nuclear membrane: UniProt, HPA supported, OpenCell 3"
    for words in ("Known", said, "Nucleus lamina", "Overall", "without the protein's own record"):
        assert words in known
    assert said not in unknown and "Overall" not in unknown
    assert said in text_of(visitor.page(f"/predictions/{job}"))
    lamin_row, other = visitor.rows(job)["results"]
    assert (lamin_row["known"]["accession"], lamin_row["localizations"][0]) == ("P20700", "nuclear_membrane")
    assert lamin_row["predicted"] != lamin_row["probabilities"]
    assert other["known"] is None and other["predicted"] == other["probabilities"]
    assert "How reliable the sources are" in text_of(visitor.page(f"/models/{DEFAULT_MODEL}"))
