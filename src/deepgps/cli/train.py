"""``deepgps train``, ``deepgps finetune`` and ``deepgps export``."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

_Flag = Annotated[bool, Parameter(negative=())]
_Settings = Annotated[list[str] | None, Parameter(name="--set", negative=())]


def train(
    recipe: str,
    *,
    data: Path,
    out: Path,
    settings: _Settings = None,
    resume: _Flag = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: _Flag = False,
) -> None:
    """Train a model by a recipe.

    Parameters
    ----------
    recipe
        Name of a recipe in the package (``deepgps recipes`` lists them), or a YAML file.
    data
        The crop store; for ``mini`` the folder with ``sequences/`` and ``images/``.
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
    from deepgps.training.recipe import MiniRecipe, load_recipe

    settled = load_recipe(recipe, settings or ())
    if isinstance(settled, MiniRecipe):
        _refuse(
            recipe, {"--split": split, "--structures": structures, "--cache": cache, "--offline": offline}
        )
        from deepgps.training.mini.run import train as train_mini

        train_mini(settled, data, out, resume=resume)
    else:
        from deepgps.training.joint.devices import main_process
        from deepgps.training.joint.run import train as train_joint

        options: dict[str, Any] = {"split": split, "structures": structures, "cache": cache}
        train_joint(settled, data, out, resume=resume, offline=offline, **options)
        if not main_process():
            return
    print(f"The run is in {out}; `deepgps export {out} --to BUNDLE` makes a bundle of it.")


def _refuse(recipe: str, options: dict[str, object]) -> None:
    from deepgps.errors import InputError

    if given := [name for name, value in options.items() if value]:
        raise InputError(f"Recipe '{recipe}' has no use for {given[0]}; leave it out.")


def finetune(
    source: str,
    *,
    data: Path,
    out: Path,
    settings: _Settings = None,
    resume: _Flag = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: _Flag = False,
) -> None:
    """Train a model on, on a lab's own crops.

    Parameters
    ----------
    source
        Folder of a finished run, or name or path of a bundle.
    data
        The crop store.
    out
        Folder of the run that comes of it; made if missing.
    settings
        A setting of the recipe that is to be another, ``training.max_epochs=3``; may be given several times.
    resume
        Go on with the run that the folder holds.
    split
        The split; ``split.csv`` in the store, else one is made.
    structures
        Folder of structures, for models that look at them.
    cache
        Folder of the cache of embeddings.
    offline
        Never use the network; the encoder must be on this machine.
    """
    from deepgps.training.finetune.run import finetune as run

    options: dict[str, Any] = {"split": split, "structures": structures, "cache": cache}
    before, after = run(source, data, out, settings or (), resume=resume, offline=offline, **options)
    print(f"Validation loss: {before:.4g} before, {after:.4g} after.")
    if after >= before:
        print("It is no better: `--set` a smaller learning_rate or more epochs, or give more crops.")
    print(f"The run is in {out}; `deepgps export {out} --to BUNDLE` makes a bundle of it.")


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
