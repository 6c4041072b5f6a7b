"""The tables of docs/reference/web.md are those of the code; run as a script, this prints them."""

import ast
import re
import sys
from collections.abc import Iterator

from documents import ROOT, document, rows, section
from fastapi.routing import APIRoute

from opengps import api, downloads, pages
from opengps.analyses import routes as analyses
from opengps.analyses.schemas import VariantsRequest
from opengps.schemas import PredictionForm
from opengps.settings import PREFIX, Settings
from opengps.submissions import moderation
from opengps.submissions import routes as submissions
from opengps.submissions.schemas import ImageFields, SubmissionForm

PAGE = document("docs/reference/web.md")
SOURCE = sorted((ROOT / "src/opengps").rglob("*.py"))


def described(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def settings() -> Iterator[list[str]]:
    for name, field in Settings.model_fields.items():
        default = shown(field.default)
        meaning = described(field.description or "")
        yield [f"`{PREFIX}{name.upper()}`", f"`{default}`" if default else "", meaning]


def fields(form: type) -> Iterator[list[str]]:
    for name, field in form.model_fields.items():
        meaning = field.description or ImageFields.model_fields[name].description
        yield [f"`{name}`", described(meaning)]


def routes(*routers: object) -> Iterator[list[str]]:
    """Path, methods and what the route's docstring says; the methods of one path in one row."""
    found: dict[str, list[APIRoute]] = {}
    for router in routers:
        for route in router.routes:
            found.setdefault(route.path or "/", []).append(route)
    for path, same in found.items():
        methods = ", ".join(method for route in same for method in sorted(route.methods))
        texts = (described((route.endpoint.__doc__ or "").partition("\n")[0]) for route in same)
        yield [f"`{path}`", methods, "; ".join(texts)]


TABLES = {
    "## Settings": list(settings()),
    "### Fields of a prediction": list(fields(PredictionForm)),
    "### Fields of a comparison of variants": list(fields(VariantsRequest)),
    "### Fields of a submission": list(fields(SubmissionForm)),
    "### API": list(routes(api.router, analyses.api_router, submissions.api_router, moderation.api_router)),
    "### Downloads": [
        [row[0], row[2]] for row in routes(downloads.router, analyses.files_router, submissions.files_router)
    ],
}


def test_the_tables_are_those_of_the_code():
    for heading, table in TABLES.items():
        assert list(rows(section(PAGE, heading))) == table, f"{heading}: run this file"


def test_the_settings_for_other_places_are_settings():
    table = list(rows(section(PAGE, "## Settings for a laptop, a lab, a public server")))
    names = [row[0].strip("`").removeprefix(PREFIX).lower() for row in table]
    laptop, _, _ = (
        Settings(**{name: row[place].strip("`") for name, row in zip(names, table, strict=True)})
        for place in (1, 2, 3)
    )
    assert laptop == Settings()


def test_the_pages_are_those_of_the_code():
    routers = (pages.router, analyses.pages_router, submissions.pages_router, moderation.pages_router)
    paths = {row[0] for row in routes(*routers)}
    assert set(re.findall(r"`[^`]+`", section(PAGE, "### Pages"))) == paths


def codes(text: str) -> Iterator[str]:
    """Codes of the errors that a module makes."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        place = {"request_error": 1, "add": 0, "unusable": 0}.get(name)
        found = [node.args[place]] if place is not None and len(node.args) > 1 else []
        found += [each.value for each in node.keywords if each.arg == "code"]
        for each in found:
            yield from (part.value for part in ast.walk(each) if isinstance(part, ast.Constant))


def test_the_codes_of_errors_are_those_documented():
    made = set()
    for path in SOURCE:
        text = path.read_text(encoding="utf-8")
        made |= {code for code in codes(text) if isinstance(code, str)}
    table = section(PAGE, "## Errors").rpartition("```")[2]
    assert set(re.findall(r"`(\w+)`", table)) == made


if __name__ == "__main__":
    for heading, table in TABLES.items():
        sys.stdout.write(f"\n{heading}\n\n")
        for row in table:
            cells = (cell.replace("|", "\\|") for cell in row)
            sys.stdout.write(f"| {' | '.join(cells)} |\n".replace("|  |", "| |"))
