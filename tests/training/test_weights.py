import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from deepgps.bundle import Bundle, find_bundle, open_bundle, write_bundle
from deepgps.errors import BundleError
from deepgps.models.deepgps import DeepGPS
from deepgps.training.weights import bundle_recipe, bundle_weights, rebuilt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["paper", "both", "residues"])
def exported(request, joint_export) -> tuple[DeepGPS, Bundle]:
    """The model of a joint run, and its bundle."""
    return joint_export(request.param)


def answers(graph: bytes, given: dict[str, torch.Tensor]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in given.items()})


def inputs(graph: bytes, batch: int = 3, length: int = 11) -> dict[str, torch.Tensor]:
    """Random inputs of the shapes that a graph names, anything on the axes that it leaves open."""
    torch.manual_seed(2)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    shapes = {each.name: [batch, *each.shape[1:]] for each in session.get_inputs()}
    given = {
        name: torch.rand([length if isinstance(size, str) else size for size in shape])
        for name, shape in shapes.items()
    }
    # The one that is no number to compute with: which of as many nuclei each is drawn into.
    return given | ({"which": torch.arange(batch).flip(0)} if "which" in given else {})


def assert_answers_as_the_graphs(bundle: Bundle) -> None:
    for part, module in rebuilt(bundle)._asdict().items():
        graph = bundle.read(f"{part}.onnx")
        given = inputs(graph)
        found = answers(graph, given)
        # A generator whose images have a grain gives their mean as well.
        both = part == "generator" and len(found) == 2
        with torch.no_grad():
            expected = (module.drawn_and_mean if both else module)(*given.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for want, got in zip(expected, found, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)
            assert np.std(got) > 1e-4


def test_what_is_rebuilt_from_a_joint_bundle_answers_as_its_graphs(exported):
    assert_answers_as_the_graphs(exported[1])


def test_what_is_rebuilt_from_a_bundle_of_two_halves_answers_as_its_graphs(tiny_export):
    assert_answers_as_the_graphs(tiny_export)


def test_the_shipped_bundle_can_be_rebuilt_though_it_holds_no_recipe():
    shipped = open_bundle(find_bundle("deepgps-mini"))
    assert bundle_recipe(shipped).name == "deepgps-mini"
    assert_answers_as_the_graphs(shipped)


def test_the_whole_network_is_rebuilt_and_every_weight_of_it_is_the_trained_one(exported):
    trained, bundle = exported
    network = rebuilt(bundle).encoder.model
    assert isinstance(network, DeepGPS)
    untouched = {
        name: each for name, each in trained.state_dict().items() if "project" in name or "fusion" in name
    }
    own = network.state_dict()
    for name, value in untouched.items():
        torch.testing.assert_close(own[name], value, rtol=1e-3, atol=1e-4)  # half precision has 11 bits
    assert len(untouched) > 5


def test_weights_are_named_as_in_their_modules(exported):
    weights = bundle_weights(exported[1])
    modules = rebuilt(exported[1])
    names = {f"{part}.{name}" for part, module in modules._asdict().items() for name in module.state_dict()}
    assert set(weights) <= names
    assert "generator.down.0.0.weight" in weights
    assert all(value.dtype == torch.float32 for value in weights.values())


def with_recipe(bundle: Bundle, content: bytes | None, folder) -> Bundle:
    files = {name: bundle.read(name) for name in bundle.metadata.files if name != "recipe.yaml"}
    fields = bundle.metadata.model_dump(exclude={"schema_version", "files"})
    return write_bundle(folder, fields, files | ({"recipe.yaml": content} if content else {}))


def test_a_bundle_without_its_recipe_is_refused(tiny_export, tmp_path):
    with pytest.raises(BundleError, match=r"has no 'recipe.yaml'; export it again from its run"):
        rebuilt(with_recipe(tiny_export, None, tmp_path / "bare"))


@pytest.mark.parametrize(
    ("widths", "said"), [([4, 16], "size mismatch"), ([4, 8, 8], "'down.2.0.bias' is missing or too many")]
)
def test_a_bundle_with_another_recipe_is_refused(exported, tmp_path, widths, said):
    recipe = yaml.safe_load(exported[1].read("recipe.yaml"))
    recipe["model"]["widths"] = widths
    other = with_recipe(exported[1], yaml.safe_dump(recipe).encode(), tmp_path / "other")
    with pytest.raises(BundleError, match=f"was not made by the recipe in it.*{said}"):
        rebuilt(other)


def test_a_graph_does_not_tell_where_it_was_made(tiny_export):
    for name in ("encoder.onnx", "generator.onnx"):
        assert b"/deepgps/" not in tiny_export.read(name)
