"""From a list of fields to a crop store: on all cores or a cluster, resumed where it was left."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import deepgps
from deepgps.datasets.crops.field_crops import FieldCrops, Method, Task, crop_one
from deepgps.datasets.crops.fields import BadRow, FieldRow, read_fields
from deepgps.datasets.crops.settings import PrepareSettings
from deepgps.datasets.crops.shown import PROTEINS, write_shown
from deepgps.datasets.crops.writing import StoreDraft
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.images.segmentation import SEGMENTERS, get_segmenter
from deepgps.parallel import WorkerDiedError, parallel_map

PROBLEMS = "problems.csv"

SCHEMA: Mapping[str, Any] = {
    **dict.fromkeys(
        ("source", "field", "protein_id", "group", "cell", "gene_symbol", "accession", "localizations"),
        pl.String,
    ),
    "cell_line": pl.String,
    "row": pl.Int32,
    "col": pl.Int32,
    "nucleus_area_um2": pl.Float32,
    "split": pl.String,
    **dict.fromkeys(
        ("nucleus_saturation", "protein_saturation", "nucleus_focus", "protein_contrast", "jpeg_blocks"),
        pl.Float32,
    ),
    "leak": pl.Float32,
}
"""Columns of the index."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Crops, fields that gave some, and fields left out; how many fields an earlier run had done."""

    crops: int
    fields: int
    left_out: int
    resumed: int


def prepare_fields(
    fields: Path,
    proteins: Path,
    out: Path,
    settings: PrepareSettings | None = None,
    *,
    labels: Path | None = None,
    segmenter_name: str = SEGMENTERS[0],
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    on_field: Callable[[str, str | None], None] | None = None,
) -> Prepared:
    """Cut the fields of a list into crops and write them to a crop store.

    A run that was killed is continued by the same call. Crops are in the order of the list, whoever cut them
    and however often it was interrupted: the store is the same, byte for byte.

    Parameters
    ----------
    fields
        The list (see `read_fields`).
    proteins
        Parquet table with ``protein_id``, ``localizations`` (joined by ``|``) and, where known,
        ``gene_symbol`` and ``accession``; rows without localizations count as not annotated.
    out
        Folder of the store; made if missing.
    settings
        The rules; the paper's where they are not given.
    labels
        Folder of label images; the fields are segmented here where it is not given.
    segmenter_name
        The segmenter that does it.
    workers, scheduler
        See `deepgps.parallel.parallel_map`.
    overwrite
        Start anew, whatever the folder holds of an earlier run.
    on_field
        Called with each field's name when it is done, and the reason if it is left out.

    Raises
    ------
    InputError
        If the list or the table cannot be used, or the table lies where the store's own goes, the folder
        holds crops of other input, another process writes to it, or no field gives a crop.
    """
    settings = settings or PrepareSettings()
    get_segmenter(segmenter_name)
    if proteins.absolute() == (out / PROTEINS).absolute():
        raise InputError(f"'{proteins}' is where the store keeps its own proteins; move it elsewhere.")
    if labels is not None and not labels.is_dir():
        raise InputError(f"'{labels}' is no folder; give --labels the folder of the label images.")
    known = read_annotations(proteins)
    method = Method(settings, segmenter_name, labels and labels.absolute())
    inputs = _inputs(fields, proteins, method)
    with StoreDraft(out, inputs, overwrite=overwrite) as draft:
        if draft.complete:
            return _count(out)
        resumed = draft.done
        tasks = (_task(row, known, method) for row in islice(read_fields(fields), resumed, None))
        results = parallel_map(crop_one, tasks, workers=workers, scheduler=scheduler)
        names = (row.field for row in islice(read_fields(fields), resumed, None))
        for name, result in zip(names, results, strict=True):
            done = _lost(name, result) if isinstance(result, WorkerDiedError) else result
            protein = done.rows[0]["protein_id"] if done.rows else None
            draft.add(done.crops, done.rows, {"field": name, "problem": done.problem, "protein": protein})
            if on_field:
                on_field(name, done.problem)
        return _finish(draft, proteins, resumed)


def read_annotations(path: Path) -> dict[str, dict[str, str]]:
    """Read the table of proteins: ``localizations``, ``gene_symbol``, ``accession`` by ``protein_id``.

    Raises
    ------
    InputError
        If it is not there, is no Parquet table, or lacks a column.
    """
    wanted = ("protein_id", "localizations", "gene_symbol", "accession")
    try:
        table = pl.scan_parquet(path)
        names = table.collect_schema().names()
        if missing := [name for name in wanted[:2] if name not in names]:
            raise InputError(
                f"Table of proteins '{path}' has no column '{missing[0]}'; make it with annotate."
            )
        rows = table.select(pl.col(name).cast(pl.String) for name in wanted if name in names).collect()
    except FileNotFoundError:
        raise InputError(f"Table of proteins '{path}' was not found; check its name and folder.") from None
    except pl.exceptions.PolarsError:
        raise InputError(
            f"Table of proteins '{path}' is not a Parquet file; make it with annotate."
        ) from None
    return {row["protein_id"]: {key: value or "" for key, value in row.items()} for row in rows.to_dicts()}


def _task(row: FieldRow | BadRow, known: Mapping[str, Mapping[str, str]], method: Method) -> Task:
    if isinstance(row, BadRow):
        return Task(row.field, None, {}, method, row.problem)
    protein = known.get(row.ensembl_gene_id, {})
    problem = None
    if not protein.get("localizations"):
        lacks = "has no localization" if protein else "is not"
        problem = f"Its protein '{row.ensembl_gene_id}' {lacks} in the table of proteins."
    # Workers may run in another folder.
    row = row.model_copy(update={"nucleus": row.nucleus.absolute(), "protein": row.protein.absolute()})
    return Task(row.field, row, protein, method, problem)


def _lost(name: str, error: WorkerDiedError) -> FieldCrops:
    return FieldCrops(name, np.zeros((0, 2, 1, 1), np.uint8), [], str(error))


def _inputs(fields: Path, proteins: Path, method: Method) -> dict[str, Any]:
    """Tell what makes two runs the same; the names are those that a refusal says."""
    return {
        "version of deepGPS": deepgps.__version__,
        "list of fields": _sha256(fields, "List of fields"),
        "table of proteins": _sha256(proteins, "Table of proteins"),
        "segmentation": method.segmenter if method.labels is None else str(method.labels),
        "settings": method.settings.model_dump(mode="json"),
    }


def _sha256(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{what} '{path}' was not found; check its name and folder.") from None


def _finish(draft: StoreDraft, proteins: Path, resumed: int) -> Prepared:
    left_out, shown, out = 0, set[str](), draft.folder
    with atomic_path(out / PROBLEMS) as path, path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["field", "problem"])
        for record in draft.fields():
            if record["problem"] is not None:
                table.writerow([record["field"], record["problem"]])
                left_out += 1
            else:
                shown.add(record["protein"])
    if not draft.crops:
        raise InputError(f"None of {left_out:,} fields gave a crop; '{out / PROBLEMS}' says why of each.")
    write_shown(proteins, shown, out)
    counts = {"crops": draft.crops, "fields": draft.done - left_out, "left_out": left_out}
    settings = draft.inputs["settings"]
    size = {"size_px": settings["size_px"], "pixel_size_um": settings["pixel_size_um"]}
    draft.finish({"deepgps": deepgps.__version__, **size, **counts}, SCHEMA)
    return Prepared(**counts, resumed=resumed)


def _count(out: Path) -> Prepared:
    """Tell the counts of a store that is there already."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    counts = {name: int(manifest[name]) for name in ("crops", "fields", "left_out")}
    return Prepared(**counts, resumed=counts["fields"] + counts["left_out"])
