"""Fetch the Human Protein Atlas: its table, the XML of each gene, and its images."""

import csv
import io
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from deepgps.datasets.annotation.proteins import cell_line_key, cell_line_name
from deepgps.datasets.fetch.download import Client, RefusedError, UnreachableError
from deepgps.datasets.fetch.folder import (
    DownloadFolder,
    Fetcher,
    FetchSummary,
    Progress,
    RemoteFile,
    Result,
    Row,
    SourceProtein,
    select_proteins,
    strip_version,
)
from deepgps.errors import DeepGPSError
from deepgps.files import atomic_path

SITE = "https://www.proteinatlas.org"
IMAGES = "https://images.proteinatlas.org"
TABLE = "subcellular_location.tsv"
PIXEL_SIZE_UM = 0.08
_VIEW = re.compile(r"/(\d+)/(\d+_[A-Z]+\d+_\d+)_[a-z_]+\.\w+$")
# Best first: 16 bits; 8 bits, compressed; one image in which the protein shines into the nucleus.
_FILES = (("_blue.tif.gz", "_green.tif.gz"), ("_blue.jpg", "_green.jpg"), ("_blue_red_green.jpg",))
_NOTES = ("", "jpeg", "composite: the protein shows in the nucleus channel")


@dataclass(frozen=True, slots=True)
class HpaField:
    """A field of the Atlas.

    Attributes
    ----------
    antibody
        As the XML has it, such as ``HPA008797``.
    cell_line
        As deepGPS spells it.
    base
        ``<antibody number>/<plate>_<well>_<field>``, which all its files begin with.
    """

    antibody: str
    cell_line: str
    base: str

    @property
    def field(self) -> str:
        """Its name."""
        return self.base.replace("/", "_")

    def files(self) -> Iterator[tuple[list[str], str]]:
        """What to ask for, best first: the files that make one field, and a note on them."""
        for endings, note in zip(_FILES, _NOTES, strict=True):
            yield [self.base + ending for ending in endings], note


def unpack_table(content: bytes) -> bytes:
    """Take the table out of its archive.

    Raises
    ------
    DeepGPSError
        If it is not there.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(TABLE)
    except (zipfile.BadZipFile, KeyError):
        raise DeepGPSError(
            f"The Atlas's archive of {TABLE} cannot be read; remove it and fetch again."
        ) from None


def read_table(text: str) -> list[SourceProtein]:
    """Read the genes of the table of subcellular locations.

    Raises
    ------
    DeepGPSError
        If it has no column of genes.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter="\t")
    if not {"Gene", "Gene name"} <= set(reader.fieldnames or ()):
        raise DeepGPSError(
            f"The Atlas's {TABLE} has no columns 'Gene' and 'Gene name'; its format may have changed."
        )
    return [SourceProtein(strip_version(row["Gene"]), row["Gene name"]) for row in reader]


def read_gene(content: bytes, target: SourceProtein, cell_line: str) -> tuple[SourceProtein, list[HpaField]]:
    """Read a gene's XML: the protein with its accession, and its fields in one cell line, in any spelling.

    Raises
    ------
    DeepGPSError
        If it is none.
    """
    try:
        root = ET.fromstring(content)
    except ET.ParseError as error:
        raise DeepGPSError(f"The XML of {target.ensg} cannot be read ({error}).") from None
    references = (ref for ref in root.iter("xref") if ref.get("db", "").lower().startswith("uniprot"))
    accession = next((ref.get("id", "") for ref in references), "")
    views = {
        view.base: view
        for antibody in root.iter("antibody")
        for data in antibody.iterfind(".//cellExpression[@technology='ICC/IF']/subAssay/data[cellLine]")
        if cell_line_key(data.findtext("cellLine", "")) == cell_line_key(cell_line)
        for view in _views(data, antibody.get("id", ""))
    }
    return SourceProtein(target.ensg, target.gene, accession), list(views.values())


def _views(data: ET.Element, antibody: str) -> Iterator[HpaField]:
    line = cell_line_name(data.findtext("cellLine", ""))
    for url in data.iterfind("assayImage/image/imageUrl"):
        if found := _VIEW.search((url.text or "").strip()):
            yield HpaField(antibody, line, f"{found[1]}/{found[2]}")


def field_row(view: HpaField, target: SourceProtein, paths: list[str], note: str) -> dict[str, str]:
    """Row of ``fields.csv``; of a composite, both channels are in the same file."""
    composite = len(paths) == 1
    return {
        "field": view.field,
        "source": "hpa",
        "ensembl_gene_id": target.ensg,
        "gene_symbol": target.gene,
        "accession": target.accession,
        "cell_line": view.cell_line,
        "nucleus": paths[0],
        "nucleus_channel": "2" if composite else "",
        "protein": paths[-1],
        "protein_channel": "1" if composite else "",
        "pixel_size_um": str(PIXEL_SIZE_UM),
        "note": note,
    }


def fetch_hpa(
    folder: Path,
    client: Client,
    progress: Progress,
    *,
    site: str = SITE,
    images: str = IMAGES,
    cell_line: str = "U-2 OS",
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> FetchSummary:
    """Fetch the Human Protein Atlas's table, a gene's XML each, and the fields of one cell line.

    Nucleus and protein come as 16-bit TIFFs, else as JPEGs, else as a composite, with a note.

    Parameters
    ----------
    folder
        Where to; ``subcellular_location.tsv``, ``xml/``, ``images/`` and ``fields.csv``.
    client, progress
        What fetches, and what tells of it.
    site, images
        Base addresses of the table and the XMLs, and of the images.
    cell_line
        Whose fields, in any spelling.
    ids
        Only these proteins: Ensembl gene ids or gene symbols.
    limit
        Only the first so many genes of the table.

    Raises
    ------
    InputError
        If none of the ids is in the Atlas, or the folder cannot be used.
    DeepGPSError
        If the table cannot be had.
    """
    parameters = {"site": site, "images": images, "cell_line": cell_line, "proteins": ids, "limit": limit}
    with DownloadFolder(folder, "hpa", parameters) as raw:
        fetch = Fetcher(raw, client, progress)
        archive = fetch.table(f"{TABLE}.zip", f"{site}/download/tsv/{TABLE}.zip")
        table = unpack_table(archive)
        with atomic_path(folder / TABLE) as draft:
            draft.write_bytes(table)
        listed = read_table(table.decode("utf-8", errors="replace"))
        genes, unknown = select_proteins(listed, ids, "the Atlas's table")
        xmls = {
            RemoteFile(f"xml/{gene.ensg}.xml", f"{site}/{gene.ensg}.xml", gene.ensg): gene
            for gene in genes[:limit]
        }
        views: list[tuple[HpaField, SourceProtein]] = []
        for file in fetch.all("genes", list(xmls)):
            target, of_gene = _gene(raw, file, xmls[file], cell_line)
            views += [(view, target) for view in of_gene]
        views.sort(key=lambda each: (each[1].ensg, each[0].base))
        rows = list(_view_rows(fetch, images, views))
        return fetch.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _gene(
    raw: DownloadFolder, file: RemoteFile, gene: SourceProtein, cell_line: str
) -> tuple[SourceProtein, list[HpaField]]:
    try:
        target, views = read_gene((raw.path / file.name).read_bytes(), gene, cell_line)
    except DeepGPSError as error:
        raw.problem(gene.ensg, file.name, file.url, str(error))
        return gene, []
    if not views:
        raw.problem(gene.ensg, file.name, file.url, f"no immunofluorescence in {cell_line}")
    return target, views


@dataclass(slots=True)
class _Got:
    """What came of asking for a field: its files with a note, or why there are none."""

    files: dict[RemoteFile, Result] = field(default_factory=dict)
    refused: dict[RemoteFile, RefusedError] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    note: str = ""
    error: tuple[RemoteFile, RefusedError | UnreachableError] | None = None


def _ask(fetch: Fetcher, images: str, view: HpaField, target: SourceProtein) -> _Got:
    """Ask for a field's files, best first. A busy server is no reason to take worse ones."""
    got = _Got()
    for names, note in view.files():
        files = [RemoteFile(f"images/{name}", f"{images}/{name}", target.ensg) for name in names]
        for file in files:
            result = fetch.get(file)
            if isinstance(result, RefusedError) and result.gone:
                got.refused[file] = result
                break
            if isinstance(result, RefusedError | UnreachableError):
                got.error = (file, result)
                return got
            got.files[file] = result
        else:
            got.names, got.note = [file.name for file in files], note
            return got
    return got


def _view_rows(fetch: Fetcher, images: str, views: Sequence[tuple[HpaField, SourceProtein]]) -> Iterator[Row]:
    """Get all fields at once; yield a row for each that is there."""
    fetch.progress.begin("fields", len(views))
    with closing(fetch.client.each(lambda each: _ask(fetch, images, *each), views)) as results:
        for (view, target), got in results:
            _enter(fetch, got)
            fetch.progress.advance()
            if got.names:
                yield field_row(view, target, got.names, got.note)
            if not got.error and got.note != "jpeg" and (got.note or not got.names):
                _tell(fetch, f"{images}/{view.base}", view, target, got)


def _enter(fetch: Fetcher, got: _Got) -> None:
    for file, refusal in got.refused.items():
        fetch.raw.lack(file.url, refusal.status)
    for file, result in got.files.items():
        fetch.settle(file, result)
    if got.error:
        fetch.failed(*got.error)


def _tell(fetch: Fetcher, url: str, view: HpaField, target: SourceProtein, got: _Got) -> None:
    """Note a field that is withdrawn, or there as a composite only."""
    if got.names:
        fetch.raw.problem(target.ensg, got.names[0], url, f"only a {got.note}")
        return
    statuses = ", ".join(str(each) for each in sorted({refusal.status for refusal in got.refused.values()}))
    fetch.raw.problem(target.ensg, view.field, url, f"withdrawn: no image in any format (status {statuses})")
