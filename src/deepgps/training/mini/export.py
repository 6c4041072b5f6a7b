"""From a run of the bundled model to its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from deepgps.bundle import NEIGHBOURS_FILE, Bundle, Metric, write_bundle
from deepgps.errors import InputError
from deepgps.images.processing import HIGH, LOW
from deepgps.localization import class_set
from deepgps.models.deepgps import LocalizationTokens
from deepgps.training.graphs import condensed, generator_graph, to_onnx
from deepgps.training.mini.card import model_card
from deepgps.training.mini.class_sets import FILE
from deepgps.training.mini.images import build_generator
from deepgps.training.mini.labels import load_encoder
from deepgps.training.mini.run import GENERATOR
from deepgps.training.mini.settings import MiniRecipe
from deepgps.training.origin import started_from
from deepgps.training.recipe import RECIPE

MAX_LENGTH = 5000


class EncoderGraph(nn.Module):
    """What becomes ``encoder.onnx``: features and votes to latent tokens and calibrated logits."""

    def __init__(self, encoder: nn.Module, tokens: LocalizationTokens) -> None:
        super().__init__()
        self.encoder, self.tokens = encoder, tokens

    def forward(self, features: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, F) and (B, V) to latent (B, T, D) and logits (B, K)."""
        logits = self.encoder(features, votes)
        return self.tokens.decided(torch.sigmoid(logits)), logits


def export(run: Path, recipe: MiniRecipe, to: Path, metrics: Mapping[str, Metric]) -> Bundle:
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
        Measured figures for ``bundle.json`` and the card.

    Raises
    ------
    InputError
        If the run is not finished.
    DeepGPSError
        If a graph does not answer as its module does.
    """
    if not (run / "images" / GENERATOR).exists():
        raise InputError(f"'{run}' holds no finished run; go on with `deepgps train … --out {run} --resume`.")
    about = json.loads((run / "labels" / "encoder.json").read_text(encoding="utf-8"))
    encoder = condensed(load_encoder(run / "labels"))
    generator = build_generator(len(about["classes"]), recipe.images)
    generator.load_state_dict(load_file(run / "images" / GENERATOR))
    condensed(generator)
    sequence = {"features": torch.rand(2, about["features"]), "votes": torch.rand(2, about["votes"])}
    tokens, latent_dim = generator.tokens.tokens.shape
    fields = _fields(recipe, about, metrics)
    if (further := run / "labels" / FILE).exists():
        fields |= {"class_sets": json.loads(further.read_text(encoding="utf-8"))}
    fields["training_data"] = TRAINING_DATA | started_from(run)
    files = {
        "encoder.onnx": to_onnx(
            EncoderGraph(encoder, generator.tokens).eval(), sequence, ("latent", "logits")
        ),
        "generator.onnx": generator_graph(
            generator.unet, recipe.crop.size_px, tokens, latent_dim, any_length=False
        ),
        NEIGHBOURS_FILE: (run / "labels" / NEIGHBOURS_FILE).read_bytes(),
        RECIPE: (run / RECIPE).read_bytes(),
        "CARD.md": model_card(fields, about).encode(),
    }
    return write_bundle(to, fields, files)


def _fields(recipe: MiniRecipe, about: Mapping[str, Any], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Fields of ``bundle.json``, from the recipe and what ``encoder.json`` says about the sequence half."""
    return {
        "name": recipe.name,
        "version": recipe.version,
        "classes": about["classes"],
        "multi_label": class_set(recipe.class_set).multi_label,
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
        "crop": recipe.crop.model_dump(),
        "normalisation": {"low": LOW, "high": HIGH},
        "calibration": "Platt scaling of each class on proteins of clusters that the model had not seen",
        "metrics": {name: metric.model_dump() for name, metric in metrics.items()},
        "training_data": TRAINING_DATA,
        "licence": "CC BY-SA 4.0",
    }


TRAINING_DATA = {
    "OpenCell annotations": "graded localizations of 1,310 proteins in HEK293T (BSD-3-Clause)",
    "UniProt/Swiss-Prot": "experimental localizations, the DeepLoc 2 training set (CC BY 4.0)",
    "Human Protein Atlas table": "localizations with reliability (CC BY-SA)",
    "Human Protein Atlas images": "U-2 OS cells, fields of 8 human lines and NIH 3T3, dictionary (CC BY-SA)",
    "OpenCell images": "published tiles of 35 proteins in HEK293T (CC BY-SA)",
}
