import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from deepgps.bundle import ClassSetSpec
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import CLASS_SETS
from deepgps.training.mini.class_sets import FILE, fit_class_sets, only_in, taught
from deepgps.training.mini.labels import REGIMES

MINI, ALL, FOUR = (CLASS_SETS[name] for name in ("mini", "all", "single-4"))
COUNT = 400


def labelled(slugs: tuple[str, ...], labels: np.ndarray) -> LabelledProteins:
    """Proteins that a microscope has seen in the classes where ``labels`` is 1."""
    views = np.repeat(labels[:, None], 2, axis=1).astype(np.float32)
    seen = np.ones_like(views, bool)
    seen[:, 1] = False
    return LabelledProteins(
        ids=np.array([str(n) for n in range(len(labels))]),
        sequences=tuple(f"M{n}" for n in range(len(labels))),
        slugs=slugs,
        labels=labels.astype(np.float32),
        mask=np.ones(labels.shape, bool),
        view_labels=views,
        view_mask=seen,
        weight=np.ones(len(labels), np.float32),
        cluster=np.arange(len(labels)),
        source=np.full(len(labels), "hpa"),
    )


@pytest.fixture
def fitted(tmp_path):
    """Read-outs of made-up logits that tell the classes, and the classes of the proteins."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(FOUR.slugs), COUNT, p=(0.6, 0.2, 0.15, 0.05))
    slugs = [FOUR.slugs[each] for each in chosen]
    mini = np.array([[slug == each for each in MINI.slugs] for slug in slugs])
    logits = (2.0 * mini - 1 + rng.normal(0, 0.7, mini.shape)).astype(np.float32)
    save_file(
        dict(zip(REGIMES, (logits, logits + np.float32(0.1)), strict=True)), tmp_path / "held_out.safetensors"
    )
    fine = np.array([[slug == each for each in ALL.slugs] for slug in slugs])
    sets = [CLASS_SETS[name] for name in ("single-2", "single-4", "all")]
    proteins = labelled(MINI.slugs, mini)
    singles = dict(zip(proteins.sequences[::2], slugs[::2], strict=True))
    fit_class_sets(proteins, labelled(ALL.slugs, fine), singles, sets, tmp_path)
    specs = json.loads((tmp_path / FILE).read_text())
    return {name: ClassSetSpec.model_validate(each) for name, each in specs.items()}, logits, chosen


def answers(spec: ClassSetSpec, logits: np.ndarray) -> np.ndarray:
    return logits @ np.array(spec.weights).T + np.array(spec.bias)


def test_each_set_names_most_proteins_rightly(fitted):
    specs, logits, chosen = fitted
    assert list(specs) == ["single-2", "single-4", "all"]
    assert (answers(specs["single-4"], logits).argmax(1) == chosen).mean() > 0.85
    pair = chosen < 2
    assert (answers(specs["single-2"], logits[pair]).argmax(1) == chosen[pair]).mean() > 0.9


def test_classes_are_as_likely_as_they_are_among_opencell_s(fitted):
    specs, logits, chosen = fitted
    said = np.exp(answers(specs["single-4"], logits))
    chances = said / said.sum(1, keepdims=True)
    np.testing.assert_allclose(chances.mean(0), np.bincount(chosen) / COUNT, atol=0.03)


def test_opencell_teaches_as_much_as_all_others_and_its_classes_are_the_measure():
    places = ["er"] * 3 + ["vesicles"] + ["er", "er", "vesicles", "vesicles", "vesicles", "golgi"]
    proteins = labelled(MINI.slugs, np.array([[slug == each for each in MINI.slugs] for slug in places]))
    singles = dict(zip(proteins.sequences[:4], places[:4], strict=True))
    labels, weights = taught(proteins, {**singles, proteins.sequences[9]: "golgi"}, ("er", "vesicles"))
    assert labels.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 1, -1]
    assert weights.tolist() == pytest.approx([1 / 4] * 4 + [3 / 8] * 2 + [1 / 12] * 3 + [0])


def test_what_opencell_sees_elsewhere_or_says_otherwise_is_its_own_word():
    proteins = labelled(MINI.slugs, np.array([[slug == "er" for slug in MINI.slugs]] * 3))
    singles = dict(zip(proteins.sequences, ("vesicles", "golgi"), strict=False))
    labels, weights = taught(proteins, singles, ("er", "vesicles"))
    assert labels.tolist() == [1, -1, 0]
    assert weights.tolist() == [0.5, 0, 0.5]


def test_what_is_not_unclear_is_wrong_less_often(fitted):
    specs, logits, chosen = fitted
    spec = specs["single-4"]
    said = answers(spec, logits)
    highest = (np.exp(said) / np.exp(said).sum(1, keepdims=True)).max(1)
    wrong = said.argmax(1) != chosen
    clear = highest >= spec.unclear_below
    assert 0.25 < spec.unclear_below < 1
    assert wrong[clear].mean() <= 0.76 * wrong.mean()
    assert clear.mean() > 0.5


def test_probabilities_of_several_are_calibrated_and_an_empty_category_is_never_named(fitted):
    specs, logits, chosen = fitted
    chances = 1 / (1 + np.exp(-answers(specs["all"], logits)))
    column = ALL.slugs.index("cytoplasmic")
    assert chances[:, column].mean() == pytest.approx((chosen == 0).mean(), abs=0.03)
    empty = ALL.slugs.index("chromatin")
    assert chances[:, empty].max() < specs["all"].thresholds[empty]


def test_only_in_leaves_out_what_is_elsewhere_too_and_what_no_microscope_saw():
    labels = np.zeros((4, 12))
    labels[:3, MINI.slugs.index("er")] = 1
    labels[1, MINI.slugs.index("golgi")] = 1
    proteins = labelled(MINI.slugs, labels)
    proteins.view_mask[2] = False
    assert only_in(proteins, FOUR.slugs).tolist() == [3, -1, -1, -1]
