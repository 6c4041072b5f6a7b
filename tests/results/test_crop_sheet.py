import numpy as np

from deepgps.results.crop_sheet import CAPTION, COLUMNS, EDGE, crop_sheet
from deepgps.results.images import MARGIN, NUCLEUS_COLOUR, PROTEIN_COLOUR


def sheet(count):
    crops = np.zeros((count, 2, 64, 64), np.float32)
    crops[:, 0, 16:48, 16:48] = 1
    crops[:, 1, :8] = 1
    return np.asarray(crop_sheet(crops, [("ATL3", "er, golgi", "f1")] * count, 0.2))


def test_each_crop_is_shown_as_nucleus_protein_and_both():
    drawn = sheet(1)
    middle = MARGIN + EDGE // 2
    assert drawn[middle, middle].tolist() == [255, 255, 255]
    assert drawn[middle, middle + EDGE].tolist() == [0, 0, 0]
    overlay = MARGIN + 2 * (EDGE + 2)
    assert drawn[middle, overlay + EDGE // 2].tolist() == list(NUCLEUS_COLOUR)
    assert drawn[MARGIN + 5, overlay + EDGE // 2].tolist() == list(PROTEIN_COLOUR)
    assert drawn[MARGIN + EDGE + 2 : MARGIN + EDGE + CAPTION].max() > 150


def test_rows_are_filled_one_after_another():
    one, row, two = sheet(1).shape, sheet(COLUMNS).shape, sheet(COLUMNS + 1).shape
    assert one[0] == row[0] < two[0]
    assert one[1] < row[1] == two[1]
