"""Progress bars and messages on stderr, tables and summaries on stdout."""

import gzip
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from deepgps.errors import InputError

if TYPE_CHECKING:
    from deepgps.proteins.protein import Protein, Rejection
    from deepgps.results.predict import ResultsSummary
    from deepgps.results.records import Record

MAX_PRINTED_ROWS = 12
MAX_MESSAGES = 10
RESUMABLE = "Finished work is kept: the same command continues."


class ProgressBar:
    """A progress bar with the time left, where stderr is a terminal; use it in a ``with`` block.

    Parameters
    ----------
    description
        What is being done.
    total
        Number of steps; None if not known yet.
    unit
        What is counted, shown behind the count; ``%`` shows a percentage instead.
    megabytes
        Whether to show the bytes of `add_bytes`.
    """

    def __init__(
        self, description: str, total: int | None = None, *, unit: str = "", megabytes: bool = False
    ) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        columns.append(TaskProgressColumn() if unit == "%" else MofNCompleteColumn())
        if megabytes:
            columns.append(TextColumn("{task.fields[megabytes]:.1f} MB"))
        elif unit not in ("", "%"):
            columns.append(TextColumn(unit))
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            transient=not megabytes,
            disable=not self._console.is_terminal,
        )
        self.resumable = False
        """Whether an interrupted run could be continued; set as soon as something is finished."""
        self._bytes = self._messages = 0
        self._stages = {description: self._progress.add_task(description, total=total, megabytes=0.0)}
        self._task = self._stages[description]

    def begin(self, description: str, total: int | None) -> None:
        """Begin a stage with a bar of its own, or return to it."""
        if description not in self._stages:
            self._bytes = 0
            self._stages[description] = self._progress.add_task(description, total=total, megabytes=0.0)
        self._task = self._stages[description]

    def set_total(self, total: int) -> None:
        """Set the number of steps, once it is known."""
        self._progress.update(self._task, total=total)

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        self.resumable = True
        self._progress.advance(self._task, steps)

    def update(self, completed: int) -> None:
        """Set the number of steps that are done."""
        self._progress.update(self._task, completed=completed)

    def add_bytes(self, count: int) -> None:
        """Count bytes as they arrive; from any thread."""
        self._bytes += count
        self._progress.update(self._task, megabytes=self._bytes / 1e6)

    def print(self, message: str) -> None:
        """Print a message above the bar."""
        self._console.print(f"deepgps: {printable(message)}")

    def print_some(self, message: str, most: int = MAX_MESSAGES) -> None:
        """Print a message above the bar, unless `most` such messages were printed already."""
        self._messages += 1
        if self._messages <= most:
            self.print(message)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        # Input that cannot be used will not be usable next time either.
        if kind is not None and self.resumable and not issubclass(kind, InputError):
            self._console.print(RESUMABLE)


class RecordProgress(ProgressBar):
    """A progress bar of protein records, some of which are rejected."""

    rejected = 0

    def count(self, _: str) -> None:
        """Count one record as done."""
        self.advance()

    def reject(self, rejection: "Rejection") -> None:
        """Print why a record is rejected; after a few, only count."""
        self.rejected += 1
        self._progress.advance(self._task)
        self.print_some(rejection.reason)

    def tell_nucleotides(self, proteins: "Iterable[Protein | Rejection]") -> "Iterator[Protein | Rejection]":
        """Yield proteins as they are; print which of them look like DNA, a few at most."""
        from deepgps.proteins.check import nucleotide_note
        from deepgps.proteins.protein import Protein

        for each in proteins:
            if isinstance(each, Protein) and (note := nucleotide_note(each.sequence)):
                self.print_some(f"'{each.id}' {note}.")
            yield each

    def count_all(self, records: "Iterable[Protein | Rejection]") -> "Iterator[Protein]":
        """Yield the proteins among records, and count all; print why one is rejected."""
        from deepgps.proteins.protein import Protein

        for each in records:
            if isinstance(each, Protein):
                self.advance()
                yield each
            else:
                self.reject(each)

    def print_rejected(self, *, listed: bool = True) -> None:
        """Print how many more records were rejected than were printed; `listed`: all are in a file."""
        if self.rejected > MAX_MESSAGES:
            more = self.rejected - MAX_MESSAGES
            self.print(f"{more:,} more records were rejected{'; see rejected.csv' if listed else ''}.")


def exit_code(used: int, rejected: int) -> int:
    """Return 0 if no record was rejected, 3 if some were and others were used, 2 if none could be used."""
    if not rejected:
        return 0
    return 3 if used else 2


def print_summary(summary: "ResultsSummary", *, sort: str | None = None, top: int | None = None) -> None:
    """Print the first rows of a results folder in an order, the counts and the files."""
    from deepgps.cli.table import first_rows
    from deepgps.results.records import read_records

    tally, records = _Tally(), read_records(summary.folder / "results.jsonl")
    counted = tally.count(records)
    most = top or MAX_PRINTED_ROWS
    rows = first_rows(counted, sort, most)
    deque(counted, maxlen=0)
    header = ("Protein", "Localizations", "Confidence", "Known", "Intranuclear", "Nucleus")
    print_table(header, [_cells(row) for row in rows])
    if tally.rows > most:
        print("…")
    if rows and not rows[0]["probabilities"]:
        print("This model draws images and predicts no label.")
    earlier = f" ({summary.resumed:,} by an earlier run)" if summary.resumed else ""
    print(f"{summary.predicted:,} predicted{earlier}, {summary.rejected:,} rejected{tally}")
    print_files(summary.files)


class _Tally:
    """Counts the rows of a table, and its proteins whose prediction is doubtful."""

    def __init__(self) -> None:
        self.rows = self.unclear = self.unlike = 0

    def count(self, records: "Iterable[Record]") -> "Iterator[Record]":
        from deepgps.prediction.prediction import UNCLEAR
        from deepgps.proteins.known import UNLIKE

        first: str | None = None
        for record in records:
            first = record["nucleus"] if not self.rows else first
            self.rows += 1
            if record["nucleus"] == first:  # a protein has a row for each nucleus
                self.unclear += record["localizations"] == [UNCLEAR]
                self.unlike += any(each.startswith(UNLIKE) for each in record["warnings"])
            yield record

    def __str__(self) -> str:
        doubts = [
            f"{count:,} {what}"
            for count, what in ((self.unclear, "unclear"), (self.unlike, "unlike any annotated protein"))
            if count
        ]
        return "".join(f", {each}" for each in doubts)


def print_files(paths: Iterable[Path]) -> None:
    """Print paths, one per line; folders end with a slash."""
    for path in paths:
        print(f"{path}{'/' if path.is_dir() else ''}")


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table: aligned on a terminal, tab-separated otherwise."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (header, *lines)))
        return
    table = Table(*header, box=None, header_style="bold")
    for line in lines:
        table.add_row(*line)
    Console(markup=False).print(table)


def _cells(row: "Record") -> tuple[str, ...]:
    return (
        printable(row["protein_id"]),
        "|".join(row["localizations"]),
        two_digits(row["confidence"]),
        "|".join(row["known"]["localizations"]) if row["known"] else "",
        two_digits(row["intranuclear_fraction"]),
        printable(row["nucleus"] or ""),
    )


def two_digits(value: float | None) -> str:
    """Format a number with two digits; nothing for None."""
    return "" if value is None else f"{value:.2f}"


def printable(text: str) -> str:
    """Replace characters that could control the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def count_records(inputs: Iterable[str], sequence: str | None) -> int | None:
    """Count the records of all inputs for a progress bar; None if unknown, or if no bar is shown."""
    if not sys.stderr.isatty():
        return None
    counts = [_records_in(Path(each)) for each in inputs]
    if None in counts:
        return None
    return sum(count or 0 for count in counts) + (sequence is not None)


def _records_in(path: Path) -> int | None:
    if not path.is_file():
        return None if path.exists() or str(path) == "-" else 1
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as lines:
            return _count(lines)
    except (OSError, EOFError):
        return None


def _count(lines: Iterable[bytes]) -> int:
    """Count headers of FASTA, or else the lines of a table after its header."""
    headers = others = 0
    for line in lines:
        if line.startswith(b">"):
            headers += 1
        else:
            others += bool(line.strip())
    return headers or max(0, others - 1)
