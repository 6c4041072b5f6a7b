"""Run ONNX graphs: on a GPU, with OpenVINO in bfloat16, or with ONNX Runtime on the CPU.

The fastest available runtime is used, unless the environment variable ``DEEPGPS_RUNTIME`` names another.
`docs/explanation/performance.md` has their speed and accuracy.
"""

import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import BundleError, InputError

Runtime = Literal["cuda", "openvino", "cpu"]

SETTING = "DEEPGPS_RUNTIME"
CUDA = "CUDAExecutionProvider"
_NEEDS = {
    "cuda": "an NVIDIA GPU and the extra 'gpu'",
    "openvino": "the extra 'openvino' and a processor with bfloat16",
}


class Graph(Protocol):
    """An ONNX graph, ready to run."""

    @property
    def inputs(self) -> frozenset[str]:
        """Names of its inputs."""

    @property
    def outputs(self) -> frozenset[str]:
        """Names of its outputs."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> Any:
        """Compute the named outputs from arrays by input name."""


def open_graph(graph: Path | bytes, threads: int | None = None, *, reduced: bool = False) -> Graph:
    """Open an ONNX graph with the fastest available runtime.

    Parameters
    ----------
    graph
        A file, which may refer to others beside it, or the content of one that may not.
    threads
        CPU threads; all cores if None.
    reduced
        Whether bfloat16 is precise enough, as it is for images; labels need single precision.

    Returns
    -------
    Graph
        The loaded graph.

    Raises
    ------
    BundleError
        If it is not a valid graph, or refers to other files.
    InputError
        If ``DEEPGPS_RUNTIME`` is unknown or not available.
    """
    if isinstance(graph, bytes) and refers_to_files(graph):
        raise BundleError("A graph of the model refers to other files, which are not read; export it again.")
    return _open(graph, threads, choose_runtime(os.environ.get(SETTING), available_runtimes()), reduced)


def _open(graph: Path | bytes, threads: int | None, runtime: Runtime, reduced: bool) -> Graph:
    try:
        if runtime == "openvino" and reduced:
            return _OpenVino(graph, threads)
        return _onnxruntime(graph, threads, on_gpu=runtime == "cuda")
    except ImportError:
        raise
    except Exception as error:  # each runtime raises exceptions of its own
        if _is_memory_error(error):
            raise MemoryError from None
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"A graph of the model cannot be loaded ({reason}); export it again.") from None


def _is_memory_error(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in text or "allocate memory" in text


# Fields of onnx.proto that lead to a tensor, by message: field number to message.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)
_FIELDS = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64


# The package onnx, which could tell, is not part of the base installation.
def refers_to_files(graph: bytes) -> bool:
    """Return whether tensors of an ONNX graph lie in other files (external data).

    Parameters
    ----------
    graph
        The serialized graph; what is no valid protocol buffer has no tensors.

    Returns
    -------
    bool
        Whether any does, those of subgraphs, functions and attributes included.
    """
    todo = [(_MODEL, memoryview(graph), 0)]
    while todo:
        message, content, depth = todo.pop()
        if depth > _MAX_DEPTH:
            return True
        try:
            for number, value in _protobuf_fields(content):
                if message == _TENSOR and (
                    number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
                ):
                    return True
                inner = _FIELDS.get(message, {}).get(number)
                if inner is not None and isinstance(value, memoryview):
                    todo.append((inner, value, depth + 1))
        except (IndexError, ValueError):
            continue
    return False


def _protobuf_fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and value of each field of a message in the wire format of protocol buffers."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(content):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"wire type {kind} is unknown")
        size = varint() if kind == 2 else 8 if kind == 1 else 4
        yield key >> 3, content[position : position + size]
        position += size


def choose_runtime(requested: str | None, available: Collection[Runtime]) -> Runtime:
    """Return the requested runtime, or the fastest available one if None or empty.

    Parameters
    ----------
    requested
        A runtime, or None or an empty string for the fastest.
    available
        The runtimes that can be used.

    Returns
    -------
    str
        ``cuda``, ``openvino`` or ``cpu``.

    Raises
    ------
    InputError
        If the requested runtime is unknown or not available.
    """
    if not requested:
        fastest: Runtime = next(each for each in get_args(Runtime) if each in available)
        return fastest
    known: Runtime | None = next((each for each in get_args(Runtime) if each == requested), None)
    if known is None:
        raise InputError(
            f"{SETTING} is '{requested}'; use {', '.join(get_args(Runtime))}, or leave it unset."
        )
    if known not in available:
        needs = _NEEDS[requested]
        raise InputError(f"{SETTING} is '{requested}', which needs {needs}; install it, or unset it.")
    return known


@cache
def available_runtimes() -> frozenset[Runtime]:
    """Return the runtimes that are installed and that this machine can use."""
    import onnxruntime

    return supported_runtimes(onnxruntime.get_available_providers(), _openvino_precisions())


def supported_runtimes(providers: Collection[str], precisions: Collection[str]) -> frozenset[Runtime]:
    """Return the runtimes, given ONNX Runtime's providers and the precisions that OpenVINO supports."""
    found: set[Runtime] = {"cpu"}
    if CUDA in providers:
        found.add("cuda")
    # In float32, OpenVINO is no faster than ONNX Runtime.
    if "BF16" in precisions:
        found.add("openvino")
    return frozenset(found)


def _openvino_precisions() -> Sequence[str]:
    try:
        import openvino
    except ModuleNotFoundError:
        return ()
    precisions: Sequence[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return precisions


def _onnxruntime(graph: Path | bytes, threads: int | None, *, on_gpu: bool) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Spinning threads slow down other processes, and save nothing here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if on_gpu and hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA's libraries where pip put them.
        onnxruntime.preload_dlls()
    return _OnnxRuntime(onnxruntime.InferenceSession(graph, options, providers=providers(on_gpu=on_gpu)))


def providers(*, on_gpu: bool) -> list[str | tuple[str, dict[str, str]]]:
    """Return ONNX Runtime's providers in order of preference."""
    # TF32 keeps 10 of the 23 mantissa bits that numbers have on the CPU.
    gpu: list[str | tuple[str, dict[str, str]]] = [(CUDA, {"use_tf32": "0"})] if on_gpu else []
    return [*gpu, "CPUExecutionProvider"]


class _OnnxRuntime:
    """A graph run by ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self.run = session.run
        self.inputs = frozenset(each.name for each in session.get_inputs())
        self.outputs = frozenset(each.name for each in session.get_outputs())


class _OpenVino:
    """A graph run by OpenVINO on the CPU, with convolutions and matrix products in bfloat16."""

    def __init__(self, graph: Path | bytes, threads: int | None) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(io.BytesIO(graph) if isinstance(graph, bytes) else graph)
        self.inputs = frozenset(each.any_name for each in model.inputs)
        self.outputs = frozenset(each.any_name for each in model.outputs)
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        # An inference request can run one computation at a time.
        self._lock = Lock()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Floats]:
        with self._lock:
            found = self._request.infer(dict(inputs))
            return [np.array(found[name]) for name in outputs]
