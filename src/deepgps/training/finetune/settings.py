"""The recipe of a fine-tuning: that of the model, with small steps and few epochs, and what one changes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepgps.errors import InputError
from deepgps.training.finetune.base import Base
from deepgps.training.recipe import MiniRecipe, Recipe, parse_recipe, with_changes

EPOCHS = 10
SLOWER = 10
"""The learning rate is so many times smaller than it was."""

# What a network and its meaning hang on, and what in it may be another all the same.
_FIXED = ("kind", "class_set", "crop", "protein", "model", "labels")
_FIXED_IMAGES = ("widths", "fold", "margin", "latent_dim")
_FREE = ("protein.encoder", "model.dropout")


def tuned_recipe(base: Base, changes: Sequence[str], cell_lines: Sequence[str]) -> Recipe:
    """Make the recipe of a fine-tuning.

    Parameters
    ----------
    base
        What it starts from.
    changes
        Settings that are to be others, ``training.max_epochs=3`` each.
    cell_lines
        The cells of the crops, as far as they are named.

    Raises
    ------
    InputError
        If a setting is unknown or wrong, or another network or class set would come of it.
    """
    content = base.recipe.model_dump(mode="json")
    content["name"] += "-finetuned"
    if isinstance(base.recipe, MiniRecipe):
        _gently(content["images"], "epochs")
        _gently(content["images"]["grain"], "epochs")
        content["cell_line"] = " and ".join(cell_lines) or content["cell_line"]
    else:
        _gently(content["training"], "max_epochs")
        content["cell_line"] = cell_lines[0] if len(cell_lines) == 1 else None
    recipe = parse_recipe(with_changes(content, changes), base.name)
    _check_same_network(base, recipe)
    return recipe


def _gently(training: dict[str, Any], epochs: str) -> None:
    training[epochs] = EPOCHS
    training["learning_rate"] /= SLOWER


def _check_same_network(base: Base, recipe: Recipe) -> None:
    before, after = (dict(_values(each.model_dump(mode="json"))) for each in (base.recipe, recipe))
    for path in before | after:
        if before.get(path) != after.get(path) and _is_fixed(path):
            raise InputError(
                f"Fine-tuning keeps the network and its classes: '{path}' is {before.get(path)!r} in "
                f"'{base.name}'; leave it as it is."
            )
    if bool(before.get("losses.label")) != bool(after.get("losses.label")):
        kept = "has a classifier" if before["losses.label"] else "has no classifier"
        raise InputError(f"'{base.name}' {kept}, and fine-tuning keeps that; leave losses.label as it is.")


def _values(content: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _is_fixed(path: str) -> bool:
    group, _, name = path.partition(".")
    return path not in _FREE and (group in _FIXED or (group == "images" and name in _FIXED_IMAGES))
