"""Who a run's folder belongs to: one recipe, one set of data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.training.recipe import RECIPE, Recipe, load_recipe

INPUTS = "inputs.json"


def claim(run: Path, recipe: Recipe, inputs: Mapping[str, Any], *, resume: bool) -> None:
    """Put recipe and inputs into the run's folder, or see that they are the ones already there.

    What a recipe says of the machine (`MACHINE_FIELDS`) may change.

    Raises
    ------
    InputError
        If the folder holds a run that is not to be resumed, or one of another recipe or other data.
    """
    path = run / RECIPE
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        write_json(run / INPUTS, inputs)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        with atomic_path(path) as draft:
            draft.write_text(text, encoding="utf-8")
    elif not resume:
        raise InputError(
            f"'{run}' holds a run already; add --resume to go on with it, or name another folder."
        )
    elif _lasting(load_recipe(str(path))) != _lasting(recipe):
        raise InputError(f"'{run}' was begun with another recipe than '{recipe.name}'; name another folder.")
    elif json.loads((run / INPUTS).read_text(encoding="utf-8")) != inputs:
        raise InputError(f"'{run}' was begun with other data; name another folder.")


MACHINE_FIELDS = frozenset({"devices", "nodes", "workers", "checkpoint_minutes"})
"""Fields of ``training`` that decide where and how often, not what."""


def _lasting(recipe: Recipe) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json")
    training = {
        name: value for name, value in fields.get("training", {}).items() if name not in MACHINE_FIELDS
    }
    return fields | {"training": training}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
