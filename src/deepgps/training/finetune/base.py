"""What fine-tuning starts from: the recipe and the weights of a finished run, or of a bundle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from deepgps.bundle import METADATA_FILE, find_bundle, open_bundle
from deepgps.datasets.crops.store import MANIFEST
from deepgps.errors import InputError
from deepgps.training.mini.run import GENERATOR
from deepgps.training.recipe import RECIPE, MiniRecipe, Recipe, load_recipe
from deepgps.training.weights import bundle_recipe, rebuilt

SEEN, AT_ONCE = 256, 32
"""Crops from which the statistics of folded batch norms are taken, and how many are drawn at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A trained model to go on from.

    Attributes
    ----------
    source
        Where it is.
    bundled
        Whether that is a bundle, and not the folder of a run.
    name
        Its name and version.
    recipe
        What it was trained by.
    fingerprint
        Sha256 of what holds its weights.
    encoder
        What it was told of sequences: ``name``, ``fingerprint`` and ``dimension``.
    weights
        Of the network, or of the generator of a model like the bundled one; folded if they are a bundle's.
    """

    source: Path
    bundled: bool
    name: str
    recipe: Recipe
    fingerprint: str
    encoder: Mapping[str, Any]
    weights: Mapping[str, Tensor]


def open_base(source: str) -> Base:
    """Open a finished run by its folder, or a bundle by its name or path.

    Raises
    ------
    InputError
        If it is neither, or not finished, or damaged.
    """
    path = Path(source)
    if (path / RECIPE).exists() and not (path / METADATA_FILE).exists():
        return _of_run(path)
    return _of_bundle(find_bundle(source))


def _of_run(run: Path) -> Base:
    recipe = load_recipe(str(run / RECIPE))
    mini = isinstance(recipe, MiniRecipe)
    about, weights = run / "encoder.json", run / "weights.safetensors"
    if mini:
        about, weights = run / "labels" / "encoder.json", run / "images" / GENERATOR
    if not (run / MANIFEST).exists():
        raise InputError(f"'{run}' holds no finished run; go on with it, adding --resume.")
    encoder = json.loads(about.read_text(encoding="utf-8"))
    fingerprint = hashlib.sha256(weights.read_bytes()).hexdigest()
    return Base(
        run, False, f"{recipe.name} {recipe.version}", recipe, fingerprint, encoder, load_file(weights)
    )


def _of_bundle(path: Path) -> Base:
    bundle = open_bundle(path)
    recipe, modules, metadata = bundle_recipe(bundle), rebuilt(bundle), bundle.metadata
    if isinstance(recipe, MiniRecipe):
        weights = {f"unet.{name}": value for name, value in modules.generator.state_dict().items()}
        weights["tokens.tokens"] = modules.encoder.get_parameter("tokens.tokens").detach()
    else:
        weights = modules.encoder.get_submodule("model").state_dict()
    name = f"{metadata.name} {metadata.version}"
    return Base(path, True, name, recipe, bundle.sha256, metadata.encoder.model_dump(), weights)


def not_its_network(base: Base, error: RuntimeError) -> str:
    """Say that weights are not of the network that their recipe describes."""
    why = str(error).splitlines()[-1].strip()
    return f"The weights of '{base.source}' are not of its recipe's network ({why}); take another model."
