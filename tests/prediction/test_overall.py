"""What is known and what is predicted, combined, and the classes that are named."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deepgps.errors import BundleError
from deepgps.localization import CLASS_SETS
from deepgps.prediction.overall import Overall, said_classes, statement_masks
from deepgps.prediction.prediction import UNCLEAR, Encoding, named_classes
from deepgps.prediction.predictor import latent_of
from deepgps.proteins.known import Statement

MINI = CLASS_SETS["mini"]
LEVELS = ("HPA enhanced", "UniProt experimental")
ER = Statement("HPA", "enhanced", "Endoplasmic reticulum", ("er",))
NUCLEUS = Statement("UniProt", "experimental", "Nucleus", ("nucleoplasm",))


@pytest.fixture
def overall() -> Overall:
    count = len(MINI.slugs)
    weights = {
        "levels": list(LEVELS),
        "bias": [0] * count,
        "prediction": [0.5] * count,
        "says": [[3] * count, [2] * count],
        "silent": [[-2] * count, [-1] * count],
    }
    document = {
        "combinations": {"mini": weights},
        "reliability": [["HPA enhanced", None, "OpenCell", 9, 0.8]],
    }
    return Overall.from_bytes(json.dumps(document).encode())


def test_a_source_says_a_class_and_is_silent_on_others_but_not_on_what_its_word_leaves_open():
    said, silent = statement_masks([ER, NUCLEUS], MINI, LEVELS)
    assert np.argwhere(said).tolist() == [[0, MINI.slugs.index("er")], [1, MINI.slugs.index("nucleoplasm")]]
    assert silent[0].sum() == len(MINI.slugs) - 1
    open_ = {MINI.slugs[k] for k in range(len(MINI.slugs)) if not silent[1, k] and not said[1, k]}
    assert open_ == {"nucleolus", "nuclear_membrane"}


def test_logits_add_up(overall):
    predicted = np.zeros(len(MINI.slugs), np.float32)
    logits, said = overall.logits(predicted, [ER, NUCLEUS], MINI)
    at = dict(zip(MINI.slugs, logits.tolist(), strict=True))
    assert said == {"er", "nucleoplasm"}
    assert (at["er"], at["nucleoplasm"], at["golgi"], at["nucleolus"]) == (3 - 1, 2 - 2, -3, -2)


def test_without_statements_the_answer_is_the_prediction(overall):
    predicted = np.arange(len(MINI.slugs), dtype=np.float32)
    vague = Statement("UniProt", "curated", "Membrane", ())
    assert overall.logits(predicted, [vague], MINI)[0] is predicted


def test_a_single_label_set_uses_the_weights_of_its_classes(overall):
    logits, said = overall.logits(np.zeros(4, np.float32), [ER], CLASS_SETS["single-4"])
    assert logits.argmax() == CLASS_SETS["single-4"].slugs.index("er") and said == {"er"}


def test_the_classes_of_most_sources_come_first():
    golgi = Statement("UniProt", "experimental", "Golgi apparatus", ("golgi",))
    assert said_classes([golgi, ER, Statement("OpenCell", "grade 3", "er", ("er",))], MINI.slugs) == [
        "er",
        "golgi",
    ]


def test_a_damaged_table_is_refused():
    with pytest.raises(BundleError, match=r"overall\.json"):
        Overall.from_bytes(b'{"combinations": {"mini": {}}, "reliability": []}')


def model(*, multi_label: bool = True, thresholds: tuple[float, ...] = (0.1, 0.5, 0.1)) -> SimpleNamespace:
    return SimpleNamespace(
        classes=("a", "b", "c"), multi_label=multi_label, thresholds=thresholds, unclear_below=0.6
    )


@pytest.mark.parametrize(
    ("probabilities", "said", "named"),
    [
        ((0.7, 0.1, 0.2), (), ("a",)),
        ((0.7, 0.1, 0.36), (), ("a", "c")),
        ((0.7, 0.45, 0.4), (), ("a",)),  # c is likely enough, but less than b, which is not
        ((0.7, 0.55, 0.4), (), ("a", "b", "c")),
        ((0.5, 0.1, 0.2), (), (UNCLEAR,)),
        ((0.5, 0.1, 0.2), ("b",), ("a",)),
        ((0.3, 0.1, 0.2), ("b",), (UNCLEAR,)),
        ((0.3, 0.1, 0.2), ("a",), ("a",)),
        ((0.7, 0.1, 0.2), ("c",), ("a", "c")),
        ((0.7, 0.1, 0.2), ("b",), ("a",)),
        ((0.7, 0.0, 0.1), ("c",), ("a",)),
    ],
)
def test_no_class_is_named_that_is_improbable_unsaid_or_out_of_order(probabilities, said, named):
    assert named_classes(np.array(probabilities), model(), said)[0] == named


def test_what_is_known_is_named_from_a_lower_bound():
    chances = np.array((0.5, 0.1, 0.2))
    assert named_classes(chances, model())[0] == (UNCLEAR,)
    assert named_classes(chances, model(), known=True)[0] == ("a",)


def test_a_single_label_model_names_one_class():
    assert named_classes(np.array([0.2, 0.7, 0.1]), model(multi_label=False))[0] == ("b",)
    assert named_classes(np.array([0.3, 0.5, 0.2]), model(multi_label=False))[0] == (UNCLEAR,)


def test_images_follow_the_overall_answer():
    own = np.array([2.0, -1.0, -3.0], np.float32)
    tokens = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    shares = (1 / (1 + np.exp(-own))) ** 2
    encoding = Encoding(own, (shares / shares.sum())[:, None] * tokens, (), own, np.zeros(3, np.float32))
    overall = np.array([-4.0, 3.0, -4.0], np.float32)
    wanted = (1 / (1 + np.exp(-overall))) ** 2
    np.testing.assert_allclose(
        latent_of(overall, encoding), (wanted / wanted.sum())[:, None] * tokens, rtol=1e-4
    )
    np.testing.assert_allclose(latent_of(own, encoding), encoding.latent, rtol=1e-5)
    direct = replace(encoding, latent=np.array([[0.9, 0.3, 0.1, 1, 0]], np.float32))
    np.testing.assert_allclose(latent_of(overall, direct)[0, :3], 1 / (1 + np.exp(-overall)), rtol=1e-5)
    assert latent_of(overall, direct)[0, 3:].tolist() == [1, 0]
