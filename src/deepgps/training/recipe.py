"""Recipes: everything that decides a training run, in one YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Discriminator, TypeAdapter, ValidationError

from deepgps.errors import InputError
from deepgps.training.joint.settings import JointRecipe
from deepgps.training.mini.settings import MiniRecipe

__all__ = ["RECIPE", "JointRecipe", "MiniRecipe", "Recipe", "load_recipe", "shipped_recipes"]

RECIPE = "recipe.yaml"
"""Name of the recipe in a run's folder."""

Recipe = MiniRecipe | JointRecipe
_RECIPES: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Discriminator("kind")])


def shipped_recipes() -> dict[str, Path]:
    """Recipes in the package, by name."""
    folder = Path(str(files("deepgps.training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe of the package by name, or any by path.

    Raises
    ------
    InputError
        If there is none, or a field of it is unknown or wrong.
    """
    shipped = shipped_recipes()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        raise InputError(f"Recipe '{name_or_path}' is neither a file nor one of {', '.join(shipped)}.")
    try:
        return _RECIPES.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe '{path}' is not YAML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        # The first part is the kind, which the user did not write there.
        where = ".".join(str(part) for part in first["loc"][1:]) or "(all of it)"
        raise InputError(f"Recipe '{path}', field '{where}': {first['msg']}.") from None
