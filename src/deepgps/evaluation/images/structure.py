"""What a cell biologist looks at in a protein image, as numbers; and how far drawn images are from real ones.

A measure is a number of one image (H, W) in [0, 1], given the nucleus image of the same cells and its
labelled nuclei (`CellImage`). All lengths are in micrometres. Numbers depend on the resolution of an image,
so `measured` brings every image to `PIXEL_SIZE_UM` first.

>>> import numpy as np
>>> from deepgps.evaluation.images.structure import measured
>>> nucleus = np.zeros((96, 96), np.float32)
>>> nucleus[30:66, 30:66] = 1
>>> round(measured(nucleus, nucleus, 0.413)["intranuclear"], 2)
1.0
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage.segmentation import watershed

from deepgps.arrays import Doubles, Floats, LabelImage, Mask
from deepgps.images.processing import percentile_normalise, resample
from deepgps.images.segmentation import OtsuWatershed

PIXEL_SIZE_UM = 0.413
"""Pixel size at which `measured` measures."""
FINE_UM = 1.2
"""Structures below this size are fine detail."""
CELL_UM = 12.0
"""How far from its nucleus a cell reaches at most."""
GOLGI_UM = 6.0
"""How far from the nucleus a juxtanuclear structure lies at most."""
MIN_IMAGES = 4
"""Images that a distribution needs at least, for a distance to it."""
_MIN_PIXELS = 20


@dataclass(frozen=True, slots=True, eq=False)
class CellImage:
    """An image of a protein and the cells that it shows.

    Attributes
    ----------
    protein, nucleus
        (H, W) in [0, 1].
    labels
        (H, W) nuclei: 0 is background.
    pixel_size_um
        Edge of a pixel in micrometres.
    """

    protein: Floats
    nucleus: Floats
    labels: LabelImage
    pixel_size_um: float

    @property
    def nuclei(self) -> Mask:
        """(H, W), true inside nuclei."""
        return self.labels > 0

    def pixels(self, um: float) -> int:
        """Return a length in whole pixels, at least 1."""
        return max(1, round(um / self.pixel_size_um))

    def blurred(self, um: float) -> Floats:
        """Return the protein image blurred by a Gaussian of this sigma."""
        return np.asarray(ndimage.gaussian_filter(self.protein, um / self.pixel_size_um), np.float32)


def rim_ratio(cell: CellImage) -> float:
    """Mean at the border of the nuclei over the mean of their interior, which begins 2 um further in.

    Above 1 for a protein of the nuclear membrane. The border reaches 0.4 um to the outside of the outline and
    0.8 um to the inside. NaN where the nuclei have no interior.

    Returns
    -------
    float
        0 or more.
    """
    border = ndimage.binary_dilation(cell.nuclei, iterations=cell.pixels(0.4))
    border &= ~_shrunk(cell.nuclei, cell.pixels(0.8))
    return _ratio(cell.protein, border, _shrunk(cell.nuclei, cell.pixels(2)))


def dna_correlation(cell: CellImage) -> float:
    """Pearson correlation with the nucleus image inside the nuclei, 0.8 um off their outline.

    Negative for a nucleolar protein, positive for one on chromatin. NaN where either is constant.

    Returns
    -------
    float
        In [-1, 1].
    """
    inside = _shrunk(cell.nuclei, cell.pixels(0.8))
    protein, dna = cell.protein[inside], cell.nucleus[inside]
    if len(protein) < _MIN_PIXELS or min(protein.std(), dna.std()) < 1e-6:
        return float("nan")
    return float(np.corrcoef(protein, dna)[0, 1])


def cytosol_roughness(cell: CellImage) -> float:
    """Standard deviation of detail finer than 1.2 um over the mean, in the cytosol.

    The cytosol is where the blurred image exceeds half of its 80th percentile outside of the nuclei, 1.2 um
    off its own outline and that of the nuclei; it alone is blurred, to find its detail. NaN where there is
    none.

    Returns
    -------
    float
        0 or more.
    """
    smooth, edge = cell.blurred(FINE_UM), cell.pixels(FINE_UM)
    outside = ~ndimage.binary_dilation(cell.nuclei, iterations=edge)
    if not outside.any():
        return float("nan")
    cytosol = outside & (smooth > 0.5 * np.percentile(smooth[outside], 80))
    cytosol = ndimage.binary_erosion(cytosol, iterations=edge, border_value=1)
    if cytosol.sum() < _MIN_PIXELS:
        return float("nan")
    sigma = FINE_UM / cell.pixel_size_um
    inside, weights = (
        ndimage.gaussian_filter(each, sigma) for each in (cell.protein * cytosol, cytosol + 0.0)
    )
    detail = cell.protein[cytosol] - inside[cytosol] / weights[cytosol]
    return float(detail.std() / max(cell.protein[cytosol].mean(), 1e-3))


def spots_per_nucleus(cell: CellImage) -> float:
    """Number of bright round spots of about 1 um over the number of nuclei.

    A spot is a peak of the difference of two blurs, by 0.4 and 1.2 um, above a fifth of the image's contrast
    (from its 5th percentile to its brightest pixel), and bends down at least 0.3 times as much in one
    direction as in any other, so that lines and edges have none.

    Returns
    -------
    float
        0 or more.
    """
    detail = cell.blurred(0.4) - cell.blurred(FINE_UM)
    contrast = float(cell.protein.max() - np.percentile(cell.protein, 5))
    peaks = (detail == ndimage.maximum_filter(detail, 2 * cell.pixels(0.4) + 1)) & (detail > 0.2 * contrast)
    rr, rc, cc = (
        ndimage.gaussian_filter(cell.protein, 0.4 / cell.pixel_size_um, order=order)[peaks]
        for order in ((2, 0), (1, 1), (0, 2))
    )
    middle, apart = (rr + cc) / 2, np.hypot((rr - cc) / 2, rc)
    round_ones = middle + apart < 0.3 * (middle - apart)
    return float(round_ones.sum() / max(int(cell.labels.max()), 1))


def brightest_share(cell: CellImage) -> float:
    """Share of the intensity in the brightest 1 % of the pixels, of what exceeds the 5th percentile.

    0.01 at least; high for a centrosome. NaN for a constant image.

    Returns
    -------
    float
        In [0.01, 1].
    """
    above = np.sort(np.clip(cell.protein - np.percentile(cell.protein, 5), 0, None).ravel())
    total = float(above.sum())
    return float(above[-max(above.size // 100, 1) :].sum()) / total if total > 1e-6 else float("nan")


def one_sidedness(cell: CellImage) -> float:
    """How much of the protein lies on one side of the middle nucleus: 0 all around, 1 in one direction.

    The length of the mean direction from the nucleus's centre, weighted by intensity above the 5th
    percentile, of what is outside of nuclei and within 6 um. High for a Golgi. NaN without a nucleus in the
    middle.

    Returns
    -------
    float
        In [0, 1].
    """
    middle = _middle_nucleus(cell.labels)
    if not middle:
        return float("nan")
    mask = cell.labels == middle
    near = ndimage.binary_dilation(mask, iterations=cell.pixels(GOLGI_UM)) & ~cell.nuclei
    row, column = ndimage.center_of_mass(mask)
    rows, columns = np.nonzero(near)
    directions = np.exp(1j * np.arctan2(rows - row, columns - column))
    weights = np.clip(cell.protein[near] - np.percentile(cell.protein, 5), 0, None)
    total = float(weights.sum())
    return float(abs((weights * directions).sum())) / total if total > 1e-6 else float("nan")


def lines_between_cells(cell: CellImage) -> float:
    """Mean on the lines half way between neighbouring nuclei over the mean of the cells' bodies.

    Above 1 for the plasma membrane of touching cells. NaN with fewer than two nuclei.

    Returns
    -------
    float
        0 or more.
    """
    if cell.labels.max() < 2:
        return float("nan")
    distance = ndimage.distance_transform_edt(~cell.nuclei)
    territories = watershed(distance, cell.labels, watershed_line=True)  # type: ignore[no-untyped-call]
    near = (distance < cell.pixels(CELL_UM)) & (distance > cell.pixels(0.8))
    line = ndimage.binary_dilation((territories == 0) & near, iterations=cell.pixels(0.4)) & near
    return _ratio(cell.protein, line, near & ~line)


def direction_coherence(cell: CellImage) -> float:
    """How much the detail within 2 um runs in one direction, 0 to 1, weighted by its contrast.

    The anisotropy of the structure tensor: higher for filaments than for a network or spots. NaN for a
    constant image.

    Returns
    -------
    float
        In [0, 1].
    """
    sigma = 0.4 / cell.pixel_size_um
    rows, columns = (ndimage.gaussian_filter(cell.protein, sigma, order=order) for order in ((1, 0), (0, 1)))
    a, b, c = (
        ndimage.gaussian_filter(product, 2 / cell.pixel_size_um)
        for product in (rows * rows, rows * columns, columns * columns)
    )
    energy = float((a + c).sum())
    return float(np.sqrt((a - c) ** 2 + 4 * b**2).sum()) / energy if energy > 1e-9 else float("nan")


def intranuclear_share(cell: CellImage) -> float:
    """Share of the intensity inside the nuclei; NaN for a black image."""
    total = float(cell.protein.sum())
    return float(cell.protein[cell.nuclei].sum()) / total if total > 1e-6 else float("nan")


def mean_intensity(cell: CellImage) -> float:
    """Mean of the image."""
    return float(cell.protein.mean())


MEASURES: Mapping[str, Callable[[CellImage], float]] = {
    "rim ratio": rim_ratio,
    "DNA r": dna_correlation,
    "roughness": cytosol_roughness,
    "spots": spots_per_nucleus,
    "brightest 1 %": brightest_share,
    "one-sidedness": one_sidedness,
    "lines": lines_between_cells,
    "coherence": direction_coherence,
    "intranuclear": intranuclear_share,
    "mean": mean_intensity,
}
"""Every measure by the name that tables use."""
RATIOS = ("rim ratio", "spots", "lines")
"""Measures whose logarithm is compared, of 0.1 where they are below that."""


def measured(protein: Floats, nucleus: Floats, pixel_size_um: float) -> dict[str, float]:
    """Take every measure of an image, at `PIXEL_SIZE_UM`.

    Parameters
    ----------
    protein, nucleus
        (H, W) float32 in [0, 1]: the protein, real or drawn, and the nuclei of the same cells. At another
        pixel size they are resampled first.
    pixel_size_um
        Edge of a pixel in micrometres.

    Returns
    -------
    dict
        One number for each of `MEASURES`; NaN where it is undefined.
    """
    protein, nucleus = (resample(each, pixel_size_um, PIXEL_SIZE_UM) for each in (protein, nucleus))
    labels = OtsuWatershed()(percentile_normalise(nucleus), PIXEL_SIZE_UM)
    cell = CellImage(protein.astype(np.float32), nucleus, labels, PIXEL_SIZE_UM)
    return {name: measure(cell) for name, measure in MEASURES.items()}


def structure_spread(real: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Standard deviation of each measure over real images of all kinds, the unit of `structure_distance`.

    Parameters
    ----------
    real
        What `measured` returns of each image.

    Returns
    -------
    dict
        By measure, of values as `structure_distance` compares them; NaN with fewer than two.
    """
    columns = {name: _compared(real, name) for name in MEASURES}
    return {
        name: float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        for name, values in columns.items()
    }


def structure_distance(
    real: Sequence[Mapping[str, float]], drawn: Sequence[Mapping[str, float]], spread: Mapping[str, float]
) -> dict[str, float]:
    """Compare what was measured of drawn images with the same of real ones of the same kind.

    The Wasserstein distance of two samples of each measure; those in `RATIOS` are compared by logarithm.

    Parameters
    ----------
    real, drawn
        What `measured` returns of each image; NaN is left out.
    spread
        As `structure_spread` returns it.

    Returns
    -------
    dict
        The distance of each measure, 0 for equal distributions and NaN with fewer than `MIN_IMAGES` values in
        either; under ``"all"`` their mean, without those that are undefined.
    """
    distances = {}
    for name in MEASURES:
        samples = [_compared(images, name) for images in (real, drawn)]
        distances[name] = float("nan")
        if min(map(len, samples)) >= MIN_IMAGES:
            distances[name] = float(wasserstein_distance(*samples)) / max(spread[name], 1e-6)
    known = [value for value in distances.values() if np.isfinite(value)]
    return distances | {"all": float(np.mean(known)) if known else float("nan")}


def _compared(images: Sequence[Mapping[str, float]], name: str) -> Doubles:
    """Values of a measure as they are compared, without those that are undefined."""
    values = np.array([each[name] for each in images], np.float64)
    values = values[np.isfinite(values)]
    return np.log2(np.maximum(values, 0.1)) if name in RATIOS else values


def _ratio(protein: Floats, of: Mask, to: Mask) -> float:
    if min(of.sum(), to.sum()) < _MIN_PIXELS:
        return float("nan")
    return float(protein[of].mean() / max(protein[to].mean(), 1e-3))


def _shrunk(mask: Mask, iterations: int) -> Mask:
    # A nucleus that the border of the image cuts has no outline there.
    return np.asarray(ndimage.binary_erosion(mask, iterations=iterations, border_value=1), bool)


def _middle_nucleus(labels: LabelImage) -> int:
    """Number of the nucleus at the middle of the image; 0 for none."""
    height, width = labels.shape
    around = labels[height * 5 // 12 : height * 7 // 12, width * 5 // 12 : width * 7 // 12]
    numbers, counts = np.unique(around[around > 0], return_counts=True)
    return int(numbers[counts.argmax()]) if len(numbers) else 0
