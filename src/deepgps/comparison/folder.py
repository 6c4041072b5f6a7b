"""The folder of a comparison: locked while it is written, and continued by a later, identical call."""

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deepgps.comparison.differences import ComparedModel
from deepgps.files import atomic_path, remove_temporary_files
from deepgps.proteins.protein import Rejection
from deepgps.results.folder import (
    RECORDS_FILE,
    REJECTED_COLUMNS,
    REJECTED_FILE,
    REPORT_FILE,
    check_no_results,
    create_locked_folder,
    rejection_line,
    remove_results,
)
from deepgps.results.image_storage import IMAGE_FOLDER, ImageNames
from deepgps.results.records import read_records, table_line
from deepgps.results.run import (
    Fingerprints,
    check_same_run,
    now,
    package_versions,
    read_run,
    run_document,
    write_run,
)

MODEL_FOLDER = "models"
DIFFERENCE_TABLES = ("differences.csv", "differences.tsv")


class ComparisonFolder:
    """A folder that holds one comparison; use it in a ``with`` block.

    Parameters
    ----------
    path
        The folder; made if missing.
    models, nuclei, inputs
        What makes two comparisons the same: the models, name and fingerprint of the cells (at the scale of
        the first model), source and fingerprint of the inputs.
    table
        ``csv`` or ``tsv``.
    overwrite
        Remove an earlier comparison's files (nothing else) and start again.

    Raises
    ------
    InputError
        If another process writes to the folder, or it holds results of something else.
    """

    def __init__(
        self,
        path: Path,
        models: Sequence[ComparedModel],
        nuclei: Fingerprints,
        inputs: Fingerprints,
        *,
        table: str,
        overwrite: bool,
    ) -> None:
        self.path, self.table = path, path / f"differences.{table}"
        self._document = _document(models, nuclei, inputs, table)
        self._lock = create_locked_folder(path)
        try:
            self._open(overwrite=overwrite)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, *, overwrite: bool) -> None:
        if overwrite:
            remove_comparison(self.path)
        if (earlier := read_run(self.path)) is None:
            check_no_results(self.path, (*DIFFERENCE_TABLES, REPORT_FILE))
        else:
            check_same_run(self.path, earlier, self._document)
            self._document["started"] = earlier.get("started", self._document["started"])
        (self.path / IMAGE_FOLDER).mkdir(exist_ok=True)
        (self.path / MODEL_FOLDER).mkdir(exist_ok=True)
        remove_temporary_files(self.path / IMAGE_FOLDER)
        remove_temporary_files(self.path)
        write_run(self.path, self._document)

    def model_folder(self, model: ComparedModel) -> Path:
        """Return the folder of a model's predictions."""
        return self.path / MODEL_FOLDER / model.folder

    def write_rejections(self, rejections: Sequence[Rejection]) -> None:
        """Write the records that could not be used; no file if there are none."""
        path = self.path / REJECTED_FILE
        if not rejections:
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as draft:
            lines = [table_line(REJECTED_COLUMNS), *(rejection_line(each) for each in rejections)]
            draft.write_bytes(b"".join(lines))
        self._document["proteins"]["rejected"] = len(rejections)

    def finish(self, compared: int) -> None:
        """Complete ``run.json``, once everything else is written."""
        self._document["proteins"]["compared"] = compared
        self._document["finished"] = now()
        write_run(self.path, self._document)

    def files(self) -> tuple[Path, ...]:
        """Return the files that exist, the best to open first."""
        names = (self.table.name, REPORT_FILE, IMAGE_FOLDER, MODEL_FOLDER, REJECTED_FILE)
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
    for run in sorted((folder / MODEL_FOLDER).glob("*/run.json")):
        image_names = ImageNames()
        for protein_id, _ in groupby(
            read_records(run.parent / RECORDS_FILE), key=lambda record: record["protein_id"]
        ):
            (folder / IMAGE_FOLDER / f"{image_names.add(protein_id)}.png").unlink(missing_ok=True)
        remove_results(run.parent)
    for name in DIFFERENCE_TABLES:
        (folder / name).unlink(missing_ok=True)
    remove_results(folder)


def _document(
    models: Sequence[ComparedModel],
    nuclei: Fingerprints,
    inputs: Fingerprints,
    table: str,
) -> dict[str, Any]:
    described = [{"name": model.name, "version": model.version, "sha256": model.sha256} for model in models]
    return {
        # The seed stands in the run record of each model.
        **run_document(described, {"format": table}, nuclei, inputs, None),
        "packages": package_versions(),
        "started": now(),
        "finished": None,
        "proteins": {"compared": 0, "rejected": 0},
    }
