"""A proteome in parts: each is predicted by one worker, and its rows come back in the order of the input."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import deepgps
from deepgps.bundle import Bundle, find_bundle
from deepgps.errors import DeepGPSError
from deepgps.images.cell import Cell
from deepgps.parallel import WorkerDiedError, cores, parallel_map
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein
from deepgps.results.rows import Row, rows
from deepgps.results.table import ImageFormat

RESIDUES = 16_384
"""Residues of a part, at most: about 40 proteins, a tenth of a second for the bundled model."""
IMAGES = 32
"""Images of a part, at most: about a second; as files, 12 MB on their way to who writes them."""

_loading = threading.Lock()
_kept: dict[tuple[object, ...], Predictor] = {}


@dataclass(frozen=True, slots=True)
class Job:
    """What every part is predicted with.

    Attributes
    ----------
    bundle
        The model; its files are read, and held against their hashes, where the worker is.
    structures
        Folder of structures, for a model that looks at them.
    mean
        Whether it draws mean images.
    cells, images, images
        As of `deepgps.results.rows.rows`.
    threads
        Threads of a worker.
    version
        Version of deepGPS.
    """

    bundle: Bundle
    structures: Path | None
    mean: bool
    cells: tuple[Cell, ...]
    images: bool
    image_format: ImageFormat
    threads: int | None = None
    version: str = deepgps.__version__


def predicted(
    predictor: Predictor,
    job: Job,
    proteins: Iterable[Protein],
    *,
    workers: int = 1,
    scheduler: str | None = None,
) -> Generator[Row, None, None]:
    """Predict proteins, here or on workers; the rows are the same, and in the order of the proteins.

    Parameters
    ----------
    predictor
        The model, where one worker is this process.
    job
        The same model, for further processes.
    proteins
        Read a few parts ahead of what is taken.
    workers
        Local processes, each with the model in its memory.
    scheduler
        Address of a Dask scheduler whose workers do it instead.

    Raises
    ------
    InputError
        If the scheduler cannot be used, or the workers have no such model.
    DeepGPSError
        If a worker has another version of deepGPS, or died each time that it tried a part.
    """
    if workers == 1 and scheduler is None:
        return rows(predictor, proteins, job.cells, images=job.images, image_format=job.image_format)
    # A thread of Dask is a core; of this machine's, each process gets its share.
    threads = job.threads or (1 if scheduler else max(1, cores() // workers))
    there = replace(job, threads=threads)
    return _gathered(there, proteins, workers, scheduler)


def _gathered(
    job: Job, proteins: Iterable[Protein], workers: int, scheduler: str | None
) -> Generator[Row, None, None]:
    begun: deque[str] = deque()

    def named() -> Iterator[list[Protein]]:
        for part in parts(proteins, len(job.cells) if job.images else 0):
            begun.append(part[0].id)
            yield part

    results = parallel_map(partial(_predicted, job), named(), workers=workers, scheduler=scheduler)
    with closing(results):  # type: ignore[type-var]  # it is a generator, with workers
        for part in results:
            first = begun.popleft()
            if isinstance(part, WorkerDiedError):
                raise DeepGPSError(
                    f"Workers died each time they tried '{first}' and those behind it; "
                    "give them more memory, or take the longest of these proteins out."
                )
            yield from part


def parts(proteins: Iterable[Protein], images_each: int) -> Iterator[list[Protein]]:
    """Divide proteins into parts of at most `RESIDUES` and `IMAGES`, and of one protein at least.

    Parameters
    ----------
    proteins
        Read only as parts are taken.
    images_each
        Images drawn of each.
    """
    part, residues = list[Protein](), 0
    for protein in proteins:
        full = residues + len(protein.sequence) > RESIDUES or (len(part) + 1) * images_each > IMAGES
        if part and full:
            yield part
            part, residues = [], 0
        part.append(protein)
        residues += len(protein.sequence)
    if part:
        yield part


def _predicted(job: Job, part: list[Protein]) -> list[Row]:
    """Predict a part where the worker is."""
    if job.version != deepgps.__version__:
        raise DeepGPSError(
            f"A worker has deepGPS {deepgps.__version__} and not {job.version}; install the same on all."
        )
    return list(rows(_loaded(job), part, job.cells, images=job.images, image_format=job.image_format))


def _loaded(job: Job) -> Predictor:
    """Load the job's model once in a process, in which Dask may work with several threads."""
    key = job.bundle.sha256, job.bundle.metadata.name, job.structures, job.mean, job.threads
    with _loading:
        if key not in _kept:
            _kept.clear()
            _kept[key] = Predictor(
                _here(job.bundle), threads=job.threads, structures=job.structures, mean=job.mean
            )
        return _kept[key]


def _here(bundle: Bundle) -> Bundle:
    """Find the bundle where the worker is: at the same path, or else by its name."""
    if bundle.path.exists():
        return bundle
    return replace(bundle, path=find_bundle(bundle.metadata.name.partition(":")[0]))
