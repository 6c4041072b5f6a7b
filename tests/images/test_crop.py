import numpy as np
import pytest

from deepgps.images.processing import background_level, cut, nucleus_crops

FIELD = np.arange(100 * 120, dtype=np.float32).reshape(100, 120)


def labels_at(*places: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(FIELD.shape, np.int32)
    for number, (row, col) in enumerate(places, start=1):
        labels[max(row - 5, 0) : row + 6, max(col - 3, 0) : col + 4] = number
    return labels


def test_a_crop_is_centred_on_its_nucleus() -> None:
    (crop,) = nucleus_crops(FIELD, labels_at((50, 60)), 32)
    assert (crop.row, crop.col, crop.label) == (50, 60, 1)
    assert crop.pixels.shape == (32, 32)
    assert crop.pixels[16, 16] == FIELD[50, 60]
    np.testing.assert_array_equal(crop.pixels, FIELD[34:66, 44:76])
    assert crop.complete
    assert crop.whole_nucleus


@pytest.mark.parametrize(("row", "complete"), [(15, False), (16, True), (84, True), (85, False)])
def test_a_crop_beyond_the_border_needs_padding(row: int, complete: bool) -> None:
    labels = labels_at((row, 60))
    assert len(nucleus_crops(FIELD, labels, 32)) == int(complete)
    (crop,) = nucleus_crops(FIELD, labels, 32, padded=True)
    assert crop.complete == complete
    assert crop.pixels[16, 16] == FIELD[row, 60]


def test_a_cut_nucleus_says_so() -> None:
    (crop,) = nucleus_crops(FIELD, labels_at((3, 60)), 32, padded=True)
    assert not crop.whole_nucleus


def test_order_and_gaps_of_labels() -> None:
    labels = labels_at((50, 60), (40, 30), (60, 90))
    labels[labels == 2] = 0
    assert [crop.label for crop in nucleus_crops(FIELD, labels, 20)] == [1, 3]


def test_no_nuclei_no_crops() -> None:
    assert nucleus_crops(FIELD, labels_at(), 32, padded=True) == []


def test_padding_is_background() -> None:
    square = cut(FIELD, 0, 0, 40)
    assert (square[:20] == background_level(FIELD)).all()
    assert (square[:, :20] == background_level(FIELD)).all()
    np.testing.assert_array_equal(square[20:, 20:], FIELD[:20, :20])


@pytest.mark.parametrize("size", [31, 32, 300])
def test_any_size(size: int) -> None:
    square = cut(FIELD, 50, 60, size)
    assert square.shape == (size, size)
    assert square[size // 2, size // 2] == FIELD[50, 60]
