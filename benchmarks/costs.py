"""Floating-point operations and bytes of each convolution and matrix product of a graph.

Run ``python benchmarks/costs.py [GRAPH.onnx]``; the generator of the model in the package by default. Sizes
are those of one image or protein. Bytes are those of weights, input and output of each such layer in
float32: what is read and written if nothing stays in a cache.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

SHIPPED = Path(__file__).parents[1] / "src" / "deepgps" / "bundles" / "deepgps-mini"
COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
NUCLEUS = "nucleus"


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or matrix product.

    Attributes
    ----------
    kind
        Operator.
    shape
        Of its output, for a batch of one.
    flop, bytes
        Its operations, and the bytes of its weights, input and output.
    nucleus_only
        Whether it depends on the nucleus alone, so that it is computed once for all proteins.
    """

    kind: str
    shape: tuple[int, ...]
    flop: float
    bytes: float
    nucleus_only: bool


def layers(graph: bytes) -> list[Layer]:
    """Return the convolutions and matrix products of a graph, in its order."""
    model = onnx.load_model_from_string(graph)
    shapes = _shapes(model)
    shared = _computed_from_nucleus(model.graph.node)
    return [
        _layer(node, shapes, node.output[0] in shared) for node in model.graph.node if node.op_type in COUNTED
    ]


def _layer(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], nucleus_only: bool) -> Layer:
    first, second, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
    if node.op_type == "Conv":
        flop = 2 * prod(out) * prod(second[1:])
    elif node.op_type == "ConvTranspose":
        flop = 2 * prod(first) * prod(second[1:])
    else:
        transposed = any(each.name == "transA" and each.i for each in node.attribute)
        flop = 2 * prod(out) * first[0 if transposed else -1]
    return Layer(node.op_type, out, flop, 4 * (prod(first) + prod(second) + prod(out)), nucleus_only)


def _computed_from_nucleus(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return the names of the values that are computed from the nucleus alone."""
    known, other = {NUCLEUS}, {"which", "latent", "features", "votes", "embedding", "residues", "points"}
    for node in nodes:
        if other & set(node.input):
            other |= set(node.output)
        elif known & set(node.input):
            known |= set(node.output)
    return known


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs and outputs of the counted layers, by running a batch of one."""
    wanted = {name for node in model.graph.node if node.op_type in COUNTED for name in _around(node)}
    inputs = {each.name: _of_one(each) for each in model.graph.input}
    weights = {each.name: tuple(each.dims) for each in model.graph.initializer}
    inner = {name for name in wanted if name not in inputs and name not in weights}
    kept = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(inner - kept))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    found = zip(names, session.run(names, inputs), strict=True)
    return weights | {name: value.shape for name, value in inputs.items()} | {n: v.shape for n, v in found}


def _around(node: onnx.NodeProto) -> Iterator[str]:
    yield from (*node.input[:2], node.output[0])


def _of_one(value: onnx.ValueInfoProto) -> np.ndarray:
    """Return zeros of an input, a batch of one; integer inputs are indices, and 0 is the only valid one."""
    kind = value.type.tensor_type
    dims = [each.dim_value or 1 for each in kind.shape.dim]
    return np.zeros(dims, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graph", nargs="?", type=Path, default=SHIPPED / "generator.onnx")
    found = layers(parser.parse_args().graph.read_bytes())
    total = sum(each.flop for each in found)
    print("| layer | output | MFLOP | share | MB | of the nucleus alone |\n|---|---|---|---|---|---|")
    for each in found:
        shape = " × ".join(map(str, each.shape[1:]))
        alone = "yes" if each.nucleus_only else ""
        share = f"{each.flop / total:.0%}"
        print(
            f"| {each.kind} | {shape} | {each.flop / 1e6:,.1f} | {share} | {each.bytes / 1e6:.1f} | {alone} |"
        )
    shared = sum(each.flop for each in found if each.nucleus_only) / total
    size = sum(each.bytes for each in found)
    print(f"\n{total / 1e9:.2f} GFLOP, {size / 1e6:,.0f} MB, {shared:.0%} of the nucleus alone")


if __name__ == "__main__":
    main()
