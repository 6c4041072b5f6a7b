r"""Measure the images of a model beside real ones, in held-out cells of both cell lines.

What is drawn: each class alone into some nuclei of each cell line (`class_images`); the proteins of held-out
images into their own cells (`own_images`); and what the bars name (`NAMED`). All at 0.41 um per pixel, from
the nucleus alone, with one seed an image. What the figures mean: docs/reference/metrics.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import read_back
from read_back import READ_AS, ReadBack, read
from real_images import SIZE, crops, single_class

from deepgps.arrays import Doubles, Floats, Ints, Strings
from deepgps.bundle import Metric
from deepgps.evaluation.bootstrap import (
    balanced_interval,
    correlation_interval,
    mean_interval,
    percentile_interval,
)
from deepgps.evaluation.images.distances import Moments, frechet_distance, kernel_distance_interval
from deepgps.evaluation.images.structure import (
    MEASURES,
    MIN_IMAGES,
    PIXEL_SIZE_UM,
    measured,
    structure_distance,
    structure_spread,
)
from deepgps.images.processing import percentile_normalise
from deepgps.images.segmentation import OtsuWatershed
from deepgps.images.similarity import intranuclear, pearson
from deepgps.training.mini.image_pack import LANDMARKS, MICROTUBULES, PROTEIN, ImagePack
from models import Bundled, Model, Wanted, sure, worded

LINES = {"HEK293T": (0, "opencell_crops"), "U-2 OS": (1, "hpa_u2os_cells")}
"""Domain of each cell line, and the source of the nuclei that each class is drawn into."""
OTHER_LINES = 2
"""Domain of other images, which stand for classes that U-2 OS, with the rest of the HPA, has none of."""
NUCLEI = 10
"""Nuclei of a cell line that each class is drawn into."""
SEEDED = 3
"""Of these, nuclei that are drawn with a second seed."""
REFERENCES = 40
"""Real images of a class and cell line at most."""
OWN_PER_KIND = 15
"""Held-out images of a source and its classes that are drawn from their own labels at most."""
OWN_SOURCES = ("hpa_u2os_cells", "opencell_crops", "opencell_tiles")
"""Sources of images of the two cell lines."""
FIVE = ("cytoplasmic", "nucleoplasm", "nucleolus", "er", "cytoskeleton")
"""Classes that most of the held-out U-2 OS images show."""
REAL, MEAN = "real images", "mean images"


class Named(NamedTuple):
    """A protein whose structure a bar names: in HEK293T, drawn from its annotation.

    Attributes
    ----------
    gene_symbol
        Of the real images.
    classes, words
        Its annotation.
    measure
        One of `MEASURES`.
    """

    gene_symbol: str
    classes: tuple[str, ...]
    words: tuple[str, ...]
    measure: str


NAMED = (
    Named("LMNB1", ("nuclear_membrane",), ("nuclear_membrane",), "rim ratio"),
    Named("NPM1", ("nucleolus",), ("nucleolus_gc",), "DNA r"),
    Named("RELA", ("nucleoplasm", "cytoplasmic"), ("nucleoplasm", "cytoplasmic"), "roughness"),
    Named("CEP131", ("centrosome",), ("centrosome",), "brightest 1 %"),
    Named("VDAC1", ("mitochondria",), ("mitochondria",), "intranuclear"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """N images and the cells that they are of.

    Attributes
    ----------
    protein, nuclei
        (N, S, S).
    lines, kinds
        (N,) cell line, and class or protein.
    groups
        (N,) numbers of what is drawn together in a bootstrap: fields that belong together.
    """

    protein: Floats
    nuclei: Floats
    lines: Strings
    kinds: Strings
    groups: Ints

    def __len__(self) -> int:
        return len(self.protein)

    def structure(self) -> list[dict[str, float]]:
        """Take every measure of each image."""
        pairs = zip(self.protein, self.nuclei, strict=True)
        return [measured(protein, nucleus, PIXEL_SIZE_UM) for protein, nucleus in pairs]


def images_of(pack: ImagePack, rows: Ints, kinds: Sequence[str], protein: Floats | None = None) -> Images:
    """Real images, or those of `protein`, in the cells of some examples."""
    real, nuclei = crops(pack, rows)
    fields = pack.fields(rows)
    lines = np.array([_line(int(domain)) for domain in pack.arrays["domain"][fields]])
    _, groups = np.unique(pack.arrays["group"][fields], return_inverse=True)
    return Images(real if protein is None else protein, nuclei, lines, np.array(kinds), groups.astype(int))


def _line(domain: int) -> str:
    return next((name for name, (number, _) in LINES.items() if number == domain), "other")


# ---- what is drawn ----


def held_out_nuclei(pack: ImagePack, line: str, count: int = NUCLEI) -> Ints:
    """Choose held-out examples of a cell line with a whole nucleus in the middle, the same every time."""
    domain, source = LINES[line]
    rows = pack.rows("test")
    fields = pack.fields(rows)
    mine = (pack.arrays["domain"][fields] == domain) & (pack.arrays["source"][fields] == source)
    rows = np.random.default_rng(1).permutation(rows[mine & (pack.examples[rows, 1] == PROTEIN)])
    _, nuclei = crops(pack, rows)
    middle = slice(SIZE // 2 - 4, SIZE // 2 + 4)
    whole = [
        OtsuWatershed()(percentile_normalise(each), PIXEL_SIZE_UM)[middle, middle].all() for each in nuclei
    ]
    return rows[np.flatnonzero(whole)[:count]]


def class_images(pack: ImagePack, nuclei: int = NUCLEI) -> tuple[Wanted, list[str]]:
    """Every class alone, into each of some nuclei of each cell line."""
    names = pack.arrays["class_names"].tolist()
    rows = np.concatenate([held_out_nuclei(pack, line, nuclei) for line in LINES])
    probabilities = np.stack([sure(pack, [name]) for name in names])
    count = len(names)
    return (
        Wanted(
            rows.repeat(count),
            np.tile(probabilities, (len(rows), 1)),
            np.zeros((len(rows) * count, len(pack.arrays["word_names"])), np.float32),
            np.arange(len(rows) * count),
        ),
        names * len(rows),
    )


def named_images(pack: ImagePack) -> tuple[Wanted, list[str]]:
    """What the bars name, in HEK293T."""
    rows = held_out_nuclei(pack, "HEK293T")
    count = len(rows)
    return (
        Wanted(
            np.tile(rows, len(NAMED)),
            np.stack([sure(pack, each.classes) for each in NAMED]).repeat(count, 0),
            np.stack([worded(pack, each.words) for each in NAMED]).repeat(count, 0),
            np.arange(len(NAMED) * count),
        ),
        [each.gene_symbol for each in NAMED for _ in range(count)],
    )


def own_images(pack: ImagePack, per_kind: int = OWN_PER_KIND) -> Wanted:
    """Held-out images of both cell lines, each drawn from its own annotation into its own cell."""
    rows = np.random.default_rng(2).permutation(pack.rows("test"))
    counts: dict[tuple[str, bytes], int] = {}
    chosen = []
    for row in rows[pack.examples[rows, 1] == PROTEIN].tolist():
        classes, _, trust = pack.labels(row)
        number = int(pack.fields(np.array([row]))[0])
        key = str(pack.arrays["source"][number]), classes.tobytes()
        if trust and key[0] in OWN_SOURCES and counts.get(key, 0) < per_kind:
            counts[key] = counts.get(key, 0) + 1
            chosen.append(row)
    return annotated(pack, np.array(chosen, np.int64))


def annotated(pack: ImagePack, rows: Ints, *, landmarks: bool = False) -> Wanted:
    """Ask for the proteins that examples show, in their own cells."""
    known = [pack.labels(int(row)) for row in rows]
    names = pack.arrays["class_names"]
    classes = np.stack([sure(pack, names[classes > 0].tolist()) for classes, _, _ in known])
    words = np.stack([words for _, words, _ in known]).astype(np.float32)
    return Wanted(rows, classes, words, rows.copy(), landmarks)


# ---- figures ----


def real_references(pack: ImagePack) -> Images:
    """Real images of one class, held out and trained on, by cell line; see `OTHER_LINES`."""
    found = [single_class(pack, split, REFERENCES) for split in ("test", "train")]
    rows, slugs = (np.concatenate(parts) for parts in zip(*found, strict=True))
    domains = pack.arrays["domain"][pack.fields(rows)]
    lines, kept = [], []
    for line, (domain, _) in LINES.items():
        for slug in np.unique(slugs):
            mine = np.flatnonzero((slugs == slug) & (domains == domain))
            if len(mine) < MIN_IMAGES and line != "HEK293T":
                mine = np.flatnonzero((slugs == slug) & (domains == OTHER_LINES))
            kept += mine[:REFERENCES].tolist()
            lines += [line] * len(mine[:REFERENCES])
    images = images_of(pack, rows[kept], slugs[kept].tolist())
    return Images(images.protein, images.nuclei, np.array(lines), images.kinds, images.groups)


def named_references(pack: ImagePack) -> Images:
    """Real images of the proteins that the bars name, held out or not."""
    genes = {each.gene_symbol for each in NAMED}
    is_protein = np.flatnonzero(pack.examples[:, 1] == PROTEIN)
    groups = pack.arrays["group"][pack.fields(is_protein)]
    rows = is_protein[np.isin(groups, list(genes))]
    return images_of(pack, rows, pack.arrays["group"][pack.fields(rows)].tolist())


def median_interval(values: Doubles, *, rounds: int = 1000, seed: int = 0) -> Metric:
    """Median of values (N,) with its bootstrap interval; NaN is left out."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Metric(value=float(values[0]) if len(values) else float("nan"), n=len(values))
    draws = np.random.default_rng(seed).integers(len(values), size=(rounds, len(values)))
    low, high = percentile_interval(np.median(values[draws], axis=1))
    return Metric(value=float(np.median(values)), low=low, high=high, n=len(values))


def named_figures(images: Images) -> dict[str, Metric]:
    """Medians of what the bars name."""
    structure, figures = images.structure(), {}
    for each in NAMED:
        values = [
            s[each.measure]
            for s, kind in zip(structure, images.kinds, strict=True)
            if kind == each.gene_symbol
        ]
        figures[f"HEK293T images, {each.gene_symbol}: {each.measure}"] = median_interval(np.array(values))
    return figures


Measured = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""What was measured of images, by cell line and class."""


def by_class(images: Images) -> Measured:
    """Measure the structure of images."""
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for line, kind, structure in zip(images.lines, images.kinds, images.structure(), strict=True):
        found.setdefault((str(line), str(kind)), []).append(structure)
    return found


def distance_figures(real: Measured, drawn: Measured) -> dict[str, Metric]:
    """Distance of each class's drawn images from its real ones, over all measures."""
    figures = {}
    for line in LINES:
        spread = structure_spread([s for (own, _), some in real.items() if own == line for s in some])
        kinds = sorted(kind for own, kind in drawn.keys() & real.keys() if own == line)
        values = []
        for kind in kinds:
            distance = structure_distance(real[line, kind], drawn[line, kind], spread)["all"]
            if np.isfinite(distance):
                values.append(distance)
                metric = Metric(value=distance, n=len(drawn[line, kind]))
                figures[f"{line} images, {kind}: structure distance"] = metric
        if values:
            name = f"{line} images: structure distance, mean of classes"
            figures[name] = Metric(value=float(np.mean(values)), n=len(values))
    return figures


def read_back_figures(network: ReadBack, images: Images) -> dict[str, Metric]:
    """Balanced accuracy of reading the classes back, by cell line; a class by itself, too."""
    found, _ = read(network, images.protein, images.nuclei)
    shown = np.array([READ_AS.get(kind, kind) for kind in images.kinds.tolist()])
    hits = (np.array(network.classes)[found] == shown).astype(np.float64)
    names, numbers = np.unique(images.kinds, return_inverse=True)
    figures = {}
    for line in LINES:
        mine = images.lines == line
        part = hits[mine], numbers[mine], images.groups[mine]
        figures[f"{line} images: read-back, balanced accuracy"] = balanced_interval(*part)
        five = mine & np.isin(images.kinds, FIVE)
        figures[f"{line} images: read-back, five classes"] = balanced_interval(
            hits[five], numbers[five], images.groups[five]
        )
        for number, name in enumerate(names.tolist()):
            chosen = mine & (numbers == number)
            if chosen.any():
                figures[f"{line} images, {name}: read back"] = mean_interval(
                    hits[chosen], images.groups[chosen]
                )
    return figures


def distribution_figures(network: ReadBack, real: Images, drawn: Images) -> dict[str, Metric]:
    """Kernel and Fréchet distance of drawn from real images, by cell line."""
    figures = {}
    features = [read(network, each.protein, each.nuclei)[1] for each in (real, drawn)]
    for line in LINES:
        a, b = (each[images.lines == line] for each, images in zip(features, (real, drawn), strict=True))
        if min(len(a), len(b)) < MIN_IMAGES:
            continue
        figures[f"{line} images: kernel distance"] = kernel_distance_interval(b, a)
        moments = [Moments.empty(a.shape[1]) for _ in range(2)]
        for moment, vectors in zip(moments, (a, b), strict=True):
            moment.add(vectors)
        figures[f"{line} images: Fréchet distance"] = Metric(value=frechet_distance(*moments), n=len(b))
    return figures


def diversity_figures(model: Model, pack: ImagePack, seed: int = 10_000) -> dict[str, Metric]:
    """How far images of other seeds, of the same seed, and of other nuclei differ."""
    wanted, kinds = class_images(pack, SEEDED)
    count = len(pack.arrays["class_names"])
    first = model.draw(Wanted(wanted.rows, wanted.classes, wanted.words, np.full(len(wanted), seed)))
    other = model.draw(Wanted(wanted.rows, wanted.classes, wanted.words, np.full(len(wanted), seed + 1)))
    again = model.draw(wanted.part(slice(0, count)))
    twice = model.draw(wanted.part(slice(0, count)))
    lines = images_of(pack, wanted.rows, kinds).lines
    figures = {}
    for line in LINES:
        mine = np.flatnonzero(lines == line)
        groups = np.arange(len(mine))
        seeds = mean_interval(pearson(first[mine], other[mine]), groups)
        nuclei = mean_interval(pearson(first[mine], np.roll(first[mine], count, axis=0)), groups)
        figures[f"{line} images: r of two seeds in one nucleus"] = seeds
        figures[f"{line} images: r of one seed in two nuclei"] = nuclei
    figures["Images: largest difference of two with the same seed"] = Metric(
        value=float(abs(again - twice).max()), n=count
    )
    return figures


def mean_figures(model: Model, pack: ImagePack) -> dict[str, Metric]:
    """Correlation of mean images with real held-out ones: from the nucleus alone and with landmarks."""
    figures = {}
    rows = pack.rows("test")
    rows = rows[pack.examples[rows, 1] == PROTEIN]
    fields = pack.fields(rows)
    trusted = np.array([pack.labels(int(row))[2] > 0 for row in rows])
    for line, (domain, source) in LINES.items():
        mine = trusted & (pack.arrays["domain"][fields] == domain)
        # Cells of U-2 OS alone, whose landmarks are known; of HEK293T crops and tiles.
        mine &= (pack.arrays["source"][fields] == source) | (line == "HEK293T")
        chosen = rows[mine]
        images = images_of(pack, chosen, [""] * len(chosen))
        masks = np.stack(
            [OtsuWatershed()(percentile_normalise(each), PIXEL_SIZE_UM) > 0 for each in images.nuclei]
        )
        for given in ("", ", landmarks given") if line != "HEK293T" else ("",):
            means = model.mean(annotated(pack, chosen, landmarks=bool(given)))
            head = f"{line} mean images{given}"
            figures[f"{head}: Pearson r"] = mean_interval(pearson(images.protein, means), images.groups)
            real, drawn = (intranuclear(each, masks).astype(np.float64) for each in (images.protein, means))
            figures[f"{head}: intranuclear r"] = correlation_interval(real, drawn, images.groups)
    return figures


def word_figures(model: Model, pack: ImagePack) -> dict[str, Metric]:
    """`sequence_effect` within a class: r of the mean image with its own words, less that with others'.

    Held-out images whose words differ within a class are those of microtubules, beside other filaments.
    """
    rows = pack.rows("test")
    fields = pack.fields(rows)
    chosen = rows[(pack.examples[rows, 1] == MICROTUBULES) & (pack.arrays["domain"][fields] == 1)][:90]
    images = images_of(pack, chosen, [""] * len(chosen))
    own = annotated(pack, chosen)
    slug, _ = LANDMARKS[MICROTUBULES]
    right = pearson(_channel(pack, chosen), model.mean(own))
    figures = {}
    for word in ("Actin filaments", "Intermediate filaments"):
        others = np.tile(worded(pack, [word]), (len(chosen), 1))
        wrong = pearson(_channel(pack, chosen), model.mean(Wanted(own.rows, own.classes, others, own.seeds)))
        name = f"U-2 OS mean images, {slug}: sequence_effect of microtubules against {word.lower()}"
        figures[name] = mean_interval(right - wrong, images.groups)
    return figures


def _channel(pack: ImagePack, rows: Ints) -> Floats:
    return crops(pack, rows)[0]


def structure_table(columns: Mapping[str, Measured]) -> str:
    """Set medians as Markdown: a line for each cell line, class and kind of image."""
    lines = [
        "| cells | class | image | n | " + " | ".join(MEASURES) + " |",
        "|---" * (len(MEASURES) + 4) + "|",
    ]
    for line, name in sorted({key for column in columns.values() for key in column}):
        for kind, column in columns.items():
            some = column.get((line, name), [])
            if some:
                values = [[each[m] for each in some if np.isfinite(each[m])] for m in MEASURES]
                cells = [f"{np.median(v):.2f}" if v else "–" for v in values]
                lines.append(f"| {line} | {name} | {kind} | {len(some)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Report(NamedTuple):
    """What was measured of a model.

    Attributes
    ----------
    figures
        By name.
    table
        Medians of every measure by cell line and class, as Markdown.
    """

    figures: dict[str, Metric]
    table: str


def measure_model(model: Model, pack: ImagePack, network: ReadBack, *, quick: bool = False) -> Report:
    """Draw and measure; `quick` for half of the nuclei, and neither diversity nor words."""
    wanted, kinds = class_images(pack, NUCLEI // 2 if quick else NUCLEI)
    drawn = images_of(pack, wanted.rows, kinds, model.draw(wanted))
    structure, real = by_class(drawn), by_class(real_references(pack))
    figures = distance_figures(real, structure) | read_back_figures(network, drawn)
    wanted, kinds = named_images(pack)
    figures |= named_figures(images_of(pack, wanted.rows, kinds, model.draw(wanted)))
    own = own_images(pack)
    originals = images_of(pack, own.rows, [""] * len(own))
    figures |= distribution_figures(
        network, originals, images_of(pack, own.rows, originals.kinds.tolist(), model.draw(own))
    )
    figures |= mean_figures(model, pack)
    if not quick:
        figures |= diversity_figures(model, pack) | word_figures(model, pack)
    return Report(figures, structure_table({"real": real, "drawn": structure}))


def measure_bundle(model: str, folder: Path, report: Path, *, baseline: bool = False) -> dict[str, Metric]:
    """Measure a bundle beside real images and its own mean images, and write the table of its structure.

    Parameters
    ----------
    model
        Name of an installed model, or a bundle.
    folder
        Holds ``structure.npz``, the image pack, and ``read_back.pt``, which is trained if it is missing.
    report
        Folder of ``structure.md``.
    baseline
        Whether to name the figures as those of a baseline, without real and mean images.

    Returns
    -------
    dict
        By name.
    """
    pack, weights = ImagePack.load(folder / "structure.npz"), folder / "read_back.pt"
    if not weights.exists():
        read_back.save(read_back.train(pack), weights)
    network, bundled = read_back.load(weights), Bundled(model, pack)
    measured_model = measure_model(bundled, pack, network)
    report.mkdir(parents=True, exist_ok=True)
    (report / "structure.md").write_text(measured_model.table, encoding="utf-8")
    if baseline:
        return _of_baseline(measured_model.figures, bundled.name)
    return {
        **measured_model.figures,
        **_of_baseline(measure_real_images(pack, network), REAL),
        **_of_baseline(measure_mean_images(bundled, pack), MEAN),
    }


def _of_baseline(figures: Mapping[str, Metric], name: str) -> dict[str, Metric]:
    return {f"{figure} of the baseline '{name}'": metric for figure, metric in figures.items()}


def measure_mean_images(model: Model, pack: ImagePack) -> dict[str, Metric]:
    """Structure of the mean images of a model: what a smooth image reaches."""
    wanted, kinds = class_images(pack)
    structure = by_class(images_of(pack, wanted.rows, kinds, model.mean(wanted)))
    named, genes = named_images(pack)
    figures = named_figures(images_of(pack, named.rows, genes, model.mean(named)))
    return figures | distance_figures(by_class(real_references(pack)), structure)


def measure_real_images(pack: ImagePack, network: ReadBack) -> dict[str, Metric]:
    """Measure the same of real images: the ceiling of what can be reached.

    Distances are those of two halves of the real images; the Fréchet distance, which needs as many images as
    are drawn, is left out.
    """
    figures = named_figures(named_references(pack))
    structure = by_class(real_references(pack))
    halves = [{key: some[k::2] for key, some in structure.items()} for k in range(2)]
    figures |= distance_figures(*halves)
    rows, slugs = single_class(pack, "test")
    figures |= read_back_figures(network, images_of(pack, rows, slugs.tolist()))
    rows = own_images(pack).rows
    parts = (images_of(pack, some, [""] * len(some)) for some in (rows[::2], rows[1::2]))
    distances = distribution_figures(network, *parts)
    return figures | {name: each for name, each in distances.items() if "kernel" in name}
