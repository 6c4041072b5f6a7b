import numpy as np
import pytest
from onnx import TensorProto, helper

from deepgps import runtime
from deepgps.errors import BundleError, InputError
from deepgps.runtime import (
    CUDA,
    choose_runtime,
    open_graph,
    providers,
    refers_to_files,
    supported_runtimes,
)

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


def graph_of(tmp_path, external):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.arange(600, dtype=np.float32), "weights")
    node = onnx.helper.make_node("Identity", ["weights"], ["out"])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [600])
    graph = onnx.helper.make_graph([node], "graph", [], [out], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "graph.onnx"
    onnx.save_model(model, path, save_as_external_data=external, location="weights.bin", size_threshold=0)
    return path


def test_a_graph_that_refers_to_other_files_is_refused(tmp_path, monkeypatch):
    path = graph_of(tmp_path, external=True)
    monkeypatch.chdir(tmp_path)
    assert refers_to_files(path.read_bytes())
    with pytest.raises(BundleError, match="refers to other files"):
        open_graph(path.read_bytes())
    (found,) = open_graph(path).run(["out"], {})
    assert found[5] == 5
    assert not refers_to_files(graph_of(tmp_path, external=False).read_bytes())


def test_external_data_is_found_in_subgraphs_and_attributes(tmp_path):
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="x", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    inner = onnx.GraphProto(initializer=[tensor])
    attribute = onnx.AttributeProto(name="body", type=onnx.AttributeProto.GRAPH, g=inner)
    constant = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    nodes = [onnx.NodeProto(attribute=[each]) for each in (attribute, constant)]
    for node in nodes:
        assert refers_to_files(onnx.ModelProto(graph=onnx.GraphProto(node=[node])).SerializeToString())
        function = onnx.FunctionProto(name="f", node=[node])
        assert refers_to_files(onnx.ModelProto(functions=[function]).SerializeToString())


@pytest.mark.parametrize("content", [b"", b"no graph", b"\xff" * 100, bytes(1000)])
def test_what_is_no_graph_is_a_sentence(content):
    with pytest.raises(BundleError, match="cannot be loaded"):
        open_graph(content)
