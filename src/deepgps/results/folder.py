"""The folder of one run: locked while it is written, and continued by a later, identical call."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from deepgps.errors import InputError
from deepgps.files import AppendFile, lock_folder, offset_after, remove_temporary_files
from deepgps.images.cell import Cell
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.exports import EXPORTED_FILES
from deepgps.results.image_storage import IMAGE_STORE, ImageFolder, ImageStore, remove_images
from deepgps.results.records import (
    DELIMITERS,
    Record,
    ResultRow,
    json_line,
    parse_record,
    read_records,
    sequence_sha256,
    table_columns,
    table_line,
    table_row,
)
from deepgps.results.ro_crate import CRATE_FILE
from deepgps.results.run import (
    RUN_FILE,
    PredictionRun,
    check_same_run,
    now,
    package_versions,
    read_run,
    write_run,
)

RECORDS_FILE = "results.jsonl"
REJECTED_FILE = "rejected.csv"
REJECTED_COLUMNS = ("Protein_ID", "Source", "Reason")
REPORT_FILE = "report.html"
_SYNC_S = 1.0
TABLES = ("results.csv", "results.tsv", *EXPORTED_FILES)


class ResultsFolder:
    """A folder that holds the results of one run; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; made if missing.
    run
        What is going to be written.
    cells
        The cells that are drawn into.
    overwrite
        Remove an earlier run's files (nothing else) and start again.

    Attributes
    ----------
    resumed
        Proteins whose results an earlier call completed.
    predicted, rejected
        Proteins with results, and records without, so far.

    Raises
    ------
    InputError
        If another process writes to the folder, or it holds results of another run.
    """

    def __init__(
        self, path: Path, run: PredictionRun, cells: Sequence[Cell] = (), *, overwrite: bool = False
    ) -> None:
        self.path, self.run = path, run
        self._lock = create_locked_folder(path)
        try:
            self._open(cells, overwrite=overwrite)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, cells: Sequence[Cell], *, overwrite: bool) -> None:
        if overwrite:
            remove_results(self.path)
        earlier = read_run(self.path)
        self._document = {
            **self.run.document(),
            "packages": package_versions(),
            "started": now(),
            "finished": None,
        }
        if earlier is None:
            check_no_results(self.path, (*TABLES, RECORDS_FILE, IMAGE_STORE))
        else:
            check_same_run(self.path, earlier, self._document)
            self._document["started"] = earlier.get("started", self._document["started"])
        remove_temporary_files(self.path)
        for name in (REJECTED_FILE, *EXPORTED_FILES, CRATE_FILE):
            (self.path / name).unlink(missing_ok=True)
        self.predicted = self.rejected = self.resumed = 0
        self._synced = time.monotonic()
        self._records: AppendFile | None = None
        self._table: AppendFile | None = None
        self._rejections: AppendFile | None = None
        # Before the tables: a table without a run record would be taken for somebody else's.
        self.write_run_record()
        self._check_records(self._open_images(cells))
        self._open_tables()
        self.predicted, self._rows = self.resumed, self.resumed * self.run.rows_per_protein
        self._images = self._open_images(cells)
        if isinstance(self._images, ImageStore):
            self._images.cut(self._rows)

    def _open_images(self, cells: Sequence[Cell]) -> ImageFolder | ImageStore | None:
        if not self.run.images:
            return None
        if self.run.image_format == "zarr":
            return ImageStore(self.path, cells, mean=self.run.mean)
        return ImageFolder(self.path, several_cells=len(cells) > 1)

    def _check_records(self, images: ImageFolder | ImageStore | None) -> None:
        """Find the proteins with complete results: the first ones, up to a line that is not as it must be."""
        step = self.run.rows_per_protein
        self.resumed = 0
        self._damaged: set[int] = set()
        """Numbers of the finished proteins whose images are missing or cut off."""
        self._drawn_again: deque[tuple[int, Record]] = deque()
        """The rows of those that are being drawn again, in the order in which they will be written."""
        path, group = self.path / RECORDS_FILE, list[Record]()
        with path.open("rb") if path.exists() else BytesIO() as lines:
            for line in lines:
                row = self.resumed * step + len(group)
                record = parse_record(line) if line.endswith(b"\n") else None
                if record is None or not self._is_valid(record, row, group, images):
                    return
                group.append(record)
                if len(group) == step:
                    self.resumed, group = self.resumed + 1, []

    def _is_valid(
        self, record: Record, row: int, earlier: Sequence[Record], images: ImageFolder | ImageStore | None
    ) -> bool:
        """Return whether a record is what this run writes in a row, and note whether its images are there.

        Parameters
        ----------
        record
            The record.
        row
            Its row.
        earlier
            The records of the same protein in other cells.
        images
            Where its images are.

        Returns
        -------
        bool
            Whether it is kept.
        """
        run = self.run
        nucleus = run.nuclei[row % run.rows_per_protein][0] if run.images else None
        name = images.skip(record) if images else None
        of_protein = ("protein_id", "sequence_sha256", "length")
        probabilities = record["probabilities"]
        if isinstance(images, ImageStore) and row >= images.rows:
            return False
        if images and name is not None and not images.has(row, name):
            self._damaged.add(row // run.rows_per_protein)
        return (
            (record["model"], record["version"]) == (run.model, run.version)
            and set(run.classes) <= set(probabilities)
            and all(0 <= value <= 1 for value in probabilities.values())
            and (record["nucleus"], record["images"]) == (nucleus, name)
            and all(record[key] == other[key] for other in earlier for key in of_protein)  # type: ignore[literal-required]
        )

    def _open_tables(self) -> None:
        """Cut the files back to the last protein that is complete in all of them, and open them to append."""
        records = self.path / RECORDS_FILE
        table = self.path / f"results.{self.run.table}" if self.run.table in DELIMITERS else None
        kept = self._check_table(table) if table is not None else 0
        rows = self.resumed * self.run.rows_per_protein
        self._records = AppendFile(records, offset_after(records, rows, quoted=False))
        if table is not None:
            self._table = AppendFile(table, kept)
            if not kept:
                self._table.append(table_line(table_columns(self.run.classes), self._delimiter))

    def _check_table(self, path: Path) -> int:
        """Find the proteins whose lines are as the records say; return the bytes of header and lines."""
        step, end, kept, complete = self.run.rows_per_protein, 0, 0, 0
        with path.open("rb") if path.exists() else BytesIO() as table:
            for number, line in enumerate(self._table_lines(self.resumed * step)):
                if table.read(len(line)) != line:
                    break
                end += len(line)
                if number % step == 0:
                    kept, complete = end, number // step
        self.resumed = complete
        return kept

    def _table_lines(self, rows: int) -> Iterator[bytes]:
        """Yield the header and the lines of the first rows, made anew from their records."""
        yield table_line(table_columns(self.run.classes), self._delimiter)
        for record in islice(read_records(self.path / RECORDS_FILE), rows):
            yield table_line(table_row(record, self.run.classes), self._delimiter)

    @property
    def _delimiter(self) -> str:
        return DELIMITERS.get(self.run.table, ",")

    def skip_finished(
        self, proteins: Iterator[Protein], on_protein: Callable[[str], None] | None = None
    ) -> Iterator[Protein]:
        """Skip the proteins whose results are complete, and yield the others, and those to draw again.

        Parameters
        ----------
        proteins
            All proteins of the input.
        on_protein
            Called with the id of each skipped protein.

        Yields
        ------
        Protein
            A protein to predict.

        Raises
        ------
        InputError
            If the earlier results were made from another input.
        """
        step, records = self.run.rows_per_protein, read_records(self.path / RECORDS_FILE)
        for number in range(self.resumed):
            rows = list(islice(records, step))
            if self._images:
                for each in rows:
                    self._images.skip(each)
            protein, record = next(proteins, None), rows[0]
            expected = record["protein_id"], record["sequence_sha256"]
            if protein is None or (protein.id, sequence_sha256(protein.sequence)) != expected:
                raise InputError(
                    f"'{self.path}' holds results of '{record['protein_id']}' from another input; "
                    "use --overwrite to start again, or another --out."
                )
            if number in self._damaged:
                self._drawn_again.extend(enumerate(rows, start=number * step))
                yield protein
            elif on_protein:
                on_protein(record["protein_id"])
        yield from proteins

    @property
    def batch_size(self) -> int:
        """Rows to write at once."""
        return self._images.batch_size if self._images else 1

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Write further rows, images first: a row on disk means that its images are there."""
        rows = list(rows)
        while self._images and self._drawn_again and rows:
            row, finished = self._drawn_again.popleft()
            again = rows.pop(0)
            assert again.record["protein_id"] == finished["protein_id"]
            self._images.write_again(row, finished["images"] or "", again.image)
        if not rows:
            return
        if self._images:
            self._images.write(rows)
        for record, _ in rows:
            assert self._records is not None
            self._records.append(json_line(record))
            if self._table is not None:
                self._table.append(table_line(table_row(record, self.run.classes), self._delimiter))
            self._rows += 1
            self.predicted = self._rows // self.run.rows_per_protein
        if time.monotonic() - self._synced > _SYNC_S:
            self._sync()

    def _sync(self) -> None:
        """Return when all rows are on the disk."""
        for file in (self._records, self._table):
            if file is not None:
                file.sync()
        self._synced = time.monotonic()

    def write_rejection(self, rejection: Rejection) -> None:
        """List a record that could not be used."""
        if self._rejections is None:
            self._rejections = AppendFile(self.path / REJECTED_FILE)
            self._rejections.append(table_line(REJECTED_COLUMNS))
        self._rejections.append(rejection_line(rejection))
        self.rejected += 1

    def write_run_record(self, *, finished: bool = False) -> None:
        """Write the present state to ``run.json``, once the rows that it counts are on the disk."""
        self._sync()
        self._document["proteins"] = {"predicted": self.predicted, "rejected": self.rejected}
        self._document["finished"] = now() if finished else None
        write_run(self.path, self._document)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._records, self._table, self._rejections):
            if file is not None:
                file.close()
        os.close(self._lock)


def remove_results(folder: Path) -> None:
    """Remove a run's files, and no others, from a folder."""
    remove_images(folder, folder / RECORDS_FILE)
    for name in (*TABLES, RECORDS_FILE, REJECTED_FILE, REPORT_FILE, CRATE_FILE, RUN_FILE):
        (folder / name).unlink(missing_ok=True)


def rejection_line(rejection: Rejection) -> bytes:
    """Return a line of ``rejected.csv``."""
    return table_line([rejection.id, rejection.source, rejection.reason])


def create_locked_folder(folder: Path) -> int:
    """Make a folder, if it is missing, and lock it for this process; see `lock_folder`.

    Returns
    -------
    int
        File descriptor that holds the lock.

    Raises
    ------
    InputError
        If it is a file, or in use.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file; give --out a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return lock_folder(folder)


def check_no_results(folder: Path, names: Iterable[str]) -> None:
    """Check that a folder without a run record has no files of the given names.

    Raises
    ------
    InputError
        If it has; it names the first of them.
    """
    for name in names:
        if (folder / name).exists():
            raise InputError(
                f"'{folder}' holds {name} but no {RUN_FILE} to continue from; "
                "use --overwrite to start again, or another --out."
            )
