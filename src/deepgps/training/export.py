"""From a training run to a model bundle: two ONNX graphs that answer as the torch modules do."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepgps.bundle import Bundle, Metric, write_bundle
from deepgps.errors import DeepGPSError, InputError
from deepgps.localization import class_set
from deepgps.models.deepgps import LocalizationTokens
from deepgps.training.card import model_card
from deepgps.training.labels import load_encoder
from deepgps.training.pictures import build_generator
from deepgps.training.recipe import Recipe, load_recipe
from deepgps.training.run import GENERATOR, RECIPE

TOLERANCE = 1e-4
MAX_LENGTH = 5000
OPSET = 20


class EncoderGraph(nn.Module):
    """What becomes ``encoder.onnx``: features and votes to latent tokens and calibrated logits."""

    def __init__(self, encoder: nn.Module, tokens: LocalizationTokens) -> None:
        super().__init__()
        self.encoder, self.tokens = encoder, tokens

    def forward(self, features: Tensor, votes: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, F) and (B, V) to latent (B, T, D) and logits (B, K)."""
        logits = self.encoder(features, votes)
        return self.tokens(torch.sigmoid(logits)), logits


def export(run: Path, to: Path, metric_files: Sequence[Path] = ()) -> Bundle:
    """Write the bundle of a finished run.

    Parameters
    ----------
    run
        Folder of the run.
    to
        Folder of the bundle.
    metric_files
        JSON files of measured figures for ``bundle.json`` and the card: name to value, low, high, n.

    Raises
    ------
    InputError
        If the run is not finished.
    DeepGPSError
        If a graph does not answer as its module does.
    """
    if not (run / "pictures" / GENERATOR).exists():
        raise InputError(f"'{run}' holds no finished run; go on with `deepgps train … --out {run} --resume`.")
    recipe = load_recipe(str(run / RECIPE))
    about = json.loads((run / "labels" / "encoder.json").read_text(encoding="utf-8"))
    encoder = condensed(load_encoder(run / "labels"))
    generator = build_generator(len(about["classes"]), recipe.pictures)
    generator.load_state_dict(load_file(run / "pictures" / GENERATOR))
    condensed(generator)
    size = recipe.crop.size_px
    sequence = {"features": torch.rand(2, about["features"]), "votes": torch.rand(2, about["votes"])}
    picture = {
        "nucleus": torch.rand(2, 1, size, size),
        "latent": torch.rand(2, len(about["classes"]), recipe.pictures.latent_dim),
    }
    metrics = {name: metric for path in metric_files for name, metric in read_metrics(path).items()}
    fields = _fields(recipe, about, metrics)
    files = {
        "encoder.onnx": to_onnx(
            EncoderGraph(encoder, generator.tokens).eval(), sequence, ("latent", "logits")
        ),
        "generator.onnx": to_onnx(generator.unet, picture, ("image",)),
        "neighbours.npz": (run / "labels" / "neighbours.npz").read_bytes(),
        "CARD.md": model_card(fields, metrics, about).encode(),
    }
    return write_bundle(to, fields, files)


def _fields(recipe: Recipe, about: Mapping[str, Any], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Fields of ``bundle.json``, from the recipe and what ``encoder.json`` says about the sequence half."""
    return {
        "name": recipe.name,
        "version": recipe.version,
        "classes": about["classes"],
        "multi_label": class_set(recipe.class_set).multi_label,
        "thresholds": about["thresholds"],
        "cell_line": recipe.cell_line,
        "encoder": {
            "kind": "features",
            "name": about["features_name"],
            "dimension": about["features"],
            "max_length": MAX_LENGTH,
        },
        "crop": recipe.crop.model_dump(),
        "normalisation": {"low": 3.0, "high": 99.8},
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


def read_metrics(path: Path) -> dict[str, Metric]:
    """Read measured figures.

    Raises
    ------
    InputError
        If the file is missing or not of that form.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: Metric.model_validate(entry) for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"Metrics file '{path}' cannot be used: {error}.") from None


def condensed(module: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions and round weights to half precision, in place; ready to predict."""
    module.eval()
    for chain in [each for each in module.modules() if isinstance(each, nn.Sequential)]:
        for i, (layer, following) in enumerate(pairwise(chain)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                chain[i], chain[i + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
    return module


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free_axes: Sequence[Mapping[int, Any]] | None = None,
) -> bytes:
    """Export a module for any batch size, or any size on `free_axes`, and hold the graph against it.

    Weights that half precision holds exactly are stored in it, which halves the file; the graph computes in
    single precision.

    Raises
    ------
    DeepGPSError
        If any output differs by more than `TOLERANCE`.
    """
    batch = torch.export.Dim("batch")
    free_axes = free_axes or [{0: batch} for _ in inputs]
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=tuple(dict(axes) for axes in free_axes),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    graph = _stored_in_half(program.model_proto)
    _check_parity(module, graph, inputs, outputs)
    return graph


def _stored_in_half(model: onnx.ModelProto) -> bytes:
    """Store exact weights as float16 behind a cast, which the runtime folds away when it loads the graph."""
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 256:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half, values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return bytes(model.SerializeToString())


def _check_parity(
    module: nn.Module, graph: bytes, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> None:
    """Compare at another batch size than the one exported with."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    more = {name: torch.cat([value, value.flip(0), value[:1]]) for name, value in inputs.items()}
    with torch.no_grad():
        expected = module(*more.values())
    drawn = session.run(list(outputs), {name: value.numpy() for name, value in more.items()})
    wanted = expected if isinstance(expected, tuple) else (expected,)
    for name, want, got in zip(outputs, wanted, drawn, strict=True):
        difference = float(np.abs(want.numpy() - got).max())
        if not difference <= TOLERANCE:
            raise DeepGPSError(
                f"Graph output '{name}' differs from the module by {difference:.2g}; not exported."
            )
