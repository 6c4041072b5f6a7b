"""Models of other kinds than the one that ships: those that only draw, and those that name one class."""

import pytest

import conftest
from deepgps.bundle import write_bundle
from deepgps.errors import InputError
from deepgps.evaluation.dataset import DatasetFiles, load_dataset, model_classes
from deepgps.evaluation.evaluate import evaluate
from deepgps.prediction import Predictor
from evaluated_store import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("others") / "store", train=2)


def bundle_of(tiny_bundle, folder, classes, encoder=None, **fields):
    metadata = tiny_bundle.metadata.model_dump(exclude={"schema_version", "files"})
    metadata |= {"classes": classes, "thresholds": [0.5] * len(classes), **fields}
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
    return write_bundle(folder, metadata, files | ({"encoder.onnx": encoder} if encoder else {}))


def test_a_model_that_only_draws_has_images_and_no_labels(tiny_bundle, store, tmp_path):
    bundle = bundle_of(tiny_bundle, tmp_path / "bundle", ())
    done = evaluate(Predictor(bundle, threads=1), store, tmp_path / "out")
    assert {name.split("/")[0] for name in done.metrics()} == {"images"}
    assert "images/sequence_effect" in done.metrics()
    assert 'id="labels"' not in (tmp_path / "out" / "report.html").read_text()


def test_a_model_that_names_one_class_has_a_confusion_of_two(tiny_bundle, store, tmp_path):
    classes = ("cytoplasmic", "nucleoplasm")
    encoder = conftest._encoder(tiny_bundle.metadata.encoder.dimension, 2)
    bundle = bundle_of(tiny_bundle, tmp_path / "bundle", classes, encoder, multi_label=False)
    done = evaluate(Predictor(bundle, threads=1), store, tmp_path / "out")
    assert done.labels.report.confusion_by_protein.sum() == 4
    assert done.labels.report.confusion_by_crop.sum() == 6
    assert "labels/protein/mcc" in done.metrics()
    assert "true \\ predicted" in (tmp_path / "out" / "report.html").read_text()


def test_a_protein_of_two_classes_is_left_out_where_one_is_named(tiny_bundle, tmp_path):
    import polars as pl

    table = tmp_path / "proteins.csv"
    rows = {"protein_id": ["P1", "P2"], "sequence": ["MKVLAAGIVGLCAKWDEYHR"] * 2}
    pl.DataFrame(rows | {"localizations": ["cytoplasmic|nucleoplasm", "er|nucleoplasm"]}).write_csv(table)
    bundle = bundle_of(tiny_bundle, tmp_path / "bundle", ("cytoplasmic", "nucleoplasm"), multi_label=False)
    found = load_dataset(DatasetFiles(table), Predictor(bundle, threads=1))
    assert [each.class_name for each in found.proteins] == ["nucleoplasm"]
    assert "several of the model's classes (cytoplasmic, nucleoplasm)" in found.left_out[0].reason


def test_a_class_outside_the_vocabulary_cannot_be_judged(tiny_bundle, tmp_path):
    bundle = bundle_of(tiny_bundle, tmp_path / "bundle", ("axon",))
    with pytest.raises(InputError, match="Class 'axon' of model 'tiny'"):
        model_classes(bundle.metadata)
