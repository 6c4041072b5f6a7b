"""The label half of a model like the bundled one, taken over as it is."""

import shutil
from pathlib import Path

from safetensors.torch import save_file

from deepgps.bundle import NEIGHBOURS_FILE, open_bundle
from deepgps.files import atomic_path
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.claim import write_json
from deepgps.training.finetune.base import Base
from deepgps.training.mini.class_sets import FILE as CLASS_SETS
from deepgps.training.mini.settings import LabelSettings
from deepgps.training.weights import rebuilt

ABOUT, ENCODER, INDEX = "encoder.json", "encoder.safetensors", NEIGHBOURS_FILE
"""What the half says of itself, its weights, and the annotated proteins that serve it."""


def write_label_half(base: Base, settings: LabelSettings, folder: Path) -> None:
    """Write the half of a run or a bundle into a run's folder, the description last.

    Parameters
    ----------
    base
        The run or the bundle.
    settings
        What it was trained with.
    folder
        Where to; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if base.bundled:
        _write_bundled(base.source, settings, folder)
        return
    further = (CLASS_SETS,) if (base.source / "labels" / CLASS_SETS).exists() else ()
    for name in (INDEX, ENCODER, *further, ABOUT):
        with atomic_path(folder / name) as draft:
            shutil.copyfile(base.source / "labels" / name, draft)


def _write_bundled(path: Path, settings: LabelSettings, folder: Path) -> None:
    bundle = open_bundle(path)
    metadata, encoder = bundle.metadata, rebuilt(bundle).encoder.get_submodule("encoder")
    index = bundle.read(INDEX)
    with atomic_path(folder / INDEX) as draft:
        draft.write_bytes(index)
    with atomic_path(folder / ENCODER) as draft:
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, draft)
    if metadata.class_sets:
        sets = {name: spec.model_dump(mode="json") for name, spec in metadata.class_sets.items()}
        write_json(folder / CLASS_SETS, sets)
    proteins = NeighbourIndex.from_bytes(index)
    about = {
        "features_name": metadata.encoder.name,
        "features": metadata.encoder.dimension,
        "votes": proteins.vote_size,
        "classes": list(metadata.classes),
        "thresholds": list(metadata.thresholds),
        "unclear_below": metadata.unclear_below,
        "unlike_below": metadata.unlike_below,
        "widths": list(settings.widths),
        "members": settings.members,
        "proteins": len(proteins.accessions),
    }
    write_json(folder / ABOUT, about)
