"""What every fetch does: get files once each, keep the account, note what could not be had."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from deepgps.datasets.fetch.download import Client, Download, RefusedError, UnreachableError, sha256_of
from deepgps.datasets.fetch.raw import RawFolder, Row
from deepgps.datasets.fetch.wanted import Target, choose
from deepgps.errors import DeepGPSError, InputError

FAILURES_IN_A_ROW = 10
Result = Download | RefusedError | UnreachableError | None


class Progress(Protocol):
    """What a fetch tells while it runs; bytes are told from any thread."""

    def begin(self, what: str, total: int | None) -> None:
        """Begin a stage: what is counted, and how many are expected."""

    def advance(self) -> None:
        """Count one as done."""

    def add_bytes(self, count: int) -> None:
        """Count bytes as they arrive."""


@dataclass(slots=True)
class Fetched:
    """What a fetch did.

    Attributes
    ----------
    proteins, fields
        Proteins with something to show for it; rows of ``fields.csv`` (0 for structures and sequences).
    new, bytes
        Files fetched by this call and their size.
    kept
        Files that were there already.
    problems
        Rows of ``problems.csv``.
    failed
        Files that a further try may get.
    unknown
        Ids that stand for nothing in the source.
    """

    proteins: int = 0
    fields: int = 0
    new: int = 0
    bytes: int = 0
    kept: int = 0
    problems: list[Row] = field(default_factory=list)
    failed: int = 0
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class File:
    """A file to be had: its place in the folder, its address, its size where known, whose it is."""

    name: str
    url: str
    protein: str = ""
    size: int | None = None


class Fetch:
    """Gets files into a folder, once each, and keeps the account of it."""

    def __init__(self, raw: RawFolder, client: Client, progress: Progress) -> None:
        self.raw, self.client, self.progress = raw, client, progress
        self.account = Fetched()
        self._in_a_row = 0

    def table(self, name: str, url: str) -> bytes:
        """Get a file that nothing goes without."""
        file = File(name, url)
        self.enter(file, self.get(file))
        return (self.raw.path / name).read_bytes()

    def get(self, file: File) -> Result:
        """Get a file; None if it is there already. Runs on any thread."""
        if self.raw.has(file.name, file.size):
            return None
        if status := self.raw.absent.get(file.url):
            return RefusedError(file.url, status)
        path = self.raw.path / file.name
        try:
            if file.name not in self.raw.files and path.exists() and file.size in (None, path.stat().st_size):
                # Killed between the file and its record.
                return Download(file.url, sha256_of(path), path.stat().st_size)
            return self.client.download(file.url, path, size=file.size, on_bytes=self.progress.add_bytes)
        except (RefusedError, UnreachableError) as error:
            return error

    def enter(self, file: File, result: Result) -> None:
        """Enter a result into the account.

        Raises
        ------
        RefusedError, UnreachableError
            If it is one.
        """
        if isinstance(result, RefusedError) and result.gone:
            self.raw.lack(file.url, result.status)
        if isinstance(result, DeepGPSError):
            raise result
        self._in_a_row = 0
        if result is None:
            self.account.kept += 1
            return
        self.account.new += 1
        self.account.bytes += result.bytes
        self.raw.add(file.name, result)

    def settle(self, file: File, result: Result) -> bool:
        """Enter a result; tell whether the file is there. What is not becomes a problem.

        Raises
        ------
        UnreachableError
            After ten files in a row that could not be had.
        """
        try:
            self.enter(file, result)
        except (RefusedError, UnreachableError) as error:
            if isinstance(error, RefusedError) and error.gone:
                reason = f"withdrawn or never there (status {error.status})"
                self.raw.problem(file.protein, file.name, file.url, reason)
            else:
                self.failed(file, error)
            return False
        return True

    def failed(self, file: File, error: RefusedError | UnreachableError) -> None:
        """Note a file that a further try may get."""
        self.raw.problem(file.protein, file.name, file.url, str(error))
        self.account.failed += 1
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise UnreachableError(
                f"{error} So it was with {self._in_a_row} files in a row; try again later."
            )

    def all(self, what: str, files: Sequence[File]) -> Iterator[File]:
        """Get many files at once; yield those that are there, as they come."""
        self.progress.begin(what, len(files))
        # Closed at once when this fails, or its threads would write on in a folder already unlocked.
        with closing(self.client.each(self.get, files)) as results:
            for file, result in results:
                there = self.settle(file, result)
                self.progress.advance()
                if there:
                    yield file

    def finish(self, rows: list[Row] | None, proteins: Iterable[str], unknown: Iterable[str] = ()) -> Fetched:
        """Write what the folder says of itself."""
        for name in unknown:
            self.raw.problem(name, "", "", "no such protein in the source")
            self.account.unknown.append(name)
        self.raw.finish(rows)
        self.account.fields, self.account.problems = len(rows or ()), self.raw.problems
        self.account.proteins = len(set(proteins))
        return self.account


def chosen_targets(
    targets: list[Target], ids: Sequence[str] | None, where: str
) -> tuple[list[Target], list[str]]:
    """Keep the targets that ids stand for, and list the ids that stand for none.

    Raises
    ------
    InputError
        If no target is left.
    """
    chosen, unknown = choose(targets, ids)
    if not chosen:
        raise InputError(f"None of the {len(unknown):,} proteins asked for is in {where}; check their ids.")
    return chosen, unknown
