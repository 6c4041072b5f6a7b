"""Fine-tuning, whichever model it starts from."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepgps.datasets.crops.store import open_crops
from deepgps.errors import InputError
from deepgps.training.finetune.base import open_base
from deepgps.training.finetune.settings import tuned_recipe
from deepgps.training.joint.names import HISTORY
from deepgps.training.origin import read_origin
from deepgps.training.recipe import JointRecipe


def finetune(
    source: str,
    store: Path,
    run: Path,
    changes: Sequence[str] = (),
    *,
    resume: bool = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> tuple[float, float]:
    """Train a model on, on a crop store.

    Parameters
    ----------
    source
        Folder of a finished run, or name or path of a bundle.
    store
        The crop store.
    run
        Folder of the run that comes of it; made if missing.
    changes
        Settings that are to be others, ``training.max_epochs=3`` each.
    resume, split, structures, cache, offline
        As in training; a model like the bundled one has no use for the last three.

    Returns
    -------
    tuple of float
        The validation loss before, and of the weights that are kept.

    Raises
    ------
    InputError
        If the model, the crops or a setting cannot be used, or the folder holds another run.
    """
    base = open_base(source)
    lines = [line for line in open_crops(store).index["cell_line"].unique().sort() if line]
    recipe = tuned_recipe(base, changes, lines)
    if isinstance(recipe, JointRecipe):
        from deepgps.training.finetune.joint import Start
        from deepgps.training.joint.run import train

        options: dict[str, Any] = {"split": split, "structures": structures, "cache": cache}
        train(recipe, store, run, resume=resume, offline=offline, start_from=Start(base), **options)
        return read_origin(run)["before"]["validation_loss"], _kept_loss(run, recipe)
    from deepgps.training.finetune.mini import AFTER, ERROR, finetune_mini

    given = {"--structures": structures, "--cache": cache, "--offline": offline}
    if useless := [name for name, value in given.items() if value]:
        raise InputError(f"'{base.name}' has no use for {useless[0]}; leave it out.")
    finetune_mini(base, recipe, store, run, resume=resume, split=split)
    after = json.loads((run / AFTER).read_text(encoding="utf-8"))
    return read_origin(run)["before"][ERROR], after[ERROR]


def _kept_loss(run: Path, recipe: JointRecipe) -> float:
    from deepgps.training.joint.learning.validate import IMAGE_LOSS

    with (run / HISTORY).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row[f"validation_{IMAGE_LOSS}"]))
    return float((best if recipe.training.keep == "best" else rows[-1])["validation_loss"])
