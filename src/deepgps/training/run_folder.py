"""The folder of a training run: one recipe, one set of data, one writer."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deepgps.errors import InputError
from deepgps.files import atomic_path, lock_folder, remove_temporary_files
from deepgps.training.recipe import RECIPE, Recipe, load_recipe

INPUTS, RUN_MANIFEST, BASE = "inputs.json", "manifest.json", "base.json"
MACHINE_FIELDS = frozenset({"devices", "nodes", "workers", "checkpoint_minutes"})
"""Settings of the machine: a resumed run may change them."""


@contextmanager
def claimed(run: Path, recipe: Recipe, inputs: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """Lock a run's folder, and write recipe and inputs or check that they are the same.

    Settings of the machine (`MACHINE_FIELDS`) may differ.

    Parameters
    ----------
    run
        The folder; created if missing.
    recipe, inputs
        What the run is made of.
    resume
        Whether the folder may hold a run already.

    Raises
    ------
    InputError
        If the folder holds a run that is not resumed, or one of another recipe or other data, or another
        process writes to it.
    """
    run.mkdir(parents=True, exist_ok=True)
    handle = lock_folder(run)
    try:
        for folder in (run, *run.glob("**/checkpoints")):
            remove_temporary_files(folder)
        _write_or_check(run, recipe, inputs, resume=resume)
        yield
    finally:
        os.close(handle)


def _write_or_check(run: Path, recipe: Recipe, inputs: Mapping[str, Any], *, resume: bool) -> None:
    path = run / RECIPE
    if not path.exists():
        write_json(run / INPUTS, inputs)
        text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        with atomic_path(path) as draft:
            draft.write_text(text, encoding="utf-8")
    elif not resume:
        raise InputError(f"'{run}' already holds a run; add --resume to continue it, or use another folder.")
    elif _without_machine(load_recipe(str(path))) != _without_machine(recipe):
        raise InputError(f"'{run}' was started with another recipe than '{recipe.name}'; use another folder.")
    elif read_json(run / INPUTS) != inputs:
        raise InputError(f"'{run}' was started with other data; use another folder.")


def _without_machine(recipe: Recipe) -> Any:
    def kept(content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {name: kept(value) for name, value in content.items() if name not in MACHINE_FIELDS}

    return kept(recipe.model_dump(mode="json"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; return an empty dict if there is none."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def write_base(run: Path, name: str, fingerprint: str, metrics: Mapping[str, float]) -> None:
    """Record the model that a run fine-tunes, and its metrics on the run's validation part."""
    write_json(run / BASE, {"name": name, "fingerprint": fingerprint, "before": dict(metrics)})
