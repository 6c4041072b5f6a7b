"""Models other than the bundled one, and class sets."""

import io

import numpy as np
import onnx
import pytest
from contributor import submit
from PIL import Image
from visitor import API, Page, error_of, fasta, text_of

from deepgps.bundle import write_bundle
from opengps import models
from opengps.submissions.comparison import compare_next

TWO = {
    "classes": ["cytoplasmic", "nucleoplasm"],
    "multi_label": False,
    "thresholds": [0.5, 0.5],
    "weights": [[0.0] * 3 + [1.0] + [0.0] * 8, [1.0] + [0.0] * 11],
    "bias": [0.0, 0.0],
}


@pytest.fixture(autouse=True)
def _nothing_loaded_before():
    models._load.cache_clear()


def resized(generator, size_px):
    """The tiny generator for crops of another size."""
    model = onnx.load_model_from_string(generator)
    for value in (model.graph.input[0], model.graph.output[0]):
        for edge in value.type.tensor_type.shape.dim[2:]:
            edge.dim_value = size_px
    return model.SerializeToString()


@pytest.fixture
def install(visitor, tiny_bundle, tmp_path, monkeypatch):
    """Install a variant of the tiny model, as the only one of the visitor's own."""

    def install(**changes):
        metadata = tiny_bundle.metadata.model_dump(mode="json", exclude={"schema_version", "files"})
        encoder = {**metadata["encoder"], **changes.pop("encoder", {})}
        files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
        if "crop" in changes:
            files["generator.onnx"] = resized(files["generator.onnx"], changes["crop"]["size_px"])
        write_bundle(tmp_path / "models" / "variant", {**metadata, **changes, "encoder": encoder}, files)
        monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path / "models"))
        return visitor

    return install


def test_a_model_without_classes(install):
    visitor = install(classes=[], thresholds=[])
    job = visitor.predict(fasta(2), model="variant")
    row = visitor.rows(job, sort="confidence", order="desc")["results"][0]
    assert (row["localizations"], row["confidence"]) == ([], None)
    assert "image only" in visitor.page(f"/predictions/{job}/results/0")
    for address in (f"/predictions/{job}", "/predict", "/models", "/models/variant"):
        visitor.page(address)
    assert visitor.client.get(f"{API}/predictions/{job}/results.csv").text.count("\n") == 3
    answer = visitor.send(fasta(2), model="variant", images=False)
    assert error_of(answer, 422)["code"] == "model_without_classes"


def size_of(visitor, address):
    answer = visitor.client.get(address)
    assert answer.status_code == 200, address
    return Image.open(io.BytesIO(answer.content)).size


@pytest.mark.parametrize("um", [0.1, 0.5])
def test_a_model_of_other_crops_is_drawn_into_fitting_nuclei(install, um):
    visitor = install(crop={"size_px": 96, "pixel_size_um": um})
    job = visitor.predict(fasta(1), model="variant", nuclei=["hek-1", "u2os-1"])
    assert visitor.status(job)["status"] == "finished"
    rows = visitor.rows(job)["results"]
    assert [row["nucleus"] for row in rows] == ["hek-1", "u2os-1"]
    for name in ("nucleus.png", "protein.png", "overlay.png"):
        assert size_of(visitor, rows[0]["links"][name]) == (96, 96)
    # The nucleus that was shown is the one that was drawn into.
    (shown,) = (each for each in visitor.client.get(f"{API}/nuclei?model=variant").json()[:1])
    assert (shown["size_px"], shown["pixel_size_um"]) == (96, um)
    previewed, drawn = (
        np.asarray(Image.open(io.BytesIO(visitor.client.get(address).content)), int)
        for address in (shown["image"], rows[0]["links"]["nucleus.png"])
    )
    assert np.abs(previewed - drawn).max() <= 1


def test_previews_are_those_of_the_model_that_is_chosen(install):
    visitor = install(crop={"size_px": 96, "pixel_size_um": 0.3})
    for address in ("/predict?model=variant", "/nuclei?model=variant"):
        shown = [each["src"] for each in Page(visitor.page(address)).all("img") if "/nuclei/" in each["src"]]
        assert [size_of(visitor, source) for source in shown] == [(96, 96)] * 6
    assert "96 px of 0.3 µm, 29 µm wide" in text_of(visitor.page("/nuclei", model="variant"))
    assert "fitted to variant" in text_of(visitor.page("/nuclei"))
    assert size_of(visitor, f"{API}/nuclei/hek-1/image.png") == (208, 208)
    error_of(visitor.client.get(f"{API}/nuclei?model=none"), 404)


def test_each_class_set_is_a_choice(install):
    visitor = install(class_sets={"single-2": TWO})
    listed = {model["name"]: model for model in visitor.client.get(f"{API}/models").json()}
    assert listed["variant"]["predicts"] == "12 localizations, several per protein"
    assert listed["variant:single-2"]["predicts"] == "cytoplasm or nucleoplasm"
    assert listed["variant:single-2"]["sha256"] == listed["variant"]["sha256"]
    assert visitor.client.get(f"{API}/models/variant:single-2").json()["classes"] == TWO["classes"]
    for address in ("/models", "/models/variant:single-2", "/predict?model=variant:single-2"):
        assert "cytoplasm or nucleoplasm" in visitor.page(address)
    chosen = [each for each in Page(visitor.page("/predict?model=variant:single-2")).all("input")
              if each.get("name") == "model" and "checked" in each]  # fmt: skip
    assert [each["value"] for each in chosen] == ["variant:single-2"]
    whole = visitor.rows(visitor.predict(fasta(3), model="variant"))["results"]
    job = visitor.predict(fasta(3), model="variant:single-2")
    rows = visitor.rows(job)["results"]
    assert visitor.status(job)["model"] == "variant:single-2"
    for row, other in zip(rows, whole, strict=True):
        assert list(row["probabilities"]) == TWO["classes"]
        first, second = row["probabilities"].values()
        assert first + second == pytest.approx(1)
        odds = [p / (1 - p) for p in (other["probabilities"][slug] for slug in TWO["classes"])]
        assert first == pytest.approx(odds[0] / sum(odds), abs=1e-3)
    visitor.page(f"/predictions/{job}/results/0")
    assert "cytoplasmic" in visitor.client.get(f"{API}/predictions/{job}/results.csv").text.partition("\n")[0]
    assert error_of(visitor.send(model="variant:none"), 422)["code"] == "unknown_model"


def test_a_model_is_loaded_once_for_all_its_class_sets(install):
    visitor = install(class_sets={"single-2": TWO})
    for model in ("variant", "variant:single-2", "variant"):
        visitor.predict(fasta(1), model=model)
    assert models._load.cache_info().misses == 1
    assert models.load_predictor("variant:single-2")._generator is models.load_predictor("variant")._generator


def test_a_submission_is_compared_with_the_chosen_model(install):
    visitor = install(class_sets={"single-2": TWO}, crop={"size_px": 96, "pixel_size_um": 0.3})
    assert 'value="variant:single-2"' in visitor.page("/submit")
    answer = submit(visitor, model="variant:single-2")
    assert answer.status_code == 201, answer.text
    assert compare_next(visitor.site)
    (image,) = visitor.client.get(answer.headers["location"]).json()["images"]
    found = image["comparison"]
    # The names of these bundles are those of the model that they were made of.
    assert found["model"] == "tiny:single-2"
    assert set(found["localizations"]) <= {*TWO["classes"], "unclear"}
    assert {size_of(visitor, image["links"][name]) for name in ("drawn.png", "nucleus.png")} == {(96, 96)}
    error = error_of(submit(visitor, model="none"), 422)
    assert (error["code"], error["field"]) == ("unknown_model", "model")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"kind": "structure", "structure_points": 64}, "needs protein structures"),
        ({"kind": "esm2", "name": "esm2_unheard_of", "fingerprint": "0" * 64}, "not prepared on this site"),
    ],
)
def test_an_unavailable_model_is_shown_and_disabled(install, encoder, message):
    visitor = install(encoder=encoder)
    assert message in visitor.page("/models/variant")
    form = visitor.page("/predict?model=variant")
    assert message in form
    assert 'value="variant" disabled' in form
    assert error_of(visitor.send(model="variant"), 422)["code"] == "model_unavailable"
