import numpy as np
import pytest
from scipy.linalg import sqrtm

from deepgps.evaluation.images.distances import (
    Moments,
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
)

RNG = np.random.default_rng(0)


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


def test_kernel_distance_is_that_of_plain_loops():
    a, b = RNG.normal(0, 1, (7, 5)), RNG.normal(0.5, 2, (9, 5))

    def kernel(x, y):
        return (float(x @ y) / 5 + 1) ** 3

    within = [
        np.mean([kernel(each[i], each[j]) for i in range(len(each)) for j in range(len(each)) if i != j])
        for each in (a, b)
    ]
    between = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between)


def test_kernel_distance_of_one_distribution_is_around_zero_at_any_number_of_images():
    rng = np.random.default_rng(5)
    few = [kernel_distance(*rng.normal(size=(2, 10, 8))) for _ in range(1000)]
    many = [kernel_distance(*rng.normal(size=(2, 80, 8))) for _ in range(200)]
    # A biased estimate of so few is above 1.
    assert abs(np.mean(few)) < 0.05
    assert abs(np.mean(many)) < 0.02
    assert min(few) < 0


def test_the_range_of_halves_holds_the_distance_and_grows_with_the_difference():
    a = RNG.normal(size=(60, 8))
    near, far = (kernel_distance_interval(a, RNG.normal(by, 1, (60, 8))) for by in (0.3, 2))
    assert near.low < near.value < near.high < far.low
    assert near.n == 60
    assert kernel_distance_interval(a, RNG.normal(size=(3, 8))).low is None


def test_distances_of_a_single_image_are_undefined():
    assert np.isnan(kernel_distance(RNG.normal(size=(1, 6)), RNG.normal(size=(9, 6))))
