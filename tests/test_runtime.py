import numpy as np
import pytest
from onnx import TensorProto, helper

from deepgps import runtime
from deepgps.errors import InputError
from deepgps.runtime import CUDA, choose_runtime, open_graph, providers, supported_runtimes

CPU = "CPUExecutionProvider"
AMX = ("FP32", "INT8", "BF16")


@pytest.mark.parametrize(
    ("named", "precisions", "best"),
    [
        ([CPU], (), "cpu"),
        ([CPU], ("FP32", "INT8"), "cpu"),
        ([CPU], AMX, "openvino"),
        ([CUDA, CPU], (), "cuda"),
        (["TensorrtExecutionProvider", CUDA, CPU], AMX, "cuda"),
        (["AzureExecutionProvider", CPU], (), "cpu"),
    ],
)
def test_the_fastest_that_is_there_is_chosen(named, precisions, best):
    assert choose_runtime(None, supported_runtimes(named, precisions)) == best
    assert choose_runtime("", supported_runtimes(named, precisions)) == best
    assert choose_runtime("cpu", supported_runtimes(named, precisions)) == "cpu"


def test_a_wish_that_cannot_be_met_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="'openvino', which needs the extra 'openvino' and a processor"):
        choose_runtime("openvino", {"cpu"})
    with pytest.raises(InputError, match="'cuda', which needs an NVIDIA GPU"):
        choose_runtime("cuda", {"cpu", "openvino"})
    with pytest.raises(InputError, match="is 'tpu'; use cuda, openvino, cpu, or leave it unset"):
        choose_runtime("tpu", {"cpu"})


def test_a_gpu_keeps_single_precision_and_the_processor_stands_behind_it():
    assert providers(on_gpu=True) == [(CUDA, {"use_tf32": "0"}), CPU]
    assert providers(on_gpu=False) == [CPU]


@pytest.fixture
def convolution():
    """A graph: 3 x 3 means of what is given, of any batch."""
    shape = ["batch", 1, 8, 8]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 3, 3], [1 / 9] * 9)]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "mean", sides[:1], sides[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_graphs_are_opened_as_the_setting_says(convolution, monkeypatch):
    monkeypatch.setenv("DEEPGPS_RUNTIME", "cpu")
    ones = np.ones((3, 1, 8, 8), np.float32)
    (found,) = open_graph(convolution, 1, reduced=True).run(["y"], {"x": ones})
    assert found[0, 0, 3, 3] == pytest.approx(1)
    assert found[2, 0, 0, 0] == pytest.approx(4 / 9)
    monkeypatch.setenv("DEEPGPS_RUNTIME", "abacus")
    with pytest.raises(InputError, match="abacus"):
        open_graph(convolution)


def test_only_what_may_be_reduced_is(convolution, monkeypatch):
    monkeypatch.setattr(runtime, "available_runtimes", lambda: frozenset({"cpu", "openvino"}))
    monkeypatch.setattr(runtime, "_OpenVino", lambda graph, threads: ("reduced", threads))
    monkeypatch.delenv("DEEPGPS_RUNTIME", raising=False)
    assert open_graph(convolution, 2, reduced=True) == ("reduced", 2)
    assert open_graph(convolution, 2) != ("reduced", 2)


def test_openvino_answers_as_onnx_runtime_does(convolution, monkeypatch):
    pytest.importorskip("openvino")
    if "openvino" not in runtime.available_runtimes():
        pytest.skip("this processor has no bfloat16")
    given = {"x": np.random.default_rng(0).random((2, 1, 8, 8), np.float32)}
    monkeypatch.setenv("DEEPGPS_RUNTIME", "openvino")
    reduced = open_graph(convolution, 1, reduced=True).run(["y"], given)[0]
    monkeypatch.setenv("DEEPGPS_RUNTIME", "cpu")
    exact = open_graph(convolution, 1).run(["y"], given)[0]
    assert np.abs(reduced - exact).max() < 2**-7
    assert reduced.shape == exact.shape
