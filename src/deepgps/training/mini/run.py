"""A training run: one folder, stage after stage, each finished stage kept.

``RUN/`` holds ``recipe.yaml``, ``inputs.json`` (sha256 of the tables), ``labels/`` (encoder, index, class
sets), ``crops/`` (the crop store), ``images/`` (the generator and its checkpoint) and, at the end,
``manifest.json``.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import deepgps
from deepgps.arrays import Floats
from deepgps.datasets.crops.reference import prepare_reference_crops
from deepgps.datasets.crops.store import MANIFEST, open_crops
from deepgps.datasets.labels import load_labelled_proteins, opencell_localizations
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, class_set
from deepgps.training.claim import claim, write_json
from deepgps.training.mini.class_sets import FILE, READ_OUT, fit_class_sets
from deepgps.training.mini.held_out import REGIMES, held_out_answers
from deepgps.training.mini.images import fit_images
from deepgps.training.mini.labels import fit_labels, load_encoder
from deepgps.training.mini.pairing import Pairing
from deepgps.training.mini.settings import MiniRecipe

GENERATOR = "generator.safetensors"


def train(recipe: MiniRecipe, data: Path, run: Path, *, resume: bool = False) -> None:
    """Train what the recipe asks for, from the tables and images in ``data``, into the folder ``run``.

    Parameters
    ----------
    recipe
        What to train.
    data
        A folder with ``sequences/`` and ``images/``.
    run
        The run's folder; made if missing.
    resume
        Go on with the run that the folder holds; finished stages are not repeated.

    Raises
    ------
    InputError
        If the data are not there, or the folder holds a run that is not to be resumed, or one of another
        recipe or other data.
    """
    for part in ("sequences", "images"):
        if not (data / part).is_dir():
            raise InputError(f"Data folder '{data}' has no '{part}' folder; give the folder that holds both.")
    classes = class_set(recipe.class_set)
    inputs = _fingerprints(data)
    claim(run, recipe, inputs, resume=resume)
    proteins = load_labelled_proteins(data, classes)
    if not (run / "labels" / "encoder.json").exists():
        fit_labels(proteins, recipe.labels, run / "labels")
    if recipe.class_set == "mini" and not (run / "labels" / FILE).exists():
        fine = load_labelled_proteins(data, CLASS_SETS["all"])
        sets = [CLASS_SETS[name] for name in READ_OUT]
        fit_class_sets(proteins, fine, opencell_localizations(data), sets, run / "labels")
    if not (run / "crops" / MANIFEST).exists():
        crop = recipe.crop
        prepare_reference_crops(
            data / "images", run / "crops", size_px=crop.size_px, pixel_size_um=crop.pixel_size_um
        )
    if not (run / "images" / GENERATOR).exists():
        fresh, unseen = training_probabilities(run / "labels", proteins.sequences)
        pairing = Pairing(proteins, fresh, unseen, classes)
        generator = fit_images(open_crops(run / "crops"), pairing, recipe.images, run / "images")
        weights = {name: value.contiguous() for name, value in generator.state_dict().items()}
        draft = run / "images" / "generator.part"
        save_file(weights, draft)
        draft.replace(run / "images" / GENERATOR)
    manifest = {"deepgps": deepgps.__version__, "torch": torch.__version__, "proteins": len(proteins)}
    write_json(run / MANIFEST, {**manifest, "inputs": inputs})


def _fingerprints(data: Path) -> dict[str, str]:
    """Hash every table and every index of images, by its path within the data folder."""
    tables = sorted((data / "sequences").glob("*.csv.gz")) + sorted((data / "images").glob("*/index.csv"))
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in tables
    }


def training_probabilities(labels: Path, sequences: tuple[str, ...]) -> tuple[Floats, Floats]:
    """What the encoder says of its own training proteins, (N, K) each: with and without having seen them."""
    from deepgps.proteins.features import sequence_features
    from deepgps.proteins.neighbours import NeighbourIndex

    encoder, index = load_encoder(labels), NeighbourIndex.load(labels / "neighbours.npz")
    features = torch.from_numpy(np.stack([sequence_features(sequence) for sequence in sequences]))
    votes = torch.from_numpy(np.stack([index.votes(sequence) for sequence in sequences]))
    with torch.no_grad():
        fresh = torch.sigmoid(encoder(features, votes)).numpy()
    unseen = torch.sigmoid(torch.from_numpy(held_out_answers(labels)[REGIMES[-1]].logits)).numpy()
    return fresh, unseen
