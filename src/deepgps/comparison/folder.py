"""One comparison's folder: locked while it is written, gone on with, refused when it is another's."""

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deepgps.comparison.sides import Side
from deepgps.files import atomic_path, remove_temporary_files
from deepgps.proteins.protein import Rejection
from deepgps.results.folder import (
    RECORDS_FILE,
    REJECTED_COLUMNS,
    REJECTED_FILE,
    REPORT_FILE,
    check_free,
    claim,
    rejected_line,
    remove_results,
)
from deepgps.results.image_files import IMAGES
from deepgps.results.names import FileNames
from deepgps.results.records import read_records
from deepgps.results.run import check_same, now, packages, read_run, run_document, write_run
from deepgps.results.table import table_line

MODELS = "models"
TABLES = ("differences.csv", "differences.tsv")


class ComparisonFolder:
    """A folder that holds one comparison; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; made if missing.
    sides, nuclei, inputs
        What makes two comparisons the same: the models, name and sha256 of the nuclei (at the scale of the
        first model), source and sha256 of the inputs.
    table
        ``csv`` or ``tsv``.
    overwrite
        Remove an earlier comparison's files (nothing else) and start anew.

    Raises
    ------
    InputError
        If another process writes to the folder, or it holds results of something else.
    """

    def __init__(
        self,
        path: Path,
        sides: Sequence[Side],
        nuclei: Sequence[tuple[str, str]],
        inputs: Sequence[tuple[str, str | None]],
        *,
        table: str,
        overwrite: bool,
    ) -> None:
        self.path, self.table = path, path / f"differences.{table}"
        self._document = _document(sides, nuclei, inputs, table)
        self._lock = claim(path)
        try:
            self._begin(overwrite=overwrite)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, *, overwrite: bool) -> None:
        if overwrite:
            remove_comparison(self.path)
        if (earlier := read_run(self.path)) is None:
            check_free(self.path, (*TABLES, REPORT_FILE))
        else:
            check_same(self.path, earlier, self._document)
            self._document["started"] = earlier.get("started", self._document["started"])
        (self.path / IMAGES).mkdir(exist_ok=True)
        (self.path / MODELS).mkdir(exist_ok=True)
        remove_temporary_files(self.path / IMAGES)
        remove_temporary_files(self.path)
        write_run(self.path, self._document)

    def of(self, side: Side) -> Path:
        """Folder of one model's predictions."""
        return self.path / MODELS / side.stem

    def reject(self, rejections: Sequence[Rejection]) -> None:
        """List the records that could not be used; no list where there are none."""
        path = self.path / REJECTED_FILE
        if not rejections:
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as draft:
            lines = [table_line(REJECTED_COLUMNS), *(rejected_line(each) for each in rejections)]
            draft.write_bytes(b"".join(lines))
        self._document["proteins"]["rejected"] = len(rejections)

    def finish(self, compared: int) -> None:
        """Bring ``run.json`` up to date, once all else is written."""
        self._document["proteins"]["compared"] = compared
        self._document["finished"] = now()
        write_run(self.path, self._document)

    def files(self) -> tuple[Path, ...]:
        """What is there to open."""
        names = (self.table.name, REPORT_FILE, IMAGES, MODELS, REJECTED_FILE)
        return tuple(path for name in names if (path := self.path / name).exists())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._lock)


def remove_comparison(folder: Path) -> None:
    """Remove a comparison's files, or those of other results, and no others, from a folder."""
    for run in sorted((folder / MODELS).glob("*/run.json")):
        names = FileNames()
        # The names that `compare_cells` gave: of the ids in their order.
        for protein_id, _ in groupby(
            read_records(run.parent / RECORDS_FILE), key=lambda record: record["protein_id"]
        ):
            (folder / IMAGES / f"{names.name(protein_id)}.png").unlink(missing_ok=True)
        remove_results(run.parent)
    for name in TABLES:
        (folder / name).unlink(missing_ok=True)
    remove_results(folder)


def _document(
    sides: Sequence[Side],
    nuclei: Sequence[tuple[str, str]],
    inputs: Sequence[tuple[str, str | None]],
    table: str,
) -> dict[str, Any]:
    models = [{"name": side.name, "version": side.version, "sha256": side.sha256} for side in sides]
    return {
        **run_document(models, {"format": table}, nuclei, inputs),
        "packages": packages(),
        "started": now(),
        "finished": None,
        "proteins": {"compared": 0, "rejected": 0},
    }
