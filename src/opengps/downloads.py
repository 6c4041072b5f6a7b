"""Results as files, under the same names for pages and API: ``/predictions/…``, ``/api/v1/predictions/…``."""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse
from PIL import Image
from sqlalchemy import select

from deepgps.images.write import FULL_SCALE
from deepgps.results.folder import RECORDS_FILE, REPORT_FILE
from deepgps.results.image_files import EXTENSIONS, IMAGES
from deepgps.results.images import overlay, stretched
from deepgps.results.run import RUN_FILE
from deepgps.results.table import cells, columns, json_line, table_line
from opengps.catalogue import grey_png, png
from opengps.problems import Problems, RefusedError, not_found
from opengps.queue import Site
from opengps.shelf import job_key, shelf_of
from opengps.store import find_row, rejections
from opengps.tables import Job, Row
from opengps.views import JobHere, SiteHere
from opengps.workplace import image_names

MISSING: dict[int | str, dict[str, Any]] = {404: {"model": Problems}, 422: {"model": Problems}}
LAYERS = ("nucleus.png", "protein.png", "overlay.png", "nucleus-blue.png", "protein-yellow.png", "small.png")
_SMALL_PX = 128
# A spreadsheet computes a cell that begins so; what a stranger called a protein is never a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MOST_NUMBER = 2**31 - 1

router = APIRouter(responses=MISSING, tags=["downloads"])
RowNumber = Annotated[
    int, InPath(ge=0, le=_MOST_NUMBER, description="The row's place in the results, from 0")
]


def kinds(kind: str, **schema: Any) -> dict[str, Any]:
    """Describe a route that answers with a file."""
    shown = {kind: {"schema": schema or {"type": "string"}}}
    return {"response_class": Response, "responses": {200: {"content": shown}, **MISSING}}


@router.get("/predictions/{job_id}/results.csv", **kinds("text/csv"))
def results_csv(site: SiteHere, job: JobHere) -> Response:
    """Get the table as CSV."""
    return _table(site, job, ",", "text/csv", "results.csv")


@router.get("/predictions/{job_id}/results.tsv", **kinds("text/tab-separated-values"))
def results_tsv(site: SiteHere, job: JobHere) -> Response:
    """Get the table as TSV."""
    return _table(site, job, "\t", "text/tab-separated-values", "results.tsv")


@router.get(
    "/predictions/{job_id}/results.json", **kinds("application/json", type="array", items={"type": "object"})
)
def results_json(site: SiteHere, job: JobHere) -> Response:
    """Get all rows with probabilities, evidence and warnings as JSON."""
    records = [row.record for row in _rows(site, job)]
    return _attached(json.dumps(records, ensure_ascii=False), "application/json", job, "results.json")


@router.get("/predictions/{job_id}/rejected.csv", **kinds("text/csv"))
def rejected_csv(site: SiteHere, job: JobHere) -> Response:
    """Get the records that could not be used, and why."""
    return _attached(_rejected(site, job), "text/csv", job, "rejected.csv")


@router.get("/predictions/{job_id}/images.zip", **kinds("application/zip"))
def images_zip(site: SiteHere, job: JobHere) -> Response:
    """Get all images, OME-TIFF and PNG, as a ZIP."""
    return _zipped(_kept_files(site, job, _images(site, job)), job, "images.zip")


@router.get("/predictions/{job_id}/results.zip", **kinds("application/zip"))
def results_zip(site: SiteHere, job: JobHere) -> Response:
    """Get everything as a ZIP: tables, images, report and run record."""
    made = [
        ("results.csv", _lines(_rows(site, job), job, ",")),
        ("results.tsv", _lines(_rows(site, job), job, "\t")),
        ("rejected.csv", _rejected(site, job)),
        (RECORDS_FILE, b"".join(json_line(row.record) for row in _rows(site, job))),  # type: ignore[arg-type]
    ]
    kept = [REPORT_FILE, RUN_FILE, *_images(site, job)]
    return _zipped(chain(made, _kept_files(site, job, kept)), job, "results.zip")


@router.get("/predictions/{job_id}/results/{number}/image.png", **kinds("image/png"))
def image_png(site: SiteHere, job: JobHere, number: RowNumber) -> Response:
    """Get the labelled image of one row: nucleus, protein and overlay."""
    _, content = _image(site, job, number, ".png")
    return Response(content, media_type="image/png", headers=_kept())


@router.get("/predictions/{job_id}/results/{number}/image.ome.tif", **kinds("image/tiff"))
def image_tiff(site: SiteHere, job: JobHere, number: RowNumber) -> Response:
    """Get the intensities of one row to measure: OME-TIFF of nucleus and protein, with the pixel size."""
    name, content = _image(site, job, number, ".ome.tif")
    named = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="image/tiff", headers={**_kept(), **named})


@router.get("/predictions/{job_id}/results/{number}/{layer}.png", **kinds("image/png"))
def layer_png(site: SiteHere, job: JobHere, number: RowNumber, layer: str) -> Response:
    """Get one layer of an image, stretched for display: nucleus, protein, or both, small or in colour."""
    if f"{layer}.png" not in LAYERS:
        raise not_found(f"There is no layer '{layer[:80]}'; there is: {', '.join(LAYERS)}.", "layer")
    _, content = _image(site, job, number, ".ome.tif")
    return Response(_layer(content, layer), media_type="image/png", headers=_kept())


def _kept() -> dict[str, str]:
    return {"Cache-Control": "private, max-age=3600"}


def _rows(site: Site, job: Job) -> Iterator[Row]:
    with site.sessions() as session:
        chosen = select(Row).where(Row.job_id == job.id).order_by(Row.number)
        yield from session.scalars(chosen.execution_options(yield_per=200))


def harmless(value: str) -> str:
    """Keep a spreadsheet from taking a cell for a formula: an apostrophe goes before it."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def _lines(rows: Iterable[Row], job: Job, delimiter: str) -> bytes:
    lines = [table_line(columns(job.classes), delimiter)]
    for row in rows:
        values = cells(row.record, job.classes)  # type: ignore[arg-type]
        lines.append(table_line([harmless(value) for value in values], delimiter))
    return b"".join(lines)


def _rejected(site: Site, job: Job) -> bytes:
    lines = [table_line(["Protein_ID", "Source", "Reason"])]
    for entry in rejections(site.sessions, job.id):
        values = (entry.protein_id, entry.source, entry.reason or "")
        lines.append(table_line([harmless(value) for value in values]))
    return b"".join(lines)


def _table(site: Site, job: Job, delimiter: str, kind: str, name: str) -> Response:
    return _attached(_lines(_rows(site, job), job, delimiter), f"{kind}; charset=utf-8", job, name)


def _attachment(job: Job, name: str) -> dict[str, str]:
    # The first letters of the id tell two downloads apart and do not give the job away.
    return {
        "Content-Disposition": f'attachment; filename="opengps-{job.id[:6]}-{name}"',
        "Cache-Control": "no-store",
    }


def _attached(content: bytes | str, kind: str, job: Job, name: str) -> Response:
    return Response(content, media_type=kind, headers=_attachment(job, name))


def _images(site: Site, job: Job) -> list[str]:
    # All before the first is sent: a slow receiver keeps no connection to the database.
    return list(image_names(row.record for row in _rows(site, job)))  # type: ignore[misc]


def _kept_files(site: Site, job: Job, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        try:
            content = shelf_of(site.settings).read(f"{job_key(job.id)}/{name}")
        except FileNotFoundError:
            # The sweep may take a file away while it is fetched.
            continue
        yield name, content


class _Pipe(io.RawIOBase):
    """What a ZIP is written to, to be taken away piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)

    def taken(self) -> bytes:
        whole, self.pieces = b"".join(self.pieces), []
        return whole


def _zipped(files: Iterable[tuple[str, bytes]], job: Job, name: str) -> Response:
    def pieces() -> Iterator[bytes]:
        pipe = _Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for inner, content in files:
                stored = inner.endswith(EXTENSIONS)
                archive.writestr(inner, content, zipfile.ZIP_STORED if stored else None)
                yield pipe.taken()
        yield pipe.taken()

    return StreamingResponse(pieces(), media_type="application/zip", headers=_attachment(job, name))


def _image(site: Site, job: Job, number: int, extension: str) -> tuple[str, bytes]:
    """Find the name of a row's image, and its bytes."""
    name = _image_name(site, job, number, extension)
    try:
        return name, shelf_of(site.settings).read(f"{job_key(job.id)}/{IMAGES}/{name}")
    except FileNotFoundError:
        raise _no_image(number) from None


def _image_name(site: Site, job: Job, number: int, extension: str) -> str:
    row = find_row(site.sessions, job.id, number)
    if row is None or row.record["images"] is None:
        raise _no_image(number)
    return Path(row.record["images"] + extension).name


def _no_image(number: int) -> RefusedError:
    return not_found(f"Row {number} of this prediction has no image.", "number")


@lru_cache(maxsize=512)
def _layer(content: bytes, layer: str) -> bytes:
    import tifffile

    nucleus, protein = tifffile.imread(io.BytesIO(content)).astype(np.float32) / FULL_SCALE
    if layer in ("nucleus", "protein"):
        return grey_png(nucleus if layer == "nucleus" else protein)
    blue, yellow = stretched(nucleus), stretched(protein)
    if layer == "nucleus-blue":
        yellow = np.zeros_like(yellow)
    elif layer == "protein-yellow":
        blue = np.zeros_like(blue)
    image = Image.fromarray(overlay(blue, yellow))
    if layer == "small":
        image.thumbnail((_SMALL_PX, _SMALL_PX))
    return png(image)
