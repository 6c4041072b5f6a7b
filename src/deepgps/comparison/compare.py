"""Compare models: proteins in, a folder of differences out."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from deepgps.arrays import Floats
from deepgps.comparison.differences import (
    ComparedModel,
    ComparedProtein,
    describe_models,
    difference_table,
)
from deepgps.comparison.folder import ComparisonFolder
from deepgps.comparison.report import write_comparison_report
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.images.cell import Cell
from deepgps.images.similarity import pearson
from deepgps.images.write import FULL_SCALE, png
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import RECORDS_FILE
from deepgps.results.image_storage import IMAGE_FOLDER, ImageNames
from deepgps.results.predict import predict_to_folder
from deepgps.results.records import DELIMITERS, Record, read_records
from deepgps.results.run import cell_fingerprint

CONTROLS = ("hek-1", "hek-2")
"""The two default cells between which differences within one model are measured."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a call of `compare_cells` did.

    Attributes
    ----------
    folder
        Where the comparison is.
    models
        The models, in the given order.
    proteins
        The proteins, most different first.
    resumed
        Proteins that every model had predicted in an earlier call.
    rejected
        Records that could not be used.
    files
        What was written, the best to open first.
    """

    folder: Path
    models: tuple[ComparedModel, ...]
    proteins: tuple[ComparedProtein, ...]
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
    """Predict proteins with several models and write how they differ; continue what an earlier call began.

    Predictions are kept protein by protein; the images and tables of differences are made again.

    Parameters
    ----------
    predictors
        Two models or more; the others are compared with the first.
    proteins
        Proteins, and records that could not be read.
    out
        The folder.
    cells
        For each model, the cell to draw into: the same image, at the scale of its crops. The first default
        cell if None.
    table
        ``csv`` or ``tsv``.
    inputs
        Source and SHA-256 of each input, for the run record.
    overwrite
        Start again if the folder holds results already.
    on_read
        Called with the number of steps to come; a rejected record is one.
    on_step
        Called with the id of each protein that a model has predicted, or that has been compared.
    on_rejection
        Called with each rejected record.

    Returns
    -------
    Comparison
        Models, proteins and files.

    Raises
    ------
    InputError
        If there are fewer than two models or one is given twice, if the folder is in use or holds other
        results, or if there is nothing to predict.
    OSError
        If the disk is full or not writable; what was written before stays valid.

    Examples
    --------
    >>> from pathlib import Path
    >>> from deepgps import Predictor, compare_cells, read_proteins
    >>> models = [Predictor.load(f"deepgps-mini:{name}") for name in ("single-2", "single-4")]
    >>> proteins = read_proteins(sequence="MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
    >>> comparison = compare_cells(models, proteins, Path("differences"))
    >>> len(comparison.proteins)
    1
    """
    models = describe_models(predictors)
    _check_models(models)
    accepted, rejections = _read(predictors, proteins)
    on_read(len(accepted) * (len(models) + 1) + len(rejections))
    own_cells: Sequence[Cell | None] = cells or [None] * len(predictors)
    cells_of_models = [_cells(*pair) for pair in zip(predictors, own_cells, strict=True)]
    nuclei = [cell_fingerprint(cell) for cell in cells_of_models[0]]
    with ComparisonFolder(out, models, nuclei, inputs, table=table, overwrite=overwrite) as folder:
        folder.write_rejections(rejections)
        for rejection in rejections:
            on_rejection(rejection)
        summaries = [
            predict_to_folder(
                predictor, accepted, folder.model_folder(model), cells=into, inputs=inputs, on_protein=on_step
            )
            for predictor, model, into in zip(predictors, models, cells_of_models, strict=True)
        ]
        compared = list(_compared(folder, models, [len(each) for each in cells_of_models], on_step))
        compared.sort(key=lambda protein: -protein.largest_difference())
        with atomic_path(folder.table) as draft:
            draft.write_bytes(difference_table(compared, models, DELIMITERS[table]))
        write_comparison_report(out, compared, models, [name for name, _ in nuclei])
        folder.finish(len(compared))
    resumed = min(summary.resumed for summary in summaries)
    return Comparison(out, models, tuple(compared), resumed, len(rejections), folder.files())


def _check_models(models: Sequence[ComparedModel]) -> None:
    if len(models) < 2:
        raise InputError("A comparison needs two models or more; give --model for each.")
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    for model in models:
        if (key := (model.sha256, model.classes)) in seen:
            raise InputError(f"Model '{seen[key]}' is given twice; compare it with another one.")
        seen[key] = model.name


def _read(
    predictors: Sequence[Predictor], proteins: Iterable[Protein | Rejection]
) -> tuple[list[Protein], list[Rejection]]:
    """Read all proteins, since several models need them; a protein that one model cannot use is rejected."""
    for predictor in predictors:
        proteins = predictor.reject_unusable(proteins)
    read = list(proteins)
    accepted = [each for each in read if isinstance(each, Protein)]
    return accepted, [each for each in read if isinstance(each, Rejection)]


def _cells(predictor: Predictor, cell: Cell | None) -> list[Cell]:
    """Return the cell to compare in, then the controls that differ from it; the last two are the control."""
    controls = [predictor.load_cell(name) for name in CONTROLS]
    if cell is None:
        return controls
    sha256 = cell_fingerprint(cell)[1]
    others = [each for each in controls if cell_fingerprint(each)[1] != sha256]
    if cell.name in (each.name for each in others):
        cell = replace(cell, name=f"{cell.name}-own")
    return [cell, *others]


def _compared(
    folder: ComparisonFolder,
    models: Sequence[ComparedModel],
    cell_counts: Sequence[int],
    on_step: Callable[[str], None],
) -> Iterator[ComparedProtein]:
    """Read back what the models predicted for each protein, measure the differences, and draw them."""
    from deepgps.comparison.image import comparison_image

    names = ImageNames()
    streams = [
        _records_by_protein(folder.model_folder(model), count)
        for model, count in zip(models, cell_counts, strict=True)
    ]
    for records_of_models in zip(*streams, strict=True):
        records = [records[0] for records in records_of_models]
        images = [
            _read_images(folder.model_folder(model), record)
            for model, record in zip(models, records, strict=True)
        ]
        protein = ComparedProtein(
            records=tuple(_without_evidence(record) for record in records),
            controls=tuple(_control(*records[-2:]) for records in records_of_models),
            pearson=tuple(
                _pearson(images[0][1], image[1]) if models[0].has_same_scale(model) else None
                for model, image in zip(models[1:], images[1:], strict=True)
            ),
            image=names.add(records[0]["protein_id"]),
        )
        with atomic_path(folder.path / IMAGE_FOLDER / f"{protein.image}.png") as draft:
            draft.write_bytes(png(np.asarray(comparison_image(protein, models, images))))
        on_step(protein.protein_id)
        yield protein


def _records_by_protein(folder: Path, cell_count: int) -> Iterator[tuple[Record, ...]]:
    records = read_records(folder / RECORDS_FILE)
    return zip(*[records] * cell_count, strict=True)


def _without_evidence(record: Record) -> Record:
    # All proteins are in memory at once, and evidence is most of a record.
    record["evidence"] = []
    return record


def _read_images(folder: Path, record: Record) -> Floats:
    """Read the nucleus and the protein image of a row, (2, H, W) in [0, 1]."""
    import tifffile

    stored = tifffile.imread(folder / IMAGE_FOLDER / f"{record['images']}.ome.tif")
    return np.asarray(stored / FULL_SCALE, np.float32)


def _control(one: Record, other: Record) -> float | None:
    fractions = one["intranuclear_fraction"], other["intranuclear_fraction"]
    return None if fractions[0] is None or fractions[1] is None else abs(fractions[0] - fractions[1])


def _pearson(one: Floats, other: Floats) -> float | None:
    r = float(pearson(one[None], other[None])[0])
    return None if math.isnan(r) else r
