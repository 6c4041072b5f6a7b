"""Predict to a folder: proteins in, a results folder out, in one stream."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.prediction.prediction import class_thresholds
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.exports import check_export, export_table
from deepgps.results.folder import RECORDS_FILE, REJECTED_FILE, REPORT_FILE, ResultsFolder
from deepgps.results.image_storage import IMAGE_FOLDER, IMAGE_STORE, check_zarr
from deepgps.results.records import ImageFormat, ResultRow, TableFormat
from deepgps.results.report import write_report
from deepgps.results.ro_crate import write_crate
from deepgps.results.rows import PredictionTask, predict_rows
from deepgps.results.run import PredictionRun, cell_fingerprint


@dataclass(frozen=True, slots=True)
class ResultsSummary:
    """What a call of `predict_to_folder` did.

    Attributes
    ----------
    folder
        Where the results are.
    predicted
        Proteins with results, including those of earlier calls.
    resumed
        Proteins with results of earlier calls.
    rejected
        Records that could not be used.
    files
        What was written, the best to open first.
    finished
        Whether all proteins have results.
    """

    folder: Path
    predicted: int
    resumed: int
    rejected: int
    files: tuple[Path, ...]
    finished: bool = True


def predict_to_folder(
    predictor: Predictor,
    proteins: Iterable[Protein | Rejection],
    out: Path,
    *,
    cells: Sequence[Cell] | None = None,
    images: bool = True,
    image_format: ImageFormat = "files",
    table: TableFormat = "csv",
    inputs: Sequence[tuple[str, str | None]] = (),
    overwrite: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    limit: int | None = None,
    on_protein: Callable[[str], None] | None = None,
    on_rejection: Callable[[Rejection], None] | None = None,
) -> ResultsSummary:
    """Predict proteins and write the results; continue what an earlier, identical call left unfinished.

    Memory does not grow with the number of proteins. Rows are in the order of the input, and each is on disk,
    with its images, before the next.

    Parameters
    ----------
    predictor
        The model.
    proteins
        Proteins, and records that could not be read.
    out
        The folder; see `deepgps.results` for its files.
    cells
        Cells to draw into, with distinct names; one default cell if None.
    images
        Whether to draw images.
    image_format
        ``files`` for two files per row, or ``zarr`` for one store.
    table
        ``csv``, ``tsv``, ``json``, ``parquet``, ``xlsx`` or ``h5ad``.
    inputs
        Source and SHA-256 of each input, for the run record.
    overwrite
        Start again if the folder holds results already.
    workers, scheduler
        Local processes, or a Dask scheduler, to predict with; see `deepgps.results.rows.predict_rows`. This
        process writes. A later call may continue with others.
    limit
        Predict at most so many further proteins, and leave the rest and the report to a later call.
    on_protein, on_rejection
        Called with the id of each finished protein, including those of earlier calls, and with each rejected
        record.

    Returns
    -------
    ResultsSummary
        Counts and files.

    Raises
    ------
    InputError
        If the folder is in use or holds results of another run, if two cells have the same name, if there is
        nothing to predict, or if the scheduler cannot be used.
    DeepGPSError
        If a library is missing, or the workers cannot be used or die.
    OSError
        If the disk is full or not writable; what was written before stays valid.

    Examples
    --------
    >>> from pathlib import Path
    >>> from deepgps import Predictor, predict_to_folder, read_proteins
    >>> proteins = read_proteins(sequence="MKRPAATKKAGQAKKKKLDKNWLEDSGVEERKAYLEQ")
    >>> summary = predict_to_folder(Predictor.load(), proteins, Path("results"))
    >>> summary.predicted, summary.files[0].name
    (1, 'results.csv')
    """
    # What cannot be done at all is refused before a folder is made.
    predictor.check_output(images=images)
    if images and image_format == "zarr":
        check_zarr()
        if predictor.samples:
            raise InputError("A Zarr store holds no intervals; leave out --samples, or --image-format zarr.")
    check_export(table)
    usable = predictor.reject_unusable(proteins)
    usable = chain(list(islice(usable, 1)), usable)
    chosen = _cells(predictor, cells) if images else ()
    metadata = predictor.bundle.metadata
    run = PredictionRun(
        model=metadata.name,
        version=metadata.version,
        sha256=predictor.bundle.sha256,
        classes=predictor.classes,
        table=table,
        images=images,
        image_format=image_format,
        mean=predictor.mean,
        seed=predictor.seed,
        samples=predictor.samples if images else 0,
        image_checks=all(cell.checked for cell in chosen),
        nuclei=tuple(map(cell_fingerprint, chosen)),
        landmarks=tuple((cell.name, tuple(cell.landmarks)) for cell in chosen if cell.landmarks),
        inputs=tuple(inputs),
    )
    task = PredictionTask(
        bundle=predictor.bundle,
        structures=predictor.structures,
        mean=predictor.mean,
        seed=predictor.seed,
        samples=predictor.samples,
        cells=chosen,
        images=images,
        image_format=image_format,
        threads=predictor.threads,
    )
    with ResultsFolder(out, run, chosen, overwrite=overwrite) as folder:
        remaining = folder.skip_finished(_accepted(usable, folder, on_rejection), on_protein)
        some = islice(remaining, limit)
        with closing(predict_rows(predictor, task, some, workers=workers, scheduler=scheduler)) as rows:
            _write_rows(folder, rows, on_protein)
        finished = limit is None or next(remaining, None) is None
        folder.write_run_record(finished=finished)
        if finished:
            export_table(table, out / RECORDS_FILE, run.classes)
            write_report(out, class_thresholds(metadata))
            write_crate(out)
        return ResultsSummary(
            out, folder.predicted, folder.resumed, folder.rejected, _files(out, run), finished
        )


def _cells(predictor: Predictor, cells: Sequence[Cell] | None) -> tuple[Cell, ...]:
    chosen = tuple(predictor.fit_cell(cell) for cell in cells or (predictor.load_cell(),))
    names = [cell.name for cell in chosen]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two cells are called '{duplicate}'; give each its own name.")
    return chosen


def _accepted(
    proteins: Iterable[Protein | Rejection],
    folder: ResultsFolder,
    on_rejection: Callable[[Rejection], None] | None,
) -> Iterator[Protein]:
    for each in proteins:
        if isinstance(each, Protein):
            yield each
            continue
        folder.write_rejection(each)
        if on_rejection:
            on_rejection(each)


def _write_rows(
    folder: ResultsFolder, rows: Iterator[ResultRow], on_protein: Callable[[str], None] | None
) -> None:
    """Write rows as they come, and report each protein once its last row is on disk."""
    last_cell = folder.run.nuclei[-1][0] if folder.run.nuclei else None
    while batch := list(islice(rows, folder.batch_size)):
        folder.write(batch)
        for record, _ in batch:
            if on_protein and record["nucleus"] == last_cell:
                on_protein(record["protein_id"])


def _files(folder: Path, run: PredictionRun) -> tuple[Path, ...]:
    table = RECORDS_FILE if run.table == "json" else f"results.{run.table}"
    images = [IMAGE_STORE if run.image_format == "zarr" else IMAGE_FOLDER] if run.images else []
    names = [table, REPORT_FILE, *images, RECORDS_FILE, REJECTED_FILE]
    return tuple(path for name in dict.fromkeys(names) if (path := folder / name).exists())
