import numpy as np
import pytest
from scipy import ndimage

from deepgps.images.cell import DEFAULT_CELLS, OPENCELL_PIXEL_SIZE_UM, SIZE_PX, Cell
from deepgps.images.segmentation import OtsuWatershed


def segmented(name: str) -> np.ndarray:
    return OtsuWatershed()(Cell.load(name).nucleus, OPENCELL_PIXEL_SIZE_UM)


@pytest.mark.parametrize("name", DEFAULT_CELLS)
def test_a_whole_nucleus_of_a_plausible_size_lies_in_the_centre(name: str) -> None:
    labels, middle = segmented(name), SIZE_PX // 2
    mask = labels == labels[middle, middle]
    assert labels[middle, middle] > 0
    assert 80 < mask.sum() * OPENCELL_PIXEL_SIZE_UM**2 < 500
    assert np.hypot(*(np.array(ndimage.center_of_mass(mask)) - middle)) * OPENCELL_PIXEL_SIZE_UM < 1.5
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


@pytest.mark.parametrize("name", DEFAULT_CELLS)
def test_they_pass_the_checks_of_a_users_image(name: str) -> None:
    cell = Cell.load(name)
    assert cell.nucleus.shape == (SIZE_PX, SIZE_PX)
    assert not cell.warnings
