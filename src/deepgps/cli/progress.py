"""What a prediction shows while it runs, on stderr, and when it is done, on stdout."""

import gzip
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deepgps.errors import InputError
from deepgps.proteins.protein import Rejection
from deepgps.results.predict import ResultsSummary
from deepgps.results.records import Record, read_records

SHOWN_ROWS = 12
SHOWN_REJECTIONS = 10


class Console:
    """A progress bar where stderr is a terminal, and the summary afterwards.

    Parameters
    ----------
    total
        Proteins expected, or steps; None if not known.
    doing, unit
        What the bar says.
    """

    def __init__(self, total: int | None, *, doing: str = "predicting", unit: str = "proteins") -> None:
        self._terminal = Terminal(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._progress = Progress(
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            console=self._terminal,
            transient=True,
            disable=not self._terminal.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)
        self._done = self._rejected = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        # Input that cannot be used will not be usable next time either.
        if kind is not None and self._done and not issubclass(kind, InputError):
            self._terminal.print("What is done is kept: the same command continues.")

    def expect(self, total: int) -> None:
        """Say how many there are, once that is known."""
        self._progress.update(self._task, total=total)

    def advance(self, _: str) -> None:
        """Count one protein as done."""
        self._done += 1
        self._progress.advance(self._task)

    def reject(self, rejection: Rejection) -> None:
        """Say why a record is left out; after a few, only count."""
        self._rejected += 1
        self._progress.advance(self._task)
        if self._rejected <= SHOWN_REJECTIONS:
            self._terminal.print(f"deepgps: {printable(rejection.reason)}")

    def count_rejected(self) -> None:
        """Say how many more records were left out than were named."""
        if self._rejected > SHOWN_REJECTIONS:
            more = self._rejected - SHOWN_REJECTIONS
            self._terminal.print(f"deepgps: {more:,} more records were rejected; see rejected.csv.")

    def summarise(self, summary: ResultsSummary) -> None:
        """Print the first rows, the counts and the files."""
        self.count_rejected()
        rows = list(islice(read_records(summary.folder / "results.jsonl"), SHOWN_ROWS + 1))
        _print_rows(rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            print("…")
        if rows and not rows[0]["probabilities"]:
            print("This model draws images and predicts no label.")
        earlier = f" ({summary.resumed:,} by an earlier run)" if summary.resumed else ""
        print(f"{summary.predicted:,} predicted{earlier}, {summary.rejected:,} rejected")
        for path in summary.files:
            print(f"{path}{'/' if path.is_dir() else ''}")


def _print_rows(rows: Sequence[Record]) -> None:
    header = ("Protein", "Localizations", "Confidence", "Intranuclear", "Nucleus")
    print_table(header, [_cells(row) for row in rows])


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table: aligned for a terminal, separated by tabs for everything else."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(line) for line in (header, *lines)))
        return
    table = Table(*header, box=None, header_style="bold")
    for line in lines:
        table.add_row(*line)
    Terminal(markup=False).print(table)


def _cells(row: Record) -> tuple[str, ...]:
    fraction = row["intranuclear_fraction"]
    return (
        printable(row["protein_id"]),
        "|".join(row["localizations"]),
        "" if row["confidence"] is None else f"{row['confidence']:.2f}",
        "" if fraction is None else f"{fraction:.2f}",
        printable(row["nucleus"] or ""),
    )


def printable(text: str) -> str:
    """Keep what a user's file holds from steering the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def record_count(inputs: Iterable[str], sequence: str | None) -> int | None:
    """Count the records of all inputs beforehand; None where that cannot be known, or nobody would see it."""
    if not sys.stderr.isatty():
        return None
    counts = [_records_in(Path(each)) for each in inputs]
    if None in counts:
        return None
    return sum(count or 0 for count in counts) + (sequence is not None)


def _records_in(path: Path) -> int | None:
    if path.exists() and not path.is_file():
        return None
    if not path.is_file():
        return None if str(path) == "-" else 1
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as lines:
            return _count(lines)
    except (OSError, EOFError):
        return None


def _count(lines: Iterable[bytes] | BinaryIO) -> int:
    """Count headers of FASTA, or else the lines of a table after its header."""
    headers = others = 0
    for line in lines:
        if line.startswith(b">"):
            headers += 1
        else:
            others += bool(line.strip())
    return headers or max(0, others - 1)
