"""Accepted images as a crop store that ``deepgps train`` and ``deepgps finetune`` take."""

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
from deepgps.results.table import table_line
from opengps.database import Sessions
from opengps.downloads import harmless
from opengps.rendering import when
from opengps.settings import Settings
from opengps.submissions.moderation import listed
from opengps.submissions.reading import CROPPED
from opengps.submissions.store import Kept, read_array
from opengps.submissions.tables import ImagePair, Submission

PROVENANCE = "provenance.csv"
_COLUMNS = (
    *("field", "number", "sha256", "protein_id", "localizations", "cell_line", "microscope"),
    *("pixel_size_um", "contributor", "licence", "received", "files", "consent"),
)
_TABLE = {
    **dict.fromkeys(
        ("protein_id", "localizations", "gene_symbol", "accession", "sequence"),
        pl.String,
    ),
    "single_localized": pl.Boolean,
}


@dataclass(frozen=True, slots=True)
class Exported:
    """How much a store holds."""

    image_pairs: int
    proteins: int
    crops: int


def export_accepted(
    sessions: Sessions, settings: Settings, out: Path, *, overwrite: bool = False
) -> Exported:
    """Write the accepted images to a crop store, its proteins and their provenance beside.

    Parameters
    ----------
    sessions, settings
        Those of the site.
    out
        Folder of the store; made if missing.
    overwrite
        Replace what it holds of an earlier export.

    Raises
    ------
    InputError
        If nothing is accepted, or the folder holds crops of anything else.
    """
    accepted = listed(sessions, "accepted")
    if not accepted:
        raise InputError("No image is accepted yet; see 'deepgps submissions list'.")
    names = _protein_ids([image_pair for image_pair, _ in accepted])
    rows = {image_pair.number: _rows(image_pair, names[image_pair.number]) for image_pair, _ in accepted}
    counts = Exported(len(accepted), len(set(names.values())), sum(map(len, rows.values())))
    with CropStoreWriter(out, _inputs(rows), overwrite=overwrite) as draft:
        if draft.complete:
            return counts
        for image_pair, _ in accepted[draft.done :]:
            crops = read_array(settings, image_pair, Kept.CROPS)
            name = names[image_pair.number]
            draft.add(
                crops,
                rows[image_pair.number],
                {"field": image_pair.sha256[:16], "problem": None, "protein": name},
            )
        _write_proteins(out, accepted, names)
        _write_provenance(out, accepted, names)
        size = {"size_px": CROPPED.size_px, "pixel_size_um": CROPPED.pixel_size_um}
        found = {"crops": counts.crops, "fields": counts.image_pairs, "left_out": 0}
        draft.finish({"deepgps": deepgps.__version__, **size, **found}, SCHEMA)
    return counts


def _inputs(rows: Mapping[int, Any]) -> dict[str, Any]:
    """Tell what makes two exports the same; the names are those that a refusal says."""
    text = json.dumps(list(rows.values()), sort_keys=True)
    return {
        "version of deepGPS": deepgps.__version__,
        "choice of accepted images": hashlib.sha256(text.encode()).hexdigest(),
        "settings": CROPPED.model_dump(mode="json"),
    }


def _protein_ids(image_pairs: Iterable[ImagePair]) -> dict[int, str]:
    """Name the protein of each image: its accession, else what its contributor called it.

    Where two contributors call different sequences alike, the later one's name says so.
    """
    sequences: dict[str, str | None] = {}
    names = {}
    for image_pair in image_pairs:
        name = image_pair.accession or image_pair.protein_id
        known = sequences.setdefault(name, image_pair.sequence)
        if known != image_pair.sequence:
            name = f"{name}~{hashlib.sha256((image_pair.sequence or '').encode()).hexdigest()[:8]}"
        names[image_pair.number] = name
    return names


def _rows(image_pair: ImagePair, name: str) -> list[dict[str, Any]]:
    shown = {
        "protein_id": name,
        "group": name,
        "gene_symbol": image_pair.gene_symbol or "",
        "accession": image_pair.accession or "",
        "localizations": image_pair.localizations,
        "cell_line": image_pair.cell_line,
    }
    return [{**row, **shown} for row in image_pair.rows]


def _write_proteins(
    out: Path, accepted: Sequence[tuple[ImagePair, Submission]], names: Mapping[int, str]
) -> None:
    """Write a row for each protein; where its images show it in several places, all of them."""
    rows: dict[str, dict[str, Any]] = {}
    places: dict[str, dict[str, None]] = {}
    for image_pair, _ in accepted:
        name = names[image_pair.number]
        places.setdefault(name, {}).update(dict.fromkeys(image_pair.localizations.split("|")))
        rows[name] = {
            "protein_id": name,
            "localizations": "|".join(places[name]),
            "gene_symbol": image_pair.gene_symbol,
            "accession": image_pair.accession,
            "sequence": image_pair.sequence,
            "single_localized": len(places[name]) == 1,
        }
    with atomic_path(out / PROTEINS) as draft:
        pl.DataFrame(list(rows.values()), _TABLE).write_parquet(draft)


def _write_provenance(
    out: Path, accepted: Sequence[tuple[ImagePair, Submission]], names: Mapping[int, str]
) -> None:
    with atomic_path(out / PROVENANCE) as draft, draft.open("wb") as file:
        file.write(table_line(_COLUMNS))
        for image_pair, submission in accepted:
            files = " ".join(
                f"{each['name']} sha256:{each['sha256']}" for each in image_pair.provenance["files"]
            )
            cells = (
                *(
                    image_pair.sha256[:16],
                    str(image_pair.number),
                    image_pair.sha256,
                    names[image_pair.number],
                ),
                *(image_pair.localizations, image_pair.cell_line, image_pair.microscope),
                *(f"{image_pair.pixel_size_um:g}", submission.contributor, submission.licence),
                *(when(submission.created) or "", files, submission.consent),
            )
            file.write(table_line([harmless(cell) for cell in cells]))
