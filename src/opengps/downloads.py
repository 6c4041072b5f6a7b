"""Results as files, at the same paths for pages and API: ``/predictions/…`` and ``/api/v1/predictions/…``."""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import Response, StreamingResponse
from PIL import Image

from deepgps.images.write import FULL_SCALE
from deepgps.results.folder import RECORDS_FILE, REPORT_FILE
from deepgps.results.image_storage import IMAGE_EXTENSIONS, IMAGE_FOLDER
from deepgps.results.labelled_images import overlay, stretch
from deepgps.results.records import json_line, table_columns, table_line, table_row
from deepgps.results.run import RUN_FILE
from opengps.database import Job, Result
from opengps.errors import ErrorResponse, RequestError, not_found
from opengps.jobs import JobDep, SiteDep, get_result, image_keys, iterate_results, rejected_records
from opengps.models import encode_png, grey_png
from opengps.schemas import MAX_INTEGER
from opengps.site import Site
from opengps.storage import job_key

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorResponse}, 422: {"model": ErrorResponse}}
LAYERS = ("nucleus.png", "protein.png", "overlay.png", "nucleus-blue.png", "protein-yellow.png", "small.png")
_SMALL_PX = 128
# A spreadsheet evaluates a cell that starts so; a protein's id is never a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_FORMULA_AFTER_MARK = re.compile(r"([,;|\t\r\n][\"']?)([=+@-])")
_IMAGE_CACHE = {"Cache-Control": "private, max-age=3600"}

router = APIRouter(responses=NOT_FOUND, tags=["downloads"])
ResultNumber = Annotated[int, PathParameter(ge=0, le=MAX_INTEGER, description="Place in the results, from 0")]


def file_route(media_type: str, **schema: Any) -> dict[str, Any]:
    """Describe a route that returns a file."""
    content = {media_type: {"schema": schema or {"type": "string"}}}
    return {"response_class": Response, "responses": {200: {"content": content}, **NOT_FOUND}}


@router.get("/predictions/{job_id}/results.csv", **file_route("text/csv"))
def results_csv(site: SiteDep, job: JobDep) -> Response:
    """Download the table as CSV."""
    content = _table(iterate_results(site, job.id), job, ",")
    return _attachment(content, "text/csv; charset=utf-8", job, "results.csv")


@router.get("/predictions/{job_id}/results.tsv", **file_route("text/tab-separated-values"))
def results_tsv(site: SiteDep, job: JobDep) -> Response:
    """Download the table as TSV."""
    content = _table(iterate_results(site, job.id), job, "\t")
    return _attachment(content, "text/tab-separated-values; charset=utf-8", job, "results.tsv")


@router.get(
    "/predictions/{job_id}/results.json",
    **file_route("application/json", type="array", items={"type": "object"}),
)
def results_json(site: SiteDep, job: JobDep) -> Response:
    """Download all results with probabilities, evidence and warnings as JSON."""
    records = [result.record for result in iterate_results(site, job.id)]
    content = json.dumps(records, ensure_ascii=False).encode()
    return _attachment(content, "application/json", job, "results.json")


@router.get("/predictions/{job_id}/rejected.csv", **file_route("text/csv"))
def rejected_csv(site: SiteDep, job: JobDep) -> Response:
    """Download the input records that could not be used, and why."""
    return _attachment(_rejected_table(site, job), "text/csv", job, "rejected.csv")


@router.get("/predictions/{job_id}/images.zip", **file_route("application/zip"))
def images_zip(site: SiteDep, job: JobDep) -> Response:
    """Download all images, OME-TIFF and PNG, as a ZIP."""
    return _zip_response(_stored_files(site, job, _image_keys(site, job)), job, "images.zip")


@router.get("/predictions/{job_id}/results.zip", **file_route("application/zip"))
def results_zip(site: SiteDep, job: JobDep) -> Response:
    """Download everything as a ZIP: tables, images, report and run record."""
    records = (json_line(result.record) for result in iterate_results(site, job.id))  # type: ignore[arg-type]
    tables = [
        ("results.csv", _table(iterate_results(site, job.id), job, ",")),
        ("results.tsv", _table(iterate_results(site, job.id), job, "\t")),
        ("rejected.csv", _rejected_table(site, job)),
        (RECORDS_FILE, b"".join(records)),
    ]
    keys = [f"{job_key(job.id)}/{name}" for name in (REPORT_FILE, RUN_FILE)]
    stored = _stored_files(site, job, [*keys, *_image_keys(site, job)])
    return _zip_response(chain(tables, stored), job, "results.zip")


@router.get("/predictions/{job_id}/results/{number}/image.png", **file_route("image/png"))
def image_png(site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """Get the labelled image of one result: nucleus, protein and overlay."""
    _, content = _read_image(site, job, number, ".png")
    return Response(content, media_type="image/png", headers=_IMAGE_CACHE)


@router.get("/predictions/{job_id}/results/{number}/image.ome.tif", **file_route("image/tiff"))
def image_tiff(site: SiteDep, job: JobDep, number: ResultNumber) -> Response:
    """Get the intensities of one result: OME-TIFF of nucleus, protein and landmarks, with the pixel size."""
    name, content = _read_image(site, job, number, ".ome.tif")
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="image/tiff", headers={**_IMAGE_CACHE, **disposition})


@router.get("/predictions/{job_id}/results/{number}/{layer}.png", **file_route("image/png"))
def layer_png(site: SiteDep, job: JobDep, number: ResultNumber, layer: str) -> Response:
    """Get one layer of an image, stretched for display: nucleus, protein or overlay."""
    if f"{layer}.png" not in LAYERS:
        raise not_found(f"There is no layer '{layer[:80]}'; choose from: {', '.join(LAYERS)}.", "layer")
    _, content = _read_image(site, job, number, ".ome.tif")
    return Response(_draw_layer(content, layer), media_type="image/png", headers=_IMAGE_CACHE)


def escape_formula(value: str) -> str:
    """Prevent a spreadsheet from evaluating a cell: put an apostrophe before a formula.

    A spreadsheet may split a line at another mark than the one that it was written with.
    """
    escaped = _FORMULA_AFTER_MARK.sub(r"\1'\2", value)
    return f"'{escaped}" if escaped.startswith(_FORMULA_STARTS) else escaped


def _table(results: Iterable[Result], job: Job, delimiter: str) -> bytes:
    lines = [table_line(table_columns(job.classes), delimiter)]
    for result in results:
        values = table_row(result.record, job.classes)  # type: ignore[arg-type]
        lines.append(table_line([escape_formula(value) for value in values], delimiter))
    return b"".join(lines)


def _rejected_table(site: Site, job: Job) -> bytes:
    lines = [table_line(["Protein_ID", "Source", "Reason"])]
    for record in rejected_records(site, job.id):
        values = (record.protein_id, record.source, record.reason or "")
        lines.append(table_line([escape_formula(value) for value in values]))
    return b"".join(lines)


def _attachment_headers(job: Job, name: str) -> dict[str, str]:
    # The start of the id distinguishes downloads, and does not give access to the job.
    return {
        "Content-Disposition": f'attachment; filename="opengps-{job.id[:6]}-{name}"',
        "Cache-Control": "no-store",
    }


def _attachment(content: bytes, media_type: str, job: Job, name: str) -> Response:
    return Response(content, media_type=media_type, headers=_attachment_headers(job, name))


def _image_keys(site: Site, job: Job) -> list[str]:
    # All keys before the first file is sent: a slow download does not hold a database connection.
    return image_keys(job.id, iterate_results(site, job.id))


def _stored_files(site: Site, job: Job, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for key in keys:
        try:
            content = site.storage.read(key)
        except FileNotFoundError:
            # There is no report yet, or the job was deleted during the download.
            continue
        yield key.removeprefix(f"{job_key(job.id)}/"), content


class _Buffer(io.RawIOBase):
    """What a ZIP is written to, and taken from part by part."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        content, self._parts = b"".join(self._parts), []
        return content


def _zip_response(files: Iterable[tuple[str, bytes]], job: Job, name: str) -> Response:
    def parts() -> Iterator[bytes]:
        buffer = _Buffer()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path, content in files:
                # Images are compressed already.
                archive.writestr(
                    path, content, zipfile.ZIP_STORED if path.endswith(IMAGE_EXTENSIONS) else None
                )
                yield buffer.take()
        yield buffer.take()

    return StreamingResponse(parts(), media_type="application/zip", headers=_attachment_headers(job, name))


def _read_image(site: Site, job: Job, number: int, extension: str) -> tuple[str, bytes]:
    """Return the file name and the content of a result's image."""
    stem = get_result(site, job.id, number).record["images"]
    if stem is None:
        raise _no_image(number)
    name = PurePosixPath(f"{stem}{extension}").name
    try:
        return name, site.storage.read(f"{job_key(job.id)}/{IMAGE_FOLDER}/{name}")
    except FileNotFoundError:
        raise _no_image(number) from None


def _no_image(number: int) -> RequestError:
    return not_found(f"Result {number} of this prediction has no image.", "number")


@lru_cache(maxsize=512)
def _draw_layer(content: bytes, layer: str) -> bytes:
    import tifffile

    # The first two of its channels; landmarks follow.
    nucleus, protein = tifffile.imread(io.BytesIO(content))[:2].astype(np.float32) / FULL_SCALE
    if layer in ("nucleus", "protein"):
        return grey_png(nucleus if layer == "nucleus" else protein)
    blue, yellow = stretch(nucleus), stretch(protein)
    if layer == "nucleus-blue":
        yellow = np.zeros_like(yellow)
    elif layer == "protein-yellow":
        blue = np.zeros_like(blue)
    image = Image.fromarray(overlay(blue, yellow))
    if layer == "small":
        image.thumbnail((_SMALL_PX, _SMALL_PX))
    return encode_png(image)
