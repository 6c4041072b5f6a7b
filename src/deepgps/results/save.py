"""Predict and write: proteins in, a results folder out, in one stream."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from deepgps.errors import InputError
from deepgps.files.atomic import hidden
from deepgps.images.nucleus import Nucleus
from deepgps.predict import Prediction, Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import EXTENSIONS, IMAGES, RECORDS_FILE, REJECTED_FILE, REPORT_FILE, RunFolder
from deepgps.results.report import write_report
from deepgps.results.run import Run
from deepgps.results.table import TableFormat, record_of

WRITERS = 2
# Pictures waiting to be written: enough to keep the writers busy, few enough to stay small in memory.
WAITING = 16


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
    nuclei: Sequence[Nucleus] | None = None,
    images: bool = True,
    table: TableFormat = "csv",
    inputs: Sequence[tuple[str, str | None]] = (),
    overwrite: bool = False,
    limit: int | None = None,
    on_protein: Callable[[str], None] | None = None,
    on_rejection: Callable[[Rejection], None] | None = None,
) -> Summary:
    """Predict proteins and write the results, continuing what an earlier, identical call left unfinished.

    Memory does not grow with the number of proteins. Rows are in input order, and each is on disk, with its
    pictures, before the next.

    Parameters
    ----------
    predictor, proteins, out
        The model, proteins and rejected records as they are read, and the folder; see `deepgps.results`.
    nuclei
        Nuclei to draw into, with distinct names; the first default nucleus if None.
    images
        Whether to draw.
    table
        ``csv``, ``tsv`` or ``json``.
    inputs
        Source and sha256 of each input, for the record.
    overwrite
        Start anew where the folder holds results already.
    limit
        Predict at most so many further proteins and leave the rest, and the report, to a later call.
    on_protein, on_rejection
        Called with the id of each protein done, also by an earlier call, and with each rejected record.

    Raises
    ------
    InputError
        If the folder is in use, or holds results of another run; two nuclei have the same name; or nothing
        is left to predict.
    OSError
        If the disk is full or not writable; what was written before stays valid.
    """
    # Input that cannot be read at all is refused before a folder is made.
    predictor.check_wanted(images=images)
    rest = predictor.admit(proteins)
    stream = chain(list(islice(rest, 1)), rest)
    chosen = _nuclei(predictor, nuclei) if images else ()
    run = _run(predictor, chosen, images=images, table=table, inputs=inputs)
    with RunFolder(out, run, overwrite=overwrite) as folder:
        accepted = _accepted(stream, folder, on_rejection)
        wanted = folder.undone(accepted, on_protein)
        predictions = predictor.predict(islice(wanted, limit), chosen, images=images)
        for prediction in _written(folder, predictions):
            if on_protein and _is_last(prediction, run):
                on_protein(prediction.protein.id)
        finished = limit is None or next(wanted, None) is None
        folder.record_run(finished=finished)
        if finished:
            write_report(out)
        return Summary(out, folder.predicted, folder.done, folder.rejected, _files(folder), finished)


def pixels_sha256(nucleus: Nucleus) -> str:
    """Fingerprint a nucleus image: its pixels and their size."""
    text = f"{nucleus.pixels.shape} {nucleus.pixel_size_um} ".encode()
    return hashlib.sha256(text + nucleus.pixels.tobytes()).hexdigest()


def _nuclei(predictor: Predictor, nuclei: Sequence[Nucleus] | None) -> tuple[Nucleus, ...]:
    chosen = tuple(nuclei or (predictor.default_nucleus(),))
    names = [nucleus.name for nucleus in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Two nuclei are called '{twice}'; give each a name of its own.")
    return chosen


def _run(
    predictor: Predictor,
    nuclei: Sequence[Nucleus],
    *,
    images: bool,
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
        nuclei=tuple((nucleus.name, pixels_sha256(nucleus)) for nucleus in nuclei),
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


def _written(folder: RunFolder, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Write predictions as they come and pass each on when it is on disk; pictures are written beside."""
    waiting: deque[tuple[Prediction, str | None, Future[None] | None]] = deque()
    pool = ThreadPoolExecutor(WRITERS)
    try:
        for prediction in predictions:
            waiting.append(_start(pool, folder, prediction))
            if len(waiting) > WAITING:
                yield _finish(folder, *waiting.popleft())
        while waiting:
            yield _finish(folder, *waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _start(
    pool: ThreadPoolExecutor, folder: RunFolder, prediction: Prediction
) -> tuple[Prediction, str | None, Future[None] | None]:
    if prediction.nucleus is None:
        return prediction, None, None
    from deepgps.results.pictures import write_pictures

    name = folder.file_name(prediction.protein.id, prediction.nucleus.name)
    png, tiff = (hidden(path) for path in _pictures(folder, name))
    return prediction, name, pool.submit(write_pictures, prediction, png, tiff)


def _finish(
    folder: RunFolder, prediction: Prediction, name: str | None, pictures: Future[None] | None
) -> Prediction:
    # Pictures get their names before the row is written: a row on disk means that its pictures are there.
    if name is not None and pictures is not None:
        pictures.result()
        for path in _pictures(folder, name):
            hidden(path).replace(path)
    folder.add(record_of(prediction, name))
    if _is_last(prediction, folder.run):
        folder.predicted += 1
    return prediction


def _pictures(folder: RunFolder, name: str) -> tuple[Path, ...]:
    return tuple(folder.path / IMAGES / f"{name}{extension}" for extension in EXTENSIONS)


def _is_last(prediction: Prediction, run: Run) -> bool:
    """Whether this is the protein's last row."""
    return prediction.nucleus is None or prediction.nucleus.name == run.nuclei[-1][0]


def _files(folder: RunFolder) -> tuple[Path, ...]:
    table = "results.jsonl" if folder.run.table == "json" else f"results.{folder.run.table}"
    names = [table, REPORT_FILE, IMAGES, RECORDS_FILE, REJECTED_FILE]
    paths = [folder.path / name for name in dict.fromkeys(names)]
    return tuple(path for path in paths if path.exists() and (path.name != IMAGES or folder.run.images))
