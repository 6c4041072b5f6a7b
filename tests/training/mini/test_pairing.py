import numpy as np
import pytest

from deepgps.datasets.labels import LabelledProteins
from deepgps.localization import ClassSet, class_set
from deepgps.training.mini.images import EXTRACELLULAR_SHARE_OF_ER, UNSEEN_SHARE, Pairing

CLASSES = ClassSet("toy", {slug: (slug,) for slug in ("er", "golgi", "extracellular")}, True)
LABELS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0.2, 0.6, 0]], np.float32)
COUNT = 2000


def labelled(labels: np.ndarray) -> LabelledProteins:
    rows, known = len(labels), np.ones(labels.shape, bool)
    return LabelledProteins(
        ids=np.array([f"P{i}" for i in range(rows)]),
        sequences=tuple("M" * (i + 1) for i in range(rows)),
        slugs=CLASSES.slugs,
        labels=labels,
        mask=known,
        view_labels=np.stack([labels] * 2, 1),
        view_mask=np.stack([known] * 2, 1),
        weight=np.ones(rows, np.float32),
        cluster=np.arange(rows),
        source=np.array(["hpa"] * rows),
    )


def distinct(offset: float) -> np.ndarray:
    """Probabilities (N, 3): that of the first class tells the proteins apart, on one side of 0.5."""
    rows = len(LABELS)
    first = np.arange(rows) / (4 * rows) + offset
    return np.stack([first, np.full(rows, 0.5), np.full(rows, 0.5)], 1).astype(np.float32)


FRESH, UNSEEN = distinct(0.55), distinct(0.05)


@pytest.fixture
def pairing() -> Pairing:
    return Pairing(labelled(LABELS), FRESH, UNSEEN, CLASSES)


def drawn(pairing: Pairing, localizations: str, accession: str = "") -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([pairing.draw(localizations, accession, rng) for _ in range(COUNT)])


@pytest.fixture
def plain(pairing, monkeypatch) -> Pairing:
    """A pairing whose probabilities are one-hot rows, unvaried: they tell which protein was drawn."""
    monkeypatch.setattr(pairing, "_vary", lambda row, rng: np.eye(len(LABELS), dtype=np.float32)[row])
    return pairing


def shares(pairing: Pairing, *what: str) -> list[float]:
    return drawn(pairing, *what).mean(0).tolist()


def test_an_image_is_paired_with_proteins_of_exactly_its_localizations(plain):
    assert shares(plain, "golgi") == pytest.approx([0, 0, 0.5, 0, 0, 0.5], abs=0.05)
    assert shares(plain, "golgi|er") == [0, 0, 0, 1, 0, 0]


def test_proteins_of_the_er_and_now_and_then_secreted_ones_stand_for_an_image_of_the_er(plain):
    half = (1 - EXTRACELLULAR_SHARE_OF_ER) / 2
    expected = [half, half, 0, 0, EXTRACELLULAR_SHARE_OF_ER, 0]
    assert shares(plain, "er") == pytest.approx(expected, abs=0.05)


def test_an_images_own_protein_is_drawn_every_other_time(plain):
    assert shares(plain, "golgi", "P4") == pytest.approx([0, 0, 0.25, 0, 0.5, 0.25], abs=0.05)
    assert shares(plain, "golgi", "unknown") == pytest.approx([0, 0, 0.5, 0, 0, 0.5], abs=0.05)


def test_where_no_protein_goes_the_localizations_stand_for_themselves():
    pairing = Pairing(labelled(LABELS[:3]), FRESH[:3], UNSEEN[:3], CLASSES)
    for each in drawn(pairing, "er|golgi"):
        assert each.argsort()[1:].tolist() in ([0, 1], [1, 0])
        assert each[:2].min() > 0.5 > each[2]


def test_probabilities_are_sharpened_or_softened_but_never_turned_round(pairing):
    sure = drawn(Pairing(labelled(LABELS), FRESH, FRESH, CLASSES), "golgi|er")
    assert (sure[:, 0] > 0.5).all()
    assert sure[:, 0].min() < FRESH[3, 0] < sure[:, 0].max()
    np.testing.assert_allclose(sure[:, 1:], 0.5)


def test_some_images_are_paired_with_what_is_said_of_an_unseen_protein(pairing):
    both = drawn(pairing, "golgi|er")
    assert (both[:, 0] < 0.5).mean() == pytest.approx(UNSEEN_SHARE, abs=0.04)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certainty_stays_finite(value):
    certain = np.full_like(FRESH, value)
    each = drawn(Pairing(labelled(LABELS), certain, certain, CLASSES), "golgi")
    assert np.isfinite(each).all()
    assert each.dtype == np.float32
    assert (each > 0).all()
    assert (each < 1).all()


def test_the_same_chance_gives_the_same_pairing(pairing):
    np.testing.assert_array_equal(drawn(pairing, "er", "P1"), drawn(pairing, "er", "P1"))


def test_fine_localizations_are_paired_by_the_class_they_belong_to():
    mini = class_set("mini")
    labels = np.eye(12, dtype=np.float32)
    pairing = Pairing(labelled(labels), labels, labels, mini)
    nucleolus = mini.slugs.index("nucleolus")
    assert {int(each.argmax()) for each in drawn(pairing, "nucleolus_fc_dfc")[:50]} == {nucleolus}
