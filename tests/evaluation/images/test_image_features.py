import numpy as np
import pytest
from scipy import ndimage, signal

from deepgps.evaluation.images.features import (
    BANDS,
    FEATURES,
    PROFILE,
    PROFILE_EDGES_UM,
    CellGeometry,
    filled,
    fine_detail,
    profiles,
    spectra,
    structure_features,
)

UM, EDGE = 0.2, 96
RNG = np.random.default_rng(0)


def discs(count, radius=25.0):
    y, x = np.indices((EDGE, EDGE)) - EDGE / 2
    return np.repeat((np.hypot(y, x) < radius)[None], count, axis=0)


def around(masks):
    return CellGeometry.of(masks.astype(np.float32), masks, UM)


def test_profile_is_the_mean_at_each_distance_as_a_plain_loop_finds_it():
    image, mask = RNG.random((1, EDGE, EDGE)).astype(np.float32), discs(1)
    found = profiles(image, around(mask))[0]
    inside, outside = (ndimage.distance_transform_edt(m) for m in (mask[0], ~mask[0]))
    distance = np.where(mask[0], 0.5 - inside, outside - 0.5) * UM
    for zone in range(1, PROFILE):
        low, high = PROFILE_EDGES_UM[zone], PROFILE_EDGES_UM[zone + 1]
        chosen = image[0][(distance >= low) & (distance < high)]
        expected = chosen.mean() / image.mean() if chosen.size else np.nan
        assert found[zone] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_profile_of_a_constant_image_is_one_and_of_a_black_one_or_without_outline_undefined():
    none, everything = np.zeros((1, EDGE, EDGE), bool), np.ones((1, EDGE, EDGE), bool)
    masks = np.concatenate([discs(2), none, everything])
    images = np.full((4, EDGE, EDGE), 0.4, np.float32)
    images[1] = 0
    found = profiles(images, around(masks))
    assert np.nanmax(np.abs(found[0] - 1)) < 1e-6
    assert np.isnan(found[1:]).all()


def test_a_nuclear_image_falls_at_the_outline():
    mask = discs(1)
    found = profiles((0.1 + 0.8 * mask).astype(np.float32), around(mask))[0]
    centre = int(np.searchsorted(PROFILE_EDGES_UM, 0))
    assert found[centre - 1] > 5 * found[centre]


def test_spectrum_finds_the_period_of_a_grating():
    x = np.arange(EDGE) * UM
    for period in (8.0, 2.0, 0.8):
        grating = np.tile(0.5 + 0.4 * np.sin(2 * np.pi * x / period), (EDGE, 1))[None].astype(np.float32)
        shares = spectra(grating, UM)[0]
        middles = 1 / np.sqrt(np.geomspace(1 / 20, 2.4, BANDS + 1)[:-1] * np.geomspace(1 / 20, 2.4, 13)[1:])
        assert middles[shares.argmax()] == pytest.approx(period, rel=0.35)
        assert shares.sum() == pytest.approx(1)


def test_spectrum_along_a_line_is_scipys_periodogram():
    wave = np.tile(RNG.random(EDGE), (EDGE, 1))[None].astype(np.float32)
    frequency, power = signal.periodogram(
        wave[0, 0] - wave[0].mean(), 1 / UM, np.hanning(EDGE), detrend=False
    )
    low, high = np.geomspace(1 / 20, 2.4, BANDS + 1)[[9, 10]]
    shares = spectra(wave, UM)[0]
    band, rest = (power[(frequency >= a) & (frequency < b)].sum() for a, b in ((low, high), (0.2, 2.4)))
    ours = shares[9] / shares[4:].sum()
    assert ours == pytest.approx(band / rest, rel=0.35)


def test_a_blurred_image_has_less_fine_detail_and_a_constant_one_none_to_speak_of():
    sharp = RNG.random((1, EDGE, EDGE)).astype(np.float32)
    blurred = ndimage.gaussian_filter(sharp, (0, 3, 3))
    detail = fine_detail(spectra(np.concatenate([sharp, blurred]), UM))
    assert detail[1] < 0.3 * detail[0]
    assert np.isnan(fine_detail(spectra(np.full_like(sharp, 0.5), UM))).all()


def test_features_have_their_length_do_not_depend_on_the_batch_and_are_filled():
    masks = np.concatenate([discs(2), np.zeros((1, EDGE, EDGE), bool)])
    images = RNG.random((3, EDGE, EDGE)).astype(np.float32)
    images[1] = 0.3
    together = structure_features(images, around(masks))
    assert together.shape == (3, FEATURES)
    alone = structure_features(images[:1], around(masks[:1]))
    np.testing.assert_allclose(together[:1], alone, rtol=1e-6)
    assert np.isnan(together[1]).any()
    assert np.isfinite(filled(together)).all()
