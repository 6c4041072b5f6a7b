import numpy as np
import pytest
from scipy.linalg import sqrtm

from deepgps.errors import InputError
from deepgps.evaluation.images.reference import UNKNOWN_CLASS, Moments, fit_classifier, frechet_distance
from deepgps.evaluation.images.structure import FEATURES

RNG = np.random.default_rng(0)


def features(count, centre):
    return RNG.normal(centre, 1, (count, FEATURES))


def moments(vectors):
    found = Moments.empty(vectors.shape[1])
    for start in range(0, len(vectors), 7):
        found.add(vectors[start : start + 7])
    return found


def test_moments_in_batches_are_numpys():
    vectors = RNG.normal(3, 2, (40, 6))
    found = moments(vectors)
    np.testing.assert_allclose(found.mean, vectors.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(vectors.T), atol=1e-9)


def test_distance_is_that_of_scipys_matrix_root():
    a, b = RNG.normal(0, 1, (200, 6)), RNG.normal(0.5, 2, (300, 6)) @ RNG.normal(size=(6, 6))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-6)


def test_distance_of_a_single_image_is_undefined():
    assert np.isnan(frechet_distance(moments(RNG.normal(size=(1, 6))), moments(RNG.normal(size=(9, 6)))))


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
