"""Accessibility: without JavaScript, on a phone, in dark mode, by keyboard, with a screen reader."""

import pytest
from visitor import SEQUENCE, fasta

from browsing import CONTRAST, NAMELESS, PAGES, PHONE, WIDER

pytestmark = pytest.mark.browser

_NO_LISTING = "function SwaggerUIBundle() {}"
_FOCUS = """() => {
  const each = document.activeElement;
  const marked = (element) => {
    const style = getComputedStyle(element);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  };
  const name = each.getAttribute("name") || each.textContent.trim();
  return [name, marked(each) || marked(each.closest("label") || each)];
}"""


@pytest.fixture(scope="module")
def done(chromium, served):
    """The paths of a finished job, of its first result, and of a submission."""
    from contributor import FIELDS, pair

    from browsing import Window

    visit = Window(chromium, served)
    # What a stranger calls a protein is as long as it gets.
    job = visit.predict(f">{'long_' * 20}\n{SEQUENCE}\n" + fasta(3), nuclei="u2os-1", model="tiny")
    visit.wait_for("finished")
    files = {
        name: {"name": file, "mimeType": kind, "buffer": content}
        for name, (file, content, kind) in pair(40).items()
    }
    form = {**FIELDS, **files, "model": "tiny"}
    answer = visit.page.request.post("/api/v1/submissions", multipart=form)
    submission = answer.json()["links"]["page"]
    visit.go(submission)
    visit.page.get_by_text("PSNR", exact=True).wait_for()
    result = f"{job}/results/0"
    visit.go(result)
    visit.page.get_by_role("button", name="Why there?").click()
    visit.page.get_by_role("heading", name="Sorting signals").wait_for()
    visit.go(f"{result}/variants")
    visit.page.get_by_label("One variant a line").fill(f"{SEQUENCE[:1]}1A n+NLS")
    visit.page.get_by_role("button", name="Compare").click()
    visit.page.get_by_text("All images are drawn into the same nucleus").wait_for()
    comparison = visit.path
    visit.context.close()
    return job, result, submission, f"{result}/explanation", f"{result}/variants", comparison


def test_predict_works_without_javascript(window):
    visit = window(java_script_enabled=False)
    visit.predict(fasta(3), nuclei="u2os-1", model="tiny")
    # The page reloads itself.
    visit.wait_for("finished")
    visit.page.get_by_label("Text").fill("u2os")
    visit.page.get_by_role("button", name="Filter").click()
    assert "3 results" in visit.text()
    visit.page.get_by_role("link", name="Confidence").click()
    assert visit.page.locator("th[aria-sort=descending]").inner_text().startswith("Confidence")
    visit.page.get_by_role("link", name="p2").click()
    assert visit.page.locator(".panels figure").count() == 3
    assert not visit.page.locator(".sliders").is_visible()
    visit.page.get_by_role("button", name="Draw").click()
    visit.page.wait_for_url("**/predictions/*")
    visit.wait_for("finished")
    visit.page.get_by_text("Delete this prediction").click()
    visit.page.get_by_role("button", name="Delete it now").click()
    assert "have been deleted" in visit.text()


@pytest.fixture(scope="module")
def seen(chromium, served, done):
    """Measurements of each page in light, in dark and on a phone; each page is opened once."""
    from browsing import Window

    visit, found = Window(chromium, served), {}
    # The listing of the routes, another's and large, is left out.
    visit.context.route("**/swagger-ui-bundle.js*", lambda route: route.fulfill(body=_NO_LISTING))
    for path in (*PAGES, *done):
        visit.go(path)
        here = found[path] = {"nameless": visit.page.evaluate(NAMELESS)}
        here["titles"] = visit.page.get_by_role("heading", level=1).count()
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            here[scheme] = (ground, visit.page.evaluate(CONTRAST))
        visit.page.emulate_media(color_scheme="light")
        large = visit.page.viewport_size
        visit.page.set_viewport_size(PHONE)
        here["wider"] = visit.page.evaluate(WIDER)
        visit.page.set_viewport_size(large)
    assert visit.errors == []
    visit.context.close()
    return found


def test_no_page_is_wider_than_a_phone(seen):
    assert {path: here["wider"] for path, here in seen.items() if here["wider"] > 0} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast_in_light_and_dark(seen, scheme):
    assert {path: here[scheme][1] for path, here in seen.items() if here[scheme][1]} == {}
    assert {here[scheme][0] == "rgb(255, 255, 255)" for here in seen.values()} == {scheme == "light"}


def test_every_field_image_and_button_has_a_name(seen):
    assert {path: here["nameless"] for path, here in seen.items() if here["nameless"]} == {}
    assert {here["titles"] for here in seen.values()} == {1}


def test_the_form_is_filled_in_and_sent_with_the_keyboard_alone(window):
    visit = window()
    visit.go("/predict")
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate(_FOCUS) == ["Skip to the content", True]
    visit.page.keyboard.press("Enter")
    reached = []
    for _ in range(40):
        visit.page.keyboard.press("Tab")
        name, marked = visit.page.evaluate(_FOCUS)
        assert marked, f"no one sees that {name} has the focus"
        reached.append(name)
        if name == "proteins":
            visit.page.keyboard.insert_text(f">hand\n{SEQUENCE}\n")
        if name == "Predict":
            break
    order = ["proteins", "file", "nuclei", "nucleus_images", "pixel_size_um", "channel"]
    order += ["microtubules_image", "er_image", "model", "images", "seed"]
    assert [name for name in dict.fromkeys(reached) if name in order] == order
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/predictions/*")
    visit.wait_for("finished")
    assert "hand" in visit.text()


def test_the_api_lists_its_routes(window):
    visit = window()
    visit.go("/api")
    visit.page.get_by_text("Send proteins to predict").wait_for()
    assert visit.page.locator("#swagger .opblock").count() > 25


def test_health_and_metrics_count_the_jobs(window, done):
    visit = window()
    health = visit.page.request.get("/health")
    assert (health.status, health.json()["status"]) == (200, "ok")
    lines = visit.page.request.get("/metrics").text().splitlines()
    finished = next(line for line in lines if line.startswith('opengps_jobs{status="finished"}'))
    assert float(finished.split()[-1]) >= 1
