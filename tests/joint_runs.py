"""Finished runs of joint models with random weights, as training leaves them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from deepgps.localization import CLASS_SETS
from deepgps.models.deepgps import DeepGPS
from deepgps.models.latents import StructureLatent
from deepgps.proteins.features import FEATURES_NAME, RESIDUE_DIMENSION, RESIDUE_FEATURES_NAME, feature_names
from deepgps.training.joint.task import build_model
from deepgps.training.recipe import JointRecipe

SPECS: Mapping[str, dict[str, Any]] = {
    "features": {
        "name": FEATURES_NAME,
        "kind": "features",
        "fingerprint": None,
        "dimension": len(feature_names()),
        "max_length": 5000,
    },
    "residues": {
        "name": RESIDUE_FEATURES_NAME,
        "kind": "residues",
        "fingerprint": None,
        "dimension": RESIDUE_DIMENSION,
        "max_length": 5000,
    },
    "structure": {
        "name": "points",
        "kind": "structure",
        "fingerprint": None,
        "dimension": 6,
        "max_length": None,
    },
}


def joint_recipe(
    inputs: tuple[str, ...] = ("sequence",), fusion: str = "residual", label: float = 1, **more: Any
) -> JointRecipe:
    """A recipe of a tiny network; fusion ``paper`` brings what else the paper's code has."""
    model = {"widths": (4, 8), "latent_dim": 8, "heads": 2, "fusion": fusion}
    tokens = 3
    if fusion == "paper":
        model |= {"conv_bias": True, "initialisation": "paper", "structure_encoder": "paper"}
        more["split"], tokens = {"validate_on": "test"}, 1
    return JointRecipe.model_validate(
        {
            "kind": "joint",
            "name": "toy",
            "version": "0.1",
            "class_set": "single-4",
            "protein": {"inputs": inputs, "structure_points": 64},
            "model": {**model, "latent_tokens": tokens},
            "losses": {"label": label},
            **more,
        }
    )


def write_run(folder: Path, recipe: JointRecipe, spec: Mapping[str, Any] = SPECS["features"]) -> DeepGPS:
    """Write a finished run; return its model, ready to predict."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model(recipe, spec["dimension"])
    _lived(model)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    (folder / "split.csv").write_text("protein_id,split\nA,train\nB,train\nC,validation\nD,test\n")
    documents = {"encoder": spec, "manifest": {"seed": 0}, "metrics": METRICS}
    if recipe.losses.label:
        documents["calibration"] = _calibration(recipe)
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return model.eval()


VARIANTS: Mapping[str, tuple[JointRecipe, str]] = {
    "sequence": (joint_recipe(), "features"),
    "paper": (joint_recipe(fusion="paper"), "features"),
    "paper, both": (joint_recipe(("sequence", "structure"), fusion="paper", label=0), "features"),
    "both": (joint_recipe(("sequence", "structure"), class_set="all"), "features"),
    "structure": (joint_recipe(("structure",)), "structure"),
    "residues": (joint_recipe(fusion="per_residue"), "residues"),
    "image only": (joint_recipe(fusion="film", label=0, class_set="all"), "features"),
}
"""Runs by name: recipe, and what its encoder is in `SPECS`."""


METRICS = {
    "accuracy by protein, validation": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 12},
    "accuracy by protein, validation, most frequent class": {"value": 0.4, "n": 12},
}


def _calibration(recipe: JointRecipe) -> dict[str, Any]:
    classes = CLASS_SETS[recipe.class_set]
    count = len(classes.slugs)
    scale = [0.5 + 0.1 * number for number in range(count)] if classes.multi_label else [2.0] * count
    bias = [0.3 - 0.1 * number for number in range(count)] if classes.multi_label else [0.0] * count
    return {"classes": classes.slugs, "scale": scale, "bias": bias, "thresholds": [0.4] * count}


def _lived(model: DeepGPS) -> None:
    """Move what begins as zero, one or the identity away from there, and let no answer be nearly constant."""
    for name, value in model.state_dict().items():
        if name == "generator.head.weight":
            value.mul_(20)
        if name in ("classifier.0.bias", "classifier.2.bias"):
            value.fill_(1)
        if name in ("classifier.0.weight", "classifier.2.weight", "classifier.4.weight"):
            value.mul_(2)
        if name in ("classifier.0.weight", "classifier.2.weight"):
            value.abs_()  # latents are at least 0, so no unit is dead for all of them
        if "pointnet" in name and value.ndim == 3 and isinstance(model.structure, StructureLatent):
            value.mul_(3)
        if name.endswith(("running_var", "sequence.scale")):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(torch.randn_like(value) * 0.1)
        elif name.endswith("transform.matrix.weight"):
            value.normal_(0, 0.01)
