"""A package for the BioImage Model Zoo: one graph that draws mean images, with its description.

What the Zoo's programs run is one graph from tensors to tensors. A generator that was trained by flow
matching draws one of many images in several steps, from noise; its mean image is one pass, and becomes the
graph here. The graph takes a nucleus image and the probabilities of the model's classes, and needs nothing of
deepGPS.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepgps.arrays import Floats
from deepgps.bundle import Bundle, FlowMatchingSpec
from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.registries.hugging_face import check_empty
from deepgps.runtime import open_graph

if TYPE_CHECKING:
    import onnx

DESCRIPTION_FILE = "rdf.yaml"
FORMAT_VERSION = "0.5.4"
GRAPH_FILE, TEXT_FILE = "weights.onnx", "README.md"
_INPUTS, _OUTPUT = ("nucleus", "localization"), "protein"
_EPS = 1e-6
_AUTHOR = {"name": "The deepGPS developers"}
_PAPER = {"text": "Yuan et al., deepGPS (2025)", "url": "https://github.com/royal-dargon/deepGPS"}
_OPSET = 18
"""The first with everything that is put around the generator."""


def write_package(bundle: Bundle, folder: Path) -> Path:
    """Write a package for the BioImage Model Zoo; needs the extra ``train``.

    It holds ``rdf.yaml``, the graph ``weights.onnx``, ``README.md`` (the model's card), and a test: a default
    nucleus with a protein of the model's first class, and the image that the graph draws.

    Parameters
    ----------
    bundle
        A bundle whose generator was trained by flow matching.
    folder
        The folder; it may not hold files yet.

    Returns
    -------
    Path
        ``rdf.yaml``.

    Raises
    ------
    InputError
        If the folder holds files, or the generator was not trained by flow matching.
    """
    metadata = bundle.metadata
    if metadata.flow_matching is None:
        raise InputError(
            f"The generator of '{metadata.name}' takes latents that only its encoder makes, which the "
            "BioImage Model Zoo cannot describe; package a model that draws by flow matching, such as "
            "deepgps-mini."
        )
    check_empty(folder)
    graph = mean_image_graph(bundle.read("generator.onnx"), metadata.flow_matching)
    cell = Cell.load("hek-1", size_px=metadata.crop.size_px, pixel_size_um=metadata.crop.pixel_size_um)
    nucleus = cell.nucleus[None, None]
    localization = np.eye(1, len(metadata.flow_matching.classes), dtype=np.float32)
    low, high = np.percentile(nucleus, (metadata.normalisation.low, metadata.normalisation.high))
    normalised = np.clip((nucleus - low) / (high - low + _EPS), 0, 1).astype(np.float32)
    inputs = dict(zip(_INPUTS, (normalised, localization), strict=True))
    drawn: Floats = open_graph(graph).run([_OUTPUT], inputs)[0]
    files = {
        GRAPH_FILE: graph,
        TEXT_FILE: bundle.read("CARD.md"),
        **{
            f"test-{name}.npy": _npy(image)
            for name, image in zip(_INPUTS, (nucleus, localization), strict=True)
        },
        f"test-{_OUTPUT}.npy": _npy(drawn),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    # JSON, of which YAML is a superset.
    text = json.dumps(_description(bundle, hashes), indent=2, ensure_ascii=False) + "\n"
    path = folder / DESCRIPTION_FILE
    path.write_text(text, encoding="utf-8")
    return path


def _npy(array: Floats) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _description(bundle: Bundle, hashes: dict[str, str]) -> dict[str, Any]:
    metadata = bundle.metadata
    flow = metadata.flow_matching
    assert flow is not None
    size, um = metadata.crop.size_px, metadata.crop.pixel_size_um
    space = [
        {"type": "space", "id": axis, "size": size, "unit": "micrometer", "scale": um} for axis in ("y", "x")
    ]

    def image(name: str, what: str) -> dict[str, Any]:
        axes = [{"type": "batch"}, {"type": "channel", "channel_names": [name]}, *space]
        return {
            **_tensor(name, what, hashes),
            "axes": axes,
            "data": {"type": "float32", "range": [0, 1]},
        }

    percentiles = {
        "min_percentile": metadata.normalisation.low,
        "max_percentile": metadata.normalisation.high,
    }
    normalise = [
        {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"], "eps": _EPS, **percentiles}},
        {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
    ]
    nucleus = image(_INPUTS[0], "Image of a nuclear stain, centred on one nucleus")
    nucleus["data"] = {"type": "float32"}
    localization = {
        **_tensor(_INPUTS[1], "Probability of each localization of the protein", hashes),
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(flow.classes)}],
        "data": {"type": "float32", "range": [0, 1]},
    }
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"{metadata.name} mean images",
        "version": metadata.version,
        "description": (
            "Draws the mean fluorescence image of a protein into a nucleus image, given the probabilities of "
            f"{len(flow.classes)} localizations"
        ),
        "authors": [_AUTHOR],
        "cite": [_PAPER],
        "license": metadata.licence.replace(" ", "-"),
        "documentation": {"source": TEXT_FILE, "sha256": hashes[TEXT_FILE]},
        "tags": ["fluorescence-light-microscopy", "nuclei", "cells", "2d", "image-generation", "protein"],
        "inputs": [{**nucleus, "preprocessing": normalise}, localization],
        "outputs": [image(_OUTPUT, "Mean of the images of the protein that the model holds possible")],
        "weights": {
            "onnx": {"source": GRAPH_FILE, "sha256": hashes[GRAPH_FILE], "opset_version": _opset(bundle)}
        },
        "config": {"deepgps": {"sha256": bundle.sha256}},
    }


def _tensor(name: str, what: str, hashes: dict[str, str]) -> dict[str, Any]:
    file = f"test-{name}.npy"
    return {"id": name, "description": what, "test_tensor": {"source": file, "sha256": hashes[file]}}


def _opset(bundle: Bundle) -> int:
    import onnx

    return _main_opset(onnx.load_from_string(bundle.read("generator.onnx")))


def _main_opset(model: "onnx.ModelProto") -> int:
    return next(int(each.version) for each in model.opset_import if not each.domain)


def mean_image_graph(generator: bytes, flow: FlowMatchingSpec) -> bytes:
    """Wrap a generator into a graph that draws mean images, as `FlowMatchingGenerator` does.

    Parameters
    ----------
    generator
        ``generator.onnx`` of a bundle.
    flow
        How the bundle draws.

    Returns
    -------
    bytes
        A graph from ``nucleus`` (B, 1, H, W) in [0, 1] and ``localization`` (B, K) to ``protein``
        (B, 1, H, W) in [0, 1], in a cell of no line that the model knows, without landmarks.

    Raises
    ------
    InputError
        If the generator is older than ONNX's operator set 18.
    """
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    model = onnx.load_from_string(generator)
    if _main_opset(model) < _OPSET:
        raise InputError(
            f"The generator has ONNX's operator set {_main_opset(model)}; export the model again."
        )
    model = compose.add_prefix(model, "generator/")
    size = 2 * model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    classes, landmarks = len(flow.classes), len(flow.landmarks)
    width = classes + 1 + len(flow.words) + 1 + len(flow.domains)
    constants: dict[str, Any] = {
        # The condition: the probabilities, and that they are known.
        "to_condition": np.eye(classes, width, dtype=np.float32),
        "is_known": np.eye(1, width, classes, dtype=np.float32)[0],
        "of_none": np.zeros((width, 1), np.float32),
        "of_none_images": np.zeros((width, 1 + landmarks), np.float32),
        "is_given": np.eye(1, 1 + landmarks, dtype=np.float32)[0],
        "zero": np.float32(0),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "zeros": np.zeros(1, np.float32),
        "ones": np.ones(1, np.float32),
        "last": np.array([1], np.int64),
        "enlarged": np.array([1, 1, 2, 2], np.float32),
    }
    for name, axes in _REFLECTIONS.items():
        constants |= {
            f"{name}/starts": np.full(len(axes), -1, np.int64),
            f"{name}/ends": np.full(len(axes), np.iinfo(np.int64).min, np.int64),
            f"{name}/axes": np.array(axes, np.int64),
            f"{name}/steps": np.full(len(axes), -1, np.int64),
        }

    def node(kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> "onnx.NodeProto":
        return helper.make_node(kind, inputs, list(outputs), **attributes)

    def reflected(source: str, target: str, name: str) -> "onnx.NodeProto":
        return node(
            "Slice", [source, *(f"{name}/{each}" for each in ("starts", "ends", "axes", "steps"))], target
        )

    nucleus, localization = _INPUTS
    before = [
        node("AveragePool", [nucleus], "halved", kernel_shape=[2, 2], strides=[2, 2]),
        node("Mul", ["halved", "zero"], "blank"),
        node("Concat", ["halved", *["blank"] * landmarks], "images", axis=1),
        *(reflected("images", f"images {name}", name) for name in _REFLECTIONS),
        node("Concat", ["images", *(f"images {name}" for name in _REFLECTIONS)], "generator/images", axis=0),
        node("Gemm", [localization, "to_condition", "is_known"], "condition"),
        node("Concat", ["condition"] * (1 + len(_REFLECTIONS)), "generator/condition", axis=0),
        node("Gemm", ["generator/condition", "of_none_images", "is_given"], "generator/given"),
        node("Gemm", ["generator/condition", "of_none", "zeros"], "column of zeros"),
        node("Squeeze", ["column of zeros", "last"], "generator/time"),
        node("Gemm", ["generator/condition", "of_none", "ones"], "column of ones"),
        node("Squeeze", ["column of ones", "last"], "generator/mean"),
        node("Concat", ["blank"] * (1 + len(_REFLECTIONS)), "generator/noisy", axis=0),
    ]
    after = [
        node(
            "Split",
            ["generator/clean"],
            "clean",
            *(f"clean {name}" for name in _REFLECTIONS),
            axis=0,
            num_outputs=1 + len(_REFLECTIONS),
        ),
        *(reflected(f"clean {name}", f"restored {name}", name) for name in _REFLECTIONS),
        node("Mean", ["clean", *(f"restored {name}" for name in _REFLECTIONS)], "encoded"),
        node("Add", ["encoded", "one"], "above zero"),
        node("Mul", ["above zero", "half"], "decoded"),
        node("Clip", ["decoded", "zero", "one"], "small"),
        node("Resize", ["small", "", "enlarged"], _OUTPUT, mode="linear"),
    ]
    image = ["batch", 1, size, size]
    graph = helper.make_graph(
        [*before, *model.graph.node, *after],
        "mean_image",
        [
            helper.make_tensor_value_info(nucleus, TensorProto.FLOAT, image),
            helper.make_tensor_value_info(localization, TensorProto.FLOAT, ["batch", classes]),
        ],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, image)],
        [
            *model.graph.initializer,
            *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()),
        ],
    )
    whole = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="deepgps"
    )
    onnx.checker.check_model(whole, full_check=True)
    content: bytes = whole.SerializeToString()
    return content


_REFLECTIONS = {"upside down": (2,), "mirrored": (3,), "turned": (2, 3)}
"""Reflections that a mean image is averaged over beside the image itself, by the axes that are reversed."""
