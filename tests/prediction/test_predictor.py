import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import round_nucleus, tiny_generator
from deepgps.bundle import Bundle, write_bundle
from deepgps.errors import BundleError, InputError
from deepgps.prediction import Predictor
from deepgps.prediction.prediction import NAMED_FROM
from deepgps.prediction.predictor import PROTEIN_BATCH, intranuclear_fraction
from deepgps.proteins.known import KnownProtein, Statement
from deepgps.proteins.neighbours import NeighbourIndex
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.windows import windows

RNG = np.random.default_rng(7)


def random_sequence(length: int) -> str:
    return "M" + "".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), length - 1))


PROTEINS = [
    Protein(f"P{number}", random_sequence(length)) for number, length in enumerate((60, 300, 12, 2500, 90))
]


@pytest.fixture(scope="module")
def predictor(tiny_bundle) -> Predictor:
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture
def variant(tiny_bundle, tmp_path) -> Callable[..., Predictor]:
    """A predictor of the tiny bundle with other metadata or more files."""

    def build(files: dict[str, bytes] | None = None, **changes: object) -> Predictor:
        fields = tiny_bundle.metadata.model_dump(exclude={"schema_version", "files"})
        contents = {name: tiny_bundle.read(name) for name in tiny_bundle.metadata.files}
        return Predictor(
            write_bundle(tmp_path / "variant", {**fields, **changes}, contents | (files or {})), threads=1
        )

    return build


def probabilities(predictions) -> np.ndarray:
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


def test_predictions_come_in_input_order_whatever_their_length(predictor):
    many = [replace(PROTEINS[i % 3], id=str(i)) for i in range(PROTEIN_BATCH + 3)]
    assert [each.protein for each in predictor.predict(many, images=False)] == many


def test_each_protein_is_drawn_into_each_nucleus(predictor):
    nuclei = [round_nucleus(f"n{radius}", radius) for radius in (20, 30, 40)]
    drawn = list(predictor.predict(PROTEINS, nuclei))
    expected = [(protein.id, nucleus.name) for protein in PROTEINS for nucleus in nuclei]
    assert [(each.protein.id, each.cell.name) for each in drawn] == expected
    for each in drawn:
        assert each.image.shape == (208, 208)
        assert each.image.dtype == np.float32
        assert 0 <= each.image.min() <= each.image.max() <= 1


def test_a_nucleus_is_looked_at_once_for_several_proteins(predictor, monkeypatch):
    given, graph = [], predictor._generator._graph
    run = graph.run
    monkeypatch.setattr(graph, "run", lambda names, inputs: given.append(inputs) or run(names, inputs))
    nuclei = [round_nucleus("small", 20), round_nucleus("large", 50)]
    assert len(list(predictor.predict(PROTEINS, nuclei))) == 10
    assert sum(len(each["latent"]) for each in given) == 10
    assert sum(len(each["nucleus"]) for each in given) < 5


def test_a_graph_that_is_not_told_which_nucleus_draws_the_same(predictor, variant):
    nuclei = [round_nucleus("small", 20), round_nucleus("large", 50)]
    older = variant({"generator.onnx": tiny_generator(pair_by_pair=True)})
    for one, other in zip(predictor.predict(PROTEINS, nuclei), older.predict(PROTEINS, nuclei), strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_mean_image_is_asked_for_and_the_answer_says_so(predictor):
    nuclei = [round_nucleus("small", 20)]
    for one, other in zip(
        predictor.predict(PROTEINS, nuclei),
        predictor.with_mean_images().predict(PROTEINS, nuclei),
        strict=True,
    ):
        np.testing.assert_allclose(other.image, one.image / 2, atol=1e-6)
        assert other.probabilities == one.probabilities
        assert (one.mean, other.mean) == (False, True)
    assert not predictor.mean


def test_a_model_with_one_kind_of_image_draws_it_as_its_mean(variant):
    older = variant({"generator.onnx": tiny_generator(pair_by_pair=True)})
    nuclei = [round_nucleus("small", 20)]
    means = older.with_mean_images().predict(PROTEINS, nuclei)
    for one, other in zip(older.predict(PROTEINS, nuclei), means, strict=True):
        np.testing.assert_array_equal(other.image, one.image)


def test_in_very_many_nuclei_predictions_still_come_by_protein(predictor, monkeypatch):
    monkeypatch.setattr("deepgps.prediction.predictor.MAX_BUFFERED_IMAGES", 2)
    nuclei = [round_nucleus(f"n{radius}", radius) for radius in (20, 30, 40)]
    found = [(each.protein.id, each.cell.name) for each in predictor.predict(PROTEINS, nuclei)]
    assert found == [(protein.id, nucleus.name) for protein in PROTEINS for nucleus in nuclei]


def test_a_protein_is_answered_alone_as_in_company(predictor):
    nuclei = [round_nucleus("small", 20), round_nucleus("large", 50)]
    together = list(predictor.predict(PROTEINS, nuclei))
    alone = [next(predictor.predict([protein], [nucleus])) for protein in PROTEINS for nucleus in nuclei]
    np.testing.assert_allclose(probabilities(together), probabilities(alone), atol=1e-6)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=1e-6)
        assert one.localizations == other.localizations
        assert one.readouts == pytest.approx(other.readouts, abs=1e-6)
    assert np.ptp(probabilities(together), axis=0).max() > 0.1  # the proteins do differ


def test_labels_do_not_depend_on_images(predictor):
    with_images, without = (
        list(predictor.predict(PROTEINS)),
        list(predictor.predict(PROTEINS, images=False)),
    )
    np.testing.assert_array_equal(probabilities(with_images), probabilities(without))
    assert all((each.image, each.cell, dict(each.readouts)) == (None, None, {}) for each in without)


def test_without_nuclei_the_first_default_one_is_drawn_into(predictor):
    for nuclei in (None, []):
        assert next(predictor.predict(PROTEINS, nuclei)).cell.name == "hek-1"


def test_a_long_sequence_is_the_weighted_mean_of_its_windows_and_says_so(predictor):
    long, limit = PROTEINS[3], predictor.bundle.metadata.encoder.max_length
    parts = windows(long.sequence, limit)
    assert len(parts) > 1
    weights = [len(part) for part in parts]
    expected = np.average([each.logits for each in predictor.encode(parts)], axis=0, weights=weights)
    encoding = predictor.encode(["MKV" * 20, long])[1]
    np.testing.assert_allclose(encoding.logits, expected, rtol=1e-4, atol=1e-5)
    warning = f"2500 residues exceed {limit}: is encoded in {len(parts)} windows"
    assert warning in next(predictor.predict([long], images=False)).warnings
    assert next(predictor.predict(PROTEINS[:1], images=False)).warnings == ()


def test_proteins_are_read_no_further_ahead_than_needed(predictor):
    read = []

    def endless():
        while True:
            read.append(1)
            yield PROTEINS[0]

    stream = predictor.predict(endless(), images=False)
    assert not read
    for _ in range(PROTEIN_BATCH):
        next(stream)
    assert len(read) == PROTEIN_BATCH
    next(stream)
    assert len(read) == 2 * PROTEIN_BATCH


def test_no_proteins_give_no_predictions(predictor):
    assert list(predictor.predict([])) == []


def test_classes_that_reach_their_threshold_are_named_most_probable_first(variant, predictor):
    first = next(predictor.predict(PROTEINS, images=False)).probabilities
    ranked = sorted(first, key=first.get, reverse=True)
    # The second just reaches its threshold, the third misses its own: the fourth is not named either.
    wanted = {ranked[1]: first[ranked[1]] - 1e-7, ranked[2]: first[ranked[2]] + 1e-4, ranked[3]: 0.0}
    answer = next(
        variant(thresholds=[wanted.get(slug, 1.0) for slug in first]).predict(PROTEINS, images=False)
    )
    assert first[ranked[1]] >= NAMED_FROM
    assert answer.localizations == (ranked[0], ranked[1])
    assert answer.confidence == first[ranked[0]]
    assert answer.warnings == ()


def test_a_single_label_model_names_one_class_and_its_probabilities_sum_to_1(variant, predictor):
    answers = list(variant(multi_label=False).predict(PROTEINS, images=False))
    logits = np.array([each.logits for each in predictor.encode(PROTEINS)])
    np.testing.assert_allclose(probabilities(answers).sum(1), 1, atol=1e-6)
    odds = np.exp(logits - logits[:, :1])
    np.testing.assert_allclose(probabilities(answers), odds / odds.sum(1, keepdims=True), rtol=1e-4)
    best = [predictor.classes[column] for column in logits.argmax(1)]
    assert [each.localizations for each in answers] == [(slug,) for slug in best]
    assert answers[0].warnings == ()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("multi_label", [True, False])
def test_extreme_logits_overflow_nothing(variant, multi_label, monkeypatch):
    sure = variant(multi_label=multi_label)
    extreme = np.zeros((1, 12), np.float32)
    extreme[0, :2] = 500, -500
    monkeypatch.setattr(
        sure._encoder, "_graph", SimpleNamespace(run=lambda *_: [np.zeros((1, 4, 8)), extreme])
    )
    answer = next(sure.predict(PROTEINS[:1], images=False))
    assert [*answer.probabilities.values()][:2] == [1, 0]


def test_neighbours_are_shown_as_evidence_and_their_votes_reach_the_encoder(
    variant, tiny_bundle, monkeypatch
):
    labels = np.eye(len(PROTEINS), 12, dtype=np.float32)
    names, sequences = [each.id for each in PROTEINS], [each.sequence for each in PROTEINS]
    known = np.ones_like(labels, bool)
    index = NeighbourIndex.build(names, sequences, labels, known, tiny_bundle.metadata.classes)
    voting = variant({"neighbours.npz": index.to_bytes()})

    def run(_, inputs):  # the votes' shares as logits: a class that no neighbour has gets 0
        return [np.zeros((len(inputs["votes"]), 4, 8), np.float32), inputs["votes"][:, :12]]

    monkeypatch.setattr(voting._encoder, "_graph", SimpleNamespace(run=run))
    answer = next(voting.predict([Protein("again", PROTEINS[1].sequence)], images=False))
    assert (answer.evidence[0].accession, answer.evidence[0].similarity) == ("P1", 1)
    assert answer.evidence[0].localizations == (tiny_bundle.metadata.classes[1],)
    assert answer.localizations[0] == tiny_bundle.metadata.classes[1]


def test_without_an_index_there_is_no_evidence(predictor):
    assert next(predictor.predict(PROTEINS, images=False)).evidence == ()


def test_a_nucleus_of_another_size_or_scale_is_resampled(predictor, drawn_nucleus):
    small = replace(drawn_nucleus, name="small", nucleus=drawn_nucleus.nucleus[:100])
    coarse = replace(drawn_nucleus, name="coarse", pixel_size_um=0.325)
    drawn = list(predictor.predict(PROTEINS[:1], [drawn_nucleus, small, coarse]))
    assert [each.image.shape for each in drawn] == [(208, 208)] * 3
    assert [each.cell.nucleus.shape for each in drawn] == [(208, 208)] * 3
    padded = "Nucleus 'small' is smaller than this model's images; its border was padded."
    assert [padded in " ".join(each.warnings) for each in drawn] == [False, True, False]
    # Twice as many pixels of half the size are the same field.
    fine = replace(
        drawn_nucleus,
        nucleus=np.kron(drawn_nucleus.nucleus, np.ones((2, 2), np.float32)),
        pixel_size_um=drawn_nucleus.pixel_size_um / 2,
    )
    again = predictor.fit_cell(fine)
    assert np.abs(again.nucleus - drawn_nucleus.nucleus).mean() < 0.01
    assert predictor.fit_cell(drawn_nucleus) is drawn_nucleus


def test_sequences_and_records_of_other_packages_are_predicted(predictor):
    sequence = PROTEINS[0].sequence
    given = [sequence.lower(), PROTEINS[1], SimpleNamespace(id="theirs", seq=sequence)]
    found = list(predictor.predict(given, images=False))
    assert [each.protein.id for each in found] == ["sequence_1", PROTEINS[1].id, "theirs"]
    assert found[0].probabilities == found[2].probabilities
    for wrong, said in (
        (["MKJ"], "sequence_1"),
        ([Rejection("x", "f", "Record x is bad.")], "Record x is bad."),
        ([3], "Protein 1 is a 'int'"),
    ):
        with pytest.raises(InputError, match=said):
            list(predictor.predict(wrong, images=False))


def test_a_notebook_shows_image_bars_and_what_is_known(predictor, drawn_nucleus):
    protein = replace(PROTEINS[0], id="<script>", gene_symbol="G&H")
    [drawn] = predictor.predict([protein], [drawn_nucleus])
    html = drawn._repr_html_()
    assert "&lt;script&gt; · G&amp;H" in html
    assert html.count("data:image/png;base64,") == 2
    best = max(drawn.predicted, key=drawn.predicted.get)
    assert f"Predicted: {best} {drawn.predicted[best]:.2f}" in html
    assert "Known" not in html
    assert html.count("<tr>") == 6
    statement = Statement("HPA", "supported", "Golgi apparatus", ("golgi",))
    known = KnownProtein("P9", "G", (), True, len(protein.sequence), (statement,))
    told = replace(drawn, known=known, image=None)._repr_html_()
    assert "Known (P9): Golgi: HPA supported" in told
    assert "<img" not in told


def test_the_warnings_of_a_nucleus_reach_its_predictions(predictor, drawn_nucleus):
    doubtful = replace(drawn_nucleus, warnings=("pixel size assumed",))
    drawn = list(predictor.predict(PROTEINS[:1], [doubtful, drawn_nucleus]))
    assert [each.warnings for each in drawn] == [("pixel size assumed",), ()]


def test_intranuclear_fraction_by_hand():
    image = np.array([[0.2, 0.6], [0.0, 0.2]], np.float32)
    mask = np.array([[False, True], [True, False]])
    assert intranuclear_fraction(image, mask) == pytest.approx(0.6)
    assert intranuclear_fraction(image, ~mask) == pytest.approx(0.4)
    assert np.isnan(intranuclear_fraction(np.zeros((2, 2), np.float32), mask))


def test_the_intranuclear_fraction_is_that_of_the_image_in_its_nucleus(predictor, drawn_nucleus):
    answer = next(predictor.predict(PROTEINS, [drawn_nucleus]))
    inside = drawn_nucleus.nucleus > 0.5
    expected = answer.image[inside].sum() / answer.image.sum()
    assert answer.readouts["intranuclear_fraction"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("level", "name"), [("protein", "other-9"), ("residue", "segments-1")])
def test_features_that_are_not_here_are_refused(tiny_bundle, level, name):
    spec = tiny_bundle.metadata.encoder.model_copy(update={"level": level, "name": name})
    other: Bundle = replace(tiny_bundle, metadata=tiny_bundle.metadata.model_copy(update={"encoder": spec}))
    said = f"needs the features '{name}' of each {level}; this deepGPS has 'segments-1' of a protein"
    with pytest.raises(BundleError, match=said):
        Predictor(other)


def test_predict_one_takes_a_sequence_as_people_write_it(predictor, drawn_nucleus):
    answer = predictor.predict_one(" mkvlaagivg lcakwdeyhr*\n", drawn_nucleus)
    assert answer.protein.sequence == "MKVLAAGIVGLCAKWDEYHR"
    assert answer.cell is drawn_nucleus
    assert predictor.predict_one("MKVLAAGIVGLCAKWDEYHR", images=False).image is None


@pytest.mark.parametrize(
    ("sequence", "said"), [("MKVLAAJVGLCA", "'J' at residue 7"), ("MK", "only 2"), ("", "is empty")]
)
def test_predict_one_says_what_is_wrong_with_a_sequence(predictor, sequence, said):
    with pytest.raises(InputError, match=said):
        predictor.predict_one(sequence)


def test_load_takes_a_name_or_a_path(tiny_bundle, monkeypatch):
    monkeypatch.setenv("DEEPGPS_MODELS", str(tiny_bundle.path.parent))
    for model in ("tiny", tiny_bundle.path):
        assert Predictor.load(model, threads=1).bundle.sha256 == tiny_bundle.sha256
    with pytest.raises(BundleError, match="'small'"):
        Predictor.load("small")


def test_predicting_imports_nothing_of_the_training_world(tiny_bundle: Bundle):
    code = f"""
import sys
from pathlib import Path
from deepgps.prediction import Predictor
from deepgps.prediction.prediction import NAMED_FROM
answer = Predictor.load(Path({str(tiny_bundle.path)!r}), threads=1).predict_one("MKVLAAGIVGLCAKWDEYHR")
assert answer.image is not None
print(sorted({{"torch", "lightning", "polars", "sklearn", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
