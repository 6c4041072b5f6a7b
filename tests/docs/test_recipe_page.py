"""The page on recipes says every field, its default and what it means, for each kind."""

import json
from collections.abc import Iterator

import pytest
from documents import document, first_names, rows, section
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from deepgps.training.recipe import RECIPE_KINDS, group_of, recipe_table, shipped_recipes

PAGE = document("docs/reference/recipes.md")


def groups() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Kind, name and schema of every group of fields; a kind's own fields have no name."""
    for kind, schema in RECIPE_KINDS.items():
        yield kind, "", schema
        yield from ((kind, *group) for group in groups_within(schema))


def groups_within(schema: type[BaseModel], within: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in schema.model_fields.items():
        if group := group_of(field):
            yield within + name, group
            yield from groups_within(group, f"{within}{name}.")


def default_of(field) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "as below"
    return f"`{json.dumps(field.default)}`".replace('"', "")


def expected(schema) -> str:
    """The table as it should be."""
    lines = [
        f"| `{name}` | {default_of(field)} | {' '.join(field.description.replace('``', '`').split())} |"
        for name, field in schema.model_fields.items()
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(("kind", "name", "schema"), list(groups()))
def test_the_fields_are_those_documented(kind, name, schema):
    heading = f"### {kind}: {name}" if name else f"## Recipes of the kind {kind}"
    text = section(PAGE, heading).partition("\n### ")[0]
    shown = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert shown == expected(schema), f"below '{heading}' should stand\n{expected(schema)}"


def test_the_recipes_are_those_documented():
    listed = {row[0].strip("`"): row[1:] for row in rows(section(PAGE, "## Recipes of the package"))}
    assert listed == {name: [classes, inputs, what] for name, classes, inputs, what in recipe_table()}
    assert first_names(section(PAGE, "## Recipes of the package")) == list(shipped_recipes())
