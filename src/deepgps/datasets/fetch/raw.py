"""The folder that a fetch fills: what is there, where it came from, what could not be had."""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deepgps import __version__
from deepgps.datasets.fetch.download import Download
from deepgps.errors import InputError
from deepgps.files import AppendFile, atomic_path, lock_folder, record_ends, remove_temporary_files

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


class RawFolder:
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
