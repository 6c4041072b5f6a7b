"""From a torch module to an ONNX graph that answers as it does, with weights stored in half precision."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepgps.errors import DeepGPSError
from deepgps.models.unet import UNet

TOLERANCE = 1e-4
OPSET = 20
HALF = ".half"
"""What a weight is called that is stored in half precision, after its own name."""

Module = TypeVar("Module", bound=nn.Module)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def condensed(module: Module) -> Module:
    """Fold batch norms into convolutions and round weights to half precision, in place; ready to predict."""
    module.eval()
    for chain in [each for each in module.modules() if isinstance(each, nn.Sequential)]:
        for i, (layer, following) in enumerate(pairwise(chain)):
            if isinstance(following, _NORMS) and isinstance(layer, nn.Conv1d | nn.Conv2d):
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
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(axes) for axes in free_axes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        onnxscript.optimizer.optimize_ir(program.model, should_fold=_foldable)
    graph = _stored_in_half(without_notes(program.model_proto))
    _check_parity(module, graph, inputs, outputs)
    return graph


def generator_graph(
    generator: UNet, size_px: int, tokens: int, latent_dim: int, *, any_length: bool
) -> bytes:
    """Export a generator of images of ``size_px``, for any number of nuclei and of images.

    Parameters
    ----------
    generator
        The generator, condensed.
    size_px, latent_dim
        Edge of a crop, and size of a latent token.
    tokens, any_length
        Latent tokens of a protein, and whether it may be another number.
    """
    nuclei, batch = torch.export.Dim("nuclei"), torch.export.Dim("batch")
    given = {
        "nucleus": torch.rand(3, 1, size_px, size_px),
        "latent": torch.randn(2, tokens, latent_dim),
        "which": torch.tensor([2, 0]),
    }
    length = {1: torch.export.Dim("length", min=2)} if any_length else {}
    axes = [{0: nuclei}, {0: batch, **length}, {0: batch}]
    if generator.grain is None:
        return to_onnx(generator.eval(), given, ("image",), axes)
    return to_onnx(_WithMean(generator).eval(), given, ("image", "mean"), axes)


class _WithMean(nn.Module):
    """A generator that gives the mean of all images that could be beside the one that it draws."""

    def __init__(self, generator: UNet) -> None:
        super().__init__()
        # So that weights have the names that they have in the generator.
        for name, part in generator.named_children():
            self.add_module(name, part)
        self._both = generator.drawn_and_mean

    def forward(self, nucleus: Tensor, latent: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """As `UNet.drawn_and_mean`."""
        return self._both(nucleus, latent, which)


def _foldable(node: Any) -> bool | None:
    """Keep weights whole that a layer takes a part of, so that a bundle has them by their names."""
    weight = node.inputs[0].name if node.op_type == "Split" else None
    return False if weight and "." in weight else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave unsaid what the exporter says of torchvision, which nothing here uses, and of its own insides."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message=".*axis name.* will not be used")
            yield
    finally:
        registration.setLevel(level)


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out the exporter's notes on where each node comes from, paths of its machine among them."""
    graph = model.graph
    for each in (
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        del each.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
    return model


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
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, name + HALF))
        casts.append(onnx.helper.make_node("Cast", [name + HALF], [name], to=onnx.TensorProto.FLOAT))
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
        # Latents have no unit and may be large; probabilities and images lie in [0, 1].
        if not difference <= TOLERANCE * max(1.0, float(want.abs().max())):
            raise DeepGPSError(
                f"Graph output '{name}' differs from the module by {difference:.2g}; not exported."
            )
