"""Recipes to be read: what each is for, and every field of one with what it means."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from pydantic import BaseModel

from deepgps.localization import class_set
from deepgps.training.recipe import JointRecipe, Recipe, load_recipe, recipe_path, shipped_recipes

_WIDTH = 108
_INDENT = "  "


def recipe_table() -> list[tuple[str, str, str, str]]:
    """Every recipe of the package: name, classes, inputs, what it is for."""
    return [
        (name, classes(recipe), ", ".join(inputs(recipe)), purpose(path))
        for name, path in shipped_recipes().items()
        for recipe in [load_recipe(name)]
    ]


def classes(recipe: Recipe) -> str:
    """What a recipe's model names, such as ``2, one a protein``."""
    if isinstance(recipe, JointRecipe) and not recipe.losses.label:
        return "none"
    found = class_set(recipe.class_set)
    return f"{len(found.slugs)}, {'several' if found.multi_label else 'one'} a protein"


def inputs(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe's model looks at."""
    return ("nucleus", *(recipe.protein.inputs if isinstance(recipe, JointRecipe) else ("sequence",)))


def purpose(path: Path) -> str:
    """What a recipe is for, by the comment in its first line; nothing where there is none."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def whole_recipe(name_or_path: str) -> str:
    """Spell a recipe out: every field, those at their defaults too, below a comment that says what it means.

    Returns
    -------
    str
        YAML that reads as the same recipe.

    Raises
    ------
    InputError
        If there is no such recipe, or it cannot be used.
    """
    recipe, said = load_recipe(name_or_path), purpose(recipe_path(name_or_path))
    head = [f"# {said}"] if said else []
    return "\n".join([*head, *_lines(recipe, "")]) + "\n"


def _lines(group: BaseModel, indent: str) -> Iterator[str]:
    values = group.model_dump(mode="json")
    for name, field in type(group).model_fields.items():
        meant = " ".join((field.description or "").replace("``", "").split())
        yield from (f"{indent}# {line}" for line in wrap(meant, _WIDTH - len(indent)))
        value = getattr(group, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + _INDENT)
        else:
            yield f"{indent}{name}: {_text(values[name])}"


def _text(value: Any) -> str:
    """Write a value on one line."""
    text = yaml.safe_dump([value], sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000)
    return text.strip()[1:-1]
