"""A folder of downloaded files: which proteins to fetch, what is there, and what is missing."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from deepgps import __version__
from deepgps.datasets.fetch.download import Client, Download, RefusedError, UnreachableError, sha256_of
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import AppendFile, atomic_path, lock_folder, record_ends, remove_temporary_files

# Headers of a column of ids, in the order of preference.
ANY_ID = ("ensembl_gene_id", "ensg_id", "protein_id", "accession", "uniprot_id", "gene_symbol", "target_name")
ACCESSION = ("accession", "uniprot_id")


@dataclass(frozen=True, slots=True)
class SourceProtein:
    """A protein of a source.

    Attributes
    ----------
    ensg
        Ensembl gene id, without version.
    gene
        Gene symbol, in the source's spelling.
    accession
        UniProt accession, or "".
    """

    ensg: str
    gene: str
    accession: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """All that it may be called, in upper case."""
        return frozenset({self.ensg.upper(), self.gene.upper(), self.accession.upper()} - {""})


def strip_version(text: str) -> str:
    """Ensembl gene id without its version: ``ENSG00000184743.12`` is ``ENSG00000184743``."""
    return text.strip().partition(".")[0]


def read_ids(path: Path, columns: Sequence[str] = ANY_ID) -> list[str]:
    """Read the ids in a file: one a line, or a column of a CSV or TSV table, each once, in their order.

    The column is the first of the named ones that there is, else the table's first. Empty lines and those
    that begin with ``#`` are passed over.

    Raises
    ------
    InputError
        If it is no text, or there is no id in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is not text; give a file with one protein id a line.") from None
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    header = [cell.lower() for cell in rows[0]] if rows else []
    known = [header.index(name) for name in columns if name in header]
    column = known[0] if known else 0
    ids = [row[column] for row in rows[bool(known) :] if len(row) > column and row[column]]
    if not ids:
        raise InputError(f"'{path}' holds no protein id; write one a line.")
    return list(dict.fromkeys(ids))


def match_ids(
    targets: Iterable[SourceProtein], ids: Iterable[str] | None
) -> tuple[list[SourceProtein], list[str]]:
    """Keep the targets that ids stand for, and list the ids that stand for none; all without ids."""
    targets = list(targets)
    if ids is None:
        return targets, []
    wanted = {
        strip_version(each).upper() if each.upper().startswith("ENSG") else each.upper(): each for each in ids
    }
    chosen = [target for target in targets if target.ids & set(wanted)]
    found = frozenset[str]().union(*(target.ids for target in chosen))
    return chosen, [each for key, each in wanted.items() if key not in found]


def _key(name: str) -> str:
    return strip_version(name).upper() if name.upper().startswith("ENSG") else name.upper()


MANIFEST, FIELDS, PROBLEMS = "manifest.json", "fields.csv", "problems.csv"
JOURNAL = ".deepgps.journal"
FIELD_COLUMNS = (
    "field",
    "source",
    "ensembl_gene_id",
    "gene_symbol",
    "accession",
    "cell_line",
    "nucleus",
    "nucleus_channel",
    "protein",
    "protein_channel",
    "pixel_size_um",
    "note",
)
PROBLEM_COLUMNS = ("source", "protein", "file", "url", "reason")

Row = dict[str, str]


class DownloadFolder:
    """A folder of files as their sources have them; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; made if missing.
    source
        What is fetched: ``opencell``, ``hpa``, ``structures`` or ``sequences``. One folder may hold several.
    parameters
        What was asked for; it goes into the manifest.

    Attributes
    ----------
    files
        What is there, by path in the folder.
    absent
        What its server refuses to give, by URL, with the status.
    problems
        Rows of ``problems.csv``, of this source.

    Raises
    ------
    InputError
        If the path is a file, or another process writes to the folder.
    """

    def __init__(self, path: Path, source: str, parameters: Mapping[str, Any]) -> None:
        self.path, self.source = path, source
        if path.exists() and not path.is_dir():
            raise InputError(f"'{path}' is a file; give --out a folder.")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(path)
        self.problems: list[Row] = []
        try:
            self._begin(parameters)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, parameters: Mapping[str, Any]) -> None:
        remove_temporary_files(self.path)
        self._document = _read_manifest(self.path)
        self._document["deepgps"] = __version__
        self._document["fetched"][self.source] = {"complete": False, **parameters}
        self.files = {name: Download(**file) for name, file in self._document["files"].items()}
        self.absent: dict[str, int] = self._document["absent"]
        self._replay()
        self._write_manifest()
        self._journal = AppendFile(self.path / JOURNAL)

    def has(self, name: str, size: int | None = None) -> bool:
        """Tell whether a file is there, of the size recorded and of the one wanted."""
        file = self.files.get(name)
        if file is None or (size is not None and file.bytes != size):
            return False
        try:
            return (self.path / name).stat().st_size == file.bytes
        except OSError:
            return False

    def add(self, name: str, file: Download) -> None:
        """Record a file as there."""
        self.files[name] = file
        self._note({"name": name, **asdict(file)})

    def lack(self, url: str, status: int) -> None:
        """Record that a server refuses a file, so that a later fetch need not ask again."""
        self.absent[url] = status
        self._note({"absent": url, "status": status})

    def problem(self, protein: str, file: str, url: str, reason: str) -> None:
        """Note what could not be had, and why."""
        values = (self.source, protein, file, url, reason)
        self.problems.append(dict(zip(PROBLEM_COLUMNS, values, strict=True)))

    def finish(self, fields: Iterable[Row] | None = None) -> None:
        """Write ``fields.csv`` (rows of earlier fetches stay), ``problems.csv`` and the manifest."""
        if fields is not None:
            rows = {(row["source"], row["field"]): row for row in (*_read(self.path / FIELDS), *fields)}
            write_rows(self.path / FIELDS, FIELD_COLUMNS, [rows[key] for key in sorted(rows)])
        self._write_problems()
        self._document["fetched"][self.source]["complete"] = True

    def _write_problems(self) -> None:
        others = [row for row in _read(self.path / PROBLEMS) if row["source"] != self.source]
        if rows := [*others, *self.problems]:
            write_rows(self.path / PROBLEMS, PROBLEM_COLUMNS, rows)
        else:
            (self.path / PROBLEMS).unlink(missing_ok=True)

    def _note(self, line: Mapping[str, Any]) -> None:
        self._journal.append(json.dumps(line).encode() + b"\n")

    def _replay(self) -> None:
        """Read what a killed fetch had noted since its manifest."""
        journal, start = self.path / JOURNAL, 0
        content = journal.read_bytes() if journal.exists() else b""
        for end in record_ends(journal, quoted=False):
            line, start = json.loads(content[start:end]), end
            if "absent" in line:
                self.absent[line["absent"]] = line["status"]
            else:
                name = line.pop("name")
                self.files[name] = Download(**line)

    def _write_manifest(self) -> None:
        self._document["files"] = {name: asdict(self.files[name]) for name in sorted(self.files)}
        with atomic_path(self.path / MANIFEST) as draft:
            draft.write_text(json.dumps(self._document, indent=1) + "\n", encoding="utf-8")
        (self.path / JOURNAL).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        try:
            # After a failure the journal holds what the manifest lacks; on a full disk it stays so.
            if kind is None:
                self._write_manifest()
        finally:
            os.close(self._lock)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        return {"deepgps": __version__, "fetched": {}, "files": {}, "absent": {}}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if {"fetched", "files", "absent"} <= set(document):
            return dict(document)
    except ValueError:
        pass
    raise InputError(f"'{path}' is not the manifest of a fetch; use another --out.")


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[Row]) -> None:
    """Write a CSV table, whole or not at all."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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
class FetchSummary:
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
class RemoteFile:
    """A file to be had: its place in the folder, its address, its size where known, whose it is."""

    name: str
    url: str
    protein: str = ""
    size: int | None = None


class Fetcher:
    """Gets files into a folder, once each, and keeps the account of it."""

    def __init__(self, raw: DownloadFolder, client: Client, progress: Progress) -> None:
        self.raw, self.client, self.progress = raw, client, progress
        self.account = FetchSummary()
        self._in_a_row = 0

    def table(self, name: str, url: str) -> bytes:
        """Get a file that nothing goes without."""
        file = RemoteFile(name, url)
        self.enter(file, self.get(file))
        return (self.raw.path / name).read_bytes()

    def get(self, file: RemoteFile) -> Result:
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

    def enter(self, file: RemoteFile, result: Result) -> None:
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

    def settle(self, file: RemoteFile, result: Result) -> bool:
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

    def failed(self, file: RemoteFile, error: RefusedError | UnreachableError) -> None:
        """Note a file that a further try may get."""
        self.raw.problem(file.protein, file.name, file.url, str(error))
        self.account.failed += 1
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_IN_A_ROW:
            raise UnreachableError(
                f"{error} So it was with {self._in_a_row} files in a row; try again later."
            )

    def all(self, what: str, files: Sequence[RemoteFile]) -> Iterator[RemoteFile]:
        """Get many files at once; yield those that are there, as they come."""
        self.progress.begin(what, len(files))
        # Closed at once when this fails, or its threads would write on in a folder already unlocked.
        with closing(self.client.each(self.get, files)) as results:
            for file, result in results:
                there = self.settle(file, result)
                self.progress.advance()
                if there:
                    yield file

    def finish(
        self, rows: list[Row] | None, proteins: Iterable[str], unknown: Iterable[str] = ()
    ) -> FetchSummary:
        """Write what the folder says of itself."""
        for name in unknown:
            self.raw.problem(name, "", "", "no such protein in the source")
            self.account.unknown.append(name)
        self.raw.finish(rows)
        self.account.fields, self.account.problems = len(rows or ()), self.raw.problems
        self.account.proteins = len(set(proteins))
        return self.account


def select_proteins(
    targets: list[SourceProtein], ids: Sequence[str] | None, where: str
) -> tuple[list[SourceProtein], list[str]]:
    """Keep the targets that ids stand for, and list the ids that stand for none.

    Raises
    ------
    InputError
        If no target is left.
    """
    chosen, unknown = match_ids(targets, ids)
    if not chosen:
        raise InputError(f"None of the {len(unknown):,} proteins asked for is in {where}; check their ids.")
    return chosen, unknown
