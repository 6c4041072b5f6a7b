"""The cross-assay: some proteins drawn into some nuclei, each into each.

If the sequence decides, columns are alike; if the nucleus does, rows are. How far each decides is the share
of variance that goes with it (two-way analysis of variance without repeats).
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deepgps.arrays import Doubles, Floats, Ints, Mask
from deepgps.errors import InputError
from deepgps.evaluation.images.measuring import Artist, nuclear_mask
from deepgps.evaluation.loading import DataFiles, load_subjects
from deepgps.evaluation.subjects import MANY, Subjects
from deepgps.files import atomic_path
from deepgps.images.similarity import intranuclear, pearson
from deepgps.prediction import Predictor
from deepgps.results.images import FAINT, GROUND, INK, MARGIN, draw_scale_bar, write_text

EDGE, HEADER, SIDE = 120, 40, 2
GRID, TABLE, SHARES = "grid.png", "cross.csv", "shares.csv"


@dataclass(frozen=True, slots=True, eq=False)
class CrossAssay:
    """n nuclei by m proteins.

    Attributes
    ----------
    row_names, row_classes
        Of each nucleus (n,): the crop, and the class of the protein that it really shows.
    column_names, column_classes
        Of each protein (m,).
    row_owner, column_owner
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
    row_owner: Ints
    column_owner: Ints
    nuclei: Floats
    real: Floats
    masks: Mask
    images: Floats
    pixel_size_um: float

    def fractions(self) -> Doubles:
        """Intranuclear fraction of each drawn image, (n, m)."""
        return np.stack(
            [intranuclear(column, self.masks) for column in np.moveaxis(self.images, 1, 0)], axis=1
        )

    def likeness(self) -> Doubles:
        """Pearson r of each drawn image with the real one of its row, (n, m)."""
        return np.stack([pearson(self.real, column) for column in np.moveaxis(self.images, 1, 0)], axis=1)

    def shares(self) -> dict[str, dict[str, float]]:
        """Share of variance that goes with the nucleus, with the sequence, and with neither alone."""
        return {
            "intranuclear fraction": variance_shares(self.fractions()),
            "pixels": variance_shares(self.images),
            "likeness to the real image": variance_shares(self.likeness()),
        }


def variance_shares(grid: NDArray[np.floating]) -> dict[str, float]:
    """Part the variance of a grid by row and column.

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
    files: DataFiles,
    *,
    nuclei: int,
    sequences: int,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> CrossAssay:
    """Choose nuclei and proteins by chance, classes in turn, and draw each protein into each nucleus.

    The same proteins are rows (by a crop of theirs) and columns, as far as both numbers allow.

    Raises
    ------
    InputError
        If the data are no crop store, or show fewer proteins than are asked for.
    """
    subjects = load_subjects(files, predictor)
    if subjects.store is None:
        raise InputError(f"'{files.data}' is no crop store; a cross-assay needs nuclei to draw into.")
    columns, rows = choose(subjects, nuclei, sequences, seed)
    artist = Artist(predictor, subjects)
    pairs = subjects.store.images(subjects.rows[rows])
    drawn = []
    for number, owner in enumerate(columns, 1):
        drawn.append(artist.draw(pairs[:, 0], np.full(len(rows), owner)))
        on_progress("proteins drawn", number, len(columns))
    index = subjects.store.index
    return CrossAssay(
        row_names=tuple(str(index["cell"][int(subjects.rows[row])]) for row in rows),
        row_classes=tuple(str(subjects.shown[row]) for row in rows),
        column_names=tuple(subjects.subjects[owner].protein.id for owner in columns),
        column_classes=tuple(subjects.subjects[owner].class_name for owner in columns),
        row_owner=subjects.owner[rows],
        column_owner=columns,
        nuclei=pairs[:, 0],
        real=pairs[:, 1],
        masks=np.stack([nuclear_mask(nucleus, artist.um) for nucleus in pairs[:, 0]]),
        images=np.stack(drawn, axis=1),
        pixel_size_um=artist.um,
    )


def choose(subjects: Subjects, nuclei: int, sequences: int, seed: int) -> tuple[Ints, Ints]:
    """Choose proteins (m,), classes in turn, and a crop (n,) of each of the first n of them.

    Raises
    ------
    InputError
        If there are too few proteins with crops.
    """
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.unique(subjects.owner))
    names = [subjects.subjects[owner].class_name for owner in owners.tolist()]
    turn = [names[:place].count(name) for place, name in enumerate(names)]
    ordered = owners[np.argsort(turn, kind="stable")]
    if len(ordered) < max(nuclei, sequences):
        raise InputError(
            f"The split shows {len(ordered)} proteins; ask for at most that many --nuclei and --sequences."
        )
    rows = [int(rng.choice(np.flatnonzero(subjects.owner == owner))) for owner in ordered[:nuclei]]
    return ordered[:sequences].astype(np.int64), np.array(rows, np.int64)


def write_cross(assay: CrossAssay, out: Path) -> tuple[Path, ...]:
    """Write the grid as an image, every cell of it as numbers, and the shares of variance."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / GRID) as draft:
        grid(assay).save(draft, format="PNG")
    fractions, likeness = assay.fractions(), assay.likeness()
    cells = [
        (
            assay.row_names[i],
            assay.row_classes[i],
            assay.column_names[j],
            assay.column_classes[j],
            int(assay.row_owner[i] == assay.column_owner[j]),
            f"{fractions[i, j]:.4f}",
            f"{likeness[i, j]:.4f}",
        )
        for i, j in np.ndindex(*fractions.shape)
    ]
    head = ("nucleus", "nucleus_class", "protein_id", "protein_class", "own_protein")
    _write(out / TABLE, (*head, "intranuclear_fraction", "pearson_with_real"), cells)
    shares = [(name, *(f"{share:.4f}" for share in each.values())) for name, each in assay.shares().items()]
    _write(out / SHARES, ("of", "nucleus", "sequence", "both_together"), shares)
    return out / GRID, out / TABLE, out / SHARES


def _write(path: Path, head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def grid(assay: CrossAssay) -> Image.Image:
    """Draw the grid: nucleus, real image, then a column a protein; a frame where it is the row's own."""
    n, m = assay.images.shape[:2]
    step = EDGE + MARGIN // 2
    size = (MARGIN * 2 + (m + SIDE) * step, HEADER + n * (step + 16) + MARGIN)
    canvas = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(canvas)
    heads = [("nucleus", ""), ("real", "")]
    classes = (name.replace(MANY, ", ") for name in assay.column_classes)
    heads += list(zip(assay.column_names, classes, strict=True))
    for column, lines in enumerate(heads):
        for number, line in enumerate(lines):
            at = (_left(column, step), 6 + 15 * number)
            write_text(draw, at, line, 12, FAINT if number else INK, EDGE)
    for row in range(n):
        top = HEADER + row * (step + 16)
        panels = [assay.nuclei[row], assay.real[row], *assay.images[row]]
        for column, panel in enumerate(panels):
            shown = Image.fromarray((np.clip(panel, 0, 1) * 255).astype(np.uint8))
            left = _left(column, step)
            canvas.paste(shown.resize((EDGE, EDGE), Image.Resampling.BICUBIC), (left, top))
            if column >= SIDE and assay.row_owner[row] == assay.column_owner[column - SIDE]:
                draw.rectangle((left, top, left + EDGE - 1, top + EDGE - 1), outline=(255, 196, 0), width=2)
        write_text(
            draw,
            (MARGIN, top + EDGE + 1),
            f"shows {assay.row_classes[row].replace(MANY, ', ')}",
            12,
            FAINT,
            2 * EDGE,
        )
        draw_scale_bar(
            draw, MARGIN + EDGE, top + EDGE, assay.pixel_size_um * panels[0].shape[-1] / EDGE, EDGE
        )
    return canvas


def _left(column: int, step: int) -> int:
    """Where a column begins; the drawn ones stand a little apart."""
    return MARGIN + column * step + (MARGIN if column >= SIDE else 0)
