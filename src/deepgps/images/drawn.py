"""Synthetic images of Hoechst-stained HEK293T and U-2 OS nuclei in a confocal microscope: the default cells.

Each feature is a simple model with a size in micrometres: the outline is a smooth bent ellipse; chromatin is
noise of several scales folded into a network, with a bright rim and bright foci of heterochromatin; nucleoli
are dark in a bright shell; then come the microscope's blur, haze, shot noise and read noise. ``python -m
deepgps.images.drawn`` writes the files of the package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from deepgps.arrays import Doubles, Floats, Mask
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM, SIZE_PX
from deepgps.images.processing import percentile_normalise

_MARGIN_PX = 48
_CANVAS_PX = SIZE_PX + 2 * _MARGIN_PX


@dataclass(frozen=True, slots=True)
class Scene:
    """Parameters of a synthetic field.

    Attributes
    ----------
    seed
        Seed of everything random.
    axes_um
        Long and short axis of the central nucleus; the neighbours vary around it.
    neighbours
        Largest number of nuclei around it; fewer if there is no room.
    dent
        Depth of one inward bend of the central nucleus as a share of its radius: a kidney has 0.4.
    bend
        How irregular outlines are.
    contrast
        How strongly chromatin is textured.
    gap_um
        Smallest gap between nuclei.
    """

    seed: int
    axes_um: tuple[float, float] = (15.5, 12.5)
    neighbours: int = 2
    dent: float = 0.0
    bend: float = 0.1
    contrast: float = 1.0
    gap_um: float = 0.8


SCENES: Mapping[str, Scene] = {
    "hek-1": Scene(seed=1, axes_um=(16.0, 13.0)),
    "hek-2": Scene(seed=2, axes_um=(16.0, 12.0), neighbours=1, contrast=0.9),
    "hek-3": Scene(seed=3, axes_um=(15.0, 13.0), neighbours=3),
    "hek-crowded": Scene(seed=4, axes_um=(15.0, 12.0), neighbours=6, gap_um=0.3),
    "hek-kidney": Scene(seed=8, axes_um=(17.0, 13.0), dent=0.5),
    "u2os-1": Scene(seed=6, axes_um=(23.0, 15.5), neighbours=0, bend=0.05, contrast=0.6),
}
"""The scene of each default nucleus."""


def draw_scene(scene: Scene) -> Floats:
    """Draw a scene.

    Returns
    -------
    (208, 208) float32 in [0, 1], percentile-normalised, of `OPENCELL_PIXEL_SIZE_UM`.
    """
    rng = np.random.default_rng(scene.seed)
    canvas = np.zeros((_CANVAS_PX, _CANVAS_PX), np.float32)
    taken = np.zeros(canvas.shape, bool)
    for mask in _masks(scene, rng):
        taken |= mask
        brightness = 0.9 if not canvas.any() else rng.uniform(0.5, 1.0)
        canvas += brightness * _nucleus(mask, scene.contrast, rng)
    seen = _through_microscope(canvas, taken, rng)
    return percentile_normalise(seen[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX])


def write_default_nuclei(folder: Path) -> list[Path]:
    """Write every scene of `SCENES` to a folder as an 8-bit PNG, and return the files."""
    from PIL import Image

    files = [folder / f"{name}.png" for name in SCENES]
    for file, scene in zip(files, SCENES.values(), strict=True):
        Image.fromarray(np.rint(draw_scene(scene) * 255).astype(np.uint8)).save(file, optimize=True)
    return files


def _masks(scene: Scene, rng: np.random.Generator) -> list[Mask]:
    """Make the mask of the central nucleus, then those of neighbours at random places with room."""
    centre = np.array([_CANVAS_PX / 2, _CANVAS_PX / 2])
    masks = [_outline(centre, scene.axes_um, scene.dent, scene.bend, rng)]
    free = _distance_from(masks)
    for _ in range(80 * scene.neighbours):
        if len(masks) > scene.neighbours:
            break
        place = rng.uniform(20, _CANVAS_PX - 20, 2)
        if free[tuple(place.astype(int))] < scene.axes_um[1] / 3:
            continue
        axes = (scene.axes_um[0] * rng.uniform(0.8, 1.05), scene.axes_um[1] * rng.uniform(0.8, 1.05))
        mask = _outline(place, axes, 0.0, scene.bend, rng)
        if scene.gap_um <= free[mask].min() <= scene.gap_um + 3 and _seen(mask):
            masks.append(mask)
            free = _distance_from(masks)
    return masks


def _distance_from(masks: list[Mask]) -> Doubles:
    return np.asarray(ndimage.distance_transform_edt(~np.any(masks, axis=0)) * OPENCELL_PIXEL_SIZE_UM)


def _seen(mask: Mask) -> bool:
    inner = mask[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]
    return bool(inner.sum() > 0.1 * mask.sum())


def _outline(
    centre: Doubles,
    axes_um: tuple[float, float],
    dent: float,
    bend: float,
    rng: np.random.Generator,
) -> Mask:
    """Make the mask of an ellipse with a radius varied by low harmonics and perhaps one dent."""
    rows, cols = np.indices((_CANVAS_PX, _CANVAS_PX)) - centre[:, None, None]
    angle = np.arctan2(rows, cols) - rng.uniform(0, np.pi)
    long, short = (axis / 2 / OPENCELL_PIXEL_SIZE_UM for axis in axes_um)
    radius = long * short / np.hypot(short * np.cos(angle), long * np.sin(angle))
    for harmonic in (2, 3, 4, 5):
        amplitude = rng.normal(0, bend / harmonic)
        radius *= 1 + amplitude * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    side = np.angle(np.exp(1j * (angle - np.pi / 2)))  # the dent is on a long side
    radius *= 1 - dent * np.exp(-((side / 0.7) ** 2))
    return np.asarray(np.hypot(rows, cols) < radius, bool)


def _nucleus(mask: Mask, contrast: float, rng: np.random.Generator) -> Floats:
    """Stain one nucleus: 0 outside, about 0.5 inside."""
    depth = ndimage.distance_transform_edt(mask) * OPENCELL_PIXEL_SIZE_UM
    stain = 0.36 * np.exp(contrast * _chromatin(rng))
    stain *= 1 + 0.7 * contrast * np.exp(-((depth / 0.5) ** 2))
    for row, col, radius in _spots(depth > 2.0, int(rng.integers(1, 5)), (0.7, 1.5), rng):
        shell = _distance(row, col, rng) - radius
        stain *= 1 - 0.55 * (0.5 - 0.5 * np.tanh(shell / 0.4))
        stain += 0.15 * contrast * np.exp(-(((shell - 0.3) / 0.3) ** 2))
    for row, col, radius in _spots(depth > 0.6, int(rng.integers(6, 16)), (0.25, 0.5), rng):
        stain += 0.8 * contrast * np.exp(-((_distance(row, col, rng) / radius) ** 2))
    return np.asarray(stain * mask, np.float32)


def _chromatin(rng: np.random.Generator) -> Floats:
    """Mix noise of three scales with a network: ridges where a smooth noise changes sign; mean 0."""
    coarse, middle, fine = (_noise(scale, rng) for scale in (1.4, 0.6, 0.3))
    network = 0.8 - np.abs(_noise(0.75, rng))
    return np.asarray(0.15 * coarse + 0.2 * middle + 0.2 * fine + 0.4 * network, np.float32)


def _noise(scale_um: float, rng: np.random.Generator) -> Floats:
    white = rng.standard_normal((_CANVAS_PX, _CANVAS_PX)).astype(np.float32)
    smooth = ndimage.gaussian_filter(white, scale_um / OPENCELL_PIXEL_SIZE_UM, mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def _spots(
    room: Mask, count: int, radii_um: tuple[float, float], rng: np.random.Generator
) -> list[tuple[int, int, float]]:
    """Choose positions inside `room`: row and column in pixels, radius in micrometres."""
    rows, cols = np.nonzero(room)
    chosen = rng.integers(0, len(rows), count if len(rows) else 0)
    return [(int(rows[i]), int(cols[i]), float(rng.uniform(*radii_um))) for i in chosen]


def _distance(row: int, col: int, rng: np.random.Generator) -> Doubles:
    """Return each pixel's distance to a position in micrometres, randomly squeezed and roughened."""
    rows, cols = np.indices((_CANVAS_PX, _CANVAS_PX)) - np.array([row, col])[:, None, None]
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(1.0, 1.5)
    along = rows * np.cos(turn) + cols * np.sin(turn)
    across = cols * np.cos(turn) - rows * np.sin(turn)
    ragged = 1 + 0.12 * _noise(0.6, rng)
    return np.asarray(np.hypot(along * squeeze, across) * ragged * OPENCELL_PIXEL_SIZE_UM)


def _through_microscope(stain: Floats, nuclei: Mask, rng: np.random.Generator) -> Floats:
    haze = ndimage.gaussian_filter(stain, 3.0 / OPENCELL_PIXEL_SIZE_UM)
    specks = np.clip(_noise(0.35, rng) - 2.2, 0, None) * np.clip(_noise(4.0, rng), 0, None) * ~nuclei
    light = (
        ndimage.gaussian_filter(stain, 0.22 / OPENCELL_PIXEL_SIZE_UM) + 0.05 * haze + 0.06 * specks + 0.015
    )
    noise = np.hypot(np.sqrt(light / 75), 0.012) * rng.standard_normal(stain.shape)  # shot and read
    return np.asarray(light + noise, np.float32)


if __name__ == "__main__":
    for written in write_default_nuclei(Path(__file__).parent / "default_nuclei"):
        print(written)
