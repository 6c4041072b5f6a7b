import numpy as np
import pytest
from scipy import ndimage

from deepgps.evaluation.images.structure import (
    MEASURES,
    MIN_IMAGES,
    PIXEL_SIZE_UM,
    CellImage,
    measured,
    structure_distance,
    structure_spread,
)

UM, EDGE = 0.4, 96
ROWS, COLUMNS = np.indices((EDGE, EDGE))
RNG = np.random.default_rng(0)


def disc(row, column, radius):
    return np.hypot(ROWS - row, COLUMNS - column) < radius


NUCLEUS = disc(48, 48, 16)
CELL = disc(48, 48, 40)


def measure(name, protein, nuclei=NUCLEUS, dna=None):
    labels = ndimage.label(nuclei)[0].astype(np.int32)
    nucleus = nuclei if dna is None else dna
    cell = CellImage(np.asarray(protein, np.float32), nucleus.astype(np.float32), labels, UM)
    return MEASURES[name](cell)


def test_a_shell_has_a_rim_and_a_filled_nucleus_has_none():
    shell = 0.1 * NUCLEUS + 0.7 * (disc(48, 48, 17) & ~disc(48, 48, 14))
    assert measure("rim ratio", shell) > 5
    assert measure("rim ratio", NUCLEUS) < 1
    assert measure("rim ratio", np.ones((EDGE, EDGE))) == pytest.approx(1)


def test_a_nucleolar_protein_is_where_dna_is_not():
    holes = disc(44, 44, 4) | disc(54, 50, 3)
    dna = np.where(holes, 0.2, 0.8) * NUCLEUS
    assert measure("DNA r", holes, dna=dna) == pytest.approx(-1)
    assert measure("DNA r", 0.5 * dna, dna=dna) == pytest.approx(1)
    assert np.isnan(measure("DNA r", CELL, dna=dna))


def test_roughness_is_the_deviation_of_noise_over_the_mean_of_the_cytosol():
    noisy = CELL * (0.5 + 0.1 * RNG.standard_normal((EDGE, EDGE)))
    assert measure("roughness", noisy) == pytest.approx(0.2, rel=0.05)
    assert measure("roughness", 0.5 * CELL) < 1e-5
    assert measure("roughness", 0.5 * noisy) == pytest.approx(measure("roughness", noisy), rel=1e-5)


def test_spots_are_counted_whatever_their_brightness():
    places = [(20, 48), (48, 16), (70, 70), (30, 76)]
    image = 0.05 + sum(np.exp(-((ROWS - r) ** 2 + (COLUMNS - c) ** 2) / 2) for r, c in places)
    assert measure("spots", 0.9 * image) == 4
    assert measure("spots", 0.1 * image) == 4
    two = disc(48, 30, 10) | disc(48, 66, 10)
    assert measure("spots", 0.9 * image, two) == 2
    assert measure("spots", CELL + 0.0) == 0
    assert measure("spots", abs(COLUMNS - 48) < 2) == 0


def test_the_brightest_share_of_a_dot_is_all_and_of_a_flat_image_undefined():
    assert measure("brightest 1 %", disc(30, 30, 4)) == pytest.approx(1)
    assert measure("brightest 1 %", ROWS < EDGE // 2) == pytest.approx(0.02, rel=0.02)
    assert np.isnan(measure("brightest 1 %", np.full((EDGE, EDGE), 0.5)))


def test_a_golgi_lies_on_one_side_and_cytosol_all_around():
    assert measure("one-sidedness", disc(48, 68, 3)) > 0.95
    assert measure("one-sidedness", CELL) < 0.02
    assert np.isnan(measure("one-sidedness", CELL, disc(10, 10, 8)))


def test_a_membrane_between_two_cells_is_a_line():
    two = disc(48, 28, 12) | disc(48, 68, 12)
    wall = (abs(COLUMNS - 48) < 2) & (abs(ROWS - 48) < 30)
    assert measure("lines", 0.1 + 0.8 * wall, two) > 3
    assert measure("lines", np.ones((EDGE, EDGE)), two) == pytest.approx(1)
    assert np.isnan(measure("lines", wall))


def test_stripes_run_in_one_direction_and_noise_in_none():
    stripes = 0.5 + 0.4 * np.sin(0.8 * COLUMNS)
    noise = ndimage.gaussian_filter(RNG.standard_normal((EDGE, EDGE)), 1.5)
    assert measure("coherence", stripes) > 0.95
    assert measure("coherence", noise) < 0.5
    assert np.isnan(measure("coherence", np.full((EDGE, EDGE), 0.5)))


def test_intranuclear_share_and_mean():
    assert measure("intranuclear", NUCLEUS + 0.0) == pytest.approx(1)
    assert measure("intranuclear", np.ones((EDGE, EDGE))) == pytest.approx(NUCLEUS.mean())
    assert measure("mean", CELL) == pytest.approx(CELL.mean())
    assert np.isnan(measure("intranuclear", np.zeros((EDGE, EDGE))))


def test_finer_images_are_measured_at_the_same_pixel_size():
    coarse = np.stack([0.2 + 0.6 * NUCLEUS, NUCLEUS]).astype(np.float32)
    fine = coarse.repeat(2, 1).repeat(2, 2)
    at_coarse, at_fine = measured(*coarse, PIXEL_SIZE_UM), measured(*fine, PIXEL_SIZE_UM / 2)
    assert at_coarse["intranuclear"] == pytest.approx(at_fine["intranuclear"], rel=0.05)
    assert at_coarse["intranuclear"] == pytest.approx(0.8 * NUCLEUS.sum() / coarse[0].sum(), rel=0.05)
    assert at_coarse.keys() == MEASURES.keys()


def images(**columns):
    """What `measured` returns, undefined but for some columns."""
    rows = zip(*columns.values(), strict=True)
    return [dict.fromkeys(MEASURES, float("nan")) | dict(zip(columns, row, strict=True)) for row in rows]


def test_a_distance_is_in_deviations_of_all_real_images():
    values = RNG.normal(3, 2, 4000)
    real, shifted = images(mean=values), images(mean=values + 1)
    spread = structure_spread(real)
    assert spread["mean"] == pytest.approx(2, rel=0.05)
    assert structure_distance(real, real, spread)["mean"] == 0
    assert structure_distance(real, shifted, spread)["mean"] == pytest.approx(0.5, rel=0.05)
    assert structure_distance(real, [*real, *images(spots=[3])], spread)["mean"] == 0
    assert np.isnan(structure_distance(real, shifted[: MIN_IMAGES - 1], spread)["mean"])


def test_ratios_are_compared_by_their_logarithm():
    real, twice = (images(lines=factor * np.arange(1, 10)) for factor in (1, 2))
    assert structure_distance(real, twice, dict.fromkeys(MEASURES, 0.5))["lines"] == pytest.approx(2)


def test_the_distance_of_images_is_the_mean_over_what_is_defined():
    real = images(coherence=np.arange(9), mean=np.arange(9))
    drawn = images(coherence=np.arange(9), mean=np.arange(9) + 3)
    found = structure_distance(real, drawn, dict.fromkeys(MEASURES, 2.0))
    assert [found[name] for name in ("coherence", "mean", "all")] == pytest.approx([0, 1.5, 0.75])
    assert np.isnan(found["rim ratio"])
