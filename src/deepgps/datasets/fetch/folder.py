"""A folder of downloaded files: choose proteins, download what is missing, record files and problems."""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from deepgps import __version__
from deepgps.datasets.fetch.download import Client, Download, RefusedError, UnreachableError
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import AppendFile, atomic_path, hash_file, lock_folder, record_ends, remove_temporary_files
from deepgps.tables import read_table, strict_rows, text_lines

# Names of an id column, in order of preference.
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
        Gene symbol, as the source spells it.
    accession
        UniProt accession, or "".
    """

    ensg: str
    gene: str
    accession: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """All its ids, in upper case."""
        return frozenset({self.ensg.upper(), self.gene.upper(), self.accession.upper()} - {""})


def strip_version(text: str) -> str:
    """Remove the version of an Ensembl gene id: ``ENSG00000184743.12`` becomes ``ENSG00000184743``."""
    return text.strip().partition(".")[0]


def read_ids(path: Path, columns: Sequence[str] = ANY_ID) -> list[str]:
    """Read distinct ids from a file: one per line, or a column of a CSV or TSV table, in order.

    The column is the first of `columns` that the table has, else its first. Empty lines and lines that start
    with ``#`` are skipped.

    Returns
    -------
    list of str
        The ids.

    Raises
    ------
    InputError
        If the file is not text, or contains no id.
    """
    lines = [line for line in text_lines(str(path)) if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise InputError(f"'{path}' contains no protein id; write one per line.")
    table = read_table(lines, name=str(path))
    column = next((name for name in columns if name in table.columns), table.columns[0])
    # Without a known header, the first line is an id, too.
    first = [] if column in columns else [re.split(r"[\t,;]", lines[0])[0].strip(' "\r\n')]
    ids = list(filter(None, [*first, *(row.cells[column] for row in strict_rows(table, path))]))
    if not ids:
        raise InputError(f"'{path}' contains no protein id; write one per line.")
    return list(dict.fromkeys(ids))


def match_ids(
    proteins: Iterable[SourceProtein], ids: Iterable[str] | None
) -> tuple[list[SourceProtein], list[str]]:
    """Return the proteins with one of the ids, and the ids that match none; all proteins if `ids` is None."""
    proteins = list(proteins)
    if ids is None:
        return proteins, []
    requested = {_normalise_id(each): each for each in ids}
    selected = [protein for protein in proteins if protein.ids & set(requested)]
    found = frozenset[str]().union(*(protein.ids for protein in selected))
    return selected, [each for key, each in requested.items() if key not in found]


def _normalise_id(name: str) -> str:
    return strip_version(name).upper() if name.upper().startswith("ENSG") else name.upper()


FETCH_MANIFEST, FIELDS, FETCH_PROBLEMS = "manifest.json", "fields.csv", "problems.csv"
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

CsvRow = dict[str, str]


class DownloadFolder:
    """A folder of unchanged files from their sources, with a manifest; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; created if missing.
    source
        What is downloaded: ``opencell``, ``hpa``, ``structures`` or ``sequences``. A folder may have
        several sources.
    parameters
        Parameters of the download; recorded in the manifest.

    Attributes
    ----------
    files
        Files in the folder, by relative path.
    absent
        HTTP status of files that their server does not have, by URL.
    problems
        Rows of ``problems.csv`` of this source.

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
        self.problems: list[CsvRow] = []
        try:
            self._load(parameters)
        except BaseException:
            os.close(self._lock)
            raise

    def _load(self, parameters: Mapping[str, Any]) -> None:
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
        """Return whether a file exists with its recorded size, and with `size` if given."""
        file = self.files.get(name)
        if file is None or (size is not None and file.bytes != size):
            return False
        try:
            return (self.path / name).stat().st_size == file.bytes
        except OSError:
            return False

    def add(self, name: str, file: Download) -> None:
        """Record a downloaded file."""
        self.files[name] = file
        self._append({"name": name, **asdict(file)})

    def add_absent(self, url: str, status: int) -> None:
        """Record that a server does not have a file, so that a later run does not request it again."""
        self.absent[url] = status
        self._append({"absent": url, "status": status})

    def add_problem(self, protein: str, file: str, url: str, reason: str) -> None:
        """Record a file or protein that could not be downloaded, and why."""
        values = (self.source, protein, file, url, reason)
        self.problems.append(dict(zip(PROBLEM_COLUMNS, values, strict=True)))

    def finish(self, fields: Iterable[CsvRow] | None = None) -> None:
        """Write ``fields.csv`` (with rows of earlier runs) and ``problems.csv``; mark the source complete."""
        if fields is not None:
            rows = {(row["source"], row["field"]): row for row in (*_read_rows(self.path / FIELDS), *fields)}
            write_rows(self.path / FIELDS, FIELD_COLUMNS, [rows[key] for key in sorted(rows)])
        self._write_problems()
        self._document["fetched"][self.source]["complete"] = True

    def _write_problems(self) -> None:
        others = [row for row in _read_rows(self.path / FETCH_PROBLEMS) if row["source"] != self.source]
        if rows := [*others, *self.problems]:
            write_rows(self.path / FETCH_PROBLEMS, PROBLEM_COLUMNS, rows)
        else:
            (self.path / FETCH_PROBLEMS).unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        self._journal.append(json.dumps(line).encode() + b"\n")

    def _replay(self) -> None:
        """Read the journal of a killed run: what it recorded after it wrote the manifest."""
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
        with atomic_path(self.path / FETCH_MANIFEST) as draft:
            draft.write_text(json.dumps(self._document, indent=1) + "\n", encoding="utf-8")
        (self.path / JOURNAL).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        try:
            # After a failure the journal has what the manifest lacks; the disk may be full, so leave it.
            if kind is None:
                self._write_manifest()
        finally:
            os.close(self._lock)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / FETCH_MANIFEST
    if not path.exists():
        return {"deepgps": __version__, "fetched": {}, "files": {}, "absent": {}}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if {"fetched", "files", "absent"} <= set(document):
            return dict(document)
    except ValueError:
        pass
    raise InputError(f"'{path}' is not a manifest of 'deepgps data fetch'; use another --out.")


def _read_rows(path: Path) -> list[CsvRow]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, columns: Iterable[str], rows: Iterable[CsvRow]) -> None:
    """Write a CSV table completely or not at all."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


MAX_CONSECUTIVE_FAILURES = 10
DownloadResult = Download | RefusedError | UnreachableError | None


class DownloadProgress(Protocol):
    """Receives the progress of a download; `add_bytes` is called from any thread."""

    def begin(self, what: str, total: int | None) -> None:
        """Start a stage: what is counted, and the expected total."""

    def advance(self) -> None:
        """Count one item as done."""

    def add_bytes(self, count: int) -> None:
        """Count bytes as they arrive."""


@dataclass(slots=True)
class FetchSummary:
    """Counts and problems of a download.

    Attributes
    ----------
    proteins, fields
        Proteins with at least one file; rows of ``fields.csv`` (0 for structures and sequences).
    new, bytes
        Files downloaded by this call, and their size.
    existing
        Files that were already in the folder.
    problems
        Rows of ``problems.csv``.
    failed
        Files that a retry may get.
    unknown
        Ids that the source does not have.
    """

    proteins: int = 0
    fields: int = 0
    new: int = 0
    bytes: int = 0
    existing: int = 0
    problems: list[CsvRow] = field(default_factory=list)
    failed: int = 0
    unknown: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download: relative path, URL, protein, and size in bytes if known."""

    name: str
    url: str
    protein: str = ""
    size: int | None = None


class Fetcher:
    """Downloads files into a folder, each once, and counts them.

    Attributes
    ----------
    summary
        Counts so far; `finish` completes and returns it.
    """

    def __init__(self, folder: DownloadFolder, client: Client, progress: DownloadProgress) -> None:
        self.folder, self.client, self.progress = folder, client, progress
        self.summary = FetchSummary()
        self._consecutive_failures = 0

    def get_required(self, name: str, url: str) -> bytes:
        """Download a file without which the run cannot continue, and return its content.

        Returns
        -------
        bytes
            The content.

        Raises
        ------
        RefusedError, UnreachableError
            If it cannot be downloaded.
        """
        file = RemoteFile(name, url)
        self._record(file, self.get(file))
        return (self.folder.path / name).read_bytes()

    def get(self, file: RemoteFile) -> DownloadResult:
        """Download a file; return None if it is already there, or the error. Thread-safe."""
        if self.folder.has(file.name, file.size):
            return None
        if status := self.folder.absent.get(file.url):
            return RefusedError(file.url, status)
        path = self.folder.path / file.name
        try:
            if (
                file.name not in self.folder.files
                and path.exists()
                and file.size in (None, path.stat().st_size)
            ):
                # A run was killed after it saved the file and before it recorded it.
                return Download(file.url, hash_file(path), path.stat().st_size)
            return self.client.download(file.url, path, size=file.size, on_bytes=self.progress.add_bytes)
        except (RefusedError, UnreachableError) as error:
            return error

    def _record(self, file: RemoteFile, result: DownloadResult) -> None:
        if isinstance(result, RefusedError) and result.not_found:
            self.folder.add_absent(file.url, result.status)
        if isinstance(result, DeepGPSError):
            raise result
        self._consecutive_failures = 0
        if result is None:
            self.summary.existing += 1
            return
        self.summary.new += 1
        self.summary.bytes += result.bytes
        self.folder.add(file.name, result)

    def record(self, file: RemoteFile, result: DownloadResult) -> bool:
        """Count a result of `get`; return whether the file is there, else record a problem.

        Returns
        -------
        bool
            Whether the file is there.

        Raises
        ------
        UnreachableError
            If ten files in a row could not be downloaded.
        """
        try:
            self._record(file, result)
        except (RefusedError, UnreachableError) as error:
            if isinstance(error, RefusedError) and error.not_found:
                reason = f"withdrawn or never available (status {error.status})"
                self.folder.add_problem(file.protein, file.name, file.url, reason)
            else:
                self.record_failure(file, error)
            return False
        return True

    def record_failure(self, file: RemoteFile, error: RefusedError | UnreachableError) -> None:
        """Record a file that a retry may get.

        Raises
        ------
        UnreachableError
            If this is the tenth failure in a row.
        """
        self.folder.add_problem(file.protein, file.name, file.url, str(error))
        self.summary.failed += 1
        self._consecutive_failures += 1
        if self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            raise UnreachableError(
                f"{error} {self._consecutive_failures} files in a row have failed; try again later."
            )

    def get_all(self, what: str, files: Sequence[RemoteFile]) -> Iterator[RemoteFile]:
        """Download files in parallel; yield those that are there, as they finish."""
        self.progress.begin(what, len(files))
        # Close it at once on failure, or its threads would write to a folder that is already unlocked.
        with closing(self.client.map_unordered(self.get, files)) as results:
            for file, result in results:
                exists = self.record(file, result)
                self.progress.advance()
                if exists:
                    yield file

    def finish(
        self, rows: list[CsvRow] | None, proteins: Iterable[str], unknown: Iterable[str] = ()
    ) -> FetchSummary:
        """Write the tables of the folder and return the counts."""
        for name in unknown:
            self.folder.add_problem(name, "", "", "no such protein in the source")
            self.summary.unknown.append(name)
        self.folder.finish(rows)
        self.summary.fields, self.summary.problems = len(rows or ()), self.folder.problems
        self.summary.proteins = len(set(proteins))
        return self.summary


def select_proteins(
    proteins: list[SourceProtein], ids: Sequence[str] | None, where: str
) -> tuple[list[SourceProtein], list[str]]:
    """Return the proteins with one of the ids, and the ids that match none; all proteins if `ids` is None.

    Returns
    -------
    tuple
        The selected proteins, and the ids that match none.

    Raises
    ------
    InputError
        If no protein matches.
    """
    selected, unknown = match_ids(proteins, ids)
    if not selected:
        raise InputError(f"None of the {len(unknown):,} requested proteins is in {where}; check their ids.")
    return selected, unknown
