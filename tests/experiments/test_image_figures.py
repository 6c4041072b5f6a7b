import numpy as np
import pytest

from crowded_fields import relative_means
from image_quality import correct_side


def test_the_correct_side_counts_both_kinds_around_the_middle():
    fractions = np.array([0.8, 0.6, 0.2, 0.7])
    nuclear = np.array([True, True, False, False])
    share, threshold = correct_side(fractions, nuclear, ~nuclear)
    assert threshold == pytest.approx((0.7 + 0.45) / 2)
    assert share == 0.75


def test_a_cell_is_measured_relative_to_the_brightest_of_its_crop():
    nuclei = np.zeros((40, 60), int)
    nuclei[10:20, 5:15], nuclei[10:20, 40:50] = 1, 2
    image = np.where(nuclei == 1, 0.8, 0.1)
    assert relative_means(image, nuclei, around=False) == pytest.approx([1, 0.125])
    assert relative_means(image, nuclei, around=True) == pytest.approx([1, 1])
