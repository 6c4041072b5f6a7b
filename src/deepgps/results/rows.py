"""Predict proteins as rows of results, in this process or on workers."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import deepgps
from deepgps.bundle import Bundle, find_bundle
from deepgps.errors import DeepGPSError
from deepgps.images.cell import Cell
from deepgps.parallel import WorkerDiedError, cores, parallel_map
from deepgps.prediction import Prediction, Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.image_storage import to_stored_pixels
from deepgps.results.records import ImageFormat, Record, ResultRow, to_record

CHUNK_RESIDUES = 16_384
"""Residues of a chunk, at most: about 40 proteins, a tenth of a second for the bundled model."""
CHUNK_IMAGES = 32
"""Images of a chunk, at most: about a second; as files, 12 MB on their way to the writing process."""

ENCODER_THREADS = 2
# Images that wait to be encoded: enough to keep the threads busy, few enough to stay small in memory.
MAX_WAITING = 16

_load_lock = threading.Lock()
_loaded: dict[tuple[object, ...], Predictor] = {}


@dataclass(frozen=True, slots=True)
class PredictionTask:
    """What every worker needs to know.

    Attributes
    ----------
    bundle
        The model; each worker reads its files and checks their hashes.
    structures
        Folder of structures, for a model that uses them.
    mean
        Whether to draw mean images.
    seed
        Seed of the images.
    samples
        Images drawn for the interval of each pixel; 0 for none.
    cells
        The cells to draw into.
    images
        Whether to draw images.
    image_format
        Format to encode images in.
    threads
        Threads of a worker.
    version
        Version of deepGPS.
    """

    bundle: Bundle
    structures: Path | None
    mean: bool
    seed: int
    cells: tuple[Cell, ...]
    images: bool
    image_format: ImageFormat
    threads: int | None = None
    samples: int = 0
    version: str = deepgps.__version__


def predict_rows(
    predictor: Predictor,
    task: PredictionTask,
    proteins: Iterable[Protein],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> Generator[ResultRow, None, None]:
    """Predict proteins, here or on workers; the rows are the same, in the order of the proteins.

    Parameters
    ----------
    predictor
        The model, if this process predicts.
    task
        The same model, for workers, and what to draw.
    proteins
        Read a few chunks ahead.
    workers
        Local processes, each with the model in its memory.
    scheduler
        Address of a Dask scheduler whose workers predict instead.

    Returns
    -------
    generator of ResultRow
        One row per protein and nucleus.

    Raises
    ------
    InputError
        If the scheduler cannot be used, or the workers do not have the model.
    DeepGPSError
        If a worker has another version of deepGPS, or dies each time it tries a chunk.
    """
    if workers == 1 and scheduler is None:
        return _rows(predictor, task, proteins)
    # A Dask thread is a core; the cores of this machine are shared by its workers.
    threads = task.threads or (1 if scheduler else max(1, cores() // workers))
    return _rows_of_workers(replace(task, threads=threads), proteins, workers, scheduler)


def chunks(proteins: Iterable[Protein], images_each: int) -> Iterator[list[Protein]]:
    """Divide proteins into chunks of at most `CHUNK_RESIDUES` and `CHUNK_IMAGES`, but at least one protein.

    Parameters
    ----------
    proteins
        Read only as chunks are taken.
    images_each
        Images to draw of each protein.

    Yields
    ------
    list of Protein
        One chunk.
    """
    chunk, residues = list[Protein](), 0
    for protein in proteins:
        too_long = residues + len(protein.sequence) > CHUNK_RESIDUES
        if chunk and (too_long or (len(chunk) + 1) * images_each > CHUNK_IMAGES):
            yield chunk
            chunk, residues = [], 0
        chunk.append(protein)
        residues += len(protein.sequence)
    if chunk:
        yield chunk


def _rows_of_workers(
    task: PredictionTask, proteins: Iterable[Protein], workers: int, scheduler: str | None
) -> Generator[ResultRow, None, None]:
    first_ids: deque[str] = deque()

    def started() -> Iterator[list[Protein]]:
        for chunk in chunks(proteins, len(task.cells) if task.images else 0):
            first_ids.append(chunk[0].id)
            yield chunk

    results = parallel_map(partial(_predict_chunk, task), started(), workers=workers, scheduler=scheduler)
    with closing(results):  # type: ignore[type-var]  # it is a generator, with workers
        for rows in results:
            first_id = first_ids.popleft()
            if isinstance(rows, WorkerDiedError):
                raise DeepGPSError(
                    f"Workers died each time they tried '{first_id}' and the proteins after it; "
                    "give them more memory, or leave out the longest of these proteins."
                )
            yield from rows


def _predict_chunk(task: PredictionTask, proteins: list[Protein]) -> list[ResultRow]:
    """Predict a chunk; runs on a worker."""
    if task.version != deepgps.__version__:
        raise DeepGPSError(
            f"A worker has deepGPS {deepgps.__version__} and not {task.version}; install the same on all."
        )
    return list(_rows(loaded_predictor(task), task, proteins))


def loaded_predictor(task: PredictionTask) -> Predictor:
    """Load the task's model once per process, in which Dask may use several threads."""
    settings = {name: getattr(task, name) for name in ("threads", "structures", "mean", "seed", "samples")}
    key = task.bundle.sha256, task.bundle.metadata.name, *settings.values()
    with _load_lock:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = Predictor(_local_bundle(task.bundle), **settings)
        return _loaded[key]


def _local_bundle(bundle: Bundle) -> Bundle:
    """Find the bundle on this machine, at the same path or else by its name."""
    if bundle.path.exists():
        return bundle
    return replace(bundle, path=find_bundle(bundle.metadata.name.partition(":")[0]))


def _rows(
    predictor: Predictor, task: PredictionTask, proteins: Iterable[Protein]
) -> Generator[ResultRow, None, None]:
    predictions = predictor.predict(proteins, task.cells, images=task.images)
    return encode_rows(predictions, images=task.images, image_format=task.image_format)


def encode_rows(
    predictions: Iterable[Prediction], *, images: bool, image_format: ImageFormat = "files"
) -> Generator[ResultRow, None, None]:
    """Turn predictions into rows, in order; image files are encoded in threads beside.

    Parameters
    ----------
    predictions
        Read a few ahead if they have images.
    images
        Whether they have images.
    image_format
        Format to encode images in.

    Returns
    -------
    generator of ResultRow
        One row per prediction.
    """
    if not images:
        return (ResultRow(to_record(each)) for each in predictions)
    if image_format == "zarr":
        return (
            ResultRow(to_record(each), to_stored_pixels(each.image))
            for each in predictions
            if each.image is not None
        )
    return _rows_with_files(predictions)


def _rows_with_files(predictions: Iterable[Prediction]) -> Generator[ResultRow, None, None]:
    from deepgps.results.labelled_images import image_files

    waiting: deque[tuple[Record, Future[tuple[bytes, bytes]]]] = deque()
    pool = ThreadPoolExecutor(ENCODER_THREADS)

    def next_row() -> ResultRow:
        record, files = waiting.popleft()
        return ResultRow(record, files.result())

    try:
        for prediction in predictions:
            waiting.append((to_record(prediction), pool.submit(image_files, prediction)))
            if len(waiting) > MAX_WAITING:
                yield next_row()
        while waiting:
            yield next_row()
    finally:
        pool.shutdown(cancel_futures=True)
