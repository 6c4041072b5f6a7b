"""A worker's turn of a job: a few proteins predicted, written, and copied into the database."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from deepgps.bundle import find_bundle, installed_bundles
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import lock_folder, offset_after, record_ends
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import RECORDS_FILE
from deepgps.results.save import save
from deepgps.results.table import Record
from opengps.catalogue import nucleus_for
from opengps.claims import StoppedError, claim, keep_on, let_go
from opengps.database import Sessions
from opengps.lookups import look_up
from opengps.settings import Settings
from opengps.tables import Entry, Job, OwnNucleus, Row
from opengps.workplace import Workplace, workplace


class _BusyError(Exception):
    """A worker that was taken for dead still writes to the job's folder."""


def take_turn(sessions: Sessions, settings: Settings) -> bool:
    """Give the job that has waited longest its turn.

    Returns
    -------
    bool
        Whether there was one.
    """
    job = claim(sessions, settings)
    if job is None:
        return False
    last = job.attempts >= settings.max_attempts
    try:
        finished = _work(sessions, settings, job)
    except StoppedError:
        let_go(sessions, job)
    except _BusyError:
        # The turn is kept until it runs out: by then the other has noticed that it lost it.
        return True
    except DeepGPSError as error:
        let_go(sessions, job, status="failed", message=str(error))
    except OSError as error:
        # A full disk may have room again later.
        said = f"The results could not be written ({error.strerror}); send it again later."
        let_go(sessions, job, status="failed" if last else None, message=said)
    except Exception:
        said = "An unexpected error stopped this job; its operator finds it in the worker's log."
        let_go(sessions, job, status="failed" if last else None, message=said)
        raise
    else:
        let_go(sessions, job, status="finished" if finished else None)
    return True


def _work(sessions: Sessions, settings: Settings, job: Job) -> bool:
    """Predict a few proteins of a job; return whether all are done."""
    predictor = _predictor(job)
    cells = _cells(sessions, job, predictor) if job.images else None
    rows = len(job.nuclei) if job.images else 1
    look_up(sessions, settings, job.id, lambda: keep_on(sessions, settings, job))
    entries = _entries(sessions, job)
    limit = max(1, settings.turn_images // rows) if job.images else settings.turn_labels
    with workplace(sessions, settings, job) as place:
        _check_free(place.folder)
        if (known := _known(entries)) is not None:
            done = sum(1 for _ in record_ends(place.folder / RECORDS_FILE, quoted=False)) // rows
            if (limit := min(limit, known - done)) <= 0:
                return False
        summary = save(
            predictor,
            _proteins(entries),
            place.folder,
            cells=cells,
            images=job.images,
            table="json",
            inputs=(("openGPS", None),),
            limit=limit,
            on_protein=_copier(sessions, settings, job, place, rows),
        )
        if summary.finished:
            place.finish()
    return summary.finished


def _check_free(folder: Path) -> None:
    try:
        os.close(lock_folder(folder))
    except InputError:
        raise _BusyError from None


def _predictor(job: Job) -> Predictor:
    predictor = load_model(job.model)
    if predictor.bundle.sha256 != job.sha256:
        _loaded.cache_clear()
        predictor = load_model(job.model)
    if predictor.bundle.sha256 != job.sha256:
        raise InputError(f"Model '{job.model}' was replaced after this job was sent; send it again.")
    return predictor.with_mean_images() if job.mean else predictor


def load_model(name: str) -> Predictor:
    """Load an installed model by its name, once for all its class sets."""
    own, colon, class_set = name.rpartition(":")
    if not colon or name in installed_bundles():
        return _loaded(name)
    return _loaded(own).with_class_set(class_set)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Predictor:
    # A core is left to the pages.
    return Predictor.load(find_bundle(name), threads=max(1, (os.cpu_count() or 1) - 1))


def warm_up(name: str) -> None:
    """Load a model before anybody asks for it."""
    load_model(name)


def _cells(sessions: Sessions, job: Job, predictor: Predictor) -> list[Cell]:
    with sessions() as session:
        own = {each.name: each for each in session.scalars(select(OwnNucleus).filter_by(job_id=job.id))}
    crop = predictor.bundle.metadata.crop
    return [_own(own[name]) if name in own else nucleus_for(name, crop) for name in job.nuclei]


def _own(stored: OwnNucleus) -> Cell:
    pixels = np.frombuffer(stored.pixels, np.float32).reshape(stored.edge_px, stored.edge_px)
    return Cell(stored.name, pixels, stored.pixel_size_um, "uploaded", tuple(stored.warnings))


def _entries(sessions: Sessions, job: Job) -> list[Entry]:
    with sessions() as session:
        return list(session.scalars(select(Entry).filter_by(job_id=job.id).order_by(Entry.number)))


def _known(entries: Sequence[Entry]) -> int | None:
    """Count the proteins before the first name that is still to be looked up; None where no such is left."""
    known = 0
    for entry in entries:
        if entry.sequence is None and entry.reason is None:
            return known
        known += entry.sequence is not None
    return None


def _proteins(entries: Sequence[Entry]) -> Iterator[Protein | Rejection]:
    for entry in entries:
        if entry.reason is not None:
            yield Rejection(entry.protein_id, entry.source, entry.reason)
        else:
            # A name without its sequence is never predicted, but tells that the job is not at its end.
            yield Protein(entry.protein_id, entry.sequence or "", entry.gene_symbol, entry.accession)


def _copier(
    sessions: Sessions, settings: Settings, job: Job, place: Workplace, rows_per_protein: int
) -> Callable[[str], None]:
    """Make what copies finished rows into the database, from where an earlier turn stopped."""
    records = place.folder / RECORDS_FILE
    with sessions() as session:
        copied = session.scalar(select(func.count()).where(Row.job_id == job.id)) or 0
    offset = offset_after(records, copied, quoted=False)

    def copy(_: str) -> None:
        nonlocal copied, offset
        with records.open("rb") as file:
            file.seek(offset)
            lines = [line for line in file if line.endswith(b"\n")]
        if not lines:
            return
        found = [json.loads(line) for line in lines]
        rows = [_row(job.id, number, record) for number, record in enumerate(found, start=copied)]
        place.keep(found, first=copied == 0)
        copied, offset = copied + len(rows), offset + sum(map(len, lines))
        keep_on(sessions, settings, job, rows, copied // rows_per_protein)

    return copy


def _row(job_id: str, number: int, record: Record) -> Row:
    return Row(
        job_id=job_id,
        number=number,
        protein_id=record["protein_id"],
        localizations=f"|{'|'.join(record['localizations'])}|",
        confidence=record["confidence"],
        fraction=record["intranuclear_fraction"],
        nucleus=record["nucleus"],
        record=record,
    )
