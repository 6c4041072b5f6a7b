"""Download from OpenCell: its tables from the portal, and its images from the S3 bucket."""

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from deepgps.datasets.fetch.download import Client
from deepgps.datasets.fetch.folder import (
    DownloadFolder,
    DownloadProgress,
    Fetcher,
    FetchSummary,
    RemoteFile,
    SourceProtein,
    select_proteins,
    strip_version,
)
from deepgps.errors import DeepGPSError, InputError
from deepgps.images.cell import OPENCELL_PIXEL_SIZE_UM

BUCKET = "https://czb-opencell.s3.us-west-2.amazonaws.com"
PORTAL = "https://opencell.czbiohub.org/data/datasets"
IMAGE_PREFIX = "microscopy/raw/"
ANNOTATIONS, LIBRARY = "opencell-localization-annotations.csv", "opencell-library-metadata.csv"
CELL_LINE = "HEK293T"


@dataclass(frozen=True, slots=True)
class Projection:
    """A field of view in the bucket: a maximum projection with channel 0 Hoechst and channel 1 the protein.

    Attributes
    ----------
    key
        Its key in the bucket.
    size
        Size in bytes.
    gene, ensg
        Gene symbol and Ensembl gene id of its protein, from the file name.
    """

    key: str
    size: int
    gene: str
    ensg: str

    @property
    def path(self) -> str:
        """Path in the download folder."""
        return f"images/{self.key.removeprefix(IMAGE_PREFIX)}"

    @property
    def field(self) -> str:
        """Name of the field."""
        return self.key.rpartition("/")[2].removesuffix("_proj.tif")


def listing_url(bucket: str, token: str | None) -> str:
    """Return the URL of a page of the listing; the token is the continuation token of the previous page."""
    query = {"list-type": "2", "prefix": IMAGE_PREFIX} | ({"continuation-token": token} if token else {})
    return f"{bucket}/?{urlencode(query)}"


def file_url(bucket: str, key: str) -> str:
    """Return the URL of a file in the bucket."""
    return f"{bucket}/{quote(key)}"


def read_page(content: bytes) -> tuple[list[Projection], str | None]:
    """Read a page of the listing: its projections, and the token of the next page.

    Returns
    -------
    tuple
        The projections, and the token of the next page, or None after the last.

    Raises
    ------
    DeepGPSError
        If it is not a listing.
    """
    try:
        root = ET.fromstring(content)
    except ET.ParseError:
        root = ET.Element("")
    if not root.tag.endswith("ListBucketResult"):
        raise DeepGPSError(
            f"OpenCell's bucket did not return a listing, but {content[:60]!r}; check its address."
        )
    found = []
    for entry in root.iterfind("{*}Contents"):
        key, size = entry.findtext("{*}Key", ""), int(entry.findtext("{*}Size", "0"))
        if names := _names(key):
            found.append(Projection(key, size, *names))
    return found, root.findtext("{*}NextContinuationToken") or None


def _names(key: str) -> tuple[str, str] | None:
    """Parse gene and Ensembl id of ``…/OC-FOV_<GENE>_<ENSG>_CID<6>_FID<8>_proj.tif``; None for others."""
    match key.rpartition("/")[2].split("_"):
        case ["OC-FOV", gene, ensg, cid, fid, "proj.tif"] if (
            ensg.startswith("ENSG") and cid[:3] + fid[:3] == "CIDFID"
        ):
            return gene, ensg
    return None


def read_annotated_proteins(annotations: str, library: str) -> list[SourceProtein]:
    """Join the two tables by Ensembl gene id.

    Parameters
    ----------
    annotations, library
        Content of the two CSV tables.

    Returns
    -------
    list of SourceProtein
        The annotated proteins, in the order of their table.

    Raises
    ------
    InputError
        If a column is missing.
    """
    accessions = {
        strip_version(row["ensg_id"]): row["uniprot_id"].strip()
        for row in _rows(library, LIBRARY, ("ensg_id", "uniprot_id"))
    }
    return [
        SourceProtein(
            ensg := strip_version(row["ensg_id"]), row["target_name"].strip(), accessions.get(ensg, "")
        )
        for row in _rows(annotations, ANNOTATIONS, ("ensg_id", "target_name"))
    ]


def _rows(text: str, name: str, required: tuple[str, ...]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    if missing := [column for column in required if column not in (reader.fieldnames or ())]:
        raise InputError(
            f"OpenCell's table {name} has no column '{missing[0]}'; the portal may have changed."
        )
    for row in reader:
        yield {column: row[column] or "" for column in required}


def opencell_field_row(projection: Projection, protein: SourceProtein) -> dict[str, str]:
    """Return the row of ``fields.csv``."""
    return {
        "field": projection.field,
        "source": "opencell",
        "ensembl_gene_id": protein.ensg,
        "gene_symbol": protein.gene,
        "accession": protein.accession,
        "cell_line": CELL_LINE,
        "nucleus": projection.path,
        "nucleus_channel": "0",
        "protein": projection.path,
        "protein_channel": "1",
        "pixel_size_um": str(OPENCELL_PIXEL_SIZE_UM),
        "note": "",
    }


def fetch_opencell(
    folder: Path,
    client: Client,
    progress: DownloadProgress,
    *,
    bucket: str = BUCKET,
    portal: str = PORTAL,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> FetchSummary:
    """Download OpenCell's tables and the projections of its annotated proteins.

    Parameters
    ----------
    folder
        Receives ``annotations.csv``, ``library.csv``, ``images/`` and ``fields.csv``.
    client
        The HTTP client.
    progress
        Receives the progress.
    bucket, portal
        Base URLs of the images and of the tables.
    ids
        Only these proteins: Ensembl gene ids, gene symbols or accessions.
    limit
        Only this many proteins, in the order of the bucket.

    Returns
    -------
    FetchSummary
        What was downloaded, and what could not be.

    Raises
    ------
    InputError
        If none of the ids is in OpenCell, or the folder cannot be used.
    DeepGPSError
        If the tables or the listing cannot be downloaded.
    """
    parameters = {"bucket": bucket, "portal": portal, "proteins": ids, "limit": limit}
    with DownloadFolder(folder, "opencell", parameters) as download_folder:
        fetcher = Fetcher(download_folder, client, progress)
        tables = [
            fetcher.get_required(name, f"{portal}/{remote_name}").decode("utf-8", errors="replace")
            for name, remote_name in (("annotations.csv", ANNOTATIONS), ("library.csv", LIBRARY))
        ]
        selected, unknown = select_proteins(read_annotated_proteins(*tables), ids, "OpenCell")
        proteins = {protein.ensg: protein for protein in selected}
        progress.begin("listing", None)
        found = list(_projections(client, progress, bucket, proteins, limit))
        files = {_projection_file(bucket, each): each for each in found}
        rows = [
            opencell_field_row(files[file], proteins[file.protein])
            for file in fetcher.get_all("fields", list(files))
        ]
        if limit is None:
            for ensg in proteins.keys() - {each.ensg for each in found}:
                download_folder.add_problem(ensg, "", "", "annotated, but without an image in the bucket")
        return fetcher.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _projection_file(bucket: str, projection: Projection) -> RemoteFile:
    url = file_url(bucket, projection.key)
    return RemoteFile(projection.path, url, projection.ensg, projection.size)


def _projections(
    client: Client,
    progress: DownloadProgress,
    bucket: str,
    proteins: dict[str, SourceProtein],
    limit: int | None,
) -> Iterator[Projection]:
    """Yield the projections of the first `limit` proteins; request pages only as needed."""
    token: str | None = None
    seen: set[str] = set()
    while True:
        page, token = read_page(client.read(listing_url(bucket, token)))
        progress.advance()
        for projection in page:
            if projection.ensg not in proteins:
                continue
            seen.add(projection.ensg)
            if limit is not None and len(seen) > limit:
                return
            yield projection
        if token is None:
            return
