"""``deepgps train`` for a model like the bundled one: labels from tables, then images from crops.

The run's folder has ``recipe.yaml``, ``inputs.json`` (sha256 of the tables), ``labels/``, ``crops/`` (a crop
store), ``images/`` (the generator) and at the end ``manifest.json``. Each finished stage is kept.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import deepgps
from deepgps.arrays import Floats
from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import CROPS_MANIFEST, open_crops
from deepgps.datasets.labels import load_labelled_proteins, opencell_localizations
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.localization import CLASS_SETS, class_set
from deepgps.models.deepgps import MiniGenerator
from deepgps.proteins.features import sequence_features
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.mini.class_sets import CLASS_SETS_FILE, PAPER_SETS, fit_class_sets
from deepgps.training.mini.images import Pairing, fit_images
from deepgps.training.mini.labels import (
    LABEL_ENCODER,
    NEIGHBOUR_INDEX,
    REGIMES,
    fit_labels,
    load_encoder,
    read_held_out,
)
from deepgps.training.recipe import MiniRecipe
from deepgps.training.run_folder import RUN_MANIFEST, claimed, write_json

GENERATOR = "generator.safetensors"


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
        if not (run / "crops" / CROPS_MANIFEST).exists():
            size, um = recipe.crop.size_px, recipe.crop.pixel_size_um
            prepare_reference_crops(data / "images", run / "crops", size_px=size, pixel_size_um=um)
        if not (images / GENERATOR).exists():
            seen, unseen = training_probabilities(labels, proteins.sequences)
            pairing = Pairing(proteins, seen, unseen, classes)
            write_generator(fit_images(open_crops(run / "crops"), pairing, recipe.images, images), images)
        manifest = {"deepgps": deepgps.__version__, "torch": torch.__version__, "proteins": len(proteins)}
        write_json(run / RUN_MANIFEST, {**manifest, "inputs": inputs})


def write_generator(generator: MiniGenerator, folder: Path) -> None:
    """Write the weights of a generator."""
    weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
    with atomic_path(folder / GENERATOR) as draft:
        save_file(weights, draft)


def training_probabilities(labels: Path, sequences: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Return probabilities of the training proteins, (N, K) each: seen in training, and held out."""
    encoder, index = load_encoder(labels), NeighbourIndex.load(labels / NEIGHBOUR_INDEX)
    features = torch.from_numpy(np.stack([sequence_features(sequence) for sequence in sequences]))
    votes = torch.from_numpy(np.stack([index.votes(sequence) for sequence in sequences]))
    with torch.no_grad():
        seen = torch.sigmoid(encoder(features, votes)).numpy()
    unseen = torch.sigmoid(torch.from_numpy(read_held_out(labels)[REGIMES[-1]].logits)).numpy()
    return seen, unseen


def _fingerprints(data: Path) -> dict[str, str]:
    """Hash every table and every index of images, by its path in the data folder."""
    tables = sorted((data / "sequences").glob("*.csv.gz")) + sorted((data / "images").glob("*/index.csv"))
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in tables
    }
