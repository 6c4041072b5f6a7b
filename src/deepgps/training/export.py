"""From a training run to a model bundle, whichever kind of recipe it was."""

import json
from collections.abc import Sequence
from pathlib import Path

from deepgps.bundle import Bundle, Metric
from deepgps.errors import InputError
from deepgps.training.recipe import RECIPE, MiniRecipe, load_recipe


def export(run: Path, to: Path, metric_files: Sequence[Path] = ()) -> Bundle:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run
        Folder of the run.
    to
        Folder of the bundle.
    metric_files
        JSON files of measured figures for ``bundle.json`` and the card: name to value, low, high, n.

    Raises
    ------
    InputError
        If the folder holds no run, or one that is not finished.
    DeepGPSError
        If a graph does not answer as its module does.
    """
    if not (run / RECIPE).exists():
        raise InputError(f"'{run}' holds no run: it has no {RECIPE}; train one with `deepgps train`.")
    recipe = load_recipe(str(run / RECIPE))
    metrics = {name: metric for path in metric_files for name, metric in read_metrics(path).items()}
    if isinstance(recipe, MiniRecipe):
        from deepgps.training.mini.export import export as export_mini

        return export_mini(run, recipe, to, metrics)
    from deepgps.training.joint.export import export as export_joint

    return export_joint(run, recipe, to, metrics)


def read_metrics(path: Path) -> dict[str, Metric]:
    """Read measured figures.

    Raises
    ------
    InputError
        If the file is missing or not of that form.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        # As `deepgps evaluate` writes it, with what was measured beside the figures.
        entries = entries.get("metrics", entries)
        return {name: Metric.model_validate(entry) for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"Metrics file '{path}' cannot be used: {error}.") from None
