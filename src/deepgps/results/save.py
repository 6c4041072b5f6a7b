"""Predict and write: proteins in, a results folder out, in one stream."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from deepgps.errors import InputError
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import PARQUET_FILE, RECORDS_FILE, REJECTED_FILE, REPORT_FILE, RunFolder
from deepgps.results.image_array import STORE, check_zarr
from deepgps.results.image_files import IMAGES
from deepgps.results.parquet import check_polars, write_parquet
from deepgps.results.parts import Job, predicted
from deepgps.results.report import write_report
from deepgps.results.rows import Row
from deepgps.results.run import Run
from deepgps.results.table import ImageFormat, TableFormat


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call of `save` did.

    Attributes
    ----------
    folder
        Where the results are.
    predicted
        Proteins with results, those of earlier calls included.
    resumed
        Those of earlier calls.
    rejected
        Records that could not be used.
    files
        What was written, the best to open first.
    finished
        Whether nothing is left for a later call.
    """

    folder: Path
    predicted: int
    resumed: int
    rejected: int
    files: tuple[Path, ...]
    finished: bool = True


def save(
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
) -> Summary:
    """Predict proteins and write the results, continuing what an earlier, identical call left unfinished.

    Memory does not grow with the number of proteins. Rows are in input order, and each is on disk, with its
    images, before the next.

    Parameters
    ----------
    predictor, proteins, out
        The model, proteins and rejected records as they are read, and the folder; see `deepgps.results`.
    cells
        Cells to draw into, with distinct names; one default cell if None.
    images
        Whether to draw.
    images
        What to keep images in: ``files`` for each, or one ``zarr`` store.
    table
        ``csv``, ``tsv``, ``json`` or ``parquet``.
    inputs
        Source and sha256 of each input, for the record.
    overwrite
        Start anew where the folder holds results already.
    workers, scheduler
        Further processes to predict in, as of `deepgps.results.parts.predicted`; this one writes. Neither is
        part of the run: another call may go on with others.
    limit
        Predict at most so many further proteins and leave the rest, and the report, to a later call.
    on_protein, on_rejection
        Called with the id of each protein done, also by an earlier call, and with each rejected record.

    Raises
    ------
    InputError
        If the folder is in use, or holds results of another run; two nuclei have the same name; nothing is
        left to predict; or the scheduler cannot be used.
    DeepGPSError
        If a library is missing, or the workers are unfit or die.
    OSError
        If the disk is full or not writable; what was written before stays valid.
    """
    # What cannot be done at all is refused before a folder is made.
    predictor.check_output(images=images)
    _check_libraries(image_format if images else "files", table)
    rest = predictor.reject_unusable(proteins)
    stream = chain(list(islice(rest, 1)), rest)
    chosen = _cells(predictor, cells) if images else ()
    run = _run(predictor, chosen, images=images, image_format=image_format, table=table, inputs=inputs)
    job = Job(
        predictor.bundle,
        predictor.structures,
        predictor.mean,
        chosen,
        images,
        image_format,
        predictor.threads,
    )
    with RunFolder(out, run, chosen, overwrite=overwrite) as folder:
        wanted = folder.undone(_accepted(stream, folder, on_rejection), on_protein)
        some = islice(wanted, limit)
        with closing(predicted(predictor, job, some, workers=workers, scheduler=scheduler)) as rows:
            _write(folder, rows, on_protein)
        finished = limit is None or next(wanted, None) is None
        folder.record_run(finished=finished)
        if finished:
            _complete(folder)
        return Summary(out, folder.predicted, folder.done, folder.rejected, _files(folder), finished)


def pixels_sha256(cell: Cell) -> str:
    """Fingerprint a nucleus image: its pixels and their size."""
    text = f"{cell.nucleus.shape} {cell.pixel_size_um} ".encode()
    return hashlib.sha256(text + cell.nucleus.tobytes()).hexdigest()


def _cells(predictor: Predictor, cells: Sequence[Cell] | None) -> tuple[Cell, ...]:
    chosen = tuple(cells or (predictor.load_cell(),))
    names = [cell.name for cell in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two nuclei are called '{twice}'; give each a name of its own.")
    return chosen


def _run(
    predictor: Predictor,
    cells: Sequence[Cell],
    *,
    images: bool,
    image_format: ImageFormat,
    table: TableFormat,
    inputs: Sequence[tuple[str, str | None]],
) -> Run:
    metadata = predictor.bundle.metadata
    return Run(
        model=metadata.name,
        version=metadata.version,
        sha256=predictor.bundle.sha256,
        classes=predictor.classes,
        table=table,
        images=images,
        image_format=image_format,
        mean=predictor.mean,
        nuclei=tuple((cell.name, pixels_sha256(cell)) for cell in cells),
        inputs=tuple(inputs),
    )


def _accepted(
    proteins: Iterable[Protein | Rejection],
    folder: RunFolder,
    on_rejection: Callable[[Rejection], None] | None,
) -> Iterator[Protein]:
    for each in proteins:
        if isinstance(each, Protein):
            yield each
            continue
        folder.reject(each)
        if on_rejection:
            on_rejection(each)


def _write(folder: RunFolder, rows: Iterator[Row], on_protein: Callable[[str], None] | None) -> None:
    """Write rows as they come, and say which proteins are on disk."""
    while batch := list(islice(rows, folder.room)):
        folder.add(batch)
        for record, _ in batch:
            if on_protein and _is_last(record["nucleus"], folder.run):
                on_protein(record["protein_id"])


def _is_last(nucleus: str | None, run: Run) -> bool:
    """Whether this is the protein's last row."""
    return nucleus is None or nucleus == run.nuclei[-1][0]


def _check_libraries(image_format: ImageFormat, table: TableFormat) -> None:
    """Refuse at once what could not be written at the end."""
    if image_format == "zarr":
        check_zarr()
    if table == "parquet":
        check_polars()


def _complete(folder: RunFolder) -> None:
    """Write what is made of all rows."""
    if folder.run.table == "parquet":
        write_parquet(folder.path / RECORDS_FILE, folder.path / PARQUET_FILE, folder.run.classes)
    write_report(folder.path)


def _files(folder: RunFolder) -> tuple[Path, ...]:
    table = "results.jsonl" if folder.run.table == "json" else f"results.{folder.run.table}"
    image_format = STORE if folder.run.image_format == "zarr" else IMAGES
    names = [table, REPORT_FILE, image_format, RECORDS_FILE, REJECTED_FILE]
    paths = [folder.path / name for name in dict.fromkeys(names)]
    return tuple(path for path in paths if path.exists() and (path.name != image_format or folder.run.images))
