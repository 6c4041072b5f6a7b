import io

import numpy as np
import pytest
import tifffile

from deepgps.bundle import open_model, with_class_set
from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS
from deepgps.prediction import Predictor, coverage
from deepgps.prediction.coverage import (
    IMAGE_FILES,
    LABEL_FILES,
    ClassBounds,
    class_bounds,
    conformal_bound,
    conformal_factor,
    files_of,
    interval_factor,
    pixel_interval,
    pixel_scores,
)
from deepgps.results.labelled_images import image_files
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import read_records

SEQUENCE = "MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ"


def test_a_bound_covers_new_draws_of_the_same_kind_and_is_0_for_too_few():
    rng = np.random.default_rng(0)
    covered = [(rng.beta(2, 1, 50) >= conformal_bound(rng.beta(2, 1, 30))).mean() for _ in range(400)]
    assert 0.9 <= np.mean(covered) < 0.95
    assert conformal_bound(rng.random(8)) == 0
    assert conformal_bound(np.arange(1, 20) / 20) == pytest.approx(2 / 20)


def test_a_set_has_what_reaches_its_bound_and_is_never_empty():
    bounds = ClassBounds({"er": 0.3, "golgi": 0.1}, {"er": 0.05, "golgi": 0.9})
    assert bounds.prediction_set({"er": 0.2, "golgi": 0.15}, (), known=False) == ("golgi",)
    assert bounds.prediction_set({"er": 0.2, "golgi": 0.15}, (), known=True) == ("er",)
    assert bounds.prediction_set({"er": 0.4, "golgi": 0.5}, (), known=False) == ("golgi", "er")
    assert bounds.prediction_set({"er": 0.02, "golgi": 0.01}, (), known=False) == ("er",)
    assert bounds.prediction_set({"er": 0.2, "golgi": 0.15}, ("er",), known=False) == ("er", "golgi")


def test_intervals_cover_as_many_pixels_as_they_say_and_every_image_counts_alike():
    rng = np.random.default_rng(0)

    def cell(edge: int) -> tuple[np.ndarray, np.ndarray]:
        level = rng.uniform(0.2, 0.7, (edge, edge))
        images = (level + rng.normal(0, 0.1, (9, edge, edge))).clip(0, 1).astype(np.float32)
        return images[0], images[1:]

    factor = conformal_factor([pixel_scores(*cell(edge)) for edge in (20, 60, 20, 60)])
    real, samples = cell(100)
    low, high = pixel_interval(samples, factor)
    assert ((real >= low) & (real <= high)).mean() == pytest.approx(0.9, abs=0.02)
    assert (low <= high).all() and low.min() >= 0 and high.max() <= 1
    near, far = np.zeros((10, 10), np.float32), np.ones((1, 1), np.float32)
    assert conformal_factor([near, far], 0.5) == 0 and conformal_factor([near, far], 0.6) == 1


def test_the_bundled_model_has_bounds_for_every_class_set_and_a_factor():
    bundle = open_model("deepgps-mini")
    hint = "the model changed: run measure.py coverage"
    for name in ("mini", *bundle.metadata.class_sets):
        metadata = bundle.metadata if name == "mini" else with_class_set(bundle, name).metadata
        bounds = class_bounds(metadata, name)
        assert bounds is not None, hint
        for kind in (bounds.predicted, bounds.known):
            assert tuple(kind) == CLASS_SETS[name].slugs == metadata.classes
            assert all(0 <= bound < 1 for bound in kind.values())
    assert interval_factor(bundle.metadata, 3) is None
    assert interval_factor(bundle.metadata, 8) == interval_factor(bundle.metadata, 20) is not None, hint
    for files, changed in ((LABEL_FILES, "encoder.onnx"), (IMAGE_FILES, "grain.onnx")):
        assert set(files_of(bundle.metadata, files)) == set(files)
        other = bundle.metadata.model_copy(update={"files": {**bundle.metadata.files, changed: "0" * 64}})
        assert (class_bounds(other, "mini") is None) == (changed == "encoder.onnx")
        assert (interval_factor(other, 8) is None) == (changed == "grain.onnx")


@pytest.fixture
def calibrated(tiny_flow_bundle, monkeypatch):
    """Bounds and factors for the tiny model."""
    files, slugs = tiny_flow_bundle.metadata.files, tiny_flow_bundle.metadata.classes
    bounds = {slug: 0.0 if slug == "er" else 1.0 for slug in slugs}
    document = {
        "labels": {
            "files": files_of(tiny_flow_bundle.metadata, LABEL_FILES),
            "sets": {"mini": {"predicted": bounds, "known": bounds}},
        },
        "images": {"files": {"grain.onnx": files["grain.onnx"]}, "factors": {"4": 2.0}},
    }
    monkeypatch.setattr(coverage, "_document", lambda: document)
    return tiny_flow_bundle.path


def test_a_prediction_has_its_set_and_interval(calibrated, tmp_path):
    predictor = Predictor.load(calibrated, samples=4, threads=1)
    cell = predictor.load_cell("hek-1")
    found = predictor.predict_one(SEQUENCE, cell)
    expected_set = {"er"} | set(found.localizations) - {"unclear"}
    assert set(found.prediction_set) == expected_set
    others = (Predictor.load(calibrated, seed=seed, threads=1) for seed in range(4))
    drawn = [other.predict_one(SEQUENCE, cell).image for other in others]
    np.testing.assert_array_equal(found.image, drawn[0])
    expected = pixel_interval(np.stack(drawn), 2.0)
    np.testing.assert_allclose((found.low, found.high), expected, atol=1e-6)
    _, tiff = image_files(found)
    with tifffile.TiffFile(io.BytesIO(tiff)) as tif:
        assert 'Name="protein_low"' in tif.ome_metadata and 'Name="protein_high"' in tif.ome_metadata
        np.testing.assert_allclose(tif.asarray()[2] / 65535, found.low, atol=1e-4)
    predict_to_folder(predictor, [found.protein], tmp_path, cells=[cell])
    assert next(read_records(tmp_path / "results.jsonl"))["prediction_set"] == list(found.prediction_set)
    with pytest.raises(InputError, match="another choice of options"):
        predict_to_folder(Predictor.load(calibrated), [found.protein], tmp_path, cells=[cell])


def test_what_was_not_calibrated_has_neither(tiny_flow_bundle):
    assert Predictor.load(tiny_flow_bundle.path).predict_one(SEQUENCE, images=False).prediction_set is None
    with pytest.raises(InputError, match="not calibrated"):
        Predictor.load(tiny_flow_bundle.path, samples=8)


def test_samples_that_make_no_interval_are_refused(calibrated):
    with pytest.raises(InputError, match="too few"):
        Predictor.load(calibrated, samples=3)
    with pytest.raises(InputError, match="--mean"):
        Predictor.load(calibrated, samples=4, mean=True)
