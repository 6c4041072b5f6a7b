"""``deepgps export``: from a finished training run to a model bundle."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from deepgps.bundle import GRAIN_FILE, Bundle, Metric, write_bundle
from deepgps.datasets.crops.reference import DOMAINS
from deepgps.datasets.splits import PARTS, SPLIT_FILE, read_split
from deepgps.errors import InputError
from deepgps.images.processing import HIGH, LOW
from deepgps.localization import WORDS, class_set
from deepgps.models.deepgps import DeepGPS
from deepgps.models.sequence_encoder import SequenceEncoder
from deepgps.training.card import joint_card, mini_card
from deepgps.training.graphs import (
    flow_matching_graph,
    generator_graph,
    rounded_to_half,
    share_children,
    to_onnx,
)
from deepgps.training.joint.task import build_model
from deepgps.training.joint.train import CALIBRATION, ENCODER, RUN_METRICS, WEIGHTS
from deepgps.training.mini import labels
from deepgps.training.mini.class_sets import CLASS_SETS_FILE
from deepgps.training.mini.image_pack import CHANNELS, MICROTUBULES
from deepgps.training.mini.images import GRAIN_STAGE, STRUCTURE_STAGE, read_network
from deepgps.training.mini.train import IMAGE_WEIGHTS
from deepgps.training.recipe import RECIPE, JointRecipe, MiniRecipe, load_recipe
from deepgps.training.run_folder import BASE, RUN_MANIFEST, read_json

MAX_LENGTH = 5000
"""Longest sequence of a model with hand-made features."""
TRAINING_DATA = {
    "OpenCell annotations": "graded localizations of 1,310 proteins in HEK293T (BSD-3-Clause)",
    "UniProt/Swiss-Prot": "experimental localizations, the DeepLoc 2 training set (CC BY 4.0)",
    "Human Protein Atlas table": "localizations with reliability (CC BY-SA)",
    "Human Protein Atlas images": "U-2 OS cells, fields of 8 human lines and NIH 3T3, dictionary, fields "
    "with microtubules and ER (CC BY-SA)",
    "OpenCell images": "HEK293T: published tiles of 35 proteins, 145 crops of published figures (CC BY-SA)",
}
"""What the bundled model was trained on, by source."""

# Residues of the protein that a graph is exported with; their number is free.
_RESIDUES = 24


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What a bundle is made of.

    Attributes
    ----------
    encoder
        Module of ``encoder.onnx``.
    encoder_inputs
        Shape of each of its inputs, without the batch, by name.
    generators
        The graphs that draw, by the name of their file.
    fields
        Fields of ``bundle.json`` that depend on the kind of model.
    files
        Further files, by name.
    card
        Text of the model card.
    """

    encoder: nn.Module
    encoder_inputs: Mapping[str, tuple[int, ...]]
    generators: Mapping[str, bytes]
    fields: Mapping[str, Any]
    files: Mapping[str, bytes]
    card: str


def export_run(run: Path, to: Path, metric_files: Sequence[Path] = ()) -> Bundle:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run
        Folder of the run.
    to
        Folder of the bundle.
    metric_files
        JSON files of measured metrics for ``bundle.json`` and the card: name to value, low, high, n.

    Returns
    -------
    Bundle
        The bundle.

    Raises
    ------
    InputError
        If the folder holds no run, or an unfinished one.
    DeepGPSError
        If a graph differs from its module.
    """
    if not (run / RECIPE).exists():
        raise InputError(f"'{run}' holds no run: it has no {RECIPE}; train one with `deepgps train`.")
    if not (run / RUN_MANIFEST).exists():
        raise InputError(
            f"'{run}' holds no finished run; continue it with `deepgps train … --out {run} --resume`."
        )
    recipe = load_recipe(str(run / RECIPE))
    metrics = {name: metric for path in metric_files for name, metric in read_metrics(path).items()}
    parts = bundle_parts(run, recipe, metrics)
    graphs = {"encoder.onnx": _encoder_graph(parts), **parts.generators}
    texts = {RECIPE: (run / RECIPE).read_bytes(), "CARD.md": parts.card.encode()}
    return write_bundle(to, parts.fields, {**graphs, **parts.files, **texts})


def bundle_parts(run: Path, recipe: JointRecipe | MiniRecipe, metrics: Mapping[str, Metric]) -> BundleParts:
    """Load a finished run, with its weights rounded to half precision.

    Parameters
    ----------
    run, recipe
        Folder of the run, and its recipe.
    metrics
        Measured metrics for ``bundle.json`` and the card.

    Returns
    -------
    BundleParts
        Networks, fields and files of the bundle.
    """
    if isinstance(recipe, JointRecipe):
        return _joint_parts(run, recipe, metrics)
    return _mini_parts(run, recipe, metrics)


def read_metrics(path: Path) -> dict[str, Metric]:
    """Read measured metrics.

    Returns
    -------
    dict
        Metric by name.

    Raises
    ------
    InputError
        If the file is missing or malformed.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        # `deepgps evaluate` writes them beside a description of what was measured.
        entries = entries.get("metrics", entries)
        # The figures of an experiment name the command and the day that they were measured.
        return {
            name: Metric.model_validate({k: v for k, v in entry.items() if k not in ("command", "date")})
            for name, entry in entries.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"Metrics file '{path}' cannot be used: {error}.") from None


def _encoder_graph(parts: BundleParts) -> bytes:
    inputs = {name: torch.randn(2, *shape) for name, shape in parts.encoder_inputs.items()}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2)
    axes = [{0: batch, 1: length} if name == "residues" else {0: batch} for name in inputs]
    outputs = ("latent", "logits") if parts.fields["classes"] else ("latent",)
    return to_onnx(parts.encoder, inputs, outputs, axes)


def _common_fields(
    run: Path, recipe: JointRecipe | MiniRecipe, metrics: Mapping[str, Metric], data: Mapping[str, str]
) -> dict[str, Any]:
    base = read_json(run / BASE)
    origin = {"fine-tuned from": f"{base['name']} (sha256 {base['fingerprint'][:12]}…)"} if base else {}
    return {
        "name": recipe.name,
        "version": recipe.version,
        "multi_label": class_set(recipe.class_set).multi_label,
        "crop": recipe.crop.model_dump(),
        "normalisation": {"low": LOW, "high": HIGH},
        "metrics": {name: metric.model_dump() for name, metric in metrics.items()},
        "training_data": {**data, **origin},
    }


# ---- models of the paper ----


class JointEncoder(nn.Module):
    """``encoder.onnx`` of a model of the paper: a protein to latent tokens and, if any, calibrated logits.

    Parameters
    ----------
    model
        The model.
    inputs
        Names of its inputs, one or two, as of `DeepGPS.encode`.
    scale, bias
        (K,) each: calibrated logits are scale * logits + bias.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, model: DeepGPS, inputs: tuple[str, ...], scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        share_children(model, self, without=("generator",))
        self._encode = model.encode
        self.inputs, self.labels = inputs, model.classifier is not None
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode to latent (B, T, D) and logits (B, K); without a classifier to the latent alone."""
        values = [first] if second is None else [first, second]
        encoded = self._encode(dict(zip(self.inputs, values, strict=True)))
        if not self.labels:
            return (encoded.tokens,)
        return encoded.tokens, encoded.logits * self.scale + self.bias


def _joint_parts(run: Path, recipe: JointRecipe, metrics: Mapping[str, Metric]) -> BundleParts:
    encoder, calibration = read_json(run / ENCODER), read_json(run / CALIBRATION)
    measured = {name: Metric.model_validate(each) for name, each in read_json(run / RUN_METRICS).items()}
    model = build_model(recipe, encoder.get("dimension"))
    model.load_state_dict(load_file(run / WEIGHTS))
    rounded_to_half(model)
    parts = Counter(read_split(run / SPLIT_FILE).values())
    counts = "proteins: " + ", ".join(f"{parts[part]:,} in {part}" for part in PARTS)
    fields = _common_fields(run, recipe, {**measured, **metrics}, {"crop store": counts}) | {
        "classes": calibration.get("classes", []),
        "thresholds": calibration.get("thresholds", []),
        "cell_line": recipe.cell_line or "all in the crop store",
        "encoder": _joint_encoder_fields(recipe, encoder),
        "calibration": _calibration_text(recipe),
        "licence": "that of the images it was trained on",
    }
    inputs = _joint_inputs(fields["encoder"])
    scale, bias = (torch.tensor(calibration.get(each, []), dtype=torch.float32) for each in ("scale", "bias"))
    settings = recipe.model
    tokens = len(recipe.protein.inputs) * settings.latent_tokens
    any_length = settings.fusion == "per_residue"
    generator = generator_graph(
        model.generator,
        recipe.crop.size_px,
        _RESIDUES if any_length else tokens,
        settings.latent_dim,
        any_length=any_length,
    )
    return BundleParts(
        encoder=JointEncoder(model, tuple(inputs), scale, bias).eval(),
        encoder_inputs=dict(inputs.values()),
        generators={"generator.onnx": generator},
        fields=fields,
        files={},
        card=joint_card(fields, recipe),
    )


def _joint_inputs(spec: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name and shape of each graph input, by its name in `DeepGPS.encode`."""
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {}
    if spec["level"] == "residue":
        inputs["residues"] = ("residues", (_RESIDUES, spec["dimension"]))
    elif spec["kind"] != "structure":
        name = "features" if spec["kind"] == "features" else "embedding"
        inputs["embedding"] = (name, (spec["dimension"],))
    if spec["structure_points"]:
        inputs["points"] = ("points", (spec["structure_points"], 6))
    return inputs


def _joint_encoder_fields(recipe: JointRecipe, encoder: Mapping[str, Any]) -> dict[str, Any]:
    # Features of residues are made from the whole sequence, however long.
    residues = encoder["kind"] == "residues"
    return {
        "kind": "features" if residues else encoder["kind"],
        "name": encoder["name"],
        "dimension": encoder["dimension"],
        "max_length": None if residues else encoder["max_length"],
        "level": "residue" if recipe.model.fusion == "per_residue" else "protein",
        "fingerprint": encoder["fingerprint"],
        "structure_points": recipe.protein.structure_points if "structure" in recipe.protein.inputs else None,
    }


def _calibration_text(recipe: JointRecipe) -> str:
    if not recipe.losses.label:
        return "none: the model draws and predicts no class"
    multi_label = class_set(recipe.class_set).multi_label
    how = "a scale and a shift of each class" if multi_label else "one temperature for all classes"
    return f"{how}, fitted on validation proteins"


# ---- models like the bundled one ----


class MiniEncoder(nn.Module):
    """``encoder.onnx`` of a model like the bundled one: features and votes to latent and logits."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, F) and (B, V) to probabilities (B, 1, K), the latent, and calibrated logits (B, K)."""
        logits = self.encoder(features, votes)
        return torch.sigmoid(logits)[:, None], logits


def _mini_parts(run: Path, recipe: MiniRecipe, metrics: Mapping[str, Metric]) -> BundleParts:
    folder, images, size = run / "labels", recipe.images, recipe.crop.size_px
    about = read_json(folder / labels.LABEL_ENCODER)
    stages = ((STRUCTURE_STAGE, images.structure), (GRAIN_STAGE, images.grain))
    structure, grain = (
        rounded_to_half(read_network(run / "images" / IMAGE_WEIGHTS[name], settings, len(about["classes"])))
        for name, settings in stages
    )
    encoder = MiniEncoder(rounded_to_half(labels.load_encoder(folder)))
    fields = _common_fields(run, recipe, metrics, TRAINING_DATA) | {
        "classes": about["classes"],
        "thresholds": about["thresholds"],
        "unclear_below": about["unclear_below"],
        "unlike_below": about["unlike_below"],
        "cell_line": recipe.cell_line,
        "encoder": {
            "kind": "features",
            "name": about["features_name"],
            "dimension": about["features"],
            "max_length": MAX_LENGTH,
        },
        "calibration": "Platt scaling of each class on proteins of clusters that the model had not seen",
        "licence": "CC BY-SA 4.0",
        "flow_matching": {
            "classes": about["classes"],
            "words": WORDS,
            "domains": DOMAINS,
            "landmarks": CHANNELS[MICROTUBULES:],
            "steps": images.steps,
            "grain_steps": images.grain_steps,
        },
    }
    if (folder / CLASS_SETS_FILE).exists():
        fields["class_sets"] = read_json(folder / CLASS_SETS_FILE)
    return BundleParts(
        encoder=encoder.eval(),
        encoder_inputs={"features": (about["features"],), "votes": (about["votes"],)},
        generators={
            "generator.onnx": flow_matching_graph(structure, size // 2),
            GRAIN_FILE: flow_matching_graph(grain, size),
        },
        fields=fields,
        files={labels.NEIGHBOUR_INDEX: (folder / labels.NEIGHBOUR_INDEX).read_bytes()},
        card=mini_card(fields, about),
    )
