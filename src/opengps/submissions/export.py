"""Accepted images as a crop store that ``deepgps train`` and ``deepgps finetune`` read."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import deepgps
from deepgps.datasets.crops.prepare import SCHEMA
from deepgps.datasets.crops.store import PROTEINS, CropStoreWriter
from deepgps.errors import InputError
from deepgps.files import atomic_path
from deepgps.results.records import table_line
from opengps.database import ImagePair, Submission, iso_time
from opengps.downloads import escape_formula
from opengps.site import Site
from opengps.submissions.cropping import CROP_SETTINGS
from opengps.submissions.store import ImageFile, images_by_status, read_array

PROVENANCE = "provenance.csv"
_PROVENANCE_COLUMNS = (
    *("field", "number", "sha256", "protein_id", "localizations", "cell_line", "microscope"),
    *("pixel_size_um", "contributor", "licence", "received", "files", "consent"),
)
_PROTEIN_SCHEMA = {
    **dict.fromkeys(("protein_id", "localizations", "gene_symbol", "accession", "sequence"), pl.String),
    "single_localized": pl.Boolean,
}


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Size of a store."""

    images: int
    proteins: int
    crops: int


def export_accepted(site: Site, out: Path, *, overwrite: bool = False) -> ExportSummary:
    """Write the accepted images to a crop store, with their proteins and provenance.

    Parameters
    ----------
    site
        The site.
    out
        Folder of the store; created if missing.
    overwrite
        Replace an earlier export.

    Raises
    ------
    InputError
        If no image is accepted, or the folder contains other crops.
    """
    accepted = images_by_status(site.sessions, "accepted")
    if not accepted:
        raise InputError("No image is accepted yet; see 'deepgps submissions list'.")
    ids = _protein_ids([image for image, _ in accepted])
    rows = {image.number: _index_rows(image, ids[image.number]) for image, _ in accepted}
    summary = ExportSummary(len(accepted), len(set(ids.values())), sum(map(len, rows.values())))
    with CropStoreWriter(out, _identity(rows), overwrite=overwrite) as draft:
        if draft.complete:
            return summary
        for image, _ in accepted[draft.done :]:
            crops = read_array(site, image, ImageFile.CROPS)
            field = {"field": image.sha256[:16], "problem": None, "protein": ids[image.number]}
            draft.add(crops, rows[image.number], field)
        _write_proteins(out, accepted, ids)
        _write_provenance(out, accepted, ids)
        size = {"size_px": CROP_SETTINGS.size_px, "pixel_size_um": CROP_SETTINGS.pixel_size_um}
        counts = {"crops": summary.crops, "fields": summary.images, "left_out": 0}
        draft.finish({"deepgps": deepgps.__version__, **size, **counts}, SCHEMA)
    return summary


def _identity(rows: Mapping[int, Any]) -> dict[str, Any]:
    """Return what two identical exports have in common; messages use these names."""
    text = json.dumps(list(rows.values()), sort_keys=True)
    return {
        "version of deepGPS": deepgps.__version__,
        "choice of accepted images": hashlib.sha256(text.encode()).hexdigest(),
        "settings": CROP_SETTINGS.model_dump(mode="json"),
    }


def _protein_ids(images: Iterable[ImagePair]) -> dict[int, str]:
    """Return the protein id of each image: its accession, or else the contributor's name for it.

    If two contributors use the same name for different sequences, the later one gets a suffix.
    """
    sequences: dict[str, str | None] = {}
    ids = {}
    for image in images:
        name = image.accession or image.protein_id
        if sequences.setdefault(name, image.sequence) != image.sequence:
            name = f"{name}~{hashlib.sha256((image.sequence or '').encode()).hexdigest()[:8]}"
        ids[image.number] = name
    return ids


def _index_rows(image: ImagePair, protein_id: str) -> list[dict[str, Any]]:
    common = {
        "protein_id": protein_id,
        "group": protein_id,
        "gene_symbol": image.gene_symbol or "",
        "accession": image.accession or "",
        "localizations": image.localizations,
        "cell_line": image.cell_line,
    }
    return [{**crop, **common} for crop in image.crops]


def _write_proteins(
    out: Path, accepted: Sequence[tuple[ImagePair, Submission]], ids: Mapping[int, str]
) -> None:
    """Write one row per protein, with the localizations of all its images."""
    rows: dict[str, dict[str, Any]] = {}
    localizations: dict[str, dict[str, None]] = {}
    for image, _ in accepted:
        protein_id = ids[image.number]
        found = localizations.setdefault(protein_id, {})
        found.update(dict.fromkeys(image.localizations.split("|")))
        rows[protein_id] = {
            "protein_id": protein_id,
            "localizations": "|".join(found),
            "gene_symbol": image.gene_symbol,
            "accession": image.accession,
            "sequence": image.sequence,
            "single_localized": len(found) == 1,
        }
    with atomic_path(out / PROTEINS) as draft:
        pl.DataFrame(list(rows.values()), _PROTEIN_SCHEMA).write_parquet(draft)


def _write_provenance(
    out: Path, accepted: Sequence[tuple[ImagePair, Submission]], ids: Mapping[int, str]
) -> None:
    with atomic_path(out / PROVENANCE) as draft, draft.open("wb") as file:
        file.write(table_line(_PROVENANCE_COLUMNS))
        for image, submission in accepted:
            files = (f"{each['name']} sha256:{each['sha256']}" for each in image.provenance["files"])
            values = (
                *(image.sha256[:16], str(image.number), image.sha256, ids[image.number]),
                *(image.localizations, image.cell_line, image.microscope, f"{image.pixel_size_um:g}"),
                *(submission.contributor, submission.licence, iso_time(submission.created_at)),
                *(" ".join(files), submission.consent),
            )
            file.write(table_line([escape_formula(value) for value in values]))
