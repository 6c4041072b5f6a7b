import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from deepgps.images.cell import DEFAULT_CELLS, OPENCELL_PIXEL_SIZE_UM, Cell
from deepgps.images.drawn import SCENES, draw_scene
from deepgps.images.segmentation import OtsuWatershed


def central(name: str) -> tuple[np.ndarray, np.ndarray]:
    labels = OtsuWatershed()(Cell.load(name).nucleus, OPENCELL_PIXEL_SIZE_UM)
    return labels, labels == labels[104, 104]


@pytest.mark.parametrize("name", SCENES)
def test_what_ships_is_what_is_drawn(name: str) -> None:
    assert np.abs(draw_scene(SCENES[name]) - Cell.load(name).nucleus).max() < 2 / 255


def test_every_scene_ships() -> None:
    assert tuple(SCENES) == DEFAULT_CELLS


@pytest.mark.parametrize("name", SCENES)
def test_one_nucleus_in_the_centre_found_whole(name: str) -> None:
    labels, mask = central(name)
    assert labels[104, 104] > 0
    area = mask.sum() * OPENCELL_PIXEL_SIZE_UM**2
    long, short = SCENES[name].axes_um
    assert area == pytest.approx(np.pi * long * short / 4, rel=0.2)
    assert np.hypot(*(np.array(ndimage.center_of_mass(mask)) - 104)) * OPENCELL_PIXEL_SIZE_UM < 1.5
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_alone_and_crowded() -> None:
    assert central("u2os-1")[0].max() == 1
    assert central("hek-crowded")[0].max() >= 5


def test_the_kidney_is_bent() -> None:
    assert solidity(central("hek-kidney")[1]) < 0.95
    assert min(solidity(central(name)[1]) for name in ("hek-1", "u2os-1")) > 0.97


def solidity(mask: np.ndarray) -> float:
    """Share of its convex hull that a mask fills."""
    corners = np.argwhere(mask)[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return float(mask.sum() / ConvexHull(corners.reshape(-1, 2)).volume)


def test_the_hek_nuclei_are_textured_more_than_the_u2os() -> None:
    def roughness(name: str) -> float:
        pixels, (_, mask) = Cell.load(name).nucleus, central(name)
        inner = ndimage.gaussian_filter(pixels, 1)[ndimage.binary_erosion(mask, iterations=8)]
        return float(inner.std() / inner.mean())

    assert all(roughness(name) > 1.3 * roughness("u2os-1") for name in SCENES if name.startswith("hek"))
