"""``deepgps train``, ``deepgps finetune`` and ``deepgps export``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Data, folder and settings of a training run.

    Parameters
    ----------
    data
        The crop store; to train ``mini``, the folder with ``sequences/`` and ``images/``.
    out
        Folder of the run; created if missing.
    settings
        Change a setting of the recipe, such as ``training.max_epochs=3``; can be repeated.
    resume
        Continue the run in the folder.
    split
        The split; by default ``split.csv`` in the store, else a new one.
    structures
        Folder of structures, for recipes that use them.
    cache
        Folder of the embedding cache.
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

    loaded = load_recipe(recipe, training.settings or ())
    if isinstance(loaded, MiniRecipe):
        _check_options(recipe, training)
        from deepgps.training.mini.train import train_mini

        train_mini(loaded, training.data, training.out, resume=training.resume)
        _print_folder(training.out)
        return
    from deepgps.training.joint.train import train_joint
    from deepgps.training.loop import is_main_process

    train_joint(
        loaded,
        training.data,
        training.out,
        resume=training.resume,
        split=training.split,
        structures=training.structures,
        cache=training.cache,
        offline=training.offline,
    )
    if is_main_process():
        _print_folder(training.out)


def _check_options(recipe: str, training: Training) -> None:
    from deepgps.errors import InputError

    for name in ("split", "structures", "cache", "offline"):
        if getattr(training, name):
            raise InputError(f"Recipe '{recipe}' does not use --{name}; leave it out.")


def _print_folder(run: Path) -> None:
    print(f"The run is in {run}; `deepgps export {run} --to BUNDLE` makes it a bundle.")


def finetune(source: str, *, training: Training) -> None:
    """Continue training a model on your own crops.

    Parameters
    ----------
    source
        Folder of a finished run, or name or path of a bundle.
    """
    from deepgps.training.finetune import finetune_model

    before, after = finetune_model(
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
        print("It is not better: `--set` a smaller learning_rate or more epochs, or use more crops.")
    _print_folder(training.out)


def export(run: Path, *, to: Path, metrics: list[Path] | None = None) -> None:
    """Export a finished run to a model bundle.

    Parameters
    ----------
    run
        Folder of the run.
    to
        Folder of the bundle; files of an earlier one are replaced.
    metrics
        JSON files of measured metrics to include in the bundle and its card.
    """
    from deepgps.training.export import export_run

    bundle = export_run(run, to, metrics or ())
    name = f"{bundle.metadata.name} {bundle.metadata.version}"
    print(f"{name} is in {to}; `deepgps predict … --model {to}` uses it.")
