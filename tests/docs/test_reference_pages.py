"""The reference pages describe the commands, the files and the packages as they are."""

import re
import tomllib
from collections.abc import Iterator

import pytest
from documents import ROOT, blocks, document, first_names, rows, section

from conftest import round_nucleus
from deepgps.bundle import BundleMetadata
from deepgps.cli.app import app
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.exports import EXPORTED_FILES
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import read_records, table_columns
from deepgps.results.run import read_run

CLI = document("docs/reference/cli.md")
FILES = document("docs/reference/files.md")
ARCHITECTURE = document("docs/explanation/architecture.md")


def commands(table=app, path=()) -> Iterator[tuple[str, list]]:
    """Every command with its arguments."""
    for name in table:
        if name.startswith("-"):
            continue
        inner = list(commands(table[name], (*path, name)))
        yield from inner
        # Some commands have commands below them and do something themselves.
        if not inner or table[name].default_command is not None:
            arguments = table[name].assemble_argument_collection(parse_docstring=True)
            yield " ".join((*path, name)), list(arguments)


def test_the_commands_are_those_documented():
    known = [command for command, _ in commands()]
    overview = blocks(CLI, "text")[0].splitlines()
    assert len(overview) == len(known)
    for command in known:
        assert any(line.startswith(f"deepgps {command} ") for line in overview)


@pytest.mark.parametrize(
    ("command", "arguments"), list(commands()), ids=lambda each: each if isinstance(each, str) else ""
)
def test_every_option_has_help(command, arguments):
    shown = [each for each in arguments if each.show]
    assert [each.names[0] for each in shown if not each.parameter.help] == []


def test_the_environment_variables_are_those_documented():
    source = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py"))
    assert set(re.findall(r"DEEPGPS_[A-Z_]+", source)) == set(first_names(section(CLI, "## Environment")))


@pytest.fixture(scope="module")
def results(tiny_bundle, tmp_path_factory):
    """A real folder of results, with a rejected record and all."""
    folder = tmp_path_factory.mktemp("results")
    proteins = [Protein("a", "MKVLAAGIVGLCAKWDEYHR"), Rejection("b", "x.fasta", "It is no good.")]
    predict_to_folder(Predictor(tiny_bundle, threads=1), proteins, folder, cells=[round_nucleus("round")])
    return folder


def test_every_file_written_is_documented(results):
    written = {path.name for path in results.iterdir() if not path.name.startswith(".")}
    documented = set(
        re.findall(r"`([\w.-]+)/?`", "".join(row[0] for row in rows(FILES.partition("\n## ")[0])))
    )
    others = {"results.tsv", "images.zarr", *EXPORTED_FILES}
    assert others < documented
    assert written == documented - others


def test_the_columns_are_those_documented():
    documented = re.findall(
        r"^\| (?:`(\w+)`|(\*one column per class\*))", section(FILES, "## results.csv"), re.M
    )
    assert [code or "CLASS" for code, _ in documented] == table_columns(["CLASS"])


def test_the_fields_of_a_record_are_those_documented(results):
    record = next(read_records(results / "results.jsonl"))
    assert first_names(section(FILES, "## results.jsonl")) == list(record)


def test_the_fields_of_the_run_are_those_documented(results):
    assert first_names(section(FILES, "## run.json")) == list(read_run(results) or {})


def test_the_columns_of_rejected_records_are_those_documented(results):
    header = (results / "rejected.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first_names(section(FILES, "## rejected.csv")) == header.split(",")


def test_the_fields_of_a_bundle_are_those_documented():
    documented = [name for name in first_names(section(ARCHITECTURE, "## The bundle")) if "." not in name]
    assert documented == list(BundleMetadata.model_fields)


def test_the_packages_are_those_of_the_contract():
    contracts = tomllib.loads(document("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"deepgps\.(\w+)", layer) for layer in contracts[0]["layers"]]
    rooms = first_names(section(ARCHITECTURE, "## Packages"))
    assert sorted(rooms) == sorted(room for layer in layers for room in layer)
    height = {room: len(layers) - number for number, layer in enumerate(layers) for room in layer}
    assert [height[room] for room in rooms] == sorted(height.values())


def test_every_package_is_in_the_architecture_page():
    source = ROOT / "src" / "deepgps"
    packages = {path.parent.name for path in source.glob("*/__init__.py")} - {"examples"}
    modules = {path.stem for path in source.glob("*.py")} - {"__init__"}
    assert packages | modules == set(first_names(section(ARCHITECTURE, "## Packages")))
