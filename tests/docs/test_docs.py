"""What the documentation says is so."""

import ast
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

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
    rows,
    section,
    shell,
)
from PIL import Image

from conftest import round_nucleus
from deepgps import __version__
from deepgps.bundle import BundleMetadata
from deepgps.cli.app import app
from deepgps.proteins.protein import Protein
from deepgps.results.records import read_records
from deepgps.results.run import read_run
from deepgps.results.save import save
from deepgps.results.table import columns

CLI = document("docs/reference/cli.md")
FILES = document("docs/reference/files.md")
HOUSE = document("docs/explanation/architecture.md")
TUTORIAL = document("docs/tutorials/first-prediction.md")
README = document("README.md")
# Drawn by the model in the package, so there only once it is.
DEMO_PICTURE = ROOT / "docs" / "images" / "demo.png"

needs_model = pytest.mark.skipif(not SHIPPED_MODEL.exists(), reason=f"no model at '{SHIPPED_MODEL}' yet")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    missing = [str(target) for target in relative_links(path) if not target.exists()]
    if not SHIPPED_MODEL.exists():
        missing = [target for target in missing if target != str(DEMO_PICTURE)]
    assert missing == []


def test_every_page_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page.suffix == ".md" and page not in reached and page.exists():
            reached.add(page)
            waiting += relative_links(page)
    assert set(documents()) - reached == set()


# --- the command line ---


def commands(table=app, path=()) -> Iterator[tuple[str, list]]:
    """Every command with its arguments."""
    for name in table:
        if name.startswith("-"):
            continue
        inner = list(commands(table[name], (*path, name)))
        yield from inner or [
            (" ".join((*path, name)), list(table[name].assemble_argument_collection(parse_docstring=True)))
        ]


def options_of(arguments):
    return [each for each in arguments if each.field_info.kind.name == "KEYWORD_ONLY"]


def documented_options(command):
    """Options by first name: all names, the text of the first cell, the default's cell."""
    found = {}
    for row in rows(section(CLI, f"## deepgps {command}")):
        names = re.findall(r"--[a-z-]+", row[0])
        found[names[0]] = (set(names), row[0], row[1])
    return found


def test_the_commands_are_those_documented():
    known = [command for command, _ in commands()]
    assert sorted(re.findall(r"^## deepgps (.+)$", CLI, re.M)) == sorted(known)
    overview = blocks(CLI, "text")[0].splitlines()
    assert len(overview) == len(known)
    for command in known:
        assert any(line.startswith(f"deepgps {command} ") for line in overview)


@pytest.mark.parametrize(
    ("command", "arguments"), list(commands()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_the_options_are_those_documented(command, arguments):
    documented, options = documented_options(command), options_of(arguments)
    assert list(documented) == [option.names[0] for option in options]
    for option in options:
        names, cell, default = documented[option.names[0]]
        negative = option.parameter.negative or ()
        assert {option.names[0], *negative} <= names <= set(option.names)
        if option.required:
            assert default == "required"
        elif isinstance(option.field_info.default, str | Path):
            assert default == f"`{option.field_info.default}`"
        else:
            assert default != "required"
        assert "|".join(get_args(option.hint) if "|" in cell else ()) in cell


def test_arguments_without_a_dash_are_documented():
    for command, arguments in commands():
        named = [each.names[0].strip("-").upper() for each in arguments if each not in options_of(arguments)]
        for name in named:
            singular = name.removesuffix("S") if name == "INPUTS" else name
            assert f"`{singular}`" in section(CLI, f"## deepgps {command}")


def test_the_environment_variables_are_those_documented():
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py"))
    assert set(re.findall(r"DEEPGPS_[A-Z]+", source)) == set(first_names(section(CLI, "## Environment")))


# --- files ---


@pytest.fixture(scope="module")
def results(tiny_bundle, tmp_path_factory):
    """A real folder of results, with a rejected record and all."""
    from deepgps.predict import Predictor
    from deepgps.proteins.protein import Rejection

    folder = tmp_path_factory.mktemp("results")
    proteins = [Protein("a", "MKVLAAGIVGLCAKWDEYHR"), Rejection("b", "x.fasta", "It is no good.")]
    save(Predictor(tiny_bundle, threads=1), proteins, folder, nuclei=[round_nucleus("round")])
    return folder


def test_every_file_written_is_documented(results):
    written = {path.name for path in results.iterdir() if not path.name.startswith(".")}
    documented = set(
        re.findall(r"`([\w.]+)/?`", "".join(row[0] for row in rows(FILES.partition("\n## ")[0])))
    )
    assert written == documented - {"results.tsv"}


def test_the_columns_are_those_documented():
    documented = re.findall(
        r"^\| (?:`(\w+)`|(\*one column per class\*))", section(FILES, "## results.csv"), re.M
    )
    assert [code or "CLASS" for code, _ in documented] == columns(["CLASS"])


def test_the_fields_of_a_record_are_those_documented(results):
    record = next(read_records(results / "results.jsonl"))
    assert first_names(section(FILES, "## results.jsonl")) == list(record)


def test_the_fields_of_the_run_are_those_documented(results):
    assert first_names(section(FILES, "## run.json")) == list(read_run(results) or {})


def test_the_columns_of_rejected_records_are_those_documented(results):
    header = (results / "rejected.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first_names(section(FILES, "## rejected.csv")) == header.split(",")


# --- refusals ---


def template(node: ast.AST) -> str | None:
    """A string in the source with its gaps as NUL; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return None


def templates(path: Path) -> Iterator[str]:
    """Every string of a module that is neither a docstring nor part of another."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inner -= {id(node) for node in nodes if isinstance(node, ast.JoinedStr)}
    inner |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if id(node) not in inner and (text := template(node)):
            yield text


# What is no user's input: a damaged bundle, a disk, a programmer's mistake.
NO_INPUT = {"neighbours.py", "write.py", "windows.py", "motifs.py"}


SPOKEN = {
    "inputs.md": ("proteins/*.py", "images/*.py", "predict.py", "cli/predict.py"),
    "files.md": ("results/*.py",),
}


def sentences() -> list[tuple[str, str]]:
    """All that the rooms of the input and of the results say to a user, and the page that should tell it."""
    found = set()
    for page, patterns in SPOKEN.items():
        for path in (path for pattern in patterns for path in ROOT.glob(f"src/deepgps/{pattern}")):
            for text in () if path.name in NO_INPUT else templates(path):
                notes = path.name == "check.py" and len(text) > 25
                if " " in text and (text.endswith(".") or notes) and not text.startswith("Bundle"):
                    found.add((page, text))
    return sorted(found)


def test_sentences_are_found():
    assert len(sentences()) > 50
    assert ("inputs.md", "'-' (stdin) is given twice; it can be read once.") in sentences()


@pytest.mark.parametrize(("page", "sentence"), sentences(), ids=lambda text: text.replace("\0", "…")[:40])
def test_every_refusal_and_warning_is_documented(page, sentence):
    # A sentence that begins with a gap may go on from another one.
    pattern = "[^\n`]*?".join(re.escape(part) for part in sentence.split("\0"))
    assert re.search(pattern, document(f"docs/reference/{page}")), sentence.replace("\0", "…")


# --- the house ---


def test_the_fields_of_a_bundle_are_those_documented():
    documented = [name for name in first_names(section(HOUSE, "## The bundle")) if "." not in name]
    assert documented == list(BundleMetadata.model_fields)


def test_the_rooms_are_those_of_the_contract():
    contracts = tomllib.loads(document("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"deepgps\.(\w+)", layer) for layer in contracts[0]["layers"]]
    rooms = first_names(section(HOUSE, "## Rooms"))
    assert sorted(rooms) == sorted(room for layer in layers for room in layer)
    height = {room: len(layers) - number for number, layer in enumerate(layers) for room in layer}
    assert [height[room] for room in rooms] == sorted(height.values())


def test_every_room_of_the_source_is_in_the_house():
    source = ROOT / "src" / "deepgps"
    packages = {path.parent.name for path in source.glob("*/__init__.py")} - {"examples"}
    modules = {path.stem for path in source.glob("*.py")} - {"__init__"}
    assert packages | modules == set(first_names(section(HOUSE, "## Rooms")))


# --- what a reader runs ---


@pytest.fixture(scope="module")
def readers_folder(tiny_bundle, tmp_path_factory):
    """A folder with the reader's own image, and models that a bare `deepgps` finds."""
    folder = tmp_path_factory.mktemp("reader")
    pixels = (round_nucleus("own", 40).pixels * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "nucleus.png")
    if not SHIPPED_MODEL.exists():
        shutil.copytree(tiny_bundle.path, folder / "models" / "deepgps-mini")
    return folder


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
        # Files and words to the letter; another machine may round the last digit otherwise.
        real, numbers = printed(name), r"\b0\.\d\d\b|\b1\.00\b"
        assert re.sub(numbers, "#", shown) == re.sub(numbers, "#", real), "run tests/docs/documents.py"
        found = [[float(number) for number in re.findall(numbers, text)] for text in (shown, real)]
        assert found[0] == pytest.approx(found[1], abs=0.011)


@needs_model
def test_no_number_is_left_open():
    left = {str(path): re.findall(r"<!-- number:[^>]*-->", path.read_text("utf-8")) for path in documents()}
    assert {path: numbers for path, numbers in left.items() if numbers} == {}


# --- citing ---


def test_the_citation_is_whole_and_of_this_version():
    citation = yaml.safe_load(document("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert all({"type", "title", "authors"} <= set(reference) for reference in citation["references"])


def test_the_changelog_knows_this_version():
    assert f"## [{__version__}]" in document("CHANGELOG.md")


def test_the_verbs_of_make_are_those_documented():
    verbs = re.findall(r"^(\w+):.*## ", document("Makefile"), re.M)
    documented = first_names(section(document("CONTRIBUTING.md"), "## Set up"))
    assert sorted(documented) == sorted(f"make {verb}" for verb in verbs if verb != "help")
