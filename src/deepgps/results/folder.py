"""One run's folder: locked while it is written, resumed when it was left, refused when it is another's."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deepgps.errors import InputError
from deepgps.files import AppendFile, lock_folder, offset_after, record_ends, remove_temporary_files
from deepgps.images.cell import Cell
from deepgps.proteins.protein import Protein, Rejection
from deepgps.results.image_array import STORE, ImageArray, remove_store
from deepgps.results.image_files import ImageFiles, remove_images
from deepgps.results.records import read_records
from deepgps.results.rows import Row
from deepgps.results.run import RUN_FILE, Run, check_same, now, packages, read_run, write_run
from deepgps.results.table import DELIMITERS, cells, columns, json_line, sequence_sha256, table_line

RECORDS_FILE = "results.jsonl"
PARQUET_FILE = "results.parquet"
REJECTED_FILE = "rejected.csv"
REJECTED_COLUMNS = ("Protein_ID", "Source", "Reason")
REPORT_FILE = "report.html"
TABLES = ("results.csv", "results.tsv", PARQUET_FILE)


class RunFolder:
    """A folder that holds the results of one run; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; made if missing.
    run
        What is going to be written.
    nuclei
        The nuclei that are drawn into.
    overwrite
        Remove an earlier run's files (nothing else) and start anew.

    Attributes
    ----------
    done
        Proteins whose results an earlier call left complete.
    predicted, rejected
        Proteins with results, and records without, so far.

    Raises
    ------
    InputError
        If another process writes to the folder, or it holds results of another run.
    """

    def __init__(self, path: Path, run: Run, cells: Sequence[Cell] = (), *, overwrite: bool = False) -> None:
        self.path, self.run = path, run
        self._lock = claim(path)
        try:
            self._begin(cells, overwrite=overwrite)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, cells: Sequence[Cell], *, overwrite: bool) -> None:
        if overwrite:
            remove_results(self.path)
        earlier = read_run(self.path)
        self._document = {**self.run.document(), "packages": packages(), "started": now(), "finished": None}
        if earlier is None:
            check_free(self.path, (*TABLES, RECORDS_FILE, STORE))
        else:
            check_same(self.path, earlier, self._document)
            self._document["started"] = earlier.get("started", self._document["started"])
        remove_temporary_files(self.path)
        for name in (REJECTED_FILE, PARQUET_FILE):
            (self.path / name).unlink(missing_ok=True)
        self.rejected = 0
        self._rejections: AppendFile | None = None
        self.predicted = 0
        # Before the tables: a table without a run record would be taken for somebody else's.
        self.record_run()
        self._open_tables()
        self.predicted = self.done
        self._rows = self.done * self.run.rows_per_protein
        self._images = self._open_images(cells)

    def _open_tables(self) -> None:
        """Cut the files back to the last protein that is whole in all of them, and open them to append."""
        records = self.path / RECORDS_FILE
        table = self.path / f"results.{self.run.table}" if self.run.table in DELIMITERS else None
        rows = sum(1 for _ in record_ends(records, quoted=False))
        if table is not None:
            rows = min(rows, max(0, sum(1 for _ in record_ends(table, quoted=True)) - 1))
        self.done = rows // self.run.rows_per_protein
        rows = self.done * self.run.rows_per_protein
        self._records = AppendFile(records, offset_after(records, rows, quoted=False))
        self._table: AppendFile | None = None
        if table is not None:
            header = table_line(columns(self.run.classes), self._delimiter)
            kept = offset_after(table, rows + 1, quoted=True) if rows else 0
            self._table = AppendFile(table, kept)
            if not rows:
                self._table.append(header)

    def _open_images(self, cells: Sequence[Cell]) -> ImageFiles | ImageArray | None:
        if not self.run.images:
            return None
        if self.run.image_format == "files":
            return ImageFiles(self.path, len(cells))
        return ImageArray(self.path, cells, self._rows, mean=self.run.mean)

    @property
    def _delimiter(self) -> str:
        return DELIMITERS.get(self.run.table, ",")

    def undone(
        self, proteins: Iterator[Protein], on_done: Callable[[str], None] | None = None
    ) -> Iterator[Protein]:
        """Pass over the proteins whose results are complete, and hold them against the earlier input.

        Parameters
        ----------
        proteins
            All proteins of the input.
        on_done
            Called with the id of each that is passed over.

        Raises
        ------
        InputError
            If the input is not the one the earlier results were made from.
        """
        step = self.run.rows_per_protein
        for number, record in enumerate(read_records(self.path / RECORDS_FILE)):
            if number >= self.done * step:
                break
            if self._images:
                self._images.pass_over(record)
            if number % step:
                continue
            if _identity(record) != _identity(next(proteins, None)):
                raise InputError(
                    f"'{self.path}' holds results of '{record['protein_id']}' from another input; "
                    "use --overwrite to start anew, or another --out."
                )
            if on_done:
                on_done(record["protein_id"])
        yield from proteins

    @property
    def room(self) -> int:
        """Rows to add at once."""
        return self._images.room if self._images else 1

    def add(self, rows: Sequence[Row]) -> None:
        """Write further rows, images first: a row on disk means that its images are there."""
        if self._images:
            self._images.write(rows)
        for record, _ in rows:
            self._records.append(json_line(record))
            if self._table is not None:
                self._table.append(table_line(cells(record, self.run.classes), self._delimiter))
            self._rows += 1
            self.predicted = self._rows // self.run.rows_per_protein

    def reject(self, rejection: Rejection) -> None:
        """List a record that could not be used."""
        if self._rejections is None:
            self._rejections = AppendFile(self.path / REJECTED_FILE)
            self._rejections.append(table_line(REJECTED_COLUMNS))
        self._rejections.append(rejected_line(rejection))
        self.rejected += 1

    def record_run(self, *, finished: bool = False) -> None:
        """Bring ``run.json`` up to date."""
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
    remove_store(folder)
    for name in (*TABLES, RECORDS_FILE, REJECTED_FILE, REPORT_FILE, RUN_FILE):
        (folder / name).unlink(missing_ok=True)


def _identity(thing: Any) -> tuple[str, str] | None:
    if thing is None:
        return None
    if isinstance(thing, Protein):
        return thing.id, sequence_sha256(thing.sequence)
    return thing["protein_id"], thing["sequence_sha256"]


def rejected_line(rejection: Rejection) -> bytes:
    """One line of ``rejected.csv``."""
    return table_line([rejection.id, rejection.source, rejection.reason])


def claim(folder: Path) -> int:
    """Make a folder, if it is missing, and lock it for this process, see `lock_folder`.

    Raises
    ------
    InputError
        If it is a file, or in use.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file; give --out a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return lock_folder(folder)


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder without a run record that holds files of ours, or of somebody else's, by these names.

    Raises
    ------
    InputError
        Naming the first of them.
    """
    for name in names:
        if (folder / name).exists():
            raise InputError(
                f"'{folder}' holds a {name} but no {RUN_FILE} to continue from; "
                "use --overwrite to start anew, or another --out."
            )
