"""Measure anybody's images: folders of true and of predicted ones, paired by name.

Both images of a pair are normalised by their own percentiles first, so that neither bit depth, nor scale, nor
file format changes the answer; then a predicted image of another size is resampled to the true one's. What
the measures mean: ``docs/reference/metrics.md``.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from deepgps.arrays import Doubles, Floats, Ints, Mask, Strings
from deepgps.bundle import Metric
from deepgps.errors import InputError
from deepgps.evaluation.bootstrap import balanced_interval, correlation_interval, mean_interval
from deepgps.evaluation.images.baselines import (
    CLASS_MEAN,
    CONSTANT,
    COPY,
    MASK,
    OWN_MASK,
    OWN_MEAN,
    baseline_images,
    training_intensities,
)
from deepgps.evaluation.images.distances import Moments, frechet_distance, kernel_distance_interval
from deepgps.evaluation.images.features import (
    BANDS,
    PROFILE,
    CellGeometry,
    filled,
    fine_detail,
    structure_features,
)
from deepgps.evaluation.images.pair_metrics import (
    SIMILARITIES,
    nuclear_mask_of,
    shared_resolution,
    texture,
)
from deepgps.evaluation.images.reference import fit_classifier
from deepgps.evaluation.images.structure import (
    MEASURES,
    MIN_IMAGES,
    measured,
    structure_distance,
    structure_spread,
)
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM
from deepgps.images.decode import Decoded, decode_image
from deepgps.images.processing import percentile_normalise
from deepgps.images.read import colour_channel, dominant_colour, image_stem
from deepgps.images.similarity import intranuclear, pearson
from deepgps.tables import read_table

PREDICTED = "predicted"
OTHER_TRUE = "another true image"
NUCLEUS_FREE = (OTHER_TRUE, CONSTANT, CLASS_MEAN, OWN_MEAN)
BASELINES = (OTHER_TRUE, CONSTANT, CLASS_MEAN, MASK, COPY, OWN_MEAN, OWN_MASK)
"""Images that need no model, in the order of tables; without nucleus images those of `NUCLEUS_FREE`."""
ORACLES = (OWN_MEAN, OWN_MASK)
"""Baselines that know the very image they are compared with."""
CONTROLS = 5
"""Predicted images of other pairs that each true image is compared with at most, for `sequence_effect`."""
FOLDS = 5
_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}
_PROTEIN_NAMES = ("protein_predicted", "protein_mean", "protein")


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """A true and a predicted image of one cell.

    Attributes
    ----------
    name
        The name of both files, without suffixes.
    true, predicted
        (H, W) float32 in [0, 1].
    nucleus
        The nucleus image, likewise; None if it is not given.
    pixel_size_um
        Edge of a pixel in micrometres.
    label
        What it shows, such as a localization; None if it is not given.
    group
        What is drawn together in the bootstrap, such as a protein.
    """

    name: str
    true: Floats
    predicted: Floats
    nucleus: Floats | None
    pixel_size_um: float
    label: str | None
    group: str

    @property
    def cell(self) -> str:
        """Which cell it shows, as far as its nucleus image says; empty without one."""
        return "" if self.nucleus is None else hashlib.sha256(self.nucleus.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class PairsRead:
    """Pairs of two folders, read one by one, and what could not be used.

    Attributes
    ----------
    pairs
        The pairs.
    left_out
        Name and reason of each image that is in no pair.
    notes
        What a reader must know.
    """

    pairs: list[ImagePair]
    left_out: list[tuple[str, str]]
    notes: list[str]


def read_pairs(
    true: Path,
    predicted: Path,
    *,
    nucleus: Path | None = None,
    labels: Path | None = None,
    pixel_size_um: float | None = None,
    on_pair: Callable[[int, int], None] = lambda *_: None,
) -> PairsRead:
    """Read the images of two folders that have the same names.

    Parameters
    ----------
    true, predicted
        Folders of TIFF, PNG or JPEG files, one image each; a suffix may differ.
    nucleus
        Folder of the nucleus images, likewise.
    labels
        CSV or TSV with the columns ``name`` and ``label``, optionally ``group``: images of one group, such as
        a protein, are drawn together in the bootstrap.
    pixel_size_um
        Edge of a pixel of the true images in micrometres; as the files state if None.
    on_pair
        Called with how many of how many pairs are read.

    Returns
    -------
    PairsRead
        The pairs, by name.

    Raises
    ------
    InputError
        If a folder is missing, no names are the same, or the table cannot be used.
    """
    files = {"true": _images(true), "predicted": _images(predicted)}
    nuclei = _images(nucleus) if nucleus is not None else {}
    names = sorted(files["true"].keys() & files["predicted"].keys())
    if not names:
        examples = [next(iter(sorted(each)), "nothing") for each in files.values()]
        raise InputError(
            f"No image of '{predicted}' has the name of one in '{true}' (they have '{examples[1]}' and "
            f"'{examples[0]}'); name the two images of a pair alike."
        )
    known = _labels(labels) if labels is not None else {}
    left_out = [
        (name, f"no {other} image of that name")
        for kind, other in (("true", "predicted"), ("predicted", "true"))
        for name in sorted(files[kind].keys() - set(names))
    ]
    pairs, resized, assumed, notes = list[ImagePair](), 0, 0, list[str]()
    for number, name in enumerate(names, start=1):
        try:
            real, size = _read(files["true"][name])
            drawn, _ = _read(files["predicted"][name])
            if nucleus is not None and name not in nuclei:
                raise InputError("no nucleus image of that name")
            cell = _read(nuclei[name])[0] if nucleus is not None else None
            resized += drawn.shape != real.shape
            assumed += pixel_size_um is None and size is None
            um = pixel_size_um or size or OPENCELL_PIXEL_SIZE_UM
            label, group = known.get(name, (None, name))
            nucleus_image = None if cell is None else _as_large_as(real, cell)
            pairs.append(ImagePair(name, real, _as_large_as(real, drawn), nucleus_image, um, label, group))
        except InputError as error:
            left_out.append((name, str(error)))
        on_pair(number, len(names))
    if not pairs:
        raise InputError(f"None of the {len(names)} pairs can be used; the first: {left_out[-1][1]}")
    if resized:
        notes.append(f"{resized} predicted images were resampled to the size of the true ones.")
    if assumed:
        notes.append(
            f"{assumed} true images state no pixel size, and {OPENCELL_PIXEL_SIZE_UM:g} µm were assumed: "
            "give --pixel-size-um, or do not trust lengths and structure."
        )
    if left_out:
        notes.append(f"{len(left_out)} images were left out; see left_out.csv.")
    return PairsRead(pairs, left_out, notes)


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"Folder '{folder}' was not found; give a folder of images.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    return {image_stem(path): path for path in files}


def _labels(path: Path) -> dict[str, tuple[str | None, str]]:
    table = read_table(path, required=("name", "label"))
    found = {}
    for row in table.rows:
        if row.problem:
            raise InputError(f"Labels '{path}': {row.problem}")
        name = image_stem(row.cells["name"])
        found[name] = (row.cells["label"] or None, row.cells.get("group") or name)
    return found


def _read(path: Path) -> tuple[Floats, float | None]:
    """Read a normalised image (H, W), and its pixel size in micrometres."""
    decoded = decode_image(path)
    pixels = decoded.channels[_channel(decoded, path)].astype(np.float32)
    if not np.isfinite(pixels).all():
        raise InputError(f"Image '{path.name}' has pixels that are not numbers.")
    size = decoded.pixel_size_um
    return percentile_normalise(pixels), None if size is None else size[1]


def _channel(decoded: Decoded, path: Path) -> int:
    if len(decoded.channels) == 1:
        return 0
    if decoded.colour:
        dominant = dominant_colour(decoded.channels)
        return colour_channel(decoded.channels, path.name)[0] if dominant is None else dominant
    named = [decoded.names.index(name) for name in _PROTEIN_NAMES if name in decoded.names]
    if not named:
        raise InputError(
            f"Image '{path.name}' has {len(decoded.channels)} channels, and none is named 'protein'; give "
            "one channel."
        )
    return named[0]


def _as_large_as(true: Floats, image: Floats) -> Floats:
    if image.shape == true.shape:
        return image
    from skimage.transform import resize

    resized = resize(image, true.shape, order=1, mode="edge", anti_aliasing=True)  # type: ignore[no-untyped-call]
    return np.asarray(np.clip(resized, 0, 1), np.float32)


# ---- measuring ----


@dataclass(frozen=True, slots=True, eq=False)
class PairMeasurements:
    """What was measured of N pairs.

    Attributes
    ----------
    pairs
        The pairs.
    values
        By kind of image, `PREDICTED` or a baseline, and measure: (N,).
    features
        (N, F) features of the true and of the predicted images.
    structure
        What `measured` returns of the true and of the predicted images; empty without nucleus images.
    controls
        (N,) Pearson r of the true image with predicted images of other pairs, see `control_numbers`; and the
        same of the nucleus images.
    controlled
        How the controls were chosen, as a sentence.
    """

    pairs: Sequence[ImagePair]
    values: dict[str, dict[str, Doubles]]
    features: tuple[Doubles, Doubles]
    structure: tuple[list[dict[str, float]], list[dict[str, float]]]
    controls: tuple[Doubles, Doubles]
    controlled: str

    @property
    def groups(self) -> Ints:
        """(N,) numbers of the groups."""
        return np.unique([pair.group for pair in self.pairs], return_inverse=True)[1]

    @property
    def labels(self) -> Strings:
        """(N,) labels; empty where there is none."""
        return np.array([pair.label or "" for pair in self.pairs])


def measure_pairs(
    pairs: Sequence[ImagePair], *, seed: int = 0, on_pair: Callable[[int, int], None] = lambda *_: None
) -> PairMeasurements:
    """Measure predicted images and baselines beside the true images.

    Parameters
    ----------
    pairs
        The pairs; all with a nucleus image, or none.
    seed
        Seed of the choice of controls.
    on_pair
        Called with how many of how many pairs are measured.

    Returns
    -------
    PairMeasurements
        What was measured.
    """
    rng = np.random.default_rng(seed)
    masks = [_mask(pair) for pair in pairs]
    with_nuclei = pairs[0].nucleus is not None
    labels = np.array([pair.label or "" for pair in pairs])
    levels = training_intensities(
        (pair.true[None], mask[None], labels[[k]])
        for k, (pair, mask) in enumerate(zip(pairs, masks, strict=True))
    )
    chosen, controlled = control_numbers(pairs, rng)
    kinds = [PREDICTED, *(name for name in BASELINES if with_nuclei or name in NUCLEUS_FREE)]
    if not any(labels):
        kinds.remove(CLASS_MEAN)
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    features, structure = ([], []), ([], [])  # type: ignore[var-annotated]
    controls: list[tuple[float, float]] = []
    for number, (pair, mask) in enumerate(zip(pairs, masks, strict=True)):
        nucleus = np.zeros_like(pair.true) if pair.nucleus is None else pair.nucleus
        images = baseline_images(pair.true[None], nucleus[None], mask[None], labels[[number]], levels) | {
            PREDICTED: pair.predicted[None]
        }
        others = chosen[number]
        if len(others):
            images[OTHER_TRUE] = pairs[others[0]].true[None]
        for kind in kinds:
            image = images.get(kind)
            rows[kind].append(_measure(pair, mask, None if image is None else image[0].astype(np.float32)))
        geometry = CellGeometry.of(nucleus[None], mask[None], pair.pixel_size_um)
        for place, image in enumerate((pair.true, pair.predicted)):
            features[place].append(structure_features(image[None], geometry)[0])
            if with_nuclei:
                structure[place].append(measured(image, nucleus, pair.pixel_size_um))
        _add_structure(rows[PREDICTED][-1], features[0][-1], features[1][-1], pair, with_nuclei)
        controls.append(_controls(pair, [pairs[other] for other in others]))
        on_pair(number + 1, len(pairs))
    values = {kind: _columns(measured_rows) for kind, measured_rows in rows.items()}
    values[PREDICTED]["texture_distance"] = _texture_distance(pairs)
    right, wrong = zip(*controls, strict=True)
    return PairMeasurements(
        pairs,
        values,
        (np.stack(features[0]), np.stack(features[1])),
        structure,
        (np.array(right), np.array(wrong)),
        controlled,
    )


def control_numbers(pairs: Sequence[ImagePair], rng: np.random.Generator) -> tuple[list[Ints], str]:
    """Choose for each pair the other pairs whose predicted images it is compared with.

    Those of the same cell come first: there only the protein differs. Otherwise they are of other cells, with
    another label where labels are given. They have the same size.

    Returns
    -------
    numbers : list of Ints
        At most `CONTROLS` for each; none where no pair fits.
    sentence : str
        How they were chosen.
    """
    cells = np.array([pair.cell for pair in pairs])
    labels = np.array([pair.label or "" for pair in pairs])
    shapes = [pair.true.shape for pair in pairs]
    chosen, same_cell = list[Ints](), 0
    for number, pair in enumerate(pairs):
        fits = np.array([shape == pair.true.shape for shape in shapes])
        fits[number] = False
        inside = fits & (cells == pair.cell) & bool(pair.cell)
        different = fits & (labels != labels[number]) if pair.label else fits
        pool = np.flatnonzero(inside if inside.any() else different)
        same_cell += bool(inside.any())
        chosen.append(rng.permutation(pool)[:CONTROLS])
    where = f"of the same cell in {same_cell} of {len(pairs)} pairs, else of another cell"
    return chosen, f"{where}{', with another label' if labels.any() else ''}"


def _mask(pair: ImagePair) -> Mask:
    if pair.nucleus is None:
        return np.zeros(pair.true.shape, np.bool_)
    return nuclear_mask_of(pair.nucleus, pair.pixel_size_um)


def _measure(pair: ImagePair, mask: Mask, image: Floats | None) -> dict[str, float]:
    if image is None:
        return {}
    row = {name: measure(pair.true, image) for name, measure in SIMILARITIES.items()}
    if mask.any():
        real, drawn = (float(intranuclear(each[None], mask[None])[0]) for each in (pair.true, image))
        row |= {"intranuclear_true": real, "intranuclear": drawn, "intranuclear_error": abs(real - drawn)}
    return row


def _add_structure(
    row: dict[str, float], true: Doubles, predicted: Doubles, pair: ImagePair, with_nuclei: bool
) -> None:
    """Add sharpness and, with a nucleus, the error of the profile around it."""
    row["shared_resolution_um"] = shared_resolution(pair.true, pair.predicted, pair.pixel_size_um)
    bands = slice(PROFILE, PROFILE + BANDS)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [float(fine_detail(10 ** each[None, bands])[0]) for each in (predicted, true)]
        row["fine_detail"] = float(np.log2(shares[0] / shares[1]))
    row["spectrum_error"] = float(np.abs(predicted[bands] - true[bands]).mean())
    if with_nuclei:
        difference = np.abs(predicted - true)[:PROFILE]
        row["profile_error"] = float(np.nanmean(difference)) if np.isfinite(difference).any() else np.nan


def _controls(pair: ImagePair, others: Sequence[ImagePair]) -> tuple[float, float]:
    """Pearson r of the true image with others' predicted images, and with others' nucleus images."""
    if not others:
        return float("nan"), float("nan")
    true = np.repeat(pair.true[None], len(others), 0)
    wrong = pearson(true, np.stack([other.predicted for other in others]))
    if pair.nucleus is None:
        return float(np.nanmean(wrong)) if np.isfinite(wrong).any() else float("nan"), float("nan")
    nuclei = pearson(true, np.stack([np.asarray(other.nucleus) for other in others]))
    means = [float(np.nanmean(each)) if np.isfinite(each).any() else float("nan") for each in (wrong, nuclei)]
    return means[0], means[1]


def _texture_distance(pairs: Sequence[ImagePair]) -> Doubles:
    """Mean difference of the texture measures in standard deviations over the true images, (N,)."""
    true, predicted = (
        np.stack([texture(image) for image in images])
        for images in ([pair.true for pair in pairs], [pair.predicted for pair in pairs])
    )
    spread = true.std(0)
    varying = spread > 1e-9
    if not varying.any():
        return np.full(len(pairs), np.nan)
    return np.asarray((np.abs(predicted - true)[:, varying] / spread[varying]).mean(1))


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, Doubles]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


# ---- metrics ----


def pair_metrics(measurements: PairMeasurements, *, seed: int = 0) -> tuple[dict[str, Metric], list[str]]:
    """Summarise what was measured.

    Parameters
    ----------
    measurements
        Of the pairs.
    seed
        Seed of the bootstrap.

    Returns
    -------
    metrics : dict of Metric
        By names such as ``images/predicted/pearson``, with 95 % intervals over groups; undefined ones are
        left out.
    notes : list of str
        What was not measured, and why.
    """
    groups, metrics, notes = measurements.groups, dict[str, Metric](), list[str]()
    for kind, columns in measurements.values.items():
        for name, column in columns.items():
            if name != "intranuclear_true":
                metrics[f"images/{kind}/{name}"] = mean_interval(column, groups, seed=seed)
        if "intranuclear" in columns:
            real = columns["intranuclear_true"]
            metrics[f"images/{kind}/intranuclear_r"] = correlation_interval(
                real, columns["intranuclear"], groups, seed=seed
            )
            metrics[f"images/{kind}/intranuclear_rho"] = _rank_correlation(real, columns["intranuclear"])
    metrics |= _effects(measurements, seed)
    metrics |= _distances(measurements, seed)
    metrics |= _structure_metrics(measurements, seed)
    read, read_notes = _read_back(measurements, seed)
    metrics |= read
    notes += read_notes
    if len(measurements.structure[0]) == 0:
        notes.append(
            "No nucleus images were given (--nucleus): the intranuclear fraction, the profile around nuclei "
            "and the measures of structure are missing, and distances do without them."
        )
    return {name: metric for name, metric in metrics.items() if np.isfinite(metric.value)}, notes


def _rank_correlation(real: Doubles, drawn: Doubles) -> Metric:
    known = np.isfinite(real) & np.isfinite(drawn)
    if known.sum() < 3 or min(np.ptp(real[known]), np.ptp(drawn[known])) < 1e-9:
        return Metric(value=float("nan"), n=int(known.sum()))
    return Metric(value=float(spearmanr(real[known], drawn[known]).statistic), n=int(known.sum()))


def _effects(measurements: PairMeasurements, seed: int) -> dict[str, Metric]:
    """Pearson r of a pair less that of permuted pairs; the same of nucleus images, which know no protein."""
    groups, (wrong, wrong_nuclei) = measurements.groups, measurements.controls
    right = measurements.values[PREDICTED]["pearson"]
    found = {"images/sequence_effect": mean_interval(right - wrong, groups, seed=seed)}
    if COPY in measurements.values:
        copied = measurements.values[COPY]["pearson"]
        effect = copied - wrong_nuclei
        found["images/sequence_effect of the copied nucleus"] = mean_interval(effect, groups, seed=seed)
    return found


def _distances(measurements: PairMeasurements, seed: int) -> dict[str, Metric]:
    """Fréchet and kernel distance of predicted and true images, and of two halves of the true ones."""
    true, predicted = (filled(each) for each in measurements.features)
    spread = np.where(true.std(0) > 1e-9, true.std(0), 1.0)
    a, b = (np.clip((each - true.mean(0)) / spread, -5, 5) for each in (true, predicted))
    order = np.random.default_rng(seed).permutation(len(a))
    halves = a[order[: len(a) // 2]], a[order[len(a) // 2 :]]
    found = {}
    for name, (first, second) in {PREDICTED: (b, a), "true, two halves": halves}.items():
        moments = [Moments.empty(a.shape[1]) for _ in range(2)]
        for moment, vectors in zip(moments, (first, second), strict=True):
            moment.add(vectors)
        found[f"images/{name}/frechet_distance"] = Metric(value=frechet_distance(*moments), n=len(first))
        found[f"images/{name}/kernel_distance"] = kernel_distance_interval(first, second, seed=seed)
    return found


def _structure_metrics(measurements: PairMeasurements, seed: int) -> dict[str, Metric]:
    """Error of each measure of structure by pair, and the distance of their distributions, by label."""
    true, predicted = measurements.structure
    if not true:
        return {}
    spread, found = structure_spread(true), dict[str, Metric]()
    for name in MEASURES:
        if not spread[name] > 1e-9:
            continue
        errors = [abs(b[name] - a[name]) for a, b in zip(true, predicted, strict=True)]
        found[f"images/predicted/structure: {name}, error"] = mean_interval(
            np.array(errors), measurements.groups, seed=seed
        )
    names = dict.fromkeys(["", *measurements.labels.tolist()])
    for label in names:
        rows = [k for k, each in enumerate(measurements.labels) if label in ("", each)]
        if len(rows) >= MIN_IMAGES:
            value = structure_distance([true[k] for k in rows], [predicted[k] for k in rows], spread)["all"]
            suffix = f", {label}" if label else ""
            found[f"images/predicted/structure distance{suffix}"] = Metric(value=value, n=len(rows))
    return found


def _read_back(measurements: PairMeasurements, seed: int) -> tuple[dict[str, Metric], list[str]]:
    """Read labels back by a classifier that was fitted on the true images of other groups."""
    labels, groups = measurements.labels, measurements.groups
    if not labels.any():
        return {}, ["No labels were given (--labels), so that nothing is read back."]
    note = (
        "Labels are read back by a support vector machine on the features of structure, fitted on the true "
        "images of other groups; no network that reads localizations was at hand."
    )
    true, predicted = measurements.features
    fold = np.random.default_rng(seed).permutation(groups.max() + 1)[groups] % FOLDS
    hits = np.full((2, len(labels)), np.nan)
    for number in range(FOLDS):
        here = fold == number
        try:
            classifier = fit_classifier(true[~here & (labels != "")], labels[~here & (labels != "")])
        except InputError:
            continue
        truth = classifier.numbers(labels[here])
        for row, features in enumerate((true, predicted)):
            right = classifier.predict(features[here]) == truth
            hits[row, here] = np.where(truth >= 0, right, np.nan)
    if np.isnan(hits).all():
        return {}, ["Too few images have the same label (20 of at least two) to read labels back."]
    _, numbers = np.unique(labels, return_inverse=True)
    numbers = np.where(labels == "", -1, numbers)
    found = {}
    for name, row in {"true": hits[0], PREDICTED: hits[1]}.items():
        found[f"images/{name}/read_back"] = mean_interval(row, groups, seed=seed)
        found[f"images/{name}/read_back_balanced"] = balanced_interval(row, numbers, groups, seed=seed)
    return found, [note]


def table_rows(measurements: PairMeasurements) -> Iterator[list[object]]:
    """Yield the header and a row for each pair: its name, label and group, and what was measured of it."""
    columns = measurements.values[PREDICTED]
    yield ["name", "label", "group", *columns]
    for number, pair in enumerate(measurements.pairs):
        numbers = (column[number] for column in columns.values())
        texts = (f"{value:.6g}" if np.isfinite(value) else "" for value in numbers)
        yield [pair.name, pair.label or "", pair.group, *texts]
