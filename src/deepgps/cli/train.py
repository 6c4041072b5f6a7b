"""``deepgps train`` and ``deepgps export``."""

from pathlib import Path


def train(recipe: str, *, data: Path, out: Path, resume: bool = False) -> None:
    """Train a model by a recipe.

    Parameters
    ----------
    recipe
        Name of a recipe in the package (``mini``), or a YAML file.
    data
        Folder with ``sequences/`` and ``images/``.
    out
        Folder of the run; made if missing.
    resume
        Go on with the run that the folder holds.
    """
    from deepgps.training.mini.run import train as run
    from deepgps.training.recipe import load_recipe

    run(load_recipe(recipe), data, out, resume=resume)
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
