"""Compare: proteins in, a folder of differences out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deepgps.comparison.bringing import bring_together
from deepgps.comparison.differences import Row
from deepgps.comparison.folder import ComparisonFolder
from deepgps.comparison.page import write_page
from deepgps.comparison.sides import Side, sides_of
from deepgps.comparison.table import table as table_of
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.save import pixels_sha256, save
from deepgps.results.table import DELIMITERS

CONTROLS = ("hek-1", "hek-2")
"""The two default nuclei between which one model's own differences are measured."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a call of `compare_cells` did.

    Attributes
    ----------
    folder
        Where it is.
    sides
        The models, in the order given.
    rows
        The proteins, most different first.
    resumed
        Proteins that every model had predicted in an earlier call.
    rejected
        Records that could not be used.
    files
        What was written, the best to open first.
    """

    folder: Path
    sides: tuple[Side, ...]
    rows: tuple[Row, ...]
    resumed: int
    rejected: int
    files: tuple[Path, ...]


def compare_cells(
    predictors: Sequence[Predictor],
    proteins: Iterable[Protein | Rejection],
    out: Path,
    *,
    cells: Sequence[Cell] | None = None,
    table: Literal["csv", "tsv"] = "csv",
    inputs: Sequence[tuple[str, str | None]] = (),
    overwrite: bool = False,
    on_read: Callable[[int], None] = lambda _: None,
    on_step: Callable[[str], None] = lambda _: None,
    on_rejection: Callable[[Rejection], None] = lambda _: None,
) -> Comparison:
    """Predict proteins with several models and write what differs, going on where an earlier call stopped.

    What the models predict is kept protein by protein; images and tables of differences are made anew.

    Parameters
    ----------
    predictors
        Two models or more; the others are held against the first.
    proteins, out
        Proteins and rejected records, and the folder.
    cells
        For each model, the nucleus to draw into: the same image, at the scale of its crops. The first default
        nucleus if None.
    table
        ``csv`` or ``tsv``.
    inputs
        Source and sha256 of each input, for the record.
    overwrite
        Start anew where the folder holds results already.
    on_read
        Called with the number of steps to come, a rejected record being one.
    on_step
        Called with the id of each protein that a model has predicted, or that has been compared.
    on_rejection
        Called with each rejected record.

    Raises
    ------
    InputError
        If there are fewer than two models or one is given twice, the folder is in use or holds results of
        something else, or there is nothing to predict.
    OSError
        If the disk is full or not writable; what was written before stays valid.
    """
    sides = sides_of(predictors)
    _check_models(sides)
    accepted, rejections = _read(predictors, proteins)
    on_read(len(accepted) * (len(sides) + 1) + len(rejections))
    own: Sequence[Cell | None] = cells or [None] * len(predictors)
    wanted = [_cells(*pair) for pair in zip(predictors, own, strict=True)]
    fingerprints = [(cell.name, pixels_sha256(cell)) for cell in wanted[0]]
    with ComparisonFolder(out, sides, fingerprints, inputs, table=table, overwrite=overwrite) as folder:
        folder.reject(rejections)
        for rejection in rejections:
            on_rejection(rejection)
        done = [
            save(predictor, accepted, folder.of(side), cells=into, inputs=inputs, on_protein=on_step)
            for predictor, side, into in zip(predictors, sides, wanted, strict=True)
        ]
        rows = list(bring_together(folder, sides, [len(into) for into in wanted], on_step))
        rows.sort(key=lambda row: -row.largest())
        with atomic_path(folder.table) as draft:
            draft.write_bytes(table_of(rows, sides, DELIMITERS[table]))
        write_page(out, rows, sides, [name for name, _ in fingerprints])
        folder.finish(len(rows))
    resumed = min(each.resumed for each in done)
    return Comparison(out, sides, tuple(rows), resumed, len(rejections), folder.files())


def _check_models(sides: Sequence[Side]) -> None:
    if len(sides) < 2:
        raise InputError("A comparison needs two models or more; give --model for each.")
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for side in sides:
        if (side.sha256, side.classes) in seen:
            name = next(each.name for each in sides if each.sha256 == side.sha256)
            raise InputError(f"Model '{name}' is given twice; compare it with another one.")
        seen.add((side.sha256, side.classes))


def _read(
    predictors: Sequence[Predictor], proteins: Iterable[Protein | Rejection]
) -> tuple[list[Protein], list[Rejection]]:
    """Read all proteins, since several models look at them; what one model cannot take is a rejection."""
    for predictor in predictors:
        proteins = predictor.reject_unusable(proteins)
    read = list(proteins)
    accepted = [each for each in read if isinstance(each, Protein)]
    return accepted, [each for each in read if isinstance(each, Rejection)]


def _cells(predictor: Predictor, own: Cell | None) -> list[Cell]:
    """Nucleus to compare in, then whichever of the controls it is not; the last two are the control."""
    controls = [predictor.load_cell(name) for name in CONTROLS]
    if own is None:
        return controls
    others = [each for each in controls if pixels_sha256(each) != pixels_sha256(own)]
    if own.name in (each.name for each in others):
        own = replace(own, name=f"{own.name}-own")
    return [own, *others]
