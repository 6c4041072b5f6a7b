"""An atlas of 200 proteins in a real browser, opened from its folder."""

import re

import pytest

from browsing import CONTRAST, NAMELESS, PHONE, WIDER
from conftest import round_nucleus
from deepgps.atlas import build_atlas
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from known_proteins import CALR, COX8A, INSULIN, NPM1

pytestmark = pytest.mark.browser

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
KNOWN = {"CALR": CALR, "NPM1": NPM1, "INS": INSULIN, "COX8A": COX8A}
HOSTILE = "<img src=x onerror=alert(1)>"


_COLOURED = """() => new Promise((found) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const canvas = document.getElementById("canvas"), { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const spots = [];
  for (let place = 0; place < pixels.length; place += 4) {
    const colour = [...pixels.slice(place, place + 3)];
    if (pixels[place + 3] === 255 && Math.max(...colour) - Math.min(...colour) > 60) spots.push(place / 4);
  }
  const middle = (values) => values.reduce((sum, value) => sum + value, 0) / values.length / devicePixelRatio;
  found([middle(spots.map((spot) => spot % width)), middle(spots.map((spot) => Math.floor(spot / width)))]);
})))"""
"""The middle of all pixels of the map that have a colour."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas") / "site"
    made_up = [
        Protein(f"X{n}", "M" + "".join(LETTERS[(n * 7 + k * k) % 20] for k in range(80))) for n in range(195)
    ]
    given = [*(Protein(name, sequence, name) for name, sequence in KNOWN.items()), *made_up]
    build_atlas(
        Predictor.load(threads=1), [*given, Protein(HOSTILE, CALR[:200], HOSTILE)], folder, title="Test atlas"
    )
    return folder


@pytest.fixture
def open_page(chromium, site):
    """Open pages of the site; none may complain."""
    contexts, errors = [], []

    def opened(path="index.html", folder=site, **options):
        contexts.append(chromium.new_context(**options))
        contexts[-1].set_default_timeout(60_000)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.goto(f"file://{folder}/{path}")
        return page

    yield opened
    for each in contexts:
        each.close()
    assert errors == []


def count(page):
    page.get_by_text(re.compile(r"^[\d,]+ proteins?$")).wait_for()
    return int(page.locator("#count").inner_text().split()[0].replace(",", ""))


def test_a_search_finds_a_gene_and_its_page_tells_what_is_known(open_page):
    page = open_page()
    assert count(page) == 200
    page.get_by_label("Gene, accession, synonym or words").fill("calr")
    page.locator("#list a").first.wait_for()
    assert page.locator("#list a").first.inner_text() == "CALR"
    page.locator("#list a").first.click()
    page.wait_for_url("**/p/*/CALR.html")
    assert page.get_by_role("heading", level=1).inner_text() == "CALR"
    assert "HPA" in page.locator("main").inner_text()
    page.go_back()
    # The address holds the search.
    page.locator("#list a").first.wait_for()
    assert page.get_by_label("Gene, accession, synonym or words").input_value() == "calr"


def test_words_of_sources_and_synonyms_are_found(open_page):
    page = open_page("index.html#q=nucleoli+rim")
    page.locator("#list a").first.wait_for()
    assert page.locator("#list a").all_inner_texts() == ["NPM1"]


def test_facets_count_and_choose(open_page):
    page = open_page()
    assert count(page) == 200
    page.locator("summary", has_text="Agreement").click()
    label = page.locator("#facets label", has_text="nothing known")
    told = int(label.locator("span").inner_text())
    label.locator("input").check()
    assert count(page) == told < 200
    assert "agreement=4" in page.url
    # The same state from its address.
    again = open_page(f"index.html#{page.url.partition('#')[2]}")
    again.locator("#list a").first.wait_for()
    assert count(again) == told


def test_a_state_that_is_no_state_is_ignored(open_page):
    page = open_page("index.html#overall=99,x,-1&sort=nothing&known=__proto__&constructor=1")
    assert count(page) == 200


def test_the_list_holds_few_elements_and_ends_with_the_last(open_page):
    page = open_page("index.html#sort=name")
    assert count(page) == 200
    assert page.locator("#list li").count() < 40
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.locator("#list li[aria-posinset='200']").wait_for()
    assert page.locator("#list li").count() < 40


def test_a_strange_name_is_text(open_page):
    page = open_page("index.html#q=onerror")
    page.locator("#list a").first.wait_for()
    assert page.locator("#list a").all_inner_texts() == [HOSTILE]
    page.locator("#list a").click()
    page.wait_for_url("**/p/**")
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE


def test_a_point_of_the_map_leads_to_its_protein(open_page):
    page = open_page("index.html#view=map&q=calr")
    page.locator("#legend li").first.wait_for()
    # The only point that is not grey.
    x, y = page.evaluate(_COLOURED)
    page.locator("#canvas").click(position={"x": x, "y": y})
    assert page.locator("#chosen a").inner_text() == "CALR"
    page.locator("#canvas").press("+")
    page.get_by_role("button", name="Whole map").click()
    page.locator("#chosen a").click()
    page.wait_for_url("**/p/*/CALR.html")


def test_images_are_shown_where_there_are_some(open_page, tiny_bundle, tmp_path):
    proteins = [Protein(name, sequence) for name, sequence in KNOWN.items()]
    build_atlas(Predictor(tiny_bundle, threads=1), proteins, tmp_path / "few", cells=[round_nucleus("one")])
    page = open_page(folder=tmp_path / "few")
    image = page.locator("#list img").first
    image.wait_for()
    assert image.evaluate("(each) => each.decode().then(() => each.naturalWidth)") == 416


def test_all_is_read_without_javascript(open_page):
    page = open_page(java_script_enabled=False)
    page.get_by_role("link", name="all names").click()
    page.locator("ul.names a").first.click()
    page.get_by_role("link", name="CALR").click()
    assert "Predicted without its own record" in page.locator("main").inner_text()


@pytest.fixture(scope="module")
def pages(site):
    return [
        "index.html",
        "index.html#view=map",
        *(path.name for path in sorted(site.glob("*.html"))),
        *(str(path.relative_to(site)) for path in site.glob("p/*/CALR.html")),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_have_contrast_and_names(open_page, site, pages, scheme):
    page = open_page(color_scheme=scheme, viewport=PHONE)
    for path in pages:
        page.goto("about:blank")
        page.goto(f"file://{site}/{path}")
        page.wait_for_timeout(100)
        assert page.evaluate(WIDER) <= 0, path
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate(NAMELESS) == [], path
        assert page.get_by_role("heading", level=1).count() == 1, path
