"""A worker's turn of a job: a few proteins predicted, written, and copied into the database."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from sqlalchemy import ColumnElement, func, or_, select, update

from deepgps.bundle import find_bundle
from deepgps.errors import DeepGPSError, InputError
from deepgps.files.appending import offset_after
from deepgps.files.lock import lock
from deepgps.images.defaults import default_nucleus
from deepgps.images.nucleus import Nucleus
from deepgps.predict import Predictor
from deepgps.proteins.check import check_sequence
from deepgps.proteins.lookup import resolve
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.folder import RECORDS_FILE
from deepgps.results.save import Summary, save
from deepgps.results.table import Record
from deepgps.web.database import Sessions
from deepgps.web.settings import Settings
from deepgps.web.tables import OPEN, Entry, Job, OwnNucleus, Row


class _StoppedError(Exception):
    """The job was cancelled or deleted, or its turn taken over, while it was worked on."""


class _BusyError(Exception):
    """A worker that was taken for dead still writes to the job's folder."""


# A new process may get the number of a dead one.
_MARK = secrets.token_hex(4)


def worker_name() -> str:
    """Name this process so that others on the machine can tell whether it lives: host, process, a mark."""
    return f"{socket.gethostname()}:{os.getpid()}:{_MARK}"


def is_due(sessions: Sessions) -> bool:
    """Whether any job waits for a turn that nobody has."""
    with sessions() as session:
        return session.scalar(select(Job.id).where(_waiting(time.time())).limit(1)) is not None


def take_turn(sessions: Sessions, settings: Settings) -> bool:
    """Give the job that has waited longest its turn.

    Returns
    -------
    bool
        Whether there was one.
    """
    job = _claim(sessions, settings)
    if job is None:
        return False
    try:
        summary = _work(sessions, settings, job)
    except _StoppedError:
        _let_go(sessions, job)
    except _BusyError:
        # The turn is kept until it runs out: by then the other has noticed that it lost it.
        return True
    except (DeepGPSError, OSError) as error:
        # A full disk may have room again later; a model or an input that does not fit never will.
        final = isinstance(error, DeepGPSError) or job.attempts >= settings.max_attempts
        _let_go(sessions, job, status="failed" if final else None, message=str(error))
    except Exception:
        final = job.attempts >= settings.max_attempts
        said = "An unexpected error stopped this job; its operator finds it in the worker's log."
        _let_go(sessions, job, status="failed" if final else None, message=said)
        raise
    else:
        _let_go(sessions, job, status="finished" if summary.finished else None)
    return True


def free_the_dead(sessions: Sessions) -> None:
    """Take back the turns of workers on this machine that no longer live."""
    with sessions.begin() as session:
        held = session.scalars(select(Job).where(Job.holder.is_not(None)))
        for job in held:
            host, pid, mark = (job.holder or "").split(":")
            if host == socket.gethostname() and not _lives(int(pid), mark):
                job.holder, job.held_until = None, 0.0


def _lives(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return mark == _MARK
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _waiting(now: float) -> ColumnElement[bool]:
    return Job.status.in_(OPEN) & or_(Job.holder.is_(None), Job.held_until < now)


def _claim(sessions: Sessions, settings: Settings) -> Job | None:
    """Take the longest-waiting job in one statement, so that two workers never take the same."""
    now = time.time()
    first = select(Job.id).where(_waiting(now)).order_by(Job.turn).limit(1).scalar_subquery()
    taken = (
        update(Job)
        .where(Job.id == first, _waiting(now))
        .values(
            status="running",
            started=func.coalesce(Job.started, now),
            holder=worker_name(),
            held_until=now + settings.lease_s,
            attempts=Job.attempts + 1,
        )
        .returning(Job)
    )
    with sessions.begin() as session:
        job = session.scalars(taken).one_or_none()
    if job is not None and job.attempts > settings.max_attempts:
        times = settings.max_attempts
        said = f"This job broke off {times} times at the same protein; leave it out and try again."
        _let_go(sessions, job, status="failed", message=said)
        return _claim(sessions, settings)
    return job


def _let_go(sessions: Sessions, job: Job, *, status: str | None = None, message: str | None = None) -> None:
    now = time.time()
    mine = (Job.id == job.id) & (Job.holder == worker_name())
    with sessions.begin() as session:
        if status is not None:
            ended = update(Job).where(mine, Job.status.in_(OPEN))
            session.execute(ended.values(status=status, finished=now, message=message))
        session.execute(update(Job).where(mine).values(holder=None, held_until=0.0, turn=now))


def _work(sessions: Sessions, settings: Settings, job: Job) -> Summary:
    predictor = _predictor(job)
    nuclei = _nuclei(sessions, job) if job.pictures else None
    rows = len(job.nuclei) if job.pictures else 1
    limit = max(1, settings.turn_pictures // rows) if job.pictures else settings.turn_labels
    folder = settings.job_folder(job.id)
    folder.mkdir(parents=True, exist_ok=True)
    _check_free(folder)
    copy = _copier(sessions, settings, job, folder / RECORDS_FILE, rows)
    return save(
        predictor,
        _proteins(sessions, settings, job),
        folder,
        nuclei=nuclei,
        images=job.pictures,
        table="json",
        inputs=(("openGPS", None),),
        limit=limit,
        on_protein=copy,
    )


def _check_free(folder: Path) -> None:
    try:
        os.close(lock(folder))
    except InputError:
        raise _BusyError from None


def _predictor(job: Job) -> Predictor:
    predictor = _loaded(job.model)
    if predictor.bundle.sha256 != job.sha256:
        _loaded.cache_clear()
        predictor = _loaded(job.model)
    if predictor.bundle.sha256 != job.sha256:
        raise InputError(f"Model '{job.model}' was replaced after this job was sent; send it again.")
    return predictor


@lru_cache(maxsize=2)
def _loaded(name: str) -> Predictor:
    return Predictor.load(find_bundle(name))


def warm_up(name: str) -> None:
    """Load a model before anybody asks for it."""
    _loaded(name)


def _nuclei(sessions: Sessions, job: Job) -> list[Nucleus]:
    with sessions() as session:
        own = {each.name: each for each in session.scalars(select(OwnNucleus).filter_by(job_id=job.id))}
    return [_own(own[name]) if name in own else default_nucleus(name) for name in job.nuclei]


def _own(stored: OwnNucleus) -> Nucleus:
    pixels = np.frombuffer(stored.pixels, np.float32).reshape(stored.edge_px, stored.edge_px)
    return Nucleus(stored.name, pixels, stored.pixel_size_um, "uploaded", tuple(stored.warnings))


def _proteins(sessions: Sessions, settings: Settings, job: Job) -> Iterator[Protein | Rejection]:
    """The job's records in order; what a look-up says is kept, so that every turn sees the same."""
    with sessions() as session:
        entries = list(session.scalars(select(Entry).filter_by(job_id=job.id).order_by(Entry.number)))
    for entry in entries:
        if entry.sequence is None and entry.reason is None:
            _look_up(settings, entry)
            with sessions.begin() as session:
                session.merge(entry)
                if entry.reason is not None:
                    session.execute(update(Job).filter_by(id=job.id).values(rejected=Job.rejected + 1))
            _renew(sessions, settings, job)
        if entry.reason is not None:
            yield Rejection(entry.protein_id, entry.source, entry.reason)
        elif entry.sequence is not None:
            yield Protein(entry.protein_id, entry.sequence, entry.gene_symbol, entry.accession)


def _look_up(settings: Settings, entry: Entry) -> None:
    name = entry.protein_id
    cache = settings.data / "cache"
    try:
        found = resolve(name, cache_dir=cache, offline=not settings.lookups, base_url=settings.uniprot_url)
    except InputError as error:
        entry.reason = str(error)
        return
    if len(found.sequence) > settings.max_residues:
        entry.reason = (
            f"Protein '{name}' has more than {settings.max_residues:,} residues, the most taken here."
        )
        return
    entry.reason = check_sequence(name, found.sequence)
    entry.sequence = None if entry.reason else found.sequence
    entry.gene_symbol, entry.accession = found.gene_symbol, found.accession


def _copier(
    sessions: Sessions, settings: Settings, job: Job, records: Path, rows_per_protein: int
) -> Callable[[str], None]:
    """Make what copies finished rows into the database, from where an earlier turn stopped."""
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
        rows = [_row(job.id, copied + place, json.loads(line)) for place, line in enumerate(lines)]
        copied, offset = copied + len(rows), offset + sum(map(len, lines))
        with sessions.begin() as session:
            session.add_all(rows)
            done = copied // rows_per_protein
            session.execute(update(Job).filter_by(id=job.id).values(predicted=done, attempts=0))
        _renew(sessions, settings, job)

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


def _renew(sessions: Sessions, settings: Settings, job: Job) -> None:
    mine = update(Job).where(Job.id == job.id, Job.holder == worker_name(), Job.status.in_(OPEN))
    with sessions.begin() as session:
        done = session.execute(mine.values(held_until=time.time() + settings.lease_s))
    if not done.rowcount:  # type: ignore[attr-defined]
        raise _StoppedError
