"""Fetch OpenCell: its tables from the portal, and its images from the bucket."""

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
    Fetcher,
    FetchSummary,
    Progress,
    RemoteFile,
    SourceProtein,
    select_proteins,
    strip_version,
)
from deepgps.errors import DeepGPSError, InputError

BUCKET = "https://czb-opencell.s3.us-west-2.amazonaws.com"
PORTAL = "https://opencell.czbiohub.org/data/datasets"
PREFIX = "microscopy/raw/"
ANNOTATIONS, LIBRARY = "opencell-localization-annotations.csv", "opencell-library-metadata.csv"
PIXEL_SIZE_UM = 0.206349
CELL_LINE = "HEK293T"


@dataclass(frozen=True, slots=True)
class Projection:
    """A field of the bucket: a maximum projection of two channels, 0 Hoechst and 1 the protein.

    Attributes
    ----------
    key
        Its name in the bucket.
    size
        Bytes.
    gene, ensg
        Whose protein it shows, as its name says.
    """

    key: str
    size: int
    gene: str
    ensg: str

    @property
    def path(self) -> str:
        """Where it goes in a folder: as in the bucket, below ``images``."""
        return f"images/{self.key.removeprefix(PREFIX)}"

    @property
    def field(self) -> str:
        """Its name."""
        return self.key.rpartition("/")[2].removesuffix("_proj.tif")


def listing_url(bucket: str, token: str | None) -> str:
    """Address of a page of the listing; the token is the one that the page before ended with."""
    query = {"list-type": "2", "prefix": PREFIX} | ({"continuation-token": token} if token else {})
    return f"{bucket}/?{urlencode(query)}"


def file_url(bucket: str, key: str) -> str:
    """Address of a file in the bucket."""
    return f"{bucket}/{quote(key)}"


def read_page(content: bytes) -> tuple[list[Projection], str | None]:
    """Read a page of the listing: the projections on it, and the token of the next page.

    Raises
    ------
    DeepGPSError
        If it is no listing.
    """
    try:
        root = ET.fromstring(content)
    except ET.ParseError:
        root = ET.Element("")
    if not root.tag.endswith("ListBucketResult"):
        raise DeepGPSError(f"OpenCell's bucket did not answer with a listing: {content[:60]!r}.")
    found = []
    for entry in root.iterfind("{*}Contents"):
        key, size = entry.findtext("{*}Key", ""), int(entry.findtext("{*}Size", "0"))
        if names := _names(key):
            found.append(Projection(key, size, *names))
    return found, root.findtext("{*}NextContinuationToken") or None


def _names(key: str) -> tuple[str, str] | None:
    """Gene and Ensembl id in ``…/OC-FOV_<GENE>_<ENSG>_CID<6>_FID<8>_proj.tif``; None for other files."""
    match key.rpartition("/")[2].split("_"):
        case ["OC-FOV", gene, ensg, cid, fid, "proj.tif"] if (
            ensg.startswith("ENSG") and cid[:3] + fid[:3] == "CIDFID"
        ):
            return gene, ensg
    return None


def read_annotated_proteins(annotations: str, library: str) -> list[SourceProtein]:
    """Join the two tables by Ensembl gene id, never by symbol.

    Raises
    ------
    InputError
        If a table lacks a column.
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


def _rows(text: str, name: str, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    if missing := [column for column in needed if column not in (reader.fieldnames or ())]:
        raise InputError(
            f"OpenCell's table {name} has no column '{missing[0]}'; the portal may have changed."
        )
    for row in reader:
        yield {column: row[column] or "" for column in needed}


def field_row(projection: Projection, target: SourceProtein) -> dict[str, str]:
    """Row of ``fields.csv``."""
    return {
        "field": projection.field,
        "source": "opencell",
        "ensembl_gene_id": target.ensg,
        "gene_symbol": target.gene,
        "accession": target.accession,
        "cell_line": CELL_LINE,
        "nucleus": projection.path,
        "nucleus_channel": "0",
        "protein": projection.path,
        "protein_channel": "1",
        "pixel_size_um": str(PIXEL_SIZE_UM),
        "note": "",
    }


def fetch_opencell(
    folder: Path,
    client: Client,
    progress: Progress,
    *,
    bucket: str = BUCKET,
    portal: str = PORTAL,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> FetchSummary:
    """Fetch OpenCell's tables and the projections of its annotated proteins.

    Parameters
    ----------
    folder
        Where to; ``annotations.csv``, ``library.csv``, ``images/`` and ``fields.csv``.
    client, progress
        What fetches, and what tells of it.
    bucket, portal
        Base addresses of the images and of the tables.
    ids
        Only these proteins: Ensembl gene ids, gene symbols or accessions.
    limit
        Only the first so many proteins of the bucket, in its order.

    Raises
    ------
    InputError
        If none of the ids is in OpenCell, or the folder cannot be used.
    DeepGPSError
        If the tables or the listing cannot be had.
    """
    parameters = {"bucket": bucket, "portal": portal, "proteins": ids, "limit": limit}
    with DownloadFolder(folder, "opencell", parameters) as raw:
        fetch = Fetcher(raw, client, progress)
        tables = [
            fetch.table(name, f"{portal}/{of}").decode("utf-8", errors="replace")
            for name, of in (("annotations.csv", ANNOTATIONS), ("library.csv", LIBRARY))
        ]
        chosen, unknown = select_proteins(read_annotated_proteins(*tables), ids, "OpenCell")
        targets = {target.ensg: target for target in chosen}
        progress.begin("listing", None)
        found = list(_projections(client, progress, bucket, targets, limit))
        files = {_projection_file(bucket, each): each for each in found}
        rows = [field_row(files[file], targets[file.protein]) for file in fetch.all("fields", list(files))]
        if limit is None:
            for ensg in targets.keys() - {each.ensg for each in found}:
                raw.problem(ensg, "", "", "annotated, but there is no image of it in the bucket")
        return fetch.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _projection_file(bucket: str, projection: Projection) -> RemoteFile:
    url = file_url(bucket, projection.key)
    return RemoteFile(projection.path, url, projection.ensg, projection.size)


def _projections(
    client: Client, progress: Progress, bucket: str, targets: dict[str, SourceProtein], limit: int | None
) -> Iterator[Projection]:
    """List the projections of the first so many proteins; pages are asked for as they are needed."""
    token: str | None = None
    seen: set[str] = set()
    while True:
        page, token = read_page(client.read(listing_url(bucket, token)))
        progress.advance()
        for projection in page:
            if projection.ensg not in targets:
                continue
            seen.add(projection.ensg)
            if limit is not None and len(seen) > limit:
                return
            yield projection
        if token is None:
            return
