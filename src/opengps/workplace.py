"""A job's folder while a worker is at it: the shelf's own, or one filled from it and emptied onto it."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select

from deepgps.errors import DeepGPSError
from deepgps.results.folder import RECORDS_FILE, REPORT_FILE
from deepgps.results.image_files import EXTENSIONS, IMAGES
from deepgps.results.records import read_records
from deepgps.results.report import MAX_CARDS, write_report
from deepgps.results.run import RUN_FILE
from deepgps.results.table import Record, json_line
from opengps.database import Sessions
from opengps.settings import Settings
from opengps.shelf import Shelf, job_key, shelf_of
from opengps.tables import Job, Row

# No turn lasts as long: what is older was left by a worker that was killed.
_LEFT_S = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a turn writes.

    Attributes
    ----------
    folder
        The folder, as `deepgps.results` knows it.
    shelf, key
        Where it belongs; no shelf where it is there already.
    """

    folder: Path
    shelf: Shelf | None
    key: str

    def keep(self, records: Iterable[Record], *, first: bool) -> None:
        """Bring the images of finished rows to the shelf, before the database tells of the rows.

        Parameters
        ----------
        records
            The rows.
        first
            Whether they are the job's first; the run record, which says what may go on from them, goes along.
        """
        self._put([*([RUN_FILE] if first else []), *image_names(records)])

    def finish(self) -> None:
        """Bring the report to the shelf, with the images of earlier turns in it."""
        if self.shelf is None:
            return
        records = islice(read_records(self.folder / RECORDS_FILE), MAX_CARDS)
        missing = [name for name in image_names(records) if not (self.folder / name).exists()]
        if missing:
            self.shelf.fetch({f"{self.key}/{name}": self.folder / name for name in missing})
            write_report(self.folder)
        self._put([RUN_FILE, REPORT_FILE])

    def _put(self, names: Iterable[str]) -> None:
        files = {f"{self.key}/{name}": self.folder / name for name in names}
        if self.shelf is not None and files:
            self.shelf.put(files)


def image_names(records: Iterable[Record]) -> Iterator[str]:
    """Name the images of rows, relative to their job's folder."""
    for record in records:
        if name := record["images"]:
            # The name comes from a file that anyone may have edited: it must stay in its folder.
            yield from (f"{IMAGES}/{Path(name + extension).name}" for extension in EXTENSIONS)


@contextmanager
def workplace(sessions: Sessions, settings: Settings, job: Job) -> Iterator[Workplace]:
    """Give a turn its folder, with what earlier turns finished.

    Raises
    ------
    DeepGPSError
        Where one is raised inside, naming the job in place of the folder.
    """
    shelf, key = shelf_of(settings), job_key(job.id)
    if shelf.folder is not None:
        folder = shelf.folder / key
        folder.mkdir(parents=True, exist_ok=True)
        with _naming(folder, job.id):
            yield Workplace(folder, None, key)
        return
    scratch = settings.data / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=scratch) as made, _naming(made, job.id):
        folder = Path(made)
        _lay_out(sessions, shelf, job, folder)
        yield Workplace(folder, shelf, key)


def _lay_out(sessions: Sessions, shelf: Shelf, job: Job, folder: Path) -> None:
    """Write what the next turn goes on from: the rows that the database has, and the run record."""
    shelf.fetch({f"{job_key(job.id)}/{RUN_FILE}": folder / RUN_FILE})
    if not (folder / RUN_FILE).exists():
        # It is brought to the shelf before the first row.
        return
    rows = select(Row.record).where(Row.job_id == job.id).order_by(Row.number)
    with sessions() as session, (folder / RECORDS_FILE).open("wb") as file:
        for record in session.scalars(rows.execution_options(yield_per=200)):
            file.write(json_line(record))


@contextmanager
def _naming(folder: Path | str, job_id: str) -> Iterator[None]:
    try:
        yield
    except DeepGPSError as error:
        raise type(error)(str(error).replace(str(folder), job_id)) from None


def sweep_scratch(settings: Settings) -> None:
    """Remove what workers of this machine left that were killed."""
    for left in (settings.data / "scratch").glob("*"):
        if left.stat().st_mtime < time.time() - _LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
