"""Run ONNX graphs: on a GPU, with OpenVINO in bfloat16, or with ONNX Runtime on the CPU.

The fastest available runtime is used, unless the environment variable ``DEEPGPS_RUNTIME`` names another.
`docs/explanation/performance.md` has their speed and accuracy.
"""

import io
import os
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np

from deepgps.arrays import Floats
from deepgps.errors import InputError

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
        A file, or its content.
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
    InputError
        If ``DEEPGPS_RUNTIME`` is unknown or not available.
    """
    runtime = choose_runtime(os.environ.get(SETTING), available_runtimes())
    if runtime == "openvino" and reduced:
        return _OpenVino(graph, threads)
    return _onnxruntime(graph, threads, on_gpu=runtime == "cuda")


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
