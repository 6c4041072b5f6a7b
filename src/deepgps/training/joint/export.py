"""From a run of a joint model to its bundle."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from deepgps.bundle import Bundle, Metric, write_bundle
from deepgps.datasets.splits import PARTS, read_split
from deepgps.errors import InputError
from deepgps.images.processing import HIGH, LOW
from deepgps.localization import class_set
from deepgps.models.deepgps import DeepGPS
from deepgps.training.graphs import condensed, generator_graph, to_onnx
from deepgps.training.joint.build import build_model
from deepgps.training.joint.card import model_card
from deepgps.training.joint.names import CALIBRATION, ENCODER, MANIFEST, METRICS, SPLIT, WEIGHTS
from deepgps.training.joint.settings import JointRecipe
from deepgps.training.origin import started_from
from deepgps.training.recipe import RECIPE

# Residues of the protein that a graph is traced with; any number does.
_TRACED = 24


class EncoderGraph(nn.Module):
    """What becomes ``encoder.onnx``: proteins to latent tokens and, of a classifier, calibrated logits.

    Parameters
    ----------
    model
        The model.
    inputs
        Names of what it is told of a protein, one or two, as `DeepGPS.encode` has them.
    scale, bias
        (K,) each: calibrated logits are scale * logits + bias.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, model: DeepGPS, inputs: tuple[str, ...], scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encode to latent (B, T, D) and logits (B, K); without a classifier to the latent alone."""
        given = [first] if second is None else [first, second]
        encoded = self.model.encode(dict(zip(self.inputs, given, strict=True)))
        if self.model.classifier is None:
            return (encoded.tokens,)
        return encoded.tokens, encoded.logits * self.scale + self.bias


def export(run: Path, recipe: JointRecipe, to: Path, metrics: Mapping[str, Metric]) -> Bundle:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run
        Folder of the run.
    recipe
        Its recipe.
    to
        Folder of the bundle.
    metrics
        Measured figures for ``bundle.json`` and the card, beside those that the run measured itself.

    Raises
    ------
    InputError
        If the run is not finished.
    DeepGPSError
        If a graph does not answer as its module does.
    """
    if not (run / MANIFEST).exists():
        raise InputError(f"'{run}' holds no finished run; go on with `deepgps train … --out {run} --resume`.")
    about, calibration = _read(run / ENCODER), _read(run / CALIBRATION)
    measured = {name: Metric.model_validate(each) for name, each in _read(run / METRICS).items()}
    fields = _fields(recipe, run, about, calibration, measured | dict(metrics))
    model = build_model(recipe, about.get("dimension"))
    model.load_state_dict(load_file(run / WEIGHTS))
    condensed(model)
    files = {
        "encoder.onnx": _encoder(model, fields["encoder"], calibration),
        "generator.onnx": _generator(model, recipe),
        RECIPE: (run / RECIPE).read_bytes(),
        "CARD.md": model_card(fields, recipe).encode(),
    }
    return write_bundle(to, fields, files)


def _read(path: Path) -> dict[str, Any]:
    """Read what the run says of itself; a run without a classifier has no calibration."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def graph_inputs(spec: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name the inputs of an encoder graph, by those of its bundle's ``encoder``.

    Returns
    -------
    dict of (str, tuple)
        As `DeepGPS.encode` calls them: the graph's name for it, and the shape of one protein's.
    """
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {}
    if spec["level"] == "residue":
        inputs["residues"] = ("residues", (_TRACED, spec["dimension"]))
    elif spec["kind"] != "structure":
        name = "features" if spec["kind"] == "features" else "embedding"
        inputs["embedding"] = (name, (spec["dimension"],))
    if spec["structure_points"]:
        inputs["points"] = ("points", (spec["structure_points"], 6))
    return inputs


def _encoder(model: DeepGPS, spec: Mapping[str, Any], calibration: Mapping[str, Any]) -> bytes:
    inputs = graph_inputs(spec)
    scale, bias = (torch.tensor(calibration.get(each, []), dtype=torch.float32) for each in ("scale", "bias"))
    graph = EncoderGraph(model, tuple(inputs), scale, bias).eval()
    given = {name: torch.randn(2, *shape) for name, shape in inputs.values()}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2)
    axes = [{0: batch, 1: length} if name == "residues" else {0: batch} for name in given]
    return to_onnx(graph, given, ("latent", "logits") if model.classifier else ("latent",), axes)


def _generator(model: DeepGPS, recipe: JointRecipe) -> bytes:
    settings = recipe.model
    by_residue = settings.fusion == "per_residue"
    tokens = 1 if settings.fusion == "paper" else len(recipe.protein.inputs) * settings.latent_tokens
    return generator_graph(
        model.generator,
        recipe.crop.size_px,
        _TRACED if by_residue else tokens,
        settings.latent_dim,
        any_length=by_residue,
    )


def _fields(
    recipe: JointRecipe,
    run: Path,
    about: Mapping[str, Any],
    calibration: Mapping[str, Any],
    metrics: Mapping[str, Metric],
) -> dict[str, Any]:
    """Fields of ``bundle.json``."""
    classes = class_set(recipe.class_set)
    return {
        "name": recipe.name,
        "version": recipe.version,
        "classes": calibration.get("classes", []),
        "multi_label": classes.multi_label,
        "thresholds": calibration.get("thresholds", []),
        "cell_line": recipe.cell_line or "all in the crop store",
        "encoder": _encoder_fields(recipe, about),
        "crop": recipe.crop.model_dump(),
        "normalisation": {"low": LOW, "high": HIGH},
        "calibration": _calibrated(recipe, multi_label=classes.multi_label),
        "metrics": {name: metric.model_dump() for name, metric in metrics.items()},
        "training_data": {"crop store": _counted(run / SPLIT), **started_from(run)},
        "licence": "that of the images it was trained on",
    }


def _encoder_fields(recipe: JointRecipe, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the encoder graph is told; ``encoder.json`` of the run says all but the structure's part."""
    # Features of residues are made of the whole sequence, however long it is.
    by_hand = about["kind"] == "residues"
    return {
        "kind": "features" if by_hand else about["kind"],
        "name": about["name"],
        "dimension": about["dimension"],
        "max_length": None if by_hand else about["max_length"],
        "level": "residue" if recipe.model.fusion == "per_residue" else "protein",
        "fingerprint": about["fingerprint"],
        "structure_points": recipe.protein.structure_points if "structure" in recipe.protein.inputs else None,
    }


def _calibrated(recipe: JointRecipe, *, multi_label: bool) -> str:
    if not recipe.losses.label:
        return "none: the model draws and names no class"
    how = "a scale and a shift of each class" if multi_label else "one temperature for all classes"
    return f"{how}, fitted on proteins of the validation part"


def _counted(split: Path) -> str:
    """Count the proteins of each part."""
    parts = Counter(read_split(split).values())
    return "proteins: " + ", ".join(f"{parts[part]:,} in {part}" for part in PARTS)
