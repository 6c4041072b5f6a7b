"""From a list of fields to a crop store: on all cores or a cluster, resumable."""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping
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
from deepgps.images.read import image_stem
from deepgps.images.segmentation import LABELS_SUFFIX, SEGMENTERS, Segmenter, get_segmenter, read_labels
from deepgps.parallel import WorkerDiedError, parallel_map


@dataclass(frozen=True, slots=True)
class CropMethod:
    """How all fields of a store are cut.

    Attributes
    ----------
    settings
        The rules.
    segmenter
        Name of the segmenter.
    labels
        Folder of label images; None to segment here.
    """

    settings: PrepareSettings
    segmenter: str
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class CropTask:
    """What a worker needs to know of a field.

    Attributes
    ----------
    field
        Its name.
    row
        Its row of the list; None if that cannot be used.
    protein
        ``accession``, ``gene_symbol`` and ``localizations`` by the table of proteins.
    method
        How it is cut.
    problem
        Why it is left out, where that is known before anything is read.
    """

    field: str
    row: FieldRow | None
    protein: Mapping[str, str]
    method: CropMethod
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FieldCrops:
    """What became of a field: crops (n, 2, S, S) uint8 and their rows, or the reason why there are none."""

    field: str
    crops: Bytes
    rows: list[dict[str, Any]]
    problem: str | None = None


def crop_field(task: CropTask) -> FieldCrops:
    """Cut one field. Whatever is wrong with it is its `problem`: the other fields go on."""
    size = task.method.settings.size_px
    none = np.zeros((0, 2, size, size), np.uint8)
    if task.row is None or task.problem is not None:
        return FieldCrops(task.field, none, [], task.problem)
    try:
        pairs, rows = _crops(task, task.row)
    except DeepGPSError as error:
        return FieldCrops(task.field, none, [], str(error))
    except OSError as error:
        problem = f"Cannot read '{error.filename or ''}': {error.strerror or error}."
        return FieldCrops(task.field, none, [], problem)
    except Exception as error:  # one field in thousands must not end the run
        problem = f"It could not be prepared ({type(error).__name__}: {error})."
        return FieldCrops(task.field, none, [], problem)
    return FieldCrops(task.field, np.stack([pair.pixels for pair in pairs]), rows)


def _crops(task: CropTask, row: FieldRow) -> tuple[list[CropPair], list[dict[str, Any]]]:
    settings = task.method.settings
    images = read_field_images(row, check_order=settings.channel_order == "check")
    if settings.empty_protein == "drop" and (found := contrast(images.protein)) < EMPTY_CONTRAST:
        raise InputError(
            f"Its protein image shows nothing: its structures rise {found:.1f} times the noise above the "
            f"background, {EMPTY_CONTRAST:g} are asked for."
        )
    ready = _ready(task, row, images)
    pairs = list(cut_field(ready, settings))
    if not pairs:
        raise InputError(_why_none(ready, settings))
    quality = field_quality(images.nucleus, images.protein, ready, settings.pixel_size_um)
    return pairs, [_index_row(task, row, pair, quality) for pair in pairs]


def _ready(task: CropTask, row: FieldRow, images: FieldImages) -> NormalisedField:
    nuclei: LabelImage | Segmenter
    if task.method.labels is not None:
        nuclei = read_labels(_label_image(task.method.labels, row))
    else:
        nuclei = _with_min_area(get_segmenter(task.method.segmenter), task.method.settings.min_area_um2)
    return normalise_field(
        images.nucleus, [images.protein], images.pixel_size_um, task.method.settings, nuclei
    )


def _with_min_area(finder: Segmenter, min_area_um2: float) -> Segmenter:
    """Let a segmenter find nuclei as small as the rules allow."""
    if is_dataclass(finder) and not isinstance(finder, type) and hasattr(finder, "min_area_um2"):
        return replace(finder, min_area_um2=min(finder.min_area_um2, min_area_um2))
    return finder


def _label_image(folder: Path, row: FieldRow) -> Path:
    """Find the label image that is named after the field, or else after its nucleus image."""
    names = [f"{name}{LABELS_SUFFIX}" for name in (row.field, image_stem(row.nucleus))]
    for name in names:
        if (folder / Path(name).name).exists():
            return folder / Path(name).name
    raise InputError(f"'{folder}' holds neither {names[0]} nor {names[1]}; segment it first.")


def _why_none(ready: NormalisedField, settings: PrepareSettings) -> str:
    nuclei = int(ready.labels.max(initial=0))
    if not nuclei:
        return (
            f"No nucleus of at least {settings.min_area_um2:.0f} µm² was found; "
            "check its nucleus channel and its pixel size."
        )
    height, width = ready.nucleus.shape
    return (
        f"None of its {nuclei} nuclei gives a crop of {settings.size_px} px inside its {width} × {height} px "
        "that the rules keep."
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


def _rounded(value: object) -> float | None:
    """Four digits: more are noise, and take room."""
    return float(f"{value:.4g}") if isinstance(value, float) else None


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
class PrepareSummary:
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
) -> PrepareSummary:
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
    method = CropMethod(settings, segmenter_name, labels and labels.absolute())
    inputs = _inputs(fields, proteins, method)
    with CropStoreWriter(out, inputs, overwrite=overwrite) as draft:
        if draft.complete:
            return _count(out)
        resumed = draft.done
        tasks = (_task(row, known, method) for row in islice(read_fields(fields), resumed, None))
        results = parallel_map(crop_field, tasks, workers=workers, scheduler=scheduler)
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


def _task(row: FieldRow | InvalidRow, known: Mapping[str, Mapping[str, str]], method: CropMethod) -> CropTask:
    if isinstance(row, InvalidRow):
        return CropTask(row.field, None, {}, method, row.problem)
    protein = known.get(row.ensembl_gene_id, {})
    problem = None
    if not protein.get("localizations"):
        lacks = "has no localization" if protein else "is not"
        problem = f"Its protein '{row.ensembl_gene_id}' {lacks} in the table of proteins."
    # Workers may run in another folder.
    row = row.model_copy(update={"nucleus": row.nucleus.absolute(), "protein": row.protein.absolute()})
    return CropTask(row.field, row, protein, method, problem)


def _lost(name: str, error: WorkerDiedError) -> FieldCrops:
    return FieldCrops(name, np.zeros((0, 2, 1, 1), np.uint8), [], str(error))


def _inputs(fields: Path, proteins: Path, method: CropMethod) -> dict[str, Any]:
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


def _finish(draft: CropStoreWriter, proteins: Path, resumed: int) -> PrepareSummary:
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
    write_store_proteins(proteins, shown, out)
    counts = {"crops": draft.crops, "fields": draft.done - left_out, "left_out": left_out}
    settings = draft.inputs["settings"]
    size = {"size_px": settings["size_px"], "pixel_size_um": settings["pixel_size_um"]}
    draft.finish({"deepgps": deepgps.__version__, **size, **counts}, SCHEMA)
    return PrepareSummary(**counts, resumed=resumed)


def _count(out: Path) -> PrepareSummary:
    """Tell the counts of a store that is there already."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    counts = {name: int(manifest[name]) for name in ("crops", "fields", "left_out")}
    return PrepareSummary(**counts, resumed=counts["fields"] + counts["left_out"])
