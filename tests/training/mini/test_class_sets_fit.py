import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from deepgps.bundle import ClassSetSpec
from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import CLASS_SETS
from deepgps.prediction.encoder import class_set_logits
from deepgps.training.mini.class_sets import (
    CLASS_SETS_FILE,
    OPENCELL_WEIGHT,
    classes_alone,
    fit_class_sets,
    single_label_targets,
)
from deepgps.training.mini.labels import REGIMES, write_held_out

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
    votes = np.concatenate([mini, mini, np.ones((COUNT, 1))], axis=1).astype(np.float32)
    votes[rng.random(COUNT) < 0.3] = 0  # as many have no relative
    said = [torch.from_numpy(each) for each in (logits, logits + np.float32(0.1))]
    write_held_out(tmp_path, said, [torch.from_numpy(each) for each in (0 * votes, votes)])
    fine = np.array([[slug == each for each in ALL.slugs] for slug in slugs])
    sets = [CLASS_SETS[name] for name in ("single-2", "single-4", "all")]
    proteins = labelled(MINI.slugs, mini)
    places = alone(zip(proteins.sequences[::2], slugs[::2], strict=True))
    fit_class_sets(proteins, labelled(ALL.slugs, fine), places, sets, tmp_path)
    specs = json.loads((tmp_path / CLASS_SETS_FILE).read_text())
    specs = {name: ClassSetSpec.model_validate(each) for name, each in specs.items()}
    return specs, Said(logits, np.zeros((COUNT, 12), np.float32)), chosen


class Said(NamedTuple):
    """What a model says without any relative: logits and votes, (N, K) each."""

    logits: np.ndarray
    votes: np.ndarray

    def of(self, rows: np.ndarray) -> "Said":
        return Said(self.logits[rows], self.votes[rows])


def alone(seen: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    return {text: frozenset((slug,)) for text, slug in seen}


def answers(spec: ClassSetSpec, said: Said) -> np.ndarray:
    return class_set_logits(spec, said.logits, said.votes)


def test_each_set_names_most_proteins_rightly(fitted):
    specs, said, chosen = fitted
    assert list(specs) == ["single-2", "single-4", "all"]
    assert (answers(specs["single-4"], said).argmax(1) == chosen).mean() > 0.85
    pair = chosen < 2
    assert (answers(specs["single-2"], said.of(pair)).argmax(1) == chosen[pair]).mean() > 0.9


def test_classes_are_as_likely_as_they_are_among_opencell_s(fitted):
    specs, said, chosen = fitted
    odds = np.exp(answers(specs["single-4"], said))
    chances = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(chances.mean(0), np.bincount(chosen) / COUNT, atol=0.03)


def test_opencell_teaches_as_much_as_all_others_and_its_classes_are_the_measure():
    places = ["er"] * 3 + ["vesicles"] + ["er", "er", "vesicles", "vesicles", "vesicles", "golgi"]
    proteins = labelled(MINI.slugs, np.array([[slug == each for each in MINI.slugs] for slug in places]))
    seen = alone([*zip(proteins.sequences[:4], places[:4], strict=True), (proteins.sequences[9], "golgi")])
    labels, weights = single_label_targets(proteins, seen, ("er", "vesicles"))
    assert labels.tolist() == [0, 0, 0, 1, 0, 0, 1, 1, 1, -1]
    assert weights.tolist() == pytest.approx([1 / 4] * 4 + [3 / 8] * 2 + [1 / 12] * 3 + [0])


def test_what_opencell_sees_elsewhere_or_says_otherwise_is_its_own_word():
    proteins = labelled(MINI.slugs, np.array([[slug == "er" for slug in MINI.slugs]] * 3))
    seen = alone(zip(proteins.sequences, ("vesicles", "golgi"), strict=False))
    labels, weights = single_label_targets(proteins, seen, ("er", "vesicles"))
    assert labels.tolist() == [1, -1, 0]
    assert weights.tolist() == [0.5, 0, 0.5]


def test_what_opencell_sees_in_two_places_teaches_no_single_label_set():
    proteins = labelled(MINI.slugs, np.array([[slug == "er" for slug in MINI.slugs]] * 2))
    labels, _ = single_label_targets(
        proteins, {proteins.sequences[0]: frozenset(("er", "golgi"))}, ("er", "vesicles")
    )
    assert labels.tolist() == [-1, 0]


def test_neighbours_speak_for_the_classes_of_a_set_and_for_no_other(fitted):
    specs, said, chosen = fitted
    own = [MINI.slugs.index(slug) for slug in FOUR.slugs]
    for weighed in (np.array(specs["single-4"].weights), np.array(specs["single-4"].votes)):
        assert weighed.shape == (4, 12)
        assert (np.delete(weighed, own, axis=1) == 0).all()
        assert (weighed[:, own].diagonal() > 0).all()
    votes = np.eye(12, dtype=np.float32)[[own[each] for each in chosen]]
    with_them = answers(specs["single-4"], said._replace(votes=votes)).argmax(1) == chosen
    assert with_them.mean() > (answers(specs["single-4"], said).argmax(1) == chosen).mean()


def test_several_at_once_are_taught_in_opencell_s_own_words(tmp_path):
    rng = np.random.default_rng(1)
    where = rng.random(COUNT) < 0.5
    mini = np.array([[slug == "er" if there else slug == "golgi" for slug in MINI.slugs] for there in where])
    fine = np.array([[slug == "er" if there else slug == "golgi" for slug in ALL.slugs] for there in where])
    logits = (2.0 * mini - 1 + rng.normal(0, 0.3, mini.shape)).astype(np.float32)
    votes = np.zeros((COUNT, 25), np.float32)
    said = ([torch.from_numpy(each.copy()) for _ in REGIMES] for each in (logits, votes))
    write_held_out(tmp_path, *said)
    proteins = labelled(MINI.slugs, mini)
    # What others call the Golgi, OpenCell calls vesicles.
    places = alone(
        (text, "er" if there else "vesicles")
        for text, there in list(zip(proteins.sequences, where, strict=True))[::4]
    )
    fit_class_sets(proteins, labelled(ALL.slugs, fine), places, [ALL], tmp_path)
    spec = ClassSetSpec.model_validate(json.loads((tmp_path / CLASS_SETS_FILE).read_text())["all"])
    chances = 1 / (1 + np.exp(-class_set_logits(spec, logits[~where], votes[~where, :12])))
    # A quarter of them, and each counts as much as six of the others.
    share = OPENCELL_WEIGHT / (OPENCELL_WEIGHT + 3)
    assert chances[:, ALL.slugs.index("vesicles")].mean() == pytest.approx(share, abs=0.06)
    assert chances[:, ALL.slugs.index("golgi")].mean() == pytest.approx(1 - share, abs=0.06)


def test_what_is_not_unclear_is_wrong_less_often(fitted):
    specs, said, chosen = fitted
    spec = specs["single-4"]
    answered = answers(spec, said)
    highest = (np.exp(answered) / np.exp(answered).sum(1, keepdims=True)).max(1)
    wrong = answered.argmax(1) != chosen
    clear = highest >= spec.unclear_below
    assert 0.25 < spec.unclear_below < 1
    assert wrong[clear].mean() <= 0.76 * wrong.mean()
    assert clear.mean() > 0.5


def test_probabilities_of_several_are_calibrated_and_an_empty_category_is_never_named(fitted):
    specs, said, chosen = fitted
    chances = 1 / (1 + np.exp(-answers(specs["all"], said)))
    column = ALL.slugs.index("cytoplasmic")
    assert chances[:, column].mean() == pytest.approx((chosen == 0).mean(), abs=0.03)
    empty = ALL.slugs.index("chromatin")
    assert chances[:, empty].max() < specs["all"].thresholds[empty]


def test_a_class_alone_leaves_out_what_is_elsewhere_too_and_what_no_microscope_saw():
    labels = np.zeros((4, 12))
    labels[:3, MINI.slugs.index("er")] = 1
    labels[1, MINI.slugs.index("golgi")] = 1
    proteins = labelled(MINI.slugs, labels)
    proteins.view_mask[2] = False
    assert classes_alone(proteins, FOUR.slugs).tolist() == [3, -1, -1, -1]
