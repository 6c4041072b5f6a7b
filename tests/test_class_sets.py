"""Another class set from the same bundle, and saying so where an answer is not to be believed."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from deepgps.bundle import Bundle, open_model, with_class_set, write_bundle
from deepgps.cli.app import run
from deepgps.errors import BundleError
from deepgps.prediction import Predictor
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.proteins.protein import Protein

TWO = {
    "classes": ("cytoplasmic", "nucleoplasm"),
    "multi_label": False,
    "thresholds": (0.5, 0.5),
    "weights": ((0.0,) * 3 + (2.0,) + (0.0,) * 8, (1.0,) + (0.0,) * 11),
    "bias": (0.25, -0.5),
    "unclear_below": 0.6,
}
RNG = np.random.default_rng(3)
PROTEINS = [Protein(f"P{n}", "M" + "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 200))) for n in range(4)]


@pytest.fixture
def models(tiny_bundle: Bundle, tmp_path, monkeypatch):
    """A folder of models with ``tiny``, which has a further class set."""
    monkeypatch.setenv("DEEPGPS_MODELS", str(tmp_path))
    fields = tiny_bundle.metadata.model_dump(exclude={"schema_version", "files"})
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
    fields |= {"name": "tiny", "class_sets": {"single-2": TWO}}
    write_bundle(tmp_path / "tiny", fields, files)
    return tmp_path


def test_a_class_set_is_chosen_behind_a_colon_by_name_or_path(models):
    for model in ("tiny:single-2", f"{models / 'tiny'}:single-2"):
        metadata = open_model(model).metadata
        assert (metadata.name, metadata.classes) == ("tiny:single-2", TWO["classes"])
        assert not metadata.multi_label
    assert len(open_model("tiny").metadata.classes) == 12


def test_a_class_set_is_read_off_the_logits_of_the_models_own(models):
    own, two = Predictor.load("tiny", threads=1), Predictor.load("tiny:single-2", threads=1)
    logits = np.array([each.logits for each in own.encode(PROTEINS)])
    expected = np.stack([2 * logits[:, 3] + 0.25, logits[:, 0] - 0.5], axis=1)
    odds = np.exp(expected)
    for answer, wanted in zip(
        two.predict(PROTEINS, images=False), odds / odds.sum(1, keepdims=True), strict=True
    ):
        assert list(answer.probabilities) == list(TWO["classes"])
        np.testing.assert_allclose(list(answer.probabilities.values()), wanted, rtol=1e-4)
        unclear = wanted.max() < 0.6
        assert answer.localizations == (("unclear" if unclear else TWO["classes"][int(wanted.argmax())]),)
        assert answer.confidence == pytest.approx(wanted.max(), rel=1e-4)
        assert any(note.startswith("unclear") for note in answer.warnings) == unclear
        assert answer.model == "tiny:single-2"


def with_votes(bundle: Bundle, folder, **files: bytes) -> Bundle:
    """The tiny model with a class set that uses the neighbours alone."""
    fields = bundle.metadata.model_dump(exclude={"schema_version", "files"})
    asking = TWO | {"weights": ((0.0,) * 12,) * 2, "votes": TWO["weights"]}
    kept = {name: bundle.read(name) for name in bundle.metadata.files}
    return write_bundle(folder, fields | {"class_sets": {"single-2": asking}}, kept | files)


def test_a_class_set_uses_the_nearest_annotated_proteins(tiny_bundle, tmp_path, monkeypatch):
    classes, placed = tiny_bundle.metadata.classes, np.eye(12)[[3, 0]]
    names, texts = ["A", "B"], [each.sequence for each in PROTEINS[:2]]
    index = NeighbourIndex.build(names, texts, placed, np.ones((2, 12), bool), classes)
    bundle = with_votes(tiny_bundle, tmp_path / "x", **{"neighbours.npz": index.to_bytes()})
    predictor = Predictor(with_class_set(bundle, "single-2"))

    def run(_, inputs):
        return [np.zeros((len(inputs["votes"]), 4, 8), np.float32), inputs["votes"][:, :12]]

    monkeypatch.setattr(predictor._encoder, "_graph", SimpleNamespace(run=run))
    first, second = (answer.logits for answer in predictor.encode(PROTEINS[:2]))
    np.testing.assert_allclose(first, (2.25, -0.5), atol=0.1)
    np.testing.assert_allclose(second, (0.25, 0.5), atol=0.1)


def test_a_class_set_that_needs_annotated_proteins_is_refused_without_them(tiny_bundle, tmp_path):
    bundle = with_votes(tiny_bundle, tmp_path / "x")
    with pytest.raises(BundleError, match=r"has no 'neighbours\.npz', which its class set 'single-2' needs"):
        with_class_set(bundle, "single-2")


def test_the_class_sets_of_a_model_are_told(models, capsys):
    assert run(["models", "info", "tiny"]) == 0
    assert "class sets:  single-2\n" in capsys.readouterr().out
    assert run(["models", "info", "tiny:single-2"]) == 0
    assert "classes:     cytoplasmic, nucleoplasm\n" in capsys.readouterr().out


def test_images_do_not_depend_on_the_class_set(models):
    pairs = zip(
        Predictor.load("tiny").encode(PROTEINS), Predictor.load("tiny:single-2").encode(PROTEINS), strict=True
    )
    for own, two in pairs:
        np.testing.assert_array_equal(own.latent, two.latent)


def test_a_class_set_that_is_not_there_is_refused(models, tiny_bundle):
    with pytest.raises(BundleError, match=r"Model 'tiny' has no class set 'single-9'; it has single-2\."):
        open_model("tiny:single-9")
    with pytest.raises(BundleError, match=r"it has none but its own\."):
        with_class_set(tiny_bundle, "single-2")
    with pytest.raises(BundleError, match="Model 'absent' is neither"):
        open_model("absent:single-2")


def test_a_sequence_unlike_every_annotated_one_is_flagged(tiny_bundle, tmp_path, monkeypatch):
    index = NeighbourIndex.build(
        ["A", "B"],
        [each.sequence for each in PROTEINS[:2]],
        np.eye(2, 12),
        np.ones((2, 12), bool),
        tiny_bundle.metadata.classes,
    )
    fields = tiny_bundle.metadata.model_dump(exclude={"schema_version", "files"})
    files = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
    fields |= {"unlike_below": 0.2, "unclear_below": 1.0}
    predictor = Predictor(write_bundle(tmp_path / "x", fields, files | {"neighbours.npz": index.to_bytes()}))

    def run(_, inputs):
        return [np.zeros((len(inputs["votes"]), 4, 8), np.float32), inputs["votes"][:, :12]]

    monkeypatch.setattr(predictor._encoder, "_graph", SimpleNamespace(run=run))
    known, stranger = predictor.predict([PROTEINS[0], PROTEINS[3]], images=False)
    assert not any(note.startswith("no annotated relative") for note in known.warnings)
    assert any(note.startswith("no annotated relative (similarity 0.0") for note in stranger.warnings)
    # No probability reaches 1, the bound of this model.
    assert known.warnings[-1] == "unclear: no class has a probability of 1 or more"
    assert known.localizations == ("unclear",)
    assert known.confidence == max(known.probabilities.values()) < 1


def test_without_bounds_nothing_is_unclear_or_unlike(tiny_bundle):
    for answer in Predictor(tiny_bundle, threads=1).predict(PROTEINS, images=False):
        assert not [note for note in answer.warnings if "unclear" in note or "no annotated" in note]
        assert "unclear" not in answer.localizations


def test_what_is_unclear_says_so_in_every_file(models, tmp_path, capsys):
    fields = open_model("tiny").metadata.model_dump(exclude={"schema_version", "files"})
    bundle = open_model("tiny")
    files = {name: bundle.read(name) for name in bundle.metadata.files}
    write_bundle(models / "unsure", fields | {"name": "unsure", "unclear_below": 1.0}, files)
    out = tmp_path / "out"
    sequence = PROTEINS[0].sequence
    assert run(["predict", "--sequence", sequence, "--model", "unsure", "--out", str(out)]) == 0
    assert "\tunclear\t" in capsys.readouterr().out
    with (out / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    record = json.loads((out / "results.jsonl").read_text())
    highest = max(record["probabilities"].values())
    assert (row["Localizations"], record["localizations"]) == ("unclear", ["unclear"])
    assert float(row["Confidence"]) == pytest.approx(highest, abs=1e-4)
    assert record["confidence"] == highest
    assert "<strong>unclear</strong>" in (out / "report.html").read_text()
