"""``deepgps finetune``: train a finished run or a bundle further, on a lab's own crops."""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import deepgps
from deepgps.bundle import GRAIN_FILE, METADATA_FILE, NEIGHBOURS_FILE, Bundle, find_bundle, open_bundle
from deepgps.datasets.crops.store import CropStore, open_crops, read_store_proteins
from deepgps.errors import BundleError, InputError
from deepgps.files import atomic_path, write_csv
from deepgps.localization import class_set
from deepgps.models.deepgps import DeepGPS
from deepgps.models.flow_matching import FlowMatchingUNet, mean_image
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.training.graphs import graph_weights
from deepgps.training.joint.data import check_crops, classes_of, read_parts
from deepgps.training.joint.task import IMAGE_LOSS
from deepgps.training.joint.train import (
    ENCODER,
    RUN_LEFT_OUT,
    WEIGHTS,
    fingerprint_inputs,
    train_joint,
)
from deepgps.training.log import HISTORY
from deepgps.training.mini import labels
from deepgps.training.mini.class_sets import CLASS_SETS_FILE
from deepgps.training.mini.image_batches import plain_batch
from deepgps.training.mini.image_pack import ImagePack, store_pack
from deepgps.training.mini.images import GRAIN_STAGE, STRUCTURE_STAGE, build_network, read_network
from deepgps.training.mini.train import IMAGE_WEIGHTS, fit_images
from deepgps.training.recipe import (
    RECIPE,
    JointRecipe,
    LabelSettings,
    MiniRecipe,
    Recipe,
    SplitSettings,
    load_recipe,
    parse_recipe,
    shipped_recipes,
    with_changes,
)
from deepgps.training.run_folder import BASE, RUN_MANIFEST, claimed, read_json, write_base, write_json

EPOCHS = 10
SLOWER = 10
"""The learning rate is this many times smaller than in the first training."""
AFTER, ERROR = "validation.json", "validation_mse"
MAX_VALIDATION_CROPS = 512

_BATCH = 32
# Settings that determine the network and the meaning of its outputs, and exceptions among them.
_FIXED = ("kind", "class_set", "crop", "protein", "model", "labels")
_FIXED_OF_STAGES = ("widths", "embedding", "attention")
_FREE = ("protein.encoder", "model.dropout")


def finetune_model(
    source: str,
    store: Path,
    run: Path,
    changes: Sequence[str] = (),
    *,
    resume: bool = False,
    split: Path | None = None,
    structures: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> tuple[float, float]:
    """Train a model further on a crop store.

    Parameters
    ----------
    source
        Folder of a finished run, or name or path of a bundle.
    store
        The crop store.
    run
        Folder of the new run; created if missing.
    changes
        Changed settings, each like ``training.max_epochs=3``.
    resume, split, structures, cache, offline
        As in training; a model like the bundled one does not use the last three.

    Returns
    -------
    tuple of float
        The validation loss before, and of the weights that are kept.

    Raises
    ------
    InputError
        If the model, the crops or a setting cannot be used, or the folder holds another run.
    """
    base = open_pretrained(source)
    lines = [line for line in open_crops(store).index["cell_line"].unique().sort() if line]
    recipe = tuned_recipe(base, changes, lines)
    if isinstance(recipe, JointRecipe):
        options: dict[str, Any] = {"split": split, "structures": structures, "cache": cache}
        train_joint(recipe, store, run, resume=resume, offline=offline, start_from=base, **options)
        return read_json(run / BASE)["before"]["validation_loss"], _kept_loss(run, recipe)
    for option, value in {"--structures": structures, "--cache": cache, "--offline": offline}.items():
        if value:
            raise InputError(f"'{base.name}' does not use {option}; leave it out.")
    _finetune_mini(base, recipe, store, run, resume=resume, split=split)
    return read_json(run / BASE)["before"][ERROR], read_json(run / AFTER)[ERROR]


def _kept_loss(run: Path, recipe: JointRecipe) -> float:
    with (run / HISTORY).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row[f"validation_{IMAGE_LOSS}"]))
    return float((best if recipe.training.keep == "best" else rows[-1])["validation_loss"])


# ---- where it starts from ----


@dataclass(frozen=True, slots=True, eq=False)
class PretrainedModel:
    """A trained model to start from.

    Attributes
    ----------
    source
        Its place.
    bundle
        The bundle; None for a run.
    name
        Name and version.
    recipe
        Its recipe.
    fingerprint
        Sha256 of its weights, or of the bundle.
    encoder
        Encoder of the sequences: ``name``, ``fingerprint`` and ``dimension``.
    weights
        State dict of the network; of a model like the bundled one, of both that draw, each name after that of
        its stage and a dot.
    """

    source: Path
    bundle: Bundle | None
    name: str
    recipe: Recipe
    fingerprint: str
    encoder: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def load(self, model: DeepGPS, encoder: Mapping[str, Any]) -> None:
        """Load the weights into a new network.

        Parameters
        ----------
        model
            The network.
        encoder
            The encoder of the run's sequences.

        Raises
        ------
        InputError
            If the encoder is another one, or the weights do not fit.
        """
        for field in ("name", "fingerprint", "dimension"):
            if self.encoder.get(field) != encoder.get(field):
                raise InputError(
                    f"'{self.name}' was trained with the encoder '{self.encoder.get('name')}', whose {field} "
                    f"is {self.encoder.get(field)}, not {encoder.get(field)}; select it with "
                    "--set protein.encoder."
                )
        self.load_into(model)

    def load_into(self, module: nn.Module, stage: str = "") -> None:
        """Load the weights into a network of the recipe.

        Parameters
        ----------
        module
            The network.
        stage
            Of a model like the bundled one, the stage that it draws.

        Raises
        ------
        InputError
            If they do not fit.
        """
        own, prefix = module.state_dict(), f"{stage}." if stage else ""
        # Graphs lack the counters of batch norms, which nothing depends on.
        counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
        weights = {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }
        try:
            module.load_state_dict(counters | weights)
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise InputError(
                f"The weights of '{self.source}' do not fit the network of its recipe ({why}); use "
                "another model."
            ) from None


def open_pretrained(source: str) -> PretrainedModel:
    """Open a finished run by its folder, or a bundle by its name or path.

    Returns
    -------
    PretrainedModel
        Recipe, encoder and weights.

    Raises
    ------
    InputError
        If it is neither, or not finished, or damaged.
    """
    path = Path(source)
    if (path / RECIPE).exists() and not (path / METADATA_FILE).exists():
        return _run_base(path)
    return _bundle_base(find_bundle(source))


def _run_base(run: Path) -> PretrainedModel:
    recipe = load_recipe(str(run / RECIPE))
    encoder, files = run / ENCODER, {"": run / WEIGHTS}
    if isinstance(recipe, MiniRecipe):
        encoder = run / "labels" / labels.LABEL_ENCODER
        files = {f"{stage}.": run / "images" / name for stage, name in IMAGE_WEIGHTS.items()}
    if not (run / RUN_MANIFEST).exists():
        raise InputError(f"'{run}' holds no finished run; continue it with --resume.")
    weights = {prefix + key: each for prefix, path in files.items() for key, each in load_file(path).items()}
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()
    name = f"{recipe.name} {recipe.version}"
    return PretrainedModel(run, None, name, recipe, fingerprint, read_json(encoder), weights)


def _bundle_base(path: Path) -> PretrainedModel:
    bundle = open_bundle(path)
    recipe, metadata = bundle_recipe(bundle), bundle.metadata
    if isinstance(recipe, MiniRecipe):
        files = {STRUCTURE_STAGE: "generator.onnx", GRAIN_STAGE: GRAIN_FILE}
    else:
        files = {"": "encoder.onnx", "generator": "generator.onnx"}
    weights = {
        f"{part}.{key}".lstrip("."): value
        for part, file in files.items()
        for key, value in graph_weights(bundle.read(file)).items()
    }
    name = f"{metadata.name} {metadata.version}"
    return PretrainedModel(path, bundle, name, recipe, bundle.sha256, metadata.encoder.model_dump(), weights)


def bundle_recipe(bundle: Bundle) -> Recipe:
    """Return the recipe of a bundle; one without is known by the name of the model.

    Returns
    -------
    Recipe
        The recipe.

    Raises
    ------
    BundleError
        If there is none.
    """
    if bundle.has(RECIPE):
        content = yaml.safe_load(bundle.read(RECIPE))
        if content.get("kind") == "mini" and bundle.metadata.flow_matching is None:
            raise BundleError(
                f"Bundle '{bundle.path}' draws images in one pass, as models of deepGPS up to 0.4 do, and "
                "cannot be trained further; start from a newer one."
            )
        return parse_recipe(content, str(bundle.path))
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if recipe.name == bundle.metadata.name:
            return recipe
    raise BundleError(f"Bundle '{bundle.path}' has no '{RECIPE}'; export it again from its run.")


# ---- the recipe ----


def tuned_recipe(base: PretrainedModel, changes: Sequence[str], cell_lines: Sequence[str]) -> Recipe:
    """Return the recipe of a fine-tuning: that of the model, with small steps, few epochs and the changes.

    Parameters
    ----------
    base
        The model to start from.
    changes
        Changed settings, each like ``training.max_epochs=3``.
    cell_lines
        Cell lines of the crops, as far as they are named.

    Returns
    -------
    MiniRecipe or JointRecipe
        The recipe.

    Raises
    ------
    InputError
        If a setting is unknown or wrong, or would change the network or the class set.
    """
    content = base.recipe.model_dump(mode="json")
    content["name"] += "-finetuned"
    if isinstance(base.recipe, MiniRecipe):
        stages = [content["images"][STRUCTURE_STAGE], content["images"][GRAIN_STAGE]]
        content["cell_line"] = " and ".join(cell_lines) or content["cell_line"]
    else:
        stages = [content["training"]]
        content["cell_line"] = cell_lines[0] if len(cell_lines) == 1 else None
    for stage in stages:
        stage["max_epochs"] = EPOCHS
        for rate in {"learning_rate", "kernel_rate"} & stage.keys():
            stage[rate] /= SLOWER
    recipe = parse_recipe(with_changes(content, changes), base.name)
    _check_same_network(base, recipe)
    return recipe


def _check_same_network(base: PretrainedModel, recipe: Recipe) -> None:
    before, after = (dict(_values(each.model_dump(mode="json"))) for each in (base.recipe, recipe))
    for path in before | after:
        if before.get(path) != after.get(path) and _is_fixed(path):
            raise InputError(
                f"Fine-tuning keeps the network and its classes: '{path}' is {before.get(path)!r} in "
                f"'{base.name}'; leave it as it is."
            )
    if bool(before.get("losses.label")) != bool(after.get("losses.label")):
        kept = "has a classifier" if before["losses.label"] else "has no classifier"
        raise InputError(f"'{base.name}' {kept}, and fine-tuning keeps that; leave losses.label as it is.")


def _values(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_fixed(path: str) -> bool:
    group, name = path.partition(".")[0], path.rpartition(".")[2]
    return path not in _FREE and (group in _FIXED or (group == "images" and name in _FIXED_OF_STAGES))


# ---- models like the bundled one: the networks that draw are trained, the label half stays as it is ----


def _finetune_mini(
    base: PretrainedModel, recipe: MiniRecipe, store: Path, run: Path, *, resume: bool, split: Path | None
) -> None:
    crops, left_out = lab_crops(recipe, store, split)
    made_of = {**fingerprint_inputs(store, crops, split, None), "fine-tuned from": base.fingerprint}
    with claimed(run, recipe, made_of, resume=resume):
        write_csv(run / RUN_LEFT_OUT, ("protein_id", "reason"), sorted(left_out.items()))
        if not (run / "labels" / labels.LABEL_ENCODER).exists():
            _copy_labels(base, recipe.labels, run / "labels")
        if not (run / AFTER).exists():
            _fit_images(base, recipe, crops, run)
        made = {"deepgps": deepgps.__version__, "torch": torch.__version__, "inputs": made_of}
        write_json(run / RUN_MANIFEST, made)


def _fit_images(base: PretrainedModel, recipe: MiniRecipe, crops: CropStore, run: Path) -> None:
    classes, um = class_set(recipe.class_set), recipe.crop.pixel_size_um
    images, folder = recipe.images, run / "images"
    networks = {
        stage: build_network(settings, len(classes.slugs))
        for stage, settings in ((STRUCTURE_STAGE, images.structure), (GRAIN_STAGE, images.grain))
    }
    for stage, network in networks.items():
        base.load_into(network, stage)

    def packed(stage: str) -> ImagePack:
        return store_pack(crops, classes, um, grain=stage == GRAIN_STAGE)

    def error(network: FlowMatchingUNet) -> float:
        return image_error(network, packed(STRUCTURE_STAGE), recipe.crop.size_px // 2)

    if not (run / BASE).exists():
        write_base(run, base.name, base.fingerprint, {ERROR: error(networks[STRUCTURE_STAGE].eval())})
    # Every crop has the same weight, whatever the sources are called.
    shares = dict.fromkeys(crops.index["source"].unique().to_list(), 1.0)
    fit_images(packed, images, folder, shares, networks)
    tuned = read_network(folder / IMAGE_WEIGHTS[STRUCTURE_STAGE], images.structure, len(classes.slugs))
    write_json(run / AFTER, {ERROR: error(tuned)})


def lab_crops(recipe: MiniRecipe, store: Path, split: Path | None) -> tuple[CropStore, dict[str, str]]:
    """Open a crop store with its split in the index; unused proteins are in no part.

    Returns
    -------
    CropStore, dict
        The store, and the proteins left out, each with the reason.

    Raises
    ------
    InputError
        If the crops have another size or scale, or nothing is left to train or validate on.
    """
    opened, classes = open_crops(store), class_set(recipe.class_set)
    check_crops(store, recipe.crop, f"model '{recipe.name}'")
    parts = read_parts(SplitSettings(), store, split)
    left_out = {}
    for row in read_store_proteins(store).to_dicts():
        reason = classes_of(row, classes).reason
        if reason := reason or (None if row["protein_id"] in parts else "It is in no part of the split."):
            left_out[row["protein_id"]] = reason
    used = {id: part for id, part in parts.items() if id not in left_out}
    part = pl.col("protein_id").replace_strict(used, default=None, return_dtype=pl.String)
    crops = CropStore(opened.crops, opened.index.with_columns(part.alias("split")))
    for name in ("train", "validation"):
        if not len(crops.rows(split=name)):
            raise InputError(
                f"No usable crop in '{store}' is in the part '{name}'; give another --split, or more "
                "proteins."
            )
    return crops, left_out


def image_error(network: FlowMatchingUNet, pack: ImagePack, size: int) -> float:
    """Return the mean squared error of the mean images of validation crops, at the scale of the structure."""
    rows = pack.rows("validation")
    rows = rows[np.linspace(0, len(rows) - 1, min(MAX_VALIDATION_CROPS, len(rows))).astype(np.int64)]
    total = 0.0
    for first in range(0, len(rows), _BATCH):
        batch = plain_batch(pack, rows[first : first + _BATCH], size)
        drawn = mean_image(network, batch.images, batch.given, batch.condition)
        total += nn.functional.mse_loss(drawn, batch.protein).item() * len(drawn)
    return total / len(rows)


def _copy_labels(base: PretrainedModel, settings: LabelSettings, folder: Path) -> None:
    """Copy the label half of a run or bundle into a run's folder, the description last."""
    folder.mkdir(parents=True, exist_ok=True)
    if base.bundle is not None:
        _unpack_labels(base.bundle, settings, folder)
        return
    names = (labels.NEIGHBOUR_INDEX, labels.LABEL_WEIGHTS, CLASS_SETS_FILE, labels.LABEL_ENCODER)
    for name in names:
        path = base.source / "labels" / name
        if path.exists() or name != CLASS_SETS_FILE:
            with atomic_path(folder / name) as draft:
                draft.write_bytes(path.read_bytes())


def _unpack_labels(bundle: Bundle, settings: LabelSettings, folder: Path) -> None:
    metadata = bundle.metadata
    index = bundle.read(NEIGHBOURS_FILE)
    with atomic_path(folder / labels.NEIGHBOUR_INDEX) as draft:
        draft.write_bytes(index)
    weights = graph_weights(bundle.read("encoder.onnx"))
    own = {n.removeprefix("encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
    with atomic_path(folder / labels.LABEL_WEIGHTS) as draft:
        save_file(own, draft)
    if metadata.class_sets:
        sets = {name: spec.model_dump(mode="json") for name, spec in metadata.class_sets.items()}
        write_json(folder / CLASS_SETS_FILE, sets)
    proteins = NeighbourIndex.from_bytes(index)
    description = {
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
    write_json(folder / labels.LABEL_ENCODER, description)
