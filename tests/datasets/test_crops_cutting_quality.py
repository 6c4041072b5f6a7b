import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from deepgps.datasets.crops.cutting import (
    NormalisedField,
    contrast,
    field_quality,
    focus,
    jpeg_blocks,
    leak,
    saturation,
)
from deepgps.images.processing import percentile_normalise
from image_sources import discs, ring

PLACES = [(60, 60), (150, 190)]
NUCLEUS, PROTEIN = discs(256, PLACES, 25), ring(256, PLACES, 25)
LABELS = (ndimage.label(NUCLEUS > 100)[0]).astype(np.int32)
UM = 0.2


def normalised(nucleus=NUCLEUS, protein=PROTEIN) -> NormalisedField:
    return NormalisedField(percentile_normalise(nucleus), (percentile_normalise(protein),), LABELS)


def speckled(seed=5):
    """A protein image with texture everywhere."""
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (256, 256)), 1)
    return (PROTEIN + 400 * np.clip(texture, 0, None)).astype(np.float32)


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(np.float32)


def test_saturation_is_the_fraction_of_clipped_pixels():
    assert saturation(NUCLEUS) < 1e-4
    top = np.percentile(NUCLEUS, 97)
    assert saturation(np.minimum(NUCLEUS, top)) == pytest.approx(0.03, abs=0.002)


def test_focus_falls_with_blur_and_does_not_depend_on_scale():
    sharp = percentile_normalise(NUCLEUS)
    values = [focus(ndimage.gaussian_filter(sharp, sigma), UM) for sigma in (0, 2, 5)]
    assert values[0] > 1.3 * values[1] > 1.3 * 1.3 * values[2]
    assert focus(ndimage.zoom(sharp, 2, order=1), UM / 2) == pytest.approx(values[0], rel=0.2)


def test_contrast_separates_signal_from_noise_at_any_brightness():
    noise = np.random.default_rng(0).normal(0, 1, (256, 256))
    assert contrast((1000 + 30 * noise).astype(np.float32)) < 3
    assert contrast((1000 + 30 * noise + 10 * PROTEIN).astype(np.float32)) > 20
    assert contrast(np.full((64, 64), 7, np.float32)) == 0


def test_jpeg_blocks_are_detected():
    assert jpeg_blocks(speckled()) < 0.05
    assert jpeg_blocks(jpeg(speckled(), 10)) > 0.3
    assert min(jpeg_blocks(jpeg(NUCLEUS, quality)) for quality in (30, 80)) > 0.2 > 4 * jpeg_blocks(NUCLEUS)
    assert jpeg_blocks(np.zeros((64, 64), np.float32)) == 0


def test_leak_grows_with_the_fraction_of_protein_in_the_nucleus_channel():
    protein = speckled()
    clean, little, much = (
        leak(normalised(NUCLEUS + fraction * protein, protein), UM) for fraction in (0, 0.05, 0.3)
    )
    assert abs(clean) < 0.1 < little < much
    assert much > 0.6


def test_a_nuclear_protein_is_not_leak():
    assert abs(leak(normalised(NUCLEUS, NUCLEUS + speckled(1) - PROTEIN), UM)) < 0.1


def test_leak_is_none_if_nuclei_fill_the_field():
    full = NormalisedField(normalised().nucleus, normalised().proteins, np.ones_like(LABELS))
    assert leak(full, UM) is None


def test_a_field_has_all_quality_measures():
    quality = field_quality(NUCLEUS, PROTEIN, normalised(), UM)
    assert set(quality) == {
        "nucleus_saturation",
        "protein_saturation",
        "nucleus_focus",
        "protein_contrast",
        "jpeg_blocks",
        "leak",
    }
    assert all(np.isfinite(value) for value in quality.values())
