"""A worker: it computes one chunk of a job at a time.

What is finished is in the database, one transaction per protein; its images are stored before. A worker may
therefore be killed at any moment: the next one continues with the first input record that is not done.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from deepgps.bundle import DEFAULT_MODEL
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.cell import Cell
from deepgps.prediction import Predictor
from deepgps.prediction.prediction import class_thresholds
from deepgps.proteins.known import KnownProteins
from deepgps.proteins.names import note_on
from deepgps.proteins.protein import Protein
from deepgps.results.folder import RECORDS_FILE, REPORT_FILE
from deepgps.results.image_storage import IMAGE_EXTENSIONS, IMAGE_FOLDER, ImageNames
from deepgps.results.records import Record, ResultRow, json_line
from deepgps.results.report import MAX_CARDS, write_report
from deepgps.results.rows import encode_rows
from deepgps.results.run import RUN_FILE, PredictionRun, cell_fingerprint, now, package_versions
from opengps.analyses.computing import analyse_next
from opengps.database import InputRecord, Job, Result, forget_deleted, iso_time
from opengps.jobs import image_keys, iterate_results, job_cells, job_exists, purge_jobs
from opengps.models import job_predictor, load_predictor
from opengps.queue import (
    LeaseLostError,
    lease_job,
    release_dead_workers,
    release_job,
    save_lookup,
    save_progress,
)
from opengps.quotas import job_bytes
from opengps.security import set_up_logging
from opengps.settings import Settings
from opengps.site import Site, open_site
from opengps.storage import job_key
from opengps.submissions.comparison import compare_next
from opengps.submissions.store import purge_submissions
from opengps.uniprot import look_up

_POLL_S = 0.1
_PAUSE_AFTER_ERROR_S = 1.0
_CHECK_WORKERS_S = 1.0
_CLEAN_UP_S = 60.0
_NICENESS = 5


def run_worker(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """Work until the process is told to stop; a chunk that has begun is finished.

    Parameters
    ----------
    settings
        The settings of the site.
    stop_with_stdin
        Whether to stop when stdin is closed, and so with the server that started this worker.
    """
    set_up_logging()
    if hasattr(os, "nice"):
        # Pages are answered before images are drawn.
        os.nice(_NICENESS)
    site = open_site(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    _load_default_model()
    checked = cleaned = 0.0
    while not stop.is_set():
        try:
            if time.monotonic() - checked > _CHECK_WORKERS_S:
                release_dead_workers(site)
                checked = time.monotonic()
            if time.monotonic() - cleaned > _CLEAN_UP_S:
                clean_up(site)
                cleaned = time.monotonic()
            # One of each in turn, so that none waits for all of another.
            if not any([run_chunk(site), analyse_next(site), compare_next(site)]):
                stop.wait(_POLL_S)
        except Exception:
            logging.getLogger("opengps").exception("The worker continues after an error.")
            stop.wait(_PAUSE_AFTER_ERROR_S)


def _load_default_model() -> None:
    try:
        load_predictor(DEFAULT_MODEL)
    except DeepGPSError as error:
        logging.getLogger("opengps").warning("%s", error)


def _stop_with_stdin() -> None:
    # Not through sys.stdin, whose lock a waiting thread would hold while Python shuts down.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def clean_up(site: Site) -> None:
    """Delete what has expired."""
    purge_jobs(site)
    purge_submissions(site)
    forget_deleted(site.sessions)


def run_chunk(site: Site) -> bool:
    """Compute the next chunk of the job that has waited longest; return whether there was one."""
    job = lease_job(site)
    if job is None:
        return False
    last_attempt = job.attempts >= site.settings.max_attempts
    failed = "failed" if last_attempt else None
    try:
        finished = _predict_chunk(site, job)
    except LeaseLostError:
        release_job(site, job)
        if not job_exists(site, job.id):
            # It was deleted while its images were stored.
            site.storage.remove(job_key(job.id))
    except DeepGPSError as error:
        release_job(site, job, status="failed", error=str(error))
    except OperationalError:
        # The database is locked, full or away: that is not the job's fault.
        release_job(site, job, attempts=job.attempts - 1)
        raise
    except OSError as error:
        # A full disk may have space again later.
        reason = f"The results could not be written ({error.strerror}); send the job again later."
        release_job(site, job, status=failed, error=reason)
    except Exception:
        reason = "An unexpected error stopped this job; the operator finds it in the worker's log."
        release_job(site, job, status=failed, error=reason)
        raise
    else:
        if finished:
            _measure_disk(site, job)
        release_job(site, job, status="finished" if finished else None)
    return True


def _measure_disk(site: Site, job: Job) -> None:
    """Replace the bytes that were reserved for a job by those of its files and rows."""
    used = site.storage.size(job_key(job.id)) + job_bytes(job.total, 0, 0)
    with site.sessions.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(disk_bytes=used))


def _predict_chunk(site: Site, job: Job) -> bool:
    """Predict the next proteins of a job; return whether all are done."""
    predictor = job_predictor(job)
    cells = job_cells(site, job, predictor.bundle.metadata.crop) if job.images else []
    records = _next_records(site, job, len(cells))
    _look_up_names(site, job, records, predictor.known)
    # In input order: up to the first name that there was no time to look up.
    records = list(takewhile(lambda record: record.sequence or record.reason, records))
    if job.next_record == 0:
        site.storage.write({f"{job_key(job.id)}/{RUN_FILE}": _run_record(site, job, predictor, cells)})
    writer = _ResultWriter(site, job, len(cells))
    predictions = predictor.predict(_proteins(records), cells, images=job.images)
    with closing(encode_rows(predictions, images=job.images)) as rows:
        for record in records:
            if record.sequence:
                writer.save(list(islice(rows, max(1, len(cells)))), record.number + 1)
    done = job.next_record
    if records:
        # The last ones may be rejected.
        done = records[-1].number + 1
        save_progress(site, job, next_record=done)
    if done < job.total:
        return False
    thresholds = class_thresholds(predictor.bundle.metadata)
    _write_report(site, job, _run_record(site, job, predictor, cells, finished=True), thresholds)
    return True


def _next_records(site: Site, job: Job, images_per_protein: int) -> list[InputRecord]:
    settings = site.settings
    count = max(1, settings.chunk_images // images_per_protein) if job.images else settings.chunk_proteins
    chosen = select(InputRecord).where(InputRecord.job_id == job.id, InputRecord.number >= job.next_record)
    with site.sessions() as session:
        return list(session.scalars(chosen.order_by(InputRecord.number).limit(count)))


def _look_up_names(site: Site, job: Job, records: Sequence[InputRecord], known: KnownProteins | None) -> None:
    """Look up names until the time of a chunk is over; at least one."""
    end = time.monotonic() + site.settings.chunk_lookup_s
    for record in records:
        if record.sequence is not None or record.reason is not None:
            continue
        try:
            found = look_up(site.settings, record.protein_id, known)
        except InputError as error:
            record.reason = str(error)
        else:
            record.sequence = found.sequence
            record.gene_symbol, record.accession = found.gene_symbol, found.accession
        save_lookup(site, job, record)
        if time.monotonic() >= end:
            return


def _proteins(records: Sequence[InputRecord]) -> Iterator[Protein]:
    for record in records:
        if record.sequence:
            yield Protein(
                record.protein_id, record.sequence, record.gene_symbol, record.accession, _notes(record)
            )


def _notes(record: InputRecord) -> tuple[str, ...]:
    """Say which entry was taken for a name that was looked up."""
    if record.source != "UniProt" or record.accession is None:
        return ()
    note = note_on(record.protein_id, record.accession, record.gene_symbol)
    return (note,) if note else ()


class _ResultWriter:
    """Stores the images of finished proteins and adds their results to the database."""

    def __init__(self, site: Site, job: Job, nuclei: int) -> None:
        self._site, self._job = site, job
        self._names = ImageNames(several_cells=nuclei > 1)
        self._count = 0
        chosen = select(Result.protein_id, Result.nucleus).where(Result.job_id == job.id)
        with site.sessions() as session:
            for protein_id, nucleus in session.execute(chosen.order_by(Result.number)):
                self._name(protein_id, nucleus)

    def _name(self, protein_id: str, nucleus: str | None) -> str:
        """Name the images of the next result."""
        self._count += 1
        return self._names.add(protein_id, nucleus)

    def save(self, predicted: Sequence[ResultRow], next_record: int) -> None:
        """Save one protein in all nuclei."""
        results, files = list[Result](), dict[str, bytes]()
        for record, content in predicted:
            number = self._count
            name = self._name(record["protein_id"], record["nucleus"])
            if isinstance(content, tuple):
                record["images"] = name
                for extension, data in zip(IMAGE_EXTENSIONS, content, strict=True):
                    files[f"{job_key(self._job.id)}/{IMAGE_FOLDER}/{name}{extension}"] = data
            results.append(_result(self._job.id, number, record))
        self._site.storage.write(files)
        save_progress(self._site, self._job, next_record=next_record, results=results)


def _result(job_id: str, number: int, record: Record) -> Result:
    return Result(
        job_id=job_id,
        number=number,
        protein_id=record["protein_id"],
        localizations=f"|{'|'.join(record['localizations'])}|",
        confidence=record["confidence"],
        intranuclear_fraction=record["intranuclear_fraction"],
        nucleus=record["nucleus"],
        record=record,
    )


def _run_record(
    site: Site, job: Job, predictor: Predictor, cells: Sequence[Cell], *, finished: bool = False
) -> bytes:
    """Return the content of ``run.json``."""
    metadata = predictor.bundle.metadata
    run = PredictionRun(
        model=metadata.name,
        version=metadata.version,
        sha256=predictor.bundle.sha256,
        classes=predictor.classes,
        table="json",
        images=job.images,
        mean=predictor.mean,
        seed=predictor.seed,
        image_checks=all(cell.checked for cell in cells),
        nuclei=tuple(map(cell_fingerprint, cells)),
        landmarks=tuple((cell.name, tuple(cell.landmarks)) for cell in cells if cell.landmarks),
        inputs=(("openGPS", None),),
    )
    with site.sessions() as session:
        current = session.get(Job, job.id) or job
    document = {
        **run.document(),
        "packages": package_versions(),
        "started": iso_time(job.started_at or 0.0),
        "finished": now() if finished else None,
        "proteins": {"predicted": current.predicted, "rejected": current.rejected},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _write_report(site: Site, job: Job, run_record: bytes, thresholds: Mapping[str, float]) -> None:
    """Write the report of all results, and the final run record."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / RUN_FILE).write_bytes(run_record)
        with (folder / RECORDS_FILE).open("wb") as file:
            for result in iterate_results(site, job.id):
                file.write(json_line(result.record))  # type: ignore[arg-type]
        if job.images:
            (folder / IMAGE_FOLDER).mkdir()
            shown = islice(iterate_results(site, job.id), MAX_CARDS)
            for key, content in site.storage.read_existing(image_keys(job.id, shown)).items():
                (folder / IMAGE_FOLDER / Path(key).name).write_bytes(content)
        write_report(folder, thresholds, max_tiles=MAX_CARDS)
        report = (folder / REPORT_FILE).read_bytes()
    key = job_key(job.id)
    site.storage.write({f"{key}/{REPORT_FILE}": report, f"{key}/{RUN_FILE}": run_record})


def main() -> None:
    """Run the worker that ``deepgps serve`` starts."""
    run_worker(Settings.load(), stop_with_stdin=True)
