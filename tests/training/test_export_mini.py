import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from deepgps.bundle import Metric
from deepgps.cli.app import run as deepgps
from deepgps.datasets.crops.reference import DOMAINS
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.errors import DeepGPSError, InputError
from deepgps.localization import WORDS, class_set
from deepgps.models.flow_matching import FlowMatchingUNet
from deepgps.prediction import Predictor
from deepgps.training.card import metric_table
from deepgps.training.export import MiniEncoder, export_run, read_metrics
from deepgps.training.graphs import TOLERANCE, graph_weights, rounded_to_half, to_onnx
from deepgps.training.mini.images import read_network
from deepgps.training.mini.labels import load_encoder
from deepgps.training.mini.train import IMAGE_WEIGHTS
from deepgps.training.recipe import load_recipe

BATCHES = [1, 2, 3, 7]


SIZES = {"generator": 104, "grain": 208}
"""Edge of the images of each graph that draws."""


def trained(tiny_run) -> dict[str, nn.Module]:
    """The modules of the graphs as they were trained, of full precision, by the name of the graph."""
    settings, images = load_recipe(str(tiny_run / "recipe.yaml")).images, tiny_run / "images"
    return {
        "encoder": MiniEncoder(load_encoder(tiny_run / "labels")).eval(),
        "generator": read_network(images / IMAGE_WEIGHTS["structure"], settings.structure, 12),
        "grain": read_network(images / IMAGE_WEIGHTS["grain"], settings.grain, 12),
    }


def noisy_inputs(network: FlowMatchingUNet, size: int, batch: int) -> list[torch.Tensor]:
    images = torch.rand(batch, network.images, size, size)
    given, condition = torch.ones(batch, network.images), torch.rand(batch, network.conditions)
    time, mean = torch.rand(batch), (torch.arange(batch) % 2).float()
    return [torch.randn(batch, 1, size, size), time, images, given, condition, mean]


def answers(graph: bytes, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: each.numpy() for name, each in zip(names, inputs, strict=True)})


@pytest.mark.parametrize("batch", BATCHES)
def test_the_encoder_graph_answers_as_its_module(tiny_run, tiny_export, batch):
    about = json.loads((tiny_run / "labels" / "encoder.json").read_text())
    module = rounded_to_half(trained(tiny_run)["encoder"])
    features, votes = 5 * torch.randn(batch, about["features"]), torch.rand(batch, about["votes"])
    with torch.no_grad():
        expected = module(features, votes)
    found = answers(tiny_export.read("encoder.onnx"), features, votes)
    for want, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(got, want, atol=TOLERANCE)
    assert np.ptp(found[1]) > 0.01


@pytest.mark.parametrize("graph", SIZES)
@pytest.mark.parametrize("batch", BATCHES)
def test_a_graph_that_draws_answers_as_its_module(tiny_run, tiny_export, graph, batch):
    module = rounded_to_half(trained(tiny_run)[graph])
    inputs = noisy_inputs(module, SIZES[graph], batch)
    with torch.no_grad():
        expected = module(*inputs)
    (found,) = answers(tiny_export.read(f"{graph}.onnx"), *inputs)
    assert found.shape == (batch, 1, SIZES[graph], SIZES[graph])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * max(1, float(expected.abs().max())))
    assert found.std() > 1e-3


def test_a_bundle_answers_nearly_as_what_was_trained(tiny_run, tiny_export):
    modules = trained(tiny_run)
    features, votes = torch.rand(3, modules["encoder"].encoder.mean.shape[0]), torch.rand(3, 25)
    drawn = noisy_inputs(modules["generator"], SIZES["generator"], 3)
    with torch.no_grad():
        image, logits = modules["generator"](*drawn), modules["encoder"](features, votes)[1]
    # Half precision has 11 bits.
    np.testing.assert_allclose(answers(tiny_export.read("generator.onnx"), *drawn)[0], image, atol=2e-2)
    np.testing.assert_allclose(
        answers(tiny_export.read("encoder.onnx"), features, votes)[1], logits, atol=3e-2
    )


def test_the_latent_of_a_protein_is_its_probabilities(tiny_run, tiny_export):
    features, votes = torch.rand(3, trained(tiny_run)["encoder"].encoder.mean.shape[0]), torch.rand(3, 25)
    latent, logits = answers(tiny_export.read("encoder.onnx"), features, votes)
    assert latent.shape == (3, 1, 12)
    np.testing.assert_allclose(latent[:, 0], 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_the_bundle_says_how_images_are_drawn(tiny_export):
    drawing = tiny_export.metadata.flow_matching
    assert drawing.classes == tiny_export.metadata.classes
    assert (drawing.words, drawing.domains, drawing.landmarks) == (WORDS, DOMAINS, ("microtubules", "er"))
    assert (drawing.steps, drawing.grain_steps) == (5, 2)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 8)).eval()


def test_rounded_weights_halve_the_file_and_change_nothing():
    inputs = {"x": torch.rand(2, 64)}
    full, small = to_onnx(plain(), inputs, ["y"]), to_onnx(rounded_to_half(plain()), inputs, ["y"])
    assert len(small) < 0.6 * len(full)
    more = torch.rand(5, 64)
    with torch.no_grad():
        np.testing.assert_allclose(answers(small, more)[0], rounded_to_half(plain())(more), atol=1e-6)
        np.testing.assert_allclose(answers(full, more)[0], plain()(more), atol=1e-6)


def kinds(graph: bytes) -> set[int]:
    return {
        each.data_type for each in onnx.load_from_string(graph).graph.initializer if np.prod(each.dims) >= 256
    }


def test_weights_that_half_precision_cannot_hold_stay_as_they_are():
    inputs = {"x": torch.rand(2, 64)}
    assert kinds(to_onnx(plain(), inputs, ["y"])) == {onnx.TensorProto.FLOAT}
    assert kinds(to_onnx(rounded_to_half(plain()), inputs, ["y"])) == {onnx.TensorProto.FLOAT16}


def test_the_shipped_graphs_are_stored_in_half_precision(tiny_export):
    for name in ("encoder.onnx", "generator.onnx", "grain.onnx"):
        graph = tiny_export.read(name)
        onnx.checker.check_model(onnx.load_from_string(graph))
        assert onnx.TensorProto.FLOAT16 in kinds(graph)


def test_every_weight_of_a_graph_has_its_name_and_value_in_the_module(tiny_run, tiny_export):
    for name, module in trained(tiny_run).items():
        rounded, found = rounded_to_half(module), graph_weights(tiny_export.read(f"{name}.onnx"))
        assert set(found) == set(rounded.state_dict())
        for key, value in rounded.state_dict().items():
            torch.testing.assert_close(found[key], value, atol=0, rtol=0)


def test_a_graph_that_answers_otherwise_is_not_exported():
    class Unlike(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + float(not torch.compiler.is_exporting())

    with pytest.raises(DeepGPSError, match="'y' differs from the module by 1; not exported"):
        to_onnx(Unlike().eval(), {"x": torch.rand(2, 3)}, ["y"])


def test_a_graph_of_nothing_but_nan_is_not_exported():
    overflown = plain()
    with torch.no_grad():
        overflown[0].weight[:] = 1e5  # no half precision holds it
        overflown[0].weight[0] = -1e5
    with pytest.raises(DeepGPSError, match="differs from the module by nan"):
        to_onnx(rounded_to_half(overflown), {"x": torch.rand(2, 64)}, ["y"])


def test_the_bundle_says_what_it_is(tiny_run, tiny_export):
    metadata = tiny_export.metadata
    about = json.loads((tiny_run / "labels" / "encoder.json").read_text())
    assert (metadata.name, metadata.version, metadata.cell_line) == ("toy", "0.0", "drawn")
    assert list(metadata.classes) == about["classes"]
    assert list(metadata.thresholds) == about["thresholds"]
    assert (metadata.encoder.name, metadata.encoder.dimension) == (about["features_name"], about["features"])
    assert metadata.crop.size_px == 208
    assert {"OpenCell images", "UniProt/Swiss-Prot"} <= set(metadata.training_data)


def test_measured_figures_are_quoted_in_the_bundle_and_its_card(tiny_export):
    assert tiny_export.metadata.metrics["made-up accuracy"] == Metric(
        value=0.71, low=0.625, high=0.75, n=1234
    )
    card = tiny_export.read("CARD.md").decode()
    assert "| made-up accuracy | 0.710 [0.625, 0.750] | 1234 |" in card
    assert card.startswith("# toy 0.0\n")
    assert "all 30 distinct sequences" in card
    assert "{" not in card


def test_the_bundle_predicts_and_shows_its_evidence(tiny_run, tiny_export):
    proteins = load_labelled_proteins(tiny_run.parent / "data", class_set("mini"))
    answer = Predictor(tiny_export, threads=1).predict_one(proteins.sequences[5])
    assert answer.image.shape == (208, 208)
    assert tuple(answer.probabilities) == tiny_export.metadata.classes
    assert (answer.evidence[0].accession, answer.evidence[0].similarity) == (proteins.ids[5], 1)


def test_an_unfinished_run_is_refused_with_the_way_on(tiny_run, tmp_path, capsys):
    assert deepgps(["export", str(tmp_path), "--to", str(tmp_path / "bundle")]) == 2
    said = capsys.readouterr().err
    assert f"'{tmp_path}' holds no run: it has no recipe.yaml; train one with `deepgps train`." in said
    (tmp_path / "recipe.yaml").write_bytes((tiny_run / "recipe.yaml").read_bytes())
    assert deepgps(["export", str(tmp_path), "--to", str(tmp_path / "bundle")]) == 2
    said = capsys.readouterr().err
    assert (
        f"'{tmp_path}' holds no finished run; continue it with `deepgps train … --out {tmp_path} --resume`"
        in said
    )
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"a": 1}', '{"a": {"value": "high"}}', '{"a": {"value": 1, "mean": 2}}', b"\xff\xfe"],
)
def test_a_metrics_file_of_another_form_is_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match="cannot be used") as caught:
        read_metrics(path)
    assert str(path) in str(caught.value)


def test_the_metrics_of_an_evaluation_are_read(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"model": "toy", "metrics": {"a": {"value": 0.5, "low": null, "high": null, "n": 3}}}')
    assert read_metrics(path) == {"a": Metric(value=0.5, n=3)}


def test_a_missing_metrics_file_stops_the_export(tiny_run, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        export_run(tiny_run, tmp_path / "bundle", [tmp_path / "nowhere.json"])
    assert not (tmp_path / "bundle").exists()


def test_figures_are_set_with_their_interval_where_they_have_one():
    assert metric_table({"psnr": Metric(value=14.2)}).splitlines()[-1] == "| psnr | 14.200 |  |"
    assert metric_table({}) == "Not measured yet."


def test_the_bundle_answers_in_opencells_categories_too(tiny_export):
    categories = tiny_export.metadata.class_sets["all"]
    assert len(categories.classes) == len(categories.thresholds) == len(categories.bias) == 17
    assert {len(row) for row in categories.weights} == {len(tiny_export.metadata.classes)}


def test_a_graph_does_not_tell_where_it_was_made(tiny_export):
    for name in ("encoder.onnx", "generator.onnx", "grain.onnx"):
        assert b"/deepgps/" not in tiny_export.read(name)
