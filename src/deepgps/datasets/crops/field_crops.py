"""One field, from its files to its crops: what a worker does."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepgps.arrays import Bytes, LabelImage
from deepgps.datasets.crops.cut import Pair, ReadyField, cut_field, ready_field
from deepgps.datasets.crops.field_images import FieldImages, read_images
from deepgps.datasets.crops.fields import FieldRow
from deepgps.datasets.crops.quality import Quality, contrast, field_quality
from deepgps.datasets.crops.settings import EMPTY_CONTRAST, PrepareSettings
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.read import image_stem
from deepgps.images.segmentation import LABELS_SUFFIX, Segmenter, get_segmenter, read_labels


@dataclass(frozen=True, slots=True)
class Method:
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
class Task:
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
    method: Method
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FieldCrops:
    """What became of a field: crops (n, 2, S, S) uint8 and their rows, or the reason why there are none."""

    field: str
    crops: Bytes
    rows: list[dict[str, Any]]
    problem: str | None = None


def crop_one(task: Task) -> FieldCrops:
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


def _crops(task: Task, row: FieldRow) -> tuple[list[Pair], list[dict[str, Any]]]:
    settings = task.method.settings
    images = read_images(row, check_order=settings.channel_order == "check")
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


def _ready(task: Task, row: FieldRow, images: FieldImages) -> ReadyField:
    nuclei: LabelImage | Segmenter
    if task.method.labels is not None:
        nuclei = read_labels(_label_image(task.method.labels, row))
    else:
        nuclei = _with_min_area(get_segmenter(task.method.segmenter), task.method.settings.min_area_um2)
    return ready_field(images.nucleus, [images.protein], images.pixel_size_um, task.method.settings, nuclei)


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


def _why_none(ready: ReadyField, settings: PrepareSettings) -> str:
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


def _index_row(task: Task, row: FieldRow, pair: Pair, quality: Quality) -> dict[str, Any]:
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
