"""ONNX graphs of torch modules, with the names of the parameters, stored in half precision.

Nothing is folded: every weight is an initializer with its name in the module's state dict, so a network is
trained further from its graphs by `graph_weights`. ONNX Runtime folds constants and batch norms when it loads
a graph.
"""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir
import onnx_ir.passes.common as passes
import onnxruntime
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from deepgps.errors import DeepGPSError
from deepgps.models.flow_matching import FlowMatchingUNet
from deepgps.models.unet import UNet

TOLERANCE = 1e-4
OPSET = 20
HALF = ".half"
"""Suffix of the name of a weight stored in half precision."""

Module = TypeVar("Module", bound=nn.Module)


def rounded_to_half(module: Module) -> Module:
    """Round parameters to half precision, in place, but for those of batch norms, which are few.

    Returns
    -------
    Module
        The same module, in evaluation mode.
    """
    module.eval()
    with torch.no_grad():
        for part in module.modules():
            if not isinstance(part, nn.modules.batchnorm._BatchNorm):
                for parameter in part.parameters(recurse=False):
                    parameter.copy_(parameter.half().float())
    return module


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    free_axes: Sequence[Mapping[int, Any]] | None = None,
) -> bytes:
    """Export a module, and compare the graph with it.

    Weights that half precision holds exactly are stored in it; the graph computes in single precision.

    Parameters
    ----------
    module
        The module, in evaluation mode.
    inputs
        Examples of its inputs, by name.
    outputs
        Names of its outputs.
    free_axes
        Axes of each input that may have any size; by default the first.

    Returns
    -------
    bytes
        The graph.

    Raises
    ------
    DeepGPSError
        If an output differs by more than `TOLERANCE`.
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
        names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        _simplify(program.model, names)
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
        The generator.
    size_px, latent_dim
        Edge of a crop, and size of a latent token.
    tokens, any_length
        Latent tokens of a protein, and whether their number is free.

    Returns
    -------
    bytes
        The ONNX graph.
    """
    nuclei, batch = torch.export.Dim("nuclei"), torch.export.Dim("batch")
    inputs = {
        "nucleus": torch.rand(3, 1, size_px, size_px),
        "latent": torch.randn(2, tokens, latent_dim),
        "which": torch.tensor([2, 0]),
    }
    length = {1: torch.export.Dim("length", min=2)} if any_length else {}
    axes = [{0: nuclei}, {0: batch, **length}, {0: batch}]
    return to_onnx(generator.eval(), inputs, ("image",), axes)


def flow_matching_graph(network: FlowMatchingUNet, size_px: int) -> bytes:
    """Export a network that draws by flow matching, for any number of images of ``size_px``.

    Parameters
    ----------
    network
        The network.
    size_px
        Edge of an image in pixels.

    Returns
    -------
    bytes
        The graph; its inputs are those of `FlowMatchingUNet.forward`, its output is ``clean``.
    """
    inputs = {
        "noisy": torch.randn(2, 1, size_px, size_px),
        "time": torch.tensor([0.0, 0.7]),
        "images": torch.rand(2, network.images, size_px, size_px),
        "given": torch.ones(2, network.images),
        "condition": torch.rand(2, network.conditions),
        "mean": torch.tensor([1.0, 0.0]),
    }
    return to_onnx(network.eval(), inputs, ("clean",))


def share_children(module: nn.Module, to: nn.Module, without: Sequence[str] = ()) -> None:
    """Make the children of a module those of another one, so that the parameters keep their names."""
    for name, part in module.named_children():
        if name not in without:
            to.add_module(name, part)


def graph_weights(graph: bytes) -> dict[str, Tensor]:
    """Return the weights of a graph by their names in the module, float32."""
    return {
        # Other constants have names of the exporter, without a dot.
        each.name.removesuffix(HALF): torch.from_numpy(onnx.numpy_helper.to_array(each).astype(np.float32))
        for each in onnx.load_from_string(graph).graph.initializer
        if "." in each.name.removesuffix(HALF)
    }


def _simplify(model: onnx_ir.Model, parameters: Collection[str]) -> None:
    """Inline functions and fold constants, but for what is computed from a parameter."""

    def foldable(node: onnx_ir.Node) -> bool | None:
        return False if any(each is not None and each.name in parameters for each in node.inputs) else None

    passes.InlinePass()(model)
    onnxscript.optimizer.fold_constants_ir(model, onnx_shape_inference=True, should_fold=foldable)
    for simplify in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.CommonSubexpressionEliminationPass(),
        passes.NameFixPass(),
    ):
        simplify(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about torchvision, which nothing here uses, and about its internals."""
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
    """Remove the exporter's notes on the source of each node; they hold paths of its machine."""
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
    """Store exact weights as float16 with a cast, which the runtime folds when it loads the graph."""
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
    found = session.run(list(outputs), {name: value.numpy() for name, value in more.items()})
    expected = expected if isinstance(expected, tuple) else (expected,)
    for name, right, got in zip(outputs, expected, found, strict=True):
        difference = float(np.abs(right.numpy() - got).max())
        # Latents have no unit and may be large; probabilities and images lie in [0, 1].
        if not difference <= TOLERANCE * max(1.0, float(right.abs().max())):
            raise DeepGPSError(
                f"Graph output '{name}' differs from the module by {difference:.2g}; not exported."
            )
