"""A package for the BioImage Model Zoo is valid, and its graph draws what deepGPS draws."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from bioimageio.spec import load_description
from bioimageio.spec.model.v0_5 import ModelDescr

from deepgps import Cell, InputError
from deepgps.cli.app import run
from deepgps.prediction.generator import open_generator
from deepgps.registries.bioimage_io import write_package


@pytest.fixture(scope="module")
def packaged(tiny_flow_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo") / "tiny"
    assert (
        run(["models", "package", str(tiny_flow_bundle.path), "--for", "bioimage-io", "--to", str(folder)])
        == 0
    )
    return folder


def test_the_description_is_valid(packaged):
    described = load_description(packaged / "rdf.yaml", perform_io_checks=True)
    assert isinstance(described, ModelDescr), described.validation_summary.format()
    assert described.validation_summary.status in ("passed", "valid-format")
    files = {each.name for each in packaged.iterdir()}
    assert files == {
        *("rdf.yaml", "weights.onnx", "README.md"),
        *("test-nucleus.npy", "test-localization.npy", "test-protein.npy"),
    }


def test_the_graph_draws_what_the_predictor_draws(packaged, tiny_flow_bundle):
    metadata = tiny_flow_bundle.metadata
    graph = onnxruntime.InferenceSession(packaged / "weights.onnx")
    loaded = [
        Cell.load(name, size_px=metadata.crop.size_px, pixel_size_um=metadata.crop.pixel_size_um)
        for name in ("hek-1", "u2os-1")
    ]
    # The graph knows no cell lines.
    cells = [replace(cell, cell_line=None) for cell in loaded]
    latents = np.random.default_rng(0).random((2, 1, len(metadata.classes)), np.float32)
    expected = open_generator(tiny_flow_bundle).draw(cells, list(latents), seed=0, mean=True)
    nuclei = np.stack([cell.nucleus for cell in cells])[:, None]
    (drawn,) = graph.run(None, {"nucleus": nuclei, "localization": latents[:, 0]})
    np.testing.assert_allclose(drawn[:, 0], expected, atol=2e-3)
    assert expected.std() > 0.01


def test_the_test_of_the_package_passes(packaged):
    graph = onnxruntime.InferenceSession(packaged / "weights.onnx")
    arrays = {name: np.load(packaged / f"test-{name}.npy") for name in ("nucleus", "localization", "protein")}
    low, high = np.percentile(arrays["nucleus"], (3, 99.8))
    nucleus = np.clip((arrays["nucleus"] - low) / (high - low + 1e-6), 0, 1).astype(np.float32)
    (drawn,) = graph.run(None, {"nucleus": nucleus, "localization": arrays["localization"]})
    np.testing.assert_allclose(drawn, arrays["protein"], atol=1e-5)


def test_a_model_that_draws_in_one_pass_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(InputError, match="flow matching"):
        write_package(tiny_bundle, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
