"""Where the nuclei are, by a small network: better than `OtsuWatershed` where nuclei are dim or mottled.

`docs/reference/nucleus-network.md` is its card; ``benchmarks/train_segmenter.py`` trains it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import product

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from deepgps.arrays import Floats, LabelImage
from deepgps.images.resample import resample
from deepgps.images.segment import without_small
from deepgps.runtime import Graph, open_graph

PIXEL_SIZE_UM = 0.5
"""Edge of a pixel of the images that the network sees."""

_STEP, _TILE, _MARGIN = 16, 768, 64
"""In pixels of `PIXEL_SIZE_UM`: sides are multiples of the first; fields larger than the second go in tiles,
each seen with as much around it as the third."""


@dataclass(frozen=True, slots=True)
class NetworkWatershed:
    """Two maps drawn by a network, then a watershed of the second.

    The maps tell nucleus from background, and how deep inside its nucleus a pixel lies: from 0 at the outline
    to 1 halfway to the middle, whatever the nucleus's size.

    Attributes
    ----------
    nucleus_probability
        A nuclear pixel has at least this.
    depth_smoothing_um
        Sigma of the blur of the depth.
    seed_depth, min_seed_um2
        Pixels deeper than this, where connected, are one nucleus, if they cover this area.
    min_area_um2
        Smaller objects are dropped; the paper drops those under 1,000 pixels of 0.206 µm.
    threads
        Threads that the network may use.
    """

    nucleus_probability: float = 0.5
    depth_smoothing_um: float = 0.4
    seed_depth: float = 0.8
    min_seed_um2: float = 1.0
    min_area_um2: float = 42.6
    threads: int = 1

    def __call__(self, pixels: Floats, pixel_size_um: float) -> LabelImage:
        """Label the nuclei of a field, as `Segmenter` asks."""
        probability, depth = self.maps(pixels, pixel_size_um)
        depth = ndimage.gaussian_filter(depth, self.depth_smoothing_um / pixel_size_um)
        seeds = np.asarray(ndimage.label(depth > self.seed_depth)[0], np.int32)
        seeds = without_small(seeds, self.min_seed_um2 / pixel_size_um**2)
        mask = probability >= self.nucleus_probability
        labels = watershed(-depth, seeds, mask=mask)  # type: ignore[no-untyped-call]
        return without_small(np.asarray(labels, np.int32), self.min_area_um2 / pixel_size_um**2)

    def maps(self, pixels: Floats, pixel_size_um: float) -> Floats:
        """Draw both maps of a field (H, W) in [0, 1]: (2, H, W) in [0, 1]."""
        seen = resample(pixels, pixel_size_um, PIXEL_SIZE_UM)
        height, width = seen.shape
        padded = np.pad(seen, [(0, -n % _STEP) for n in seen.shape], "symmetric")
        logits = np.empty((2, *padded.shape), np.float32)
        session = _session(self.threads)
        for tile, around, inner in _tiles(padded.shape):
            (drawn,) = session.run(["maps"], {"pixels": padded[around][None, None]})
            logits[:, *tile] = drawn[0][:, *inner]
        zoom = [n / old for n, old in zip(pixels.shape, (height, width), strict=True)]
        wide = [
            ndimage.zoom(each, zoom, order=1, mode="nearest", grid_mode=True)
            for each in logits[:, :height, :width]
        ]
        return np.asarray(1 / (1 + np.exp(-np.stack(wide))), np.float32)


_Window = tuple[slice, ...]


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[_Window, _Window, _Window]]:
    """Every tile, the window with its surroundings, and the tile's place in that window."""
    for corner in product(*(range(0, n, _TILE) for n in shape)):
        tile = tuple(slice(a, min(a + _TILE, n)) for a, n in zip(corner, shape, strict=True))
        around = tuple(
            slice(max(span.start - _MARGIN, 0), min(span.stop + _MARGIN, n))
            for span, n in zip(tile, shape, strict=True)
        )
        inner = tuple(
            slice(span.start - wide.start, span.stop - wide.start)
            for span, wide in zip(tile, around, strict=True)
        )
        yield tile, around, inner


@cache
def _session(threads: int) -> Graph:
    return open_graph((resources.files("deepgps.images") / "nuclei.onnx").read_bytes(), threads)
