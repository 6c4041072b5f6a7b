"""Recipes: everything that decides a training run, in one YAML file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deepgps.errors import InputError
from deepgps.training.joint.settings import JointRecipe
from deepgps.training.mini.settings import MiniRecipe
from deepgps.training.recipe_fields import first_unknown, meaning, nearest, paths

__all__ = ["RECIPE", "JointRecipe", "MiniRecipe", "Recipe", "load_recipe", "shipped_recipes"]

RECIPE = "recipe.yaml"
"""Name of the recipe in a run's folder."""

Recipe = MiniRecipe | JointRecipe
KINDS: Mapping[str, type[Recipe]] = {"mini": MiniRecipe, "joint": JointRecipe}
_KINDS = "write 'kind: joint' for a model of the paper, or 'kind: mini' for one like the bundled model"


def shipped_recipes() -> dict[str, Path]:
    """Recipes in the package, by name."""
    folder = Path(str(files("deepgps.training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def load_recipe(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe of the package by name, or any by path.

    Parameters
    ----------
    name_or_path
        Its name or its file.
    changes
        Settings that are to be others, ``training.max_epochs=3`` each; the value is YAML.

    Raises
    ------
    InputError
        If there is none, or a field of it is unknown or wrong.
    """
    return parse_recipe(with_changes(_content(recipe_path(name_or_path)), changes), name_or_path)


def recipe_path(name_or_path: str) -> Path:
    """Find the file of a recipe.

    Raises
    ------
    InputError
        If there is none.
    """
    shipped = shipped_recipes()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise InputError(f"Recipe '{name_or_path}' is neither a file nor one of {', '.join(shipped)}.")
    return path


def with_changes(content: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Change fields of a recipe in place, ``training.max_epochs=3`` each; the value is YAML.

    Raises
    ------
    InputError
        If a change is of another form.
    """
    for change in changes:
        _change(content, change)
    return content


def parse_recipe(content: Mapping[str, Any], name: str) -> Recipe:
    """Make a recipe of its fields.

    Parameters
    ----------
    content
        The fields, as YAML gives them.
    name
        What to call it in a refusal.

    Raises
    ------
    InputError
        If it does not say of which kind it is, or a field is unknown or wrong.
    """
    kind = content.get("kind")
    if kind is None:
        raise InputError(f"Recipe '{name}' does not say its kind; {_KINDS}.")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"Recipe '{name}' is of the unknown kind '{kind}'; {_KINDS}.")
    schema = KINDS[kind]
    if unknown := first_unknown(content, schema):
        close = nearest(unknown, paths(schema))
        raise InputError(f"Recipe '{name}' has no field '{unknown}'; the nearest is '{close}'.")
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise InputError(f"Recipe '{name}'{_wrong(error, schema)}") from None


def _wrong(error: ValidationError, schema: type[Recipe]) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not (where := ".".join(str(part) for part in first["loc"])):
        return f": {reason}."
    given = f" cannot be {first['input']!r}" if isinstance(first["input"], str | int | float | list) else ""
    meant = f" ({text})" if (text := meaning(where, schema)) else ""
    return f", field '{where}'{given}: {reason}{meant}."


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe '{path}' is not YAML: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"Recipe '{path}' holds no fields; write them as 'name: value', one a line.")
    return content


def _change(content: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign or not key.strip():
        raise InputError(f"'--set {change}' is no KEY=VALUE; write it like training.max_epochs=3.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"The value in '--set {change}' is not YAML; put it in quotes.") from None
    *groups, name = key.strip().split(".")
    for group in groups:
        inner = content.get(group)
        content[group] = inner = dict(inner) if isinstance(inner, dict) else {}
        content = inner
    content[name] = value
