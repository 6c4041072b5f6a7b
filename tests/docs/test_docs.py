"""What a reader follows leads somewhere, and what a reader runs, runs."""

import re
import shutil

import numpy as np
import pytest
import yaml
from documents import (
    ROOT,
    SHIPPED_MODEL,
    blocks,
    document,
    documents,
    first_names,
    outputs,
    printed,
    relative_links,
    section,
    shell,
)
from PIL import Image

from conftest import round_nucleus
from deepgps import __version__

TUTORIAL = document("docs/tutorials/first-prediction.md")
README = document("README.md")
# Drawn by the model in the package, so there only once it is.
DEMO_IMAGE = ROOT / "docs" / "images" / "demo.png"

needs_model = pytest.mark.skipif(not SHIPPED_MODEL.exists(), reason=f"no model at '{SHIPPED_MODEL}' yet")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    missing = [str(target) for target in relative_links(path) if not target.exists()]
    if not SHIPPED_MODEL.exists():
        missing = [target for target in missing if target != str(DEMO_IMAGE)]
    assert missing == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached and page.exists():
            reached.add(page)
            waiting += relative_links(page)
    assert set(documents()) - reached == set()


@pytest.fixture(scope="module")
def readers_folder(tiny_bundle, tmp_path_factory):
    """A folder with the reader's own image, and models that a bare `deepgps` finds."""
    folder = tmp_path_factory.mktemp("reader")
    pixels = (round_nucleus("own", 40).nucleus * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "nucleus.png")
    if not SHIPPED_MODEL.exists():
        shutil.copytree(tiny_bundle.path, folder / "models" / "deepgps-mini")
    return folder


@pytest.mark.slow
def test_the_commands_of_the_first_tutorial_run(readers_folder):
    scripts = blocks(TUTORIAL, "sh")
    assert len(scripts) > 5
    said = [shell(script, readers_folder, readers_folder / "models") for script in scripts]
    assert said[0].startswith("deepgps-mini\t")
    assert said[1].startswith("Protein\tLocalizations\t")
    assert "see mixed/rejected.csv" in said[-1]
    assert (readers_folder / "examples" / "report.html").exists()
    in_two = (readers_folder / "in-two" / "results.csv").read_text(encoding="utf-8")
    assert in_two.count("hek-1") == in_two.count("u2os-1") == 2
    # The scale given with the image is believed, and the file's own is read.
    assert "does not say its pixel size" not in (readers_folder / "in-mine" / "results.csv").read_text()
    assert "does not say its pixel size" not in (readers_folder / "again" / "results.csv").read_text()


@pytest.mark.parametrize("name", ["README.md", "docs/tutorials/first-prediction.md"])
def test_the_python_of_a_page_runs(name, readers_folder, monkeypatch, capsys):
    monkeypatch.chdir(readers_folder)
    monkeypatch.setenv("DEEPGPS_MODELS", str(readers_folder / "models"))
    names: dict[str, object] = {}
    for code in blocks(document(name), "python"):
        exec(code, names)
    assert "(208, 208)" in capsys.readouterr().out


def test_the_readme_says_how_to_test_and_the_ci_does_it():
    assert "make test\n" in blocks(README, "sh")
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@needs_model
def test_the_readme_shows_what_the_command_prints():
    for name, shown in outputs(README).items():
        _check_output(shown, printed(name))


def _check_output(shown: str, real: str) -> None:
    # Files and words to the letter; another machine may round the last digit otherwise.
    numbers = r"\b0\.\d\d\b|\b1\.00\b"
    assert re.sub(numbers, "#", shown) == re.sub(numbers, "#", real), "run tests/docs/documents.py"
    found = [[float(number) for number in re.findall(numbers, text)] for text in (shown, real)]
    assert found[0] == pytest.approx(found[1], abs=0.011)


@needs_model
@pytest.mark.slow
def test_the_tutorial_on_mutations_prints_what_it_shows(tmp_path, monkeypatch, capsys):
    text = document("docs/tutorials/why-and-mutations.md")
    explain, signals, variants, scan = (shell(script, tmp_path) for script in blocks(text, "sh"))
    shown = outputs(text)
    _check_output(shown["explain"], explain)
    _check_output(shown["variants"], variants)
    assert [line.split(",")[:4] for line in signals.splitlines()] == [
        ["CALR", "SP", "1", "17"],
        ["CALR", "ER", "414", "417"],
    ]
    assert "323 compared, 0 rejected" in scan
    assert {"scan.svg", "scan.png", "report.html"} <= {path.name for path in (tmp_path / "scan").iterdir()}
    monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path / "no-models"))
    names: dict[str, object] = {}
    for code in blocks(text, "python"):
        exec(code, names)
    assert "destroys the ER retention signal 76-79" in capsys.readouterr().out


@needs_model
def test_no_number_is_left_open():
    left = {str(path): re.findall(r"<!-- number:[^>]*-->", path.read_text("utf-8")) for path in documents()}
    assert {path: numbers for path, numbers in left.items() if numbers} == {}


def test_the_citation_is_whole_and_of_this_version():
    citation = yaml.safe_load(document("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert all({"type", "title", "authors"} <= set(reference) for reference in citation["references"])


def test_the_changelog_knows_this_version():
    assert f"## [{__version__}]" in document("CHANGELOG.md")


def test_the_verbs_of_make_are_those_documented():
    verbs = re.findall(r"^([\w-]+):.*## ", document("Makefile"), re.M)
    documented = first_names(section(document("CONTRIBUTING.md"), "## Set up"))
    assert sorted(documented) == sorted(f"make {verb}" for verb in verbs if verb != "help")
