import numpy as np
import pytest

from deepgps.errors import InputError
from deepgps.images.segmentation import SEGMENTERS, get_segmenter


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_segmenter_finds_a_round_nucleus_and_none_where_there_is_none(name: str) -> None:
    rows, cols = np.indices((256, 256))
    pixels = (0.05 + 0.7 * (np.hypot(rows - 120, cols - 130) < 35)).astype(np.float32)
    segment = get_segmenter(name)
    labels = segment(pixels, 0.2)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == [0, 1]
    assert (labels == 1).sum() == pytest.approx(np.pi * 35**2, rel=0.1)
    assert not segment(np.zeros((256, 256), np.float32), 0.2).any()


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="'stardist' is unknown; use one of otsu"):
        get_segmenter("stardist")
