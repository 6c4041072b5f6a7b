"""Where graphs are computed: on a GPU, by OpenVINO in bfloat16, or by ONNX Runtime on the processor.

What is best is chosen by itself, from what is installed and what the machine has; ``DEEPGPS_RUNTIME`` names
one instead. `docs/explanation/performance.md` has what each gains and what it changes.
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
    """An ONNX graph, ready to compute."""

    @property
    def inputs(self) -> frozenset[str]:
        """Names of its inputs."""

    @property
    def outputs(self) -> frozenset[str]:
        """Names of its outputs."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> Any:
        """Compute the outputs of these names from arrays by the names of the inputs."""


def open_graph(graph: Path | bytes, threads: int | None = None, *, reduced: bool = False) -> Graph:
    """Open an ONNX graph, a file or its content, where it computes fastest.

    Parameters
    ----------
    graph
        The graph.
    threads
        Threads of the processor; all cores if None.
    reduced
        Whether bfloat16 is enough, as it is for images; labels are computed in single precision.

    Raises
    ------
    InputError
        If ``DEEPGPS_RUNTIME`` names none, or one that is not there.
    """
    runtime = chosen(os.environ.get(SETTING), available())
    if runtime == "openvino" and reduced:
        return _OpenVino(graph, threads)
    return _onnxruntime(graph, threads, on_gpu=runtime == "cuda")


def chosen(wanted: str | None, there: Collection[Runtime]) -> Runtime:
    """Choose a runtime: the one wanted, else the fastest that is there.

    Raises
    ------
    InputError
        If none is of that name, or it is not there.
    """
    if not wanted:
        fastest: Runtime = next(each for each in get_args(Runtime) if each in there)
        return fastest
    known: Runtime | None = next((each for each in get_args(Runtime) if each == wanted), None)
    if known is None:
        raise InputError(f"{SETTING} is '{wanted}'; use {', '.join(get_args(Runtime))}, or leave it unset.")
    if known not in there:
        raise InputError(f"{SETTING} is '{wanted}', which needs {_NEEDS[wanted]}; install it, or unset it.")
    return known


@cache
def available() -> frozenset[Runtime]:
    """Look what is installed, and what of it this machine can use."""
    import onnxruntime

    return runtimes(onnxruntime.get_available_providers(), _openvino_precisions())


def runtimes(providers: Collection[str], precisions: Collection[str]) -> frozenset[Runtime]:
    """Tell the runtimes from ONNX Runtime's providers and the precisions that OpenVINO is fast in."""
    found: set[Runtime] = {"cpu"}
    if CUDA in providers:
        found.add("cuda")
    # In float32 it is no faster than ONNX Runtime.
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
    # Threads that spin while they wait slow down whatever else the machine is doing, and save nothing here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if on_gpu and hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA's libraries where pip put them.
        onnxruntime.preload_dlls()
    return _OnnxRuntime(onnxruntime.InferenceSession(graph, options, providers=providers(on_gpu=on_gpu)))


def providers(*, on_gpu: bool) -> list[str | tuple[str, dict[str, str]]]:
    """Name ONNX Runtime's providers, the first one that is to be used first."""
    # TF32 would keep 10 bits of the 23 that a number has on the processor.
    gpu: list[str | tuple[str, dict[str, str]]] = [(CUDA, {"use_tf32": "0"})] if on_gpu else []
    return [*gpu, "CPUExecutionProvider"]


class _OnnxRuntime:
    """A graph that ONNX Runtime computes."""

    def __init__(self, session: Any) -> None:
        self.run = session.run
        self.inputs = frozenset(each.name for each in session.get_inputs())
        self.outputs = frozenset(each.name for each in session.get_outputs())


class _OpenVino:
    """A graph that OpenVINO computes on the processor, its convolutions and products in bfloat16."""

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
        # A request holds the memory of one computation.
        self._lock = Lock()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Floats]:
        with self._lock:
            found = self._request.infer(dict(inputs))
            return [np.array(found[name]) for name in outputs]
