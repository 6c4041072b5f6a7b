"""Prepare a crop store from a list of fields: in parallel and resumable."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import deepgps
from deepgps.arrays import Bytes, LabelImage
from deepgps.datasets.crops.cutting import (
    CropPair,
    NormalisedField,
    Quality,
    contrast,
    cut_field,
    field_quality,
    normalise_field,
)
from deepgps.datasets.crops.fields import FieldImages, FieldRow, InvalidRow, read_field_images, read_fields
from deepgps.datasets.crops.settings import EMPTY_CONTRAST, PrepareSettings
from deepgps.datasets.crops.store import PROTEINS, CropStoreWriter, write_store_proteins
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path
from deepgps.images.nuclear_stain import check_nuclear_stain
from deepgps.images.read import Field, image_stem
from deepgps.images.segmentation import (
    LABELS_SUFFIX,
    SEGMENTERS,
    Segmenter,
    get_segmenter,
    read_labels,
    resample_labels,
)
from deepgps.parallel import WorkerDiedError, parallel_map


@dataclass(frozen=True, slots=True)
class CropMethod:
    """How the fields of a store are cut.

    Attributes
    ----------
    settings
        Size, normalisation, border and the other settings.
    segmenter
        Name of the segmenter.
    labels
        Folder of label images to use instead of the segmenter.
    """

    settings: PrepareSettings
    segmenter: str
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class CropTask:
    """What a worker needs to cut a field.

    Attributes
    ----------
    field
        Name of the field.
    row
        Its row of the list; None if the row cannot be used.
    protein
        ``accession``, ``gene_symbol`` and ``localizations`` from the table of proteins.
    method
        How to cut it.
    problem
        Why it is left out, if known before its images are read.
    """

    field: str
    row: FieldRow | None
    protein: Mapping[str, str]
    method: CropMethod
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FieldCrops:
    """Crops of a field (n, 2, S, S) uint8 and their rows, or the reason why there are none; warnings."""

    field: str
    crops: Bytes
    rows: list[dict[str, Any]]
    problem: str | None = None
    warnings: tuple[str, ...] = ()


def crop_field(task: CropTask) -> FieldCrops:
    """Cut one field; an error becomes its `problem`, so that other fields are not affected."""
    size = task.method.settings.size_px
    no_crops = np.zeros((0, 2, size, size), np.uint8)
    if task.row is None or task.problem is not None:
        return FieldCrops(task.field, no_crops, [], task.problem)
    try:
        pairs, rows, notes = _cut(task, task.row)
    except DeepGPSError as error:
        return FieldCrops(task.field, no_crops, [], str(error))
    except OSError as error:
        problem = f"Cannot read '{error.filename or ''}': {error.strerror or error}."
        return FieldCrops(task.field, no_crops, [], problem)
    except Exception as error:  # one bad field must not end the run
        problem = f"It could not be prepared ({type(error).__name__}: {error})."
        return FieldCrops(task.field, no_crops, [], problem)
    return FieldCrops(task.field, np.stack([pair.pixels for pair in pairs]), rows, warnings=notes)


def _cut(task: CropTask, row: FieldRow) -> tuple[list[CropPair], list[dict[str, Any]], tuple[str, ...]]:
    settings = task.method.settings
    images = read_field_images(row, check_order=settings.channel_order == "check")
    if settings.image_checks:
        field = Field(images.nucleus, images.pixel_size_um, str(row.nucleus))
        nucleus, notes = check_nuclear_stain(field, images.pixel_size_um, settings.pixel_size_um)
        images = images._replace(nucleus=nucleus, warnings=(*images.warnings, *notes))
    if settings.empty_protein == "drop" and (signal := contrast(images.protein)) < EMPTY_CONTRAST:
        raise InputError(
            f"Its protein image is empty: its contrast is {signal:.1f} times the noise, less than "
            f"{EMPTY_CONTRAST:g}."
        )
    normalised = _normalise(task, row, images)
    pairs = list(cut_field(normalised, settings))
    if not pairs:
        raise InputError(_no_crops_reason(normalised, settings))
    quality = field_quality(images.nucleus, images.protein, normalised, settings.pixel_size_um)
    return pairs, [_index_row(task, row, pair, quality) for pair in pairs], images.warnings


def _normalise(task: CropTask, row: FieldRow, images: FieldImages) -> NormalisedField:
    segmenter: LabelImage | Segmenter
    if task.method.labels is not None:
        segmenter = read_labels(_label_image(task.method.labels, row))
        if segmenter.shape == images.stored_shape:
            segmenter = resample_labels(segmenter, images.nucleus.shape)
    else:
        segmenter = _with_min_area(get_segmenter(task.method.segmenter), task.method.settings.min_area_um2)
    return normalise_field(
        images.nucleus, [images.protein], images.pixel_size_um, task.method.settings, segmenter
    )


def _with_min_area(segmenter: Segmenter, min_area_um2: float) -> Segmenter:
    """Let a segmenter find nuclei as small as the settings allow."""
    if is_dataclass(segmenter) and not isinstance(segmenter, type) and hasattr(segmenter, "min_area_um2"):
        return replace(segmenter, min_area_um2=min(segmenter.min_area_um2, min_area_um2))
    return segmenter


def _label_image(folder: Path, row: FieldRow) -> Path:
    """Find the label image named after the field, or else after its nucleus image."""
    names = [f"{name}{LABELS_SUFFIX}" for name in (row.field, image_stem(row.nucleus))]
    for name in names:
        if (folder / Path(name).name).exists():
            return folder / Path(name).name
    raise InputError(f"'{folder}' has neither {names[0]} nor {names[1]}; segment the field first.")


def _no_crops_reason(field: NormalisedField, settings: PrepareSettings) -> str:
    nuclei = int(field.labels.max(initial=0))
    if not nuclei:
        return (
            f"No nucleus of at least {settings.min_area_um2:.0f} µm² was found; "
            "check the nucleus channel and the pixel size."
        )
    height, width = field.nucleus.shape
    return (
        f"None of its {nuclei} nuclei gives a crop of {settings.size_px} px inside {width} × {height} px "
        "that the settings keep."
    )


def _index_row(task: CropTask, row: FieldRow, pair: CropPair, quality: Quality) -> dict[str, Any]:
    return {
        "source": row.source,
        "field": row.field,
        "protein_id": row.ensembl_gene_id,
        "group": row.ensembl_gene_id,
        "cell": f"{row.source}/{row.field}/{pair.cell}",
        "gene_symbol": task.protein.get("gene_symbol") or row.gene_symbol,
        "accession": task.protein.get("accession") or row.accession,
        "localizations": task.protein["localizations"],
        "cell_line": row.cell_line,
        "row": pair.row,
        "col": pair.col,
        "nucleus_area_um2": round(pair.area_px * task.method.settings.pixel_size_um**2, 2),
        "split": None,
        **{name: value if value is None else float(f"{value:.4g}") for name, value in quality.items()},
    }


FIELD_PROBLEMS = "problems.csv"
FIELD_WARNINGS = "warnings.csv"
WARNINGS = "warnings.csv"

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
"""Columns of the index, with their types."""


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """Numbers of crops, fields with crops, fields left out, and fields finished by earlier runs."""

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
    on_field: Callable[[str, str | None, Sequence[str]], None] | None = None,
) -> PrepareSummary:
    """Cut the fields of a list into crops and write them to a crop store.

    The same call resumes an interrupted run. Crops are in the order of the list: the store is the same, byte
    for byte, for any number of workers and interruptions.

    Parameters
    ----------
    fields
        The list of fields (see `read_fields`).
    proteins
        Parquet table with ``protein_id``, ``localizations`` (joined by ``|``) and optionally
        ``gene_symbol`` and ``accession``; fields of proteins without localizations are left out.
    out
        Folder of the store; created if missing.
    settings
        How to cut the fields; by default as in the paper.
    labels
        Folder of label images to use instead of a segmenter.
    segmenter_name
        Name of the segmenter.
    workers, scheduler
        See `deepgps.parallel.parallel_map`.
    overwrite
        Start again, whatever an earlier run left in the folder.
    on_field
        Called after each field with its name, the reason if it is left out, and warnings about its images.

    Returns
    -------
    PrepareSummary
        How many crops were cut from how many fields, and how many fields are left out.

    Raises
    ------
    InputError
        If the list or the table cannot be used, the table is where the store writes its own, the folder has
        crops of other inputs, another process writes to it, or no field gives a crop.
    """
    settings = settings or PrepareSettings()
    get_segmenter(segmenter_name)
    if proteins.absolute() == (out / PROTEINS).absolute():
        raise InputError(f"'{proteins}' is where the store writes its own proteins; move it elsewhere.")
    if labels is not None and not labels.is_dir():
        raise InputError(f"'{labels}' is not a folder; give --labels the folder of the label images.")
    annotations = read_annotations(proteins)
    method = CropMethod(settings, segmenter_name, labels and labels.absolute())
    inputs = _inputs(fields, proteins, method)
    with CropStoreWriter(out, inputs, overwrite=overwrite) as writer:
        if writer.complete:
            return _read_summary(out)
        resumed = writer.done
        tasks = (_task(row, annotations, method) for row in islice(read_fields(fields), resumed, None))
        results = parallel_map(crop_field, tasks, workers=workers, scheduler=scheduler)
        names = (row.field for row in islice(read_fields(fields), resumed, None))
        for name, result in zip(names, results, strict=True):
            field = _worker_died(name, result) if isinstance(result, WorkerDiedError) else result
            protein = field.rows[0]["protein_id"] if field.rows else None
            record = {"field": name, "problem": field.problem, "protein": protein}
            writer.add(field.crops, field.rows, {**record, "warnings": list(field.warnings)})
            if on_field:
                on_field(name, field.problem, field.warnings)
        return _finish(writer, proteins, resumed)


def read_annotations(path: Path) -> dict[str, dict[str, str]]:
    """Read ``localizations``, ``gene_symbol`` and ``accession`` by ``protein_id`` from a table of proteins.

    Returns
    -------
    dict
        By ``protein_id``, the three columns by name; empty text where a value is missing.

    Raises
    ------
    InputError
        If the file does not exist, is not a Parquet table, or lacks a column.
    """
    columns = ("protein_id", "localizations", "gene_symbol", "accession")
    try:
        table = pl.scan_parquet(path)
        names = table.collect_schema().names()
        if missing := [name for name in columns[:2] if name not in names]:
            raise InputError(
                f"Table of proteins '{path}' has no column '{missing[0]}'; "
                "make it with 'deepgps data annotate'."
            )
        rows = table.select(pl.col(name).cast(pl.String) for name in columns if name in names).collect()
    except FileNotFoundError:
        raise InputError(f"Table of proteins '{path}' was not found; check its name and folder.") from None
    except pl.exceptions.PolarsError:
        raise InputError(
            f"Table of proteins '{path}' is not a Parquet file; make it with 'deepgps data annotate'."
        ) from None
    return {row["protein_id"]: {key: value or "" for key, value in row.items()} for row in rows.to_dicts()}


def _task(
    row: FieldRow | InvalidRow, annotations: Mapping[str, Mapping[str, str]], method: CropMethod
) -> CropTask:
    if isinstance(row, InvalidRow):
        return CropTask(row.field, None, {}, method, row.problem)
    protein = annotations.get(row.ensembl_gene_id, {})
    problem = None
    if not protein.get("localizations"):
        missing = "has no localization" if protein else "is not"
        problem = f"Its protein '{row.ensembl_gene_id}' {missing} in the table of proteins."
    # Workers may have another current folder.
    row = row.model_copy(update={"nucleus": row.nucleus.absolute(), "protein": row.protein.absolute()})
    return CropTask(row.field, row, protein, method, problem)


def _worker_died(name: str, error: WorkerDiedError) -> FieldCrops:
    return FieldCrops(name, np.zeros((0, 2, 1, 1), np.uint8), [], str(error))


def _inputs(fields: Path, proteins: Path, method: CropMethod) -> dict[str, Any]:
    """Return what determines the crops; an error about other inputs uses these names."""
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


def _finish(writer: CropStoreWriter, proteins: Path, resumed: int) -> PrepareSummary:
    left_out, protein_ids, out = 0, set[str](), writer.folder
    with (
        atomic_path(out / FIELD_PROBLEMS) as path,
        path.open("w", newline="", encoding="utf-8") as file,
        atomic_path(out / FIELD_WARNINGS) as warnings_path,
        warnings_path.open("w", newline="", encoding="utf-8") as warnings_file,
    ):
        table, warnings = (csv.writer(each, lineterminator="\n") for each in (file, warnings_file))
        table.writerow(["field", "problem"])
        warnings.writerow(["field", "warning"])
        for record in writer.fields():
            warnings.writerows((record["field"], warning) for warning in record["warnings"])
            if record["problem"] is not None:
                table.writerow([record["field"], record["problem"]])
                left_out += 1
            else:
                protein_ids.add(record["protein"])
    if not writer.crops:
        raise InputError(
            f"None of {left_out:,} fields gave a crop; see '{out / FIELD_PROBLEMS}' for the reasons."
        )
    write_store_proteins(proteins, protein_ids, out)
    counts = {"crops": writer.crops, "fields": writer.done - left_out, "left_out": left_out}
    settings = writer.inputs["settings"]
    size = {"size_px": settings["size_px"], "pixel_size_um": settings["pixel_size_um"]}
    writer.finish({"deepgps": deepgps.__version__, **size, **counts}, SCHEMA)
    return PrepareSummary(**counts, resumed=resumed)


def _read_summary(out: Path) -> PrepareSummary:
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    counts = {name: int(manifest[name]) for name in ("crops", "fields", "left_out")}
    return PrepareSummary(**counts, resumed=counts["fields"] + counts["left_out"])
