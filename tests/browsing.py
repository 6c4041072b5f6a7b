"""A real server with its worker, and a real browser, Debian's Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

PATIENCE_S = 90
PHONE = {"width": 390, "height": 844}

# Relative luminance and contrast, https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio
CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => channels(colour).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (channels(colour).length === 3 || channels(colour)[3] === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("#swagger, [disabled]")) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${element.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
NAMELESS = """() => {
  const shown = (each) => each.type !== "hidden" && !each.closest("#swagger");
  const fields = [...document.querySelectorAll("input, select, textarea")].filter(shown)
    .filter((each) => !each.labels.length && !each.getAttribute("aria-label"));
  const images = [...document.querySelectorAll("img")].filter((each) => !each.hasAttribute("alt"));
  const wordless = [...document.querySelectorAll("a, button")].filter((each) => !each.closest("#swagger"))
    .filter((each) => !each.hidden && !each.closest("[aria-hidden=true]"))
    .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim()));
  return [...fields, ...images, ...wordless].map((each) => each.outerHTML.slice(0, 120));
}"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
"""How much wider a page is than its window."""


@dataclass
class Served:
    """A running site: its address and its data folder."""

    address: str
    data: Path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(folder, models, **settings):
    """Run ``deepgps serve`` with a worker on loopback."""
    port = free_port()
    environment = {
        **os.environ,
        "DEEPGPS_MODELS": str(models),
        "OPENGPS_DATA": str(folder),
        "OPENGPS_LOOKUPS": "false",
        "OPENGPS_REQUESTS_PER_MINUTE": "100000",
        "OPENGPS_JOBS_PER_HOUR": "100000",
        "OPENGPS_PROTEINS_PER_HOUR": "1000000",
        **{f"OPENGPS_{name.upper()}": str(value) for name, value in settings.items()},
    }
    deepgps = Path(sys.executable).with_name("deepgps")
    process = subprocess.Popen(
        [deepgps, "serve", "--port", str(port)], env=environment, stdout=subprocess.DEVNULL
    )
    site = Served(f"http://127.0.0.1:{port}", folder)
    try:
        _await(site, process)
        yield site
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _await(site, process):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(URLError, ConnectionError), urlopen(f"{site.address}/health", timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


@contextmanager
def chromium():
    """Start the browser; skip the test if it is missing: tests/opengps/debian.sh installs it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("Chromium is not installed; run tests/opengps/debian.sh")
    # Its sandbox refuses to run as root; the only pages it sees are ours.
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Window:
    """A browser window that collects the errors of its pages."""

    def __init__(self, browser, site, **options):
        self.site, self.errors = site, []
        self.context = browser.new_context(base_url=site.address, **options)
        self.context.set_default_timeout(PATIENCE_S * 1000)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._on_console)

    def _on_console(self, message):
        # The page itself shows that a request was refused.
        if message.type == "error" and "the server responded with a status of 4" not in message.text:
            self.errors.append(message.text)

    def go(self, path):
        """Open a page."""
        answer = self.page.goto(path)
        assert answer is not None
        return answer

    def predict(self, proteins, **choices):
        """Fill in and send the form; return the path of the job."""
        self.go("/predict")
        self.page.get_by_label("FASTA, a table, a sequence, or accessions").fill(proteins)
        for name, value in choices.items():
            self.page.locator(f"input[name={name}][value='{value}']").check()
        self.page.get_by_role("button", name="Predict").click()
        self.page.wait_for_url("**/predictions/*")
        return self.path

    @property
    def path(self):
        return self.page.url.removeprefix(self.site.address)

    def wait_for(self, status):
        """Wait until the job's page shows a status."""
        self.page.locator(f".headline .status.{status}").wait_for()

    def text(self):
        return self.page.locator("main").inner_text()


PAGES = (
    *("/", "/predict", "/predict?example=true", "/submit", "/submit/batch", "/models"),
    *("/models/deepgps-mini", "/models/deepgps-mini:single-2", "/nuclei", "/privacy", "/api", "/nothing"),
)
"""All pages that need no job."""
