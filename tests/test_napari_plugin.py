"""The plugin is one that napari accepts, and its layers fit the nucleus layer; napari is not needed."""

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from npe2 import PluginManifest

from conftest import round_nucleus
from deepgps import InputError, napari_plugin

ROOT = Path(__file__).parents[1]
SEQUENCE = "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"


def layer(data, **changes):
    """What the plugin reads of a layer of napari."""
    fields = {"name": "DAPI", "data": data, "multiscale": False, "rgb": False, "units": ("pixel", "pixel")}
    return SimpleNamespace(**fields | {"scale": (1.0, 1.0), "translate": (5.0, 7.0)} | changes)


@pytest.fixture(scope="module")
def pixels():
    """Two nuclei, more than a crop wide."""
    nucleus = round_nucleus("one", 40).nucleus
    return (np.hstack([nucleus, nucleus])[:, :300] * 4000).astype(np.uint16)


def test_the_manifest_is_valid_and_its_commands_are_there():
    manifest = PluginManifest.from_file(ROOT / "src/deepgps/napari.yaml")
    manifest.validate_imports()
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    assert entry["napari.manifest"] == {manifest.name: "deepgps:napari.yaml"}
    assert {each.id for each in manifest.contributions.commands} == {
        *(each.command for each in manifest.contributions.widgets),
        *(each.command for each in manifest.contributions.sample_data),
    }
    assert not {"napari", "qtpy"} & set(sys.modules)


def test_the_protein_layer_lies_on_the_nucleus_layer(pixels, tiny_bundle):
    nucleus = layer(pixels, scale=(0.2, 0.2), units=("micrometer", "micrometer"))
    model = str(tiny_bundle.path)
    image, settings, kind = napari_plugin.predict_protein(nucleus, SEQUENCE, model=model)
    assert (kind, image.shape) == ("image", pixels.shape) and image.std() > 0
    assert (settings["scale"], settings["translate"]) == ((0.2, 0.2), (5.0, 7.0))
    known = settings["metadata"]["deepgps"]
    assert known["model"] == tiny_bundle.metadata.name and len(known["probabilities"]) == 12
    assert not any("pixel size" in each for each in known["warnings"])


def test_the_size_of_a_pixel_is_given_or_estimated(pixels, tiny_bundle):
    model = str(tiny_bundle.path)
    _, settings, _ = napari_plugin.predict_protein(layer(pixels), SEQUENCE, model=model)
    assert any(
        "was estimated from its nuclei" in each for each in settings["metadata"]["deepgps"]["warnings"]
    )
    _, settings, _ = napari_plugin.predict_protein(layer(pixels), SEQUENCE, 0.2, model=model)
    assert not any("estimated" in each for each in settings["metadata"]["deepgps"]["warnings"])


def test_a_stack_is_refused(pixels, tiny_bundle):
    with pytest.raises(InputError, match="Layer 'DAPI' has 3 dimensions"):
        napari_plugin.predict_protein(layer(np.stack([pixels] * 3)), SEQUENCE, model=str(tiny_bundle.path))


def test_the_sample_is_a_nucleus_with_its_scale(tiny_bundle):
    ((image, settings, _),) = napari_plugin.default_nucleus()
    nucleus = layer(image, scale=settings["scale"], units=settings["units"])
    drawn, _, _ = napari_plugin.predict_protein(nucleus, SEQUENCE, model=str(tiny_bundle.path))
    assert drawn.shape == image.shape
