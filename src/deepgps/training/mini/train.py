"""``deepgps train`` for a model like the bundled one: labels from tables, then images from fields.

The run's folder has ``recipe.yaml``, ``inputs.json`` (sha256 of the tables), ``labels/``, ``images/`` (the
packed images and the two networks) and at the end ``manifest.json``. Each finished stage is kept.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

import deepgps
from deepgps.datasets.labels import load_labelled_proteins, opencell_localizations
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, class_set
from deepgps.models.flow_matching import FlowMatchingUNet
from deepgps.training.mini.class_sets import CLASS_SETS_FILE, PAPER_SETS, fit_class_sets
from deepgps.training.mini.image_pack import ImagePack, reference_pack
from deepgps.training.mini.images import (
    GRAIN_STAGE,
    STRUCTURE_STAGE,
    GrainTask,
    StructureTask,
    fit_stage,
    write_network,
)
from deepgps.training.mini.labels import LABEL_ENCODER, fit_labels
from deepgps.training.recipe import ImageSettings, MiniRecipe
from deepgps.training.run_folder import RUN_MANIFEST, claimed, write_json

PACKED = {STRUCTURE_STAGE: "structure.npz", GRAIN_STAGE: "grain.npz"}
IMAGE_WEIGHTS = {STRUCTURE_STAGE: "structure.safetensors", GRAIN_STAGE: "grain.safetensors"}
"""Packed images and weights of each stage, in ``images/``."""


def train_mini(recipe: MiniRecipe, data: Path, run: Path, *, resume: bool = False) -> None:
    """Train a model like the bundled one.

    Parameters
    ----------
    recipe
        The recipe.
    data
        Folder with ``sequences/`` and ``images/``.
    run
        Folder of the run; created if missing.
    resume
        Continue the run in the folder; finished stages are not repeated.

    Raises
    ------
    InputError
        If the data are missing, the folder holds another run or one that is not resumed, or another process
        writes to it.
    """
    for part in ("sequences", "images"):
        if not (data / part).is_dir():
            raise InputError(f"Data folder '{data}' has no '{part}' folder; give the folder that holds both.")
    classes = class_set(recipe.class_set)
    inputs = _fingerprints(data)
    with claimed(run, recipe, inputs, resume=resume):
        proteins = load_labelled_proteins(data, classes)
        labels, images = run / "labels", run / "images"
        if not (labels / LABEL_ENCODER).exists():
            fit_labels(proteins, recipe.labels, labels)
        if recipe.class_set == "mini" and not (labels / CLASS_SETS_FILE).exists():
            fine = load_labelled_proteins(data, CLASS_SETS["all"])
            sets = [CLASS_SETS[name] for name in PAPER_SETS]
            fit_class_sets(proteins, fine, opencell_localizations(data), sets, labels)

        def packed(stage: str) -> ImagePack:
            path, um = images / PACKED[stage], recipe.crop.pixel_size_um
            if not path.exists():
                pack_reference(stage, data / "images", path, recipe.class_set, um)
            return ImagePack.load(path)

        fit_images(packed, recipe.images, images, recipe.images.source_shares.model_dump())
        manifest = {"deepgps": deepgps.__version__, "torch": torch.__version__, "proteins": len(proteins)}
        write_json(run / RUN_MANIFEST, {**manifest, "inputs": inputs})


def pack_reference(stage: str, images: Path, path: Path, classes: str, um: float) -> None:
    """Pack the reference images for a stage of a model whose crops have pixels of `um` micrometres."""
    grain = stage == GRAIN_STAGE
    reference_pack(images, class_set(classes), um if grain else 2 * um, grain=grain).save(path)


def fit_images(
    packed: Callable[[str], ImagePack],
    settings: ImageSettings,
    folder: Path,
    shares: Mapping[str, float],
    networks: Mapping[str, FlowMatchingUNet] | None = None,
) -> None:
    """Train both stages, and write the weights of each when it is finished.

    Parameters
    ----------
    packed
        Makes or reads the images of a stage.
    settings
        The recipe's settings.
    folder
        Folder of the stages; a second call continues from what is in it.
    shares
        Share of each source in a batch.
    networks
        The networks to start from; new ones by default.
    """
    stages = ((STRUCTURE_STAGE, StructureTask, settings.structure), (GRAIN_STAGE, GrainTask, settings.grain))
    for name, kind, stage in stages:
        if not (folder / IMAGE_WEIGHTS[name]).exists():
            task = kind(packed(name), stage, shares, (networks or {}).get(name))
            write_network(fit_stage(task, folder / name), folder / IMAGE_WEIGHTS[name])


def _fingerprints(data: Path) -> dict[str, str]:
    """Hash every table and every index of images, by its path in the data folder."""
    tables = sorted((data / "sequences").glob("*.csv.gz")) + sorted((data / "images").glob("*/index.csv"))
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in tables
    }
