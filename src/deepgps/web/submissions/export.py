"""Accepted pictures as a crop store that ``deepgps train`` and ``deepgps finetune`` take."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

import deepgps
from deepgps.datasets.crops.prepare import SCHEMA
from deepgps.datasets.crops.shown import PROTEINS
from deepgps.datasets.crops.writing import StoreDraft
from deepgps.errors import InputError
from deepgps.files.atomic import replacing
from deepgps.results.table import table_line
from deepgps.web.database import Sessions
from deepgps.web.downloads import harmless
from deepgps.web.rendering import when
from deepgps.web.settings import Settings
from deepgps.web.submissions.moderation import listed
from deepgps.web.submissions.reading import CROPPED
from deepgps.web.submissions.store import Kept, read_array
from deepgps.web.submissions.tables import Picture, Submission

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

    pictures: int
    proteins: int
    crops: int


def export_accepted(
    sessions: Sessions, settings: Settings, out: Path, *, overwrite: bool = False
) -> Exported:
    """Write the accepted pictures to a crop store, its proteins and their provenance beside.

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
        raise InputError("No picture is accepted yet; see 'deepgps submissions list'.")
    names = _protein_ids([picture for picture, _ in accepted])
    rows = {picture.number: _rows(picture, names[picture.number]) for picture, _ in accepted}
    counts = Exported(len(accepted), len(set(names.values())), sum(map(len, rows.values())))
    with StoreDraft(out, _inputs(rows), overwrite=overwrite) as draft:
        if draft.complete:
            return counts
        for picture, _ in accepted[draft.done :]:
            crops = read_array(settings, picture, Kept.CROPS)
            name = names[picture.number]
            draft.add(
                crops, rows[picture.number], {"field": picture.sha256[:16], "problem": None, "protein": name}
            )
        _write_proteins(out, accepted, names)
        _write_provenance(out, accepted, names)
        size = {"size_px": CROPPED.size_px, "pixel_size_um": CROPPED.pixel_size_um}
        found = {"crops": counts.crops, "fields": counts.pictures, "left_out": 0}
        draft.finish({"deepgps": deepgps.__version__, **size, **found}, SCHEMA)
    return counts


def _inputs(rows: Mapping[int, Any]) -> dict[str, Any]:
    """Tell what makes two exports the same; the names are those that a refusal says."""
    text = json.dumps(list(rows.values()), sort_keys=True)
    return {
        "version of deepGPS": deepgps.__version__,
        "choice of accepted pictures": hashlib.sha256(text.encode()).hexdigest(),
        "settings": CROPPED.model_dump(mode="json"),
    }


def _protein_ids(pictures: Iterable[Picture]) -> dict[int, str]:
    """Name the protein of each picture: its accession, else what its contributor called it.

    Where two contributors call different sequences alike, the later one's name says so.
    """
    sequences: dict[str, str | None] = {}
    names = {}
    for picture in pictures:
        name = picture.accession or picture.protein_id
        known = sequences.setdefault(name, picture.sequence)
        if known != picture.sequence:
            name = f"{name}~{hashlib.sha256((picture.sequence or '').encode()).hexdigest()[:8]}"
        names[picture.number] = name
    return names


def _rows(picture: Picture, name: str) -> list[dict[str, Any]]:
    shown = {
        "protein_id": name,
        "group": name,
        "gene_symbol": picture.gene_symbol or "",
        "accession": picture.accession or "",
        "localizations": picture.localizations,
        "cell_line": picture.cell_line,
    }
    return [{**row, **shown} for row in picture.rows]


def _write_proteins(
    out: Path, accepted: Sequence[tuple[Picture, Submission]], names: Mapping[int, str]
) -> None:
    """Write a row for each protein; where its pictures show it in several places, all of them."""
    rows: dict[str, dict[str, Any]] = {}
    places: dict[str, dict[str, None]] = {}
    for picture, _ in accepted:
        name = names[picture.number]
        places.setdefault(name, {}).update(dict.fromkeys(picture.localizations.split("|")))
        rows[name] = {
            "protein_id": name,
            "localizations": "|".join(places[name]),
            "gene_symbol": picture.gene_symbol,
            "accession": picture.accession,
            "sequence": picture.sequence,
            "single_localized": len(places[name]) == 1,
        }
    with replacing(out / PROTEINS) as draft:
        pl.DataFrame(list(rows.values()), _TABLE).write_parquet(draft)


def _write_provenance(
    out: Path, accepted: Sequence[tuple[Picture, Submission]], names: Mapping[int, str]
) -> None:
    with replacing(out / PROVENANCE) as draft, draft.open("wb") as file:
        file.write(table_line(_COLUMNS))
        for picture, submission in accepted:
            files = " ".join(
                f"{each['name']} sha256:{each['sha256']}" for each in picture.provenance["files"]
            )
            cells = (
                *(picture.sha256[:16], str(picture.number), picture.sha256, names[picture.number]),
                *(picture.localizations, picture.cell_line, picture.microscope),
                *(f"{picture.pixel_size_um:g}", submission.contributor, submission.licence),
                *(when(submission.created) or "", files, submission.consent),
            )
            file.write(table_line([harmless(cell) for cell in cells]))
