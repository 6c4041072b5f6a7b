"""The cross assay: draw each of some proteins into each of some nuclei.

If the sequence decides, columns are alike; if the nucleus does, rows are. The share of variance that goes
with each comes from a two-way analysis of variance without repeats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepgps.arrays import Doubles, Floats, Ints, Mask, Strings
from deepgps.errors import InputError
from deepgps.evaluation.dataset import SEPARATOR, DatasetFiles, EvaluationDataset, load_dataset
from deepgps.evaluation.images.features import nuclear_mask
from deepgps.evaluation.images.measure import ImageGenerator
from deepgps.files import atomic_path, write_csv
from deepgps.images.similarity import intranuclear, pearson
from deepgps.prediction import Predictor
from deepgps.results.labelled_images import image_table

GRID, CROSS_TABLE, SHARES = "grid.png", "cross.csv", "shares.csv"


@dataclass(frozen=True, slots=True, eq=False)
class CrossAssay:
    """n nuclei by m proteins.

    Attributes
    ----------
    row_names, row_classes
        Of each nucleus (n,): the crop, and the class of the protein that it really shows.
    column_names, column_classes
        Of each protein (m,).
    row_protein, column_protein
        Numbers of the proteins that rows really show and that columns draw; where they are equal the image
        has its own protein.
    nuclei, real, masks
        (n, H, W) nucleus images, real protein images, and where the nuclei are.
    images
        (n, m, H, W) drawn.
    pixel_size_um
        Edge of a pixel in micrometres.
    """

    row_names: tuple[str, ...]
    row_classes: tuple[str, ...]
    column_names: tuple[str, ...]
    column_classes: tuple[str, ...]
    row_protein: Ints
    column_protein: Ints
    nuclei: Floats
    real: Floats
    masks: Mask
    images: Floats
    pixel_size_um: float

    def fractions(self) -> Doubles:
        """Return the intranuclear fraction of each drawn image, (n, m)."""
        return np.stack(
            [intranuclear(column, self.masks) for column in np.moveaxis(self.images, 1, 0)], axis=1
        )

    def similarity(self) -> Doubles:
        """Return Pearson r of each drawn image with the real one of its row, (n, m)."""
        return np.stack([pearson(self.real, column) for column in np.moveaxis(self.images, 1, 0)], axis=1)

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the shares of variance due to the nucleus, to the sequence, and to both together."""
        return {
            "intranuclear fraction": variance_shares(self.fractions()),
            "pixels": variance_shares(self.images),
            "similarity to the real image": variance_shares(self.similarity()),
        }


def variance_shares(grid: NDArray[np.floating]) -> dict[str, float]:
    """Divide the variance of a grid between rows and columns.

    Parameters
    ----------
    grid
        (n, m, …): for each row (nucleus) and column (sequence) a number, or many, such as the pixels of an
        image, whose sums of squares are added up.

    Returns
    -------
    dict
        Shares of ``nucleus``, ``sequence`` and ``both together`` (the interaction), which add up to 1; NaN
        where nothing varies.
    """
    flat = np.asarray(grid, np.float64).reshape(*grid.shape[:2], -1)
    whole = flat.mean((0, 1))
    rows, columns = flat.mean(1) - whole, flat.mean(0) - whole
    by_row, by_column = (rows**2).sum() * flat.shape[1], (columns**2).sum() * flat.shape[0]
    rest = ((flat - whole - rows[:, None] - columns[None]) ** 2).sum()
    total = by_row + by_column + rest
    if not np.isfinite(total) or total < 1e-12:
        return dict.fromkeys(("nucleus", "sequence", "both together"), float("nan"))
    parts = (by_row, by_column, rest)
    return dict(zip(("nucleus", "sequence", "both together"), (float(p / total) for p in parts), strict=True))


def cross_assay(
    predictor: Predictor,
    files: DatasetFiles,
    *,
    nuclei: int,
    sequences: int,
    genes: Sequence[str] = (),
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> CrossAssay:
    """Choose nuclei and proteins, and draw each protein into each nucleus.

    They are chosen at random, classes in turn, or named. The same proteins are rows (by a crop of theirs) and
    columns, as far as both numbers allow.

    Parameters
    ----------
    predictor
        The model.
    files
        A crop store with its split.
    nuclei, sequences
        Numbers of rows and columns where no genes are named.
    genes
        Gene symbols of the proteins that are rows and columns, in this order.
    seed
        Seed of the choice of proteins and of the crop of each.
    on_progress
        Called with a stage, and how many of how many are done in it.

    Returns
    -------
    CrossAssay
        Nuclei, real images and drawn images.

    Raises
    ------
    InputError
        If the data are no crop store, show fewer proteins than are asked for, or not one of the genes.
    """
    dataset = load_dataset(files, predictor)
    if dataset.store is None:
        raise InputError(f"'{files.data}' is no crop store; a cross assay needs nuclei to draw into.")
    columns, rows = choose_genes(dataset, genes, seed) if genes else choose(dataset, nuclei, sequences, seed)
    generator = ImageGenerator(predictor, dataset)
    pairs = dataset.store.images(dataset.rows[rows])
    drawn = []
    for number, protein in enumerate(columns, 1):
        drawn.append(generator.draw(pairs[:, 0], np.full(len(rows), protein)))
        on_progress("proteins drawn", number, len(columns))
    index = dataset.store.index
    return CrossAssay(
        row_names=tuple(str(index["cell"][int(dataset.rows[row])]) for row in rows),
        row_classes=tuple(str(dataset.crop_classes[row]) for row in rows),
        column_names=tuple(genes or (dataset.proteins[protein].protein.id for protein in columns)),
        column_classes=tuple(dataset.proteins[protein].class_name for protein in columns),
        row_protein=dataset.protein_of[rows],
        column_protein=columns,
        nuclei=pairs[:, 0],
        real=pairs[:, 1],
        masks=np.stack([nuclear_mask(nucleus, generator.pixel_size_um) for nucleus in pairs[:, 0]]),
        images=np.stack(drawn, axis=1),
        pixel_size_um=generator.pixel_size_um,
    )


def choose(dataset: EvaluationDataset, nuclei: int, sequences: int, seed: int) -> tuple[Ints, Ints]:
    """Choose proteins (m,), classes in turn, and a crop (n,) of each of the first n of them.

    Returns
    -------
    tuple of ndarray
        Numbers of the proteins (m,) and of the crops (n,) in the dataset.

    Raises
    ------
    InputError
        If there are too few proteins with crops.
    """
    rng = np.random.default_rng(seed)
    proteins = rng.permutation(np.unique(dataset.protein_of))
    names = [dataset.proteins[protein].class_name for protein in proteins.tolist()]
    # The first of every class, then the second of every class, and so on.
    round_number = [names[:place].count(name) for place, name in enumerate(names)]
    ordered = proteins[np.argsort(round_number, kind="stable")]
    if len(ordered) < max(nuclei, sequences):
        raise InputError(
            f"The split shows {len(ordered)} proteins; ask for at most that many --nuclei and --sequences."
        )
    rows = [int(rng.choice(np.flatnonzero(dataset.protein_of == protein))) for protein in ordered[:nuclei]]
    return ordered[:sequences].astype(np.int64), np.array(rows, np.int64)


def choose_genes(dataset: EvaluationDataset, genes: Sequence[str], seed: int) -> tuple[Ints, Ints]:
    """Find the proteins of genes, and choose a crop of each.

    Returns
    -------
    tuple of ndarray
        Numbers of the proteins and of the crops in the dataset, (n,) each.

    Raises
    ------
    InputError
        If no crop shows one of them.
    """
    rng = np.random.default_rng(seed)
    shown = genes_shown(dataset)
    for gene in genes:
        if gene not in shown:
            raise InputError(f"No crop of the split shows the gene '{gene}'; name one of those it shows.")
    rows = np.array([rng.choice(np.flatnonzero(shown == gene)) for gene in genes], np.int64)
    return dataset.protein_of[rows], rows


def genes_shown(dataset: EvaluationDataset) -> Strings:
    """Return the gene symbol of each crop of a dataset (N,); empty where it is unknown."""
    if dataset.store is None or "gene_symbol" not in dataset.store.index.columns:
        return np.full(len(dataset.rows), "")
    symbols = dataset.store.index["gene_symbol"].fill_null("").to_numpy().astype(str)
    return np.asarray(symbols[dataset.rows])


def write_cross(assay: CrossAssay, out: Path) -> tuple[Path, ...]:
    """Write the grid as an image, every cell of it as numbers, and the shares of variance."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / GRID) as draft:
        grid(assay).save(draft, format="PNG")
    fractions, similarity = assay.fractions(), assay.similarity()
    cells = [
        (
            assay.row_names[i],
            assay.row_classes[i],
            assay.column_names[j],
            assay.column_classes[j],
            int(assay.row_protein[i] == assay.column_protein[j]),
            f"{fractions[i, j]:.4f}",
            f"{similarity[i, j]:.4f}",
        )
        for i, j in np.ndindex(*fractions.shape)
    ]
    head = ("nucleus", "nucleus_class", "protein_id", "protein_class", "own_protein")
    write_csv(out / CROSS_TABLE, (*head, "intranuclear_fraction", "pearson_with_real"), cells)
    shares = [(name, *(f"{share:.4f}" for share in each.values())) for name, each in assay.shares().items()]
    write_csv(out / SHARES, ("of", "nucleus", "sequence", "both_together"), shares)
    return out / GRID, out / CROSS_TABLE, out / SHARES


def grid(assay: CrossAssay) -> Image.Image:
    """Draw a row per nucleus: its image, the real image, and each protein; a frame marks its own protein."""
    rows, captions, framed = [], [], []
    for row, nucleus in enumerate(assay.nuclei):
        rows.append([nucleus, assay.real[row], *assay.images[row]])
        own = f"real: {_readable(assay.row_classes[row])}"
        columns = zip(assay.column_names, assay.column_classes, strict=True)
        drawn = (f"{name}: {_readable(class_name)}" for name, class_name in columns)
        captions.append([f"nucleus of {assay.row_names[row]}", own, *drawn])
        framed.append([False, False, *(assay.column_protein == assay.row_protein[row]).tolist()])
    return image_table(rows, captions, framed, assay.pixel_size_um)


def _readable(class_name: str) -> str:
    return class_name.replace(SEPARATOR, ", ")
