"""The built packages: what they hold, and that each installs and predicts with only what it declares."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import deepgps

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The wheel and the sdist, as `python -m build` makes them; the wheel is made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_packages_carry_the_version_of_the_code(built):
    assert built["wheel"].name == f"deepgps-{deepgps.__version__}-py3-none-any.whl"
    assert built["sdist"].name == f"deepgps-{deepgps.__version__}.tar.gz"


def test_the_wheel_holds_the_source_tree_and_nothing_else(built):
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    tracked = set(run("git", "-C", ROOT, "ls-files", "src").split())
    assert {f"src/{name}" for name in names if not name.startswith("deepgps-")} == tracked


def test_the_sdist_leaves_out_benchmarks_and_images_of_the_documentation(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/deepgps/__init__.py", "tests/conftest.py"} <= names
    assert [name for name in names if name.startswith(("benchmarks/", "docs/images/", ".ci/"))] == []


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_package_installs_and_predicts_in_a_clean_environment(kind, built, tmp_path):
    python = clean_environment(tmp_path / "venv", ["hatchling"] if kind == "sdist" else [])
    run(python, "-m", "pip", "install", "--no-index", "--no-build-isolation", built[kind])
    run(python, "-m", "pip", "check")
    run(python.with_name("deepgps"), "predict", "example", "--out", tmp_path / "results")
    assert (tmp_path / "results" / "report.html").is_file()
    assert len((tmp_path / "results" / "results.csv").read_text("utf-8").splitlines()) == 7
    assert len(list((tmp_path / "results" / "images").glob("*.png"))) == 6


def clean_environment(folder: Path, tools: list[str]) -> Path:
    """Make an environment with what deepGPS and `tools` declare to need, linked from here: no download."""
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in sorted(with_requirements("deepgps", *tools) - {"deepgps"}):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
    return folder / "bin" / "python"


def with_requirements(*names: str) -> set[str]:
    """Names of distributions and of all that they require."""
    found: set[str] = set()
    left = [Requirement(name) for name in names]
    while left:
        wanted = left.pop()
        found.add(wanted.name)
        for each in map(Requirement, distribution(wanted.name).requires or []):
            applies = each.marker is None or any(
                each.marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}
            )
            if applies and each.name not in found:
                left.append(each)
    return found


def run(*command: object) -> str:
    """Run a command that must succeed, without this process's settings of Python and deepGPS."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DEEPGPS_"))}
    done = subprocess.run(list(map(str, command)), env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
