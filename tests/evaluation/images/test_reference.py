import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.evaluation.images.features import FEATURES
from deepgps.evaluation.images.reference import UNKNOWN_CLASS, fit_classifier

RNG = np.random.default_rng(0)


def features(count, centre):
    return RNG.normal(centre, 1, (count, FEATURES))


def test_the_classifier_knows_its_training_classes_only():
    given = np.concatenate([features(30, 0), features(30, 2), features(5, 9), features(25, -9)])
    names = np.array(["er"] * 30 + ["golgi"] * 30 + ["rare"] * 5 + ["er|golgi"] * 25)
    classifier = fit_classifier(given, names)
    assert classifier.classes == ("er", "golgi")
    assert classifier.counts == (30, 30)
    predicted = classifier.predict(np.concatenate([features(10, 0), features(10, 2)]))
    assert (predicted == np.repeat([0, 1], 10)).mean() > 0.9
    assert classifier.numbers(np.array(["golgi", "rare", "er|golgi"])).tolist() == [
        1,
        UNKNOWN_CLASS,
        UNKNOWN_CLASS,
    ]
    assert np.isfinite(classifier.standardised(np.full((1, FEATURES), np.nan))).all()


def test_a_classifier_of_the_profile_ignores_the_rest():
    given = np.concatenate([features(30, 0), features(30, 2)])
    classifier = fit_classifier(given, np.array(["er"] * 30 + ["golgi"] * 30), 16)
    changed = given.copy()
    changed[:, 16:] = 99
    assert classifier.standardised(given).shape == (60, 16)
    assert (classifier.predict(given) == classifier.predict(changed)).all()


def test_two_classes_are_needed():
    with pytest.raises(InputError, match="Classes with 20 training images: 1"):
        fit_classifier(features(25, 0), np.array(["er"] * 25))
