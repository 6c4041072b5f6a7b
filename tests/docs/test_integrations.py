"""What conda, Galaxy and Nextflow are given is what the package is."""

import re
import tomllib

import pytest
import yaml
from Cheetah.Template import Template
from documents import ROOT, document, shell
from galaxy.tool_util.lint import NETWORK_LINTERS, get_lint_context_for_tool_source
from galaxy.tool_util.parser import get_tool_source
from jinja2 import Environment, StrictUndefined
from packaging.requirements import Requirement

from deepgps import __version__
from deepgps.images.cell import DEFAULT_CELLS

PROJECT = tomllib.loads(document("pyproject.toml"))["project"]
TOOL = ROOT / "integrations" / "galaxy" / "deepgps_predict.xml"
MODULE = ROOT / "integrations" / "nf-core" / "modules" / "deepgps" / "predict"
TWO_PROTEINS = ROOT / "integrations" / "galaxy" / "test-data" / "proteins.fasta"


def rendered_recipe():
    """The conda recipe as conda-build renders it."""
    jinja = Environment(undefined=StrictUndefined, autoescape=False)
    text = jinja.from_string(document("conda-recipe/meta.yaml")).render(
        PYTHON="$PYTHON", pin_subpackage=lambda name, max_pin: f"{name} {max_pin}"
    )
    return yaml.safe_load(text)


def requirements(lines):
    return {name: set(versions.split(",")) for name, _, versions in (line.partition(" ") for line in lines)}


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    recipe = rendered_recipe()
    declared = {
        each.name: {str(version) for version in each.specifier}
        for each in map(Requirement, PROJECT["dependencies"])
    }
    python = {"python": {PROJECT["requires-python"]}}
    assert requirements(recipe["requirements"]["run"]) == declared | python
    (backend,) = tomllib.loads(document("pyproject.toml"))["build-system"]["requires"]
    assert backend.replace(">=", " >=") in recipe["requirements"]["host"]


def test_the_conda_recipe_has_what_bioconda_lints_for():
    recipe = rendered_recipe()
    assert recipe["package"] == {"name": "deepgps", "version": __version__}
    assert recipe["build"]["noarch"] == "python" and recipe["build"]["run_exports"] == ["deepgps x.x"]
    assert recipe["build"]["number"] == 0
    assert dict(each.split(" = ") for each in recipe["build"]["entry_points"]) == PROJECT["scripts"]
    assert (ROOT / "conda-recipe" / recipe["source"]["path"]).resolve() == ROOT
    about = recipe["about"]
    assert about["license"] == PROJECT["license"] and (ROOT / about["license_file"]).is_file()
    assert about["home"] and about["summary"] and not about["summary"].endswith(".")


def test_the_commands_that_test_the_conda_package_run(tmp_path):
    commands = rendered_recipe()["test"]["commands"]
    shell("\n".join(each for each in commands if each != "pip check"), tmp_path)
    assert len((tmp_path / "results" / "results.csv").read_text("utf-8").splitlines()) == 7


def test_the_galaxy_tool_is_linted():
    lint = get_lint_context_for_tool_source(get_tool_source(str(TOOL)), skip_types=[*NETWORK_LINTERS])
    assert [str(each) for each in lint.error_messages + lint.warn_messages] == []


def galaxy_command(drawing):
    """The command that Galaxy runs for two proteins."""
    names = {"proteins": data_set(TWO_PROTEINS, "fasta"), "drawing": drawing}
    filled = str(Template(get_tool_source(str(TOOL)).parse_command(), searchList=[names]))
    return " ".join(filled.split())  # Galaxy joins the lines


def data_set(path, extension):
    """A data set as a template of Galaxy sees it: its path, with an extension."""
    return type("DataSet", (str,), {"ext": extension})(path)


def test_the_galaxy_tool_predicts(tmp_path):
    shell(galaxy_command({"images": "no"}), tmp_path)
    outputs, _ = get_tool_source(str(TOOL)).parse_outputs(None)
    written = {each.from_work_dir for name, each in outputs.items() if name != "images"}
    written -= {"results/rejected.csv"}  # there is none
    assert written == {"results/results.tsv", "results/report.html"}
    assert all((tmp_path / name).is_file() for name in written)
    assert len((tmp_path / "results/results.tsv").read_text("utf-8").splitlines()) == 3


@pytest.mark.parametrize("choice", ["default", "own"])
def test_the_galaxy_tool_draws_into_the_chosen_nucleus(choice):
    cell = {
        "default": {"choice": "default", "name": "u2os-1"},
        "own": {
            "choice": "own",
            "file": data_set("a.tif", "tiff"),
            "pixel_size_um": 0.1,
        },
    }[choice]
    text = galaxy_command({"images": "yes", "cell": cell, "seed": 3, "mean": "--mean"})
    expected = {
        "default": "--seed 3 --mean --nucleus u2os-1",
        "own": "--seed 3 --mean --nucleus 'nucleus.tiff' --pixel-size-um 0.1",
    }[choice]
    assert text.endswith(expected) and ("ln -s 'a.tif' 'nucleus.tiff' &&" in text) == (choice == "own")


def test_the_galaxy_tool_offers_every_default_nucleus_and_this_version():
    text = TOOL.read_text(encoding="utf-8")
    offered = re.findall(r'<option value="([\w-]+)"', text.partition('label="Default nucleus"')[2])
    assert tuple(offered[: len(DEFAULT_CELLS)]) == DEFAULT_CELLS
    assert get_tool_source(str(TOOL)).parse_version().partition("+")[0] == __version__


def nextflow_script(block, **values):
    """A script block of the module, as Nextflow fills it in."""
    text = (MODULE / "main.nf").read_text(encoding="utf-8")
    (script,) = re.findall(rf'^    {block}:.*?"""\n(.*?)"""', text, re.M | re.S)
    filled = re.sub(r"\$\{([\w.]+)\}", lambda found: values[found[1]], script)
    lines = filled.replace("\\\\", "\\").replace("\\$", "$").splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines) + "\n"


@pytest.mark.parametrize("block", ["script", "stub"])
def test_the_nextflow_module_predicts_and_writes_what_it_declares(block, tmp_path):
    values = {"proteins": str(TWO_PROTEINS), "draw": "", "args": "--no-images", "prefix": "test"}
    shell(nextflow_script(block, **values, **{"task.cpus": "1", "task.process": "PREDICT"}), tmp_path)
    text = (MODULE / "main.nf").read_text(encoding="utf-8")
    declared = re.findall(r'path\("\$\{prefix\}/([^"]+)"\) *, emit: (\w+) *(, optional)?', text)
    assert {name for name, _, optional in declared if not optional} == {
        "results.tsv",
        "results.jsonl",
        "report.html",
    }
    assert all((tmp_path / "test" / name).is_file() for name, _, optional in declared if not optional)
    assert yaml.safe_load((tmp_path / "versions.yml").read_text()) == {"PREDICT": {"deepgps": __version__}}
    described = yaml.safe_load((MODULE / "meta.yml").read_text(encoding="utf-8"))
    assert {emit for _, emit, _ in declared} | {"versions"} == set(described["output"])


def test_records_that_cannot_be_used_do_not_stop_a_workflow(tmp_path):
    (tmp_path / "some.fasta").write_text(TWO_PROTEINS.read_text("utf-8") + ">bad\nMKJ1\n")
    values = {"proteins": "some.fasta", "draw": "", "args": "--no-images", "prefix": "test"}
    shell(nextflow_script("script", **values, **{"task.cpus": "1", "task.process": "PREDICT"}), tmp_path)
    assert "bad" in (tmp_path / "test" / "rejected.csv").read_text("utf-8")
    codes = get_tool_source(str(TOOL)).parse_stdio()[0]
    (warned,) = (each for each in codes if each.error_level < 3)  # 3: fatal
    assert (warned.range_start, warned.range_end) == (3, 3)


def test_the_nextflow_module_names_this_version():
    environment = yaml.safe_load((MODULE / "environment.yml").read_text(encoding="utf-8"))
    assert environment["dependencies"] == [f"bioconda::deepgps={__version__}"]
    assert f'container "deepgps:{__version__}"' in (MODULE / "main.nf").read_text(encoding="utf-8")
