"""``deepgps train``, ``deepgps finetune`` and ``deepgps export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from deepgps.training.recipe import JointRecipe

_Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What to train on, and where.

    Parameters
    ----------
    data
        The crop store; to train ``mini``, the folder with ``sequences/`` and ``images/``.
    out
        Folder of the run; made if missing.
    settings
        A setting of the recipe that is to be another, ``training.max_epochs=3``; may be given several times.
    resume
        Go on with the run that the folder holds.
    split
        The split; ``split.csv`` in the store, else one is made.
    structures
        Folder of structures, for recipes that look at them.
    cache
        Folder of the cache of embeddings.
    offline
        Never use the network; the encoder must be on this machine.
    """

    data: Path
    out: Path
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None
    resume: _Flag = False
    split: Path | None = None
    structures: Path | None = None
    cache: Path | None = None
    offline: _Flag = False


def train(recipe: str, *, training: Training) -> None:
    """Train a model by a recipe.

    Parameters
    ----------
    recipe
        Name of a recipe in the package (``deepgps recipes`` lists them), or a YAML file.
    """
    from deepgps.training.recipe import MiniRecipe, load_recipe

    settled = load_recipe(recipe, training.settings or ())
    if isinstance(settled, MiniRecipe):
        _refuse(recipe, training)
        from deepgps.training.mini.run import train as train_mini

        train_mini(settled, training.data, training.out, resume=training.resume)
        _say_where(training.out)
    elif _train_joint(settled, training):
        _say_where(training.out)


def _train_joint(recipe: "JointRecipe", training: Training) -> bool:
    """Train by a recipe of the paper's kind; whether this is the process that speaks."""
    from deepgps.training.joint.learning.devices import main_process
    from deepgps.training.joint.run import train

    train(
        recipe,
        training.data,
        training.out,
        resume=training.resume,
        split=training.split,
        structures=training.structures,
        cache=training.cache,
        offline=training.offline,
    )
    return main_process()


def _refuse(recipe: str, training: Training) -> None:
    from deepgps.errors import InputError

    for name in ("split", "structures", "cache", "offline"):
        if getattr(training, name):
            raise InputError(f"Recipe '{recipe}' has no use for --{name}; leave it out.")


def _say_where(run: Path) -> None:
    print(f"The run is in {run}; `deepgps export {run} --to BUNDLE` makes a bundle of it.")


def finetune(source: str, *, training: Training) -> None:
    """Train a model on, on a lab's own crops.

    Parameters
    ----------
    source
        Folder of a finished run, or name or path of a bundle.
    """
    from deepgps.training.finetune.run import finetune as run

    before, after = run(
        source,
        training.data,
        training.out,
        training.settings or (),
        resume=training.resume,
        split=training.split,
        structures=training.structures,
        cache=training.cache,
        offline=training.offline,
    )
    print(f"Validation loss: {before:.4g} before, {after:.4g} after.")
    if after >= before:
        print("It is no better: `--set` a smaller learning_rate or more epochs, or give more crops.")
    _say_where(training.out)


def export(run: Path, *, to: Path, metrics: list[Path] | None = None) -> None:
    """Export a finished run to a model bundle.

    Parameters
    ----------
    run
        Folder of the run.
    to
        Folder of the bundle; files of an earlier one are replaced.
    metrics
        JSON files of measured figures to quote in the bundle and its card.
    """
    from deepgps.training.export import export as write

    bundle = write(run, to, metrics or ())
    name = f"{bundle.metadata.name} {bundle.metadata.version}"
    print(f"{name} is in {to}; `deepgps predict … --model {to}` uses it.")
