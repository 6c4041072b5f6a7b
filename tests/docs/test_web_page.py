"""The page on the website says what its settings, routes and errors are."""

import ast
import re

import pytest
from documents import ROOT, document, rows, section

from opengps.schemas import PredictionForm
from opengps.settings import PREFIX, Settings
from opengps.submissions.schemas import SubmissionForm

PAGE = document("docs/reference/web.md")
SOURCE = sorted((ROOT / "src/opengps").rglob("*.py"))


def documented(heading):
    return {row[0].split("`")[1]: row[1].strip("`") for row in rows(section(PAGE, heading))}


def shown(default):
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_the_settings_are_those_documented():
    known = {f"{PREFIX}{name.upper()}": shown(each.default) for name, each in Settings.model_fields.items()}
    assert documented("## Settings") == known


def test_the_fields_of_a_request_are_those_documented():
    assert set(documented("## What is sent")) == set(PredictionForm.model_fields)


def test_the_fields_of_a_submission_are_those_documented():
    assert set(documented("## What is submitted")) == set(SubmissionForm.model_fields)


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    from opengps import api, downloads, pages
    from opengps.submissions import api as submissions
    from opengps.submissions import pages as submission_pages
    from opengps.submissions import views

    routers = {
        "api": (api, submissions),
        "downloads": (downloads, views),
        "pages": (pages, submission_pages),
    }
    return {
        name: {route.path: route.methods for module in modules for route in module.router.routes}
        for name, modules in routers.items()
    }


def test_the_addresses_are_those_documented(routes):
    below = section(PAGE, "## Pages and their twins")
    pages, api, downloads = (
        {row[0].split("`")[1] for row in rows(table)}
        for table in re.split(r"^\| (?:route|download)", below, flags=re.M)
    )
    assert pages == {*routes["pages"], "/health", "/metrics"}
    assert api == {path or "/" for path in routes["api"]}
    assert downloads == set(routes["downloads"])


def codes(path):
    """Codes of errors that a module makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        place = {"refused": 1, "add": 0}.get(name)
        found = [node.args[place]] if place is not None and len(node.args) > 1 else []
        found += [each.value for each in node.keywords if each.arg == "code"]
        for each in found:
            yield from (part.value for part in ast.walk(each) if isinstance(part, ast.Constant))


def test_the_codes_of_errors_are_those_documented():
    from opengps.app import _SAID

    said = {code for path in SOURCE for code in codes(path) if isinstance(code, str)}
    said |= {code for code, _ in _SAID.values()} | {"http"}
    assert set(documented("## Errors")) == said
