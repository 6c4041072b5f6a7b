import io

import numpy as np
import pytest
from PIL import Image

from deepgps.images.write import png


@pytest.mark.parametrize("shape", [(5, 3, 3), (1, 1, 3), (64, 200, 3)])
def test_a_png_holds_the_pixels_that_were_given(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        opened.verify()
    assert (np.asarray(Image.open(io.BytesIO(png(pixels)))) == pixels).all()


def test_a_smooth_image_is_small():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2).repeat(100, 0)
    assert len(png(ramp)) < ramp.size / 50
