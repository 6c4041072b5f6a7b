"""Download from the Human Protein Atlas: its table, the XML of each gene, and its images."""

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
    CsvRow,
    DownloadFolder,
    DownloadProgress,
    DownloadResult,
    Fetcher,
    FetchSummary,
    RemoteFile,
    SourceProtein,
    select_proteins,
    strip_version,
)
from deepgps.errors import DeepGPSError
from deepgps.files import atomic_path

HPA_URL = "https://www.proteinatlas.org"
HPA_IMAGES_URL = "https://images.proteinatlas.org"
LOCATIONS_FILE = "subcellular_location.tsv"
HPA_PIXEL_SIZE_UM = 0.08
_FIELD_URL = re.compile(r"/(\d+)/(\d+_[A-Z]+\d+_\d+)_[a-z_]+\.\w+$")
# Best first: 16-bit; 8-bit JPEG; a composite, whose nucleus channel also shows the protein.
_FILES = (("_blue.tif.gz", "_green.tif.gz"), ("_blue.jpg", "_green.jpg"), ("_blue_red_green.jpg",))
_NOTES = ("", "jpeg", "composite: the protein shows in the nucleus channel")


@dataclass(frozen=True, slots=True)
class HpaField:
    """A field of view of the Atlas.

    Attributes
    ----------
    antibody
        As in the XML, such as ``HPA008797``.
    cell_line
        As deepGPS spells it.
    base
        ``<antibody number>/<plate>_<well>_<field>``, the prefix of all its files.
    """

    antibody: str
    cell_line: str
    base: str

    @property
    def field(self) -> str:
        """Name of the field."""
        return self.base.replace("/", "_")

    def alternatives(self) -> Iterator[tuple[list[str], str]]:
        """Yield alternative sets of files of the field, best first, each with a note."""
        for endings, note in zip(_FILES, _NOTES, strict=True):
            yield [self.base + ending for ending in endings], note


def unpack_table(content: bytes) -> bytes:
    """Return the table of subcellular locations from its ZIP archive.

    Returns
    -------
    bytes
        The TSV file.

    Raises
    ------
    DeepGPSError
        If the archive cannot be read, or does not contain the table.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(LOCATIONS_FILE)
    except (zipfile.BadZipFile, KeyError):
        raise DeepGPSError(
            f"The Atlas's archive of {LOCATIONS_FILE} cannot be read; remove it and fetch again."
        ) from None


def read_hpa_table(text: str) -> list[SourceProtein]:
    """Return the genes of the table of subcellular locations.

    Returns
    -------
    list of SourceProtein
        The genes, in the order of the table.

    Raises
    ------
    DeepGPSError
        If a column is missing.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter="\t")
    if not {"Gene", "Gene name"} <= set(reader.fieldnames or ()):
        raise DeepGPSError(
            f"The Atlas's {LOCATIONS_FILE} has no columns 'Gene' and 'Gene name'; "
            "its format may have changed."
        )
    return [SourceProtein(strip_version(row["Gene"]), row["Gene name"]) for row in reader]


def read_gene(content: bytes, gene: SourceProtein, cell_line: str) -> tuple[SourceProtein, list[HpaField]]:
    """Read a gene's XML.

    Parameters
    ----------
    content
        The XML.
    gene
        The gene.
    cell_line
        Cell line, in any spelling.

    Returns
    -------
    protein
        `gene` with its UniProt accession.
    fields
        Its fields in the cell line.

    Raises
    ------
    DeepGPSError
        If the XML cannot be parsed.
    """
    try:
        root = ET.fromstring(content)
    except ET.ParseError as error:
        raise DeepGPSError(f"The XML of {gene.ensg} cannot be read ({error}).") from None
    references = (ref for ref in root.iter("xref") if ref.get("db", "").lower().startswith("uniprot"))
    accession = next((ref.get("id", "") for ref in references), "")
    fields = {
        hpa_field.base: hpa_field
        for antibody in root.iter("antibody")
        for data in antibody.iterfind(".//cellExpression[@technology='ICC/IF']/subAssay/data[cellLine]")
        if cell_line_key(data.findtext("cellLine", "")) == cell_line_key(cell_line)
        for hpa_field in _fields(data, antibody.get("id", ""))
    }
    return SourceProtein(gene.ensg, gene.gene, accession), list(fields.values())


def _fields(data: ET.Element, antibody: str) -> Iterator[HpaField]:
    line = cell_line_name(data.findtext("cellLine", ""))
    for url in data.iterfind("assayImage/image/imageUrl"):
        if found := _FIELD_URL.search((url.text or "").strip()):
            yield HpaField(antibody, line, f"{found[1]}/{found[2]}")


def hpa_field_row(hpa_field: HpaField, protein: SourceProtein, paths: list[str], note: str) -> dict[str, str]:
    """Return the row of ``fields.csv``; a composite has both channels in one file."""
    composite = len(paths) == 1
    return {
        "field": hpa_field.field,
        "source": "hpa",
        "ensembl_gene_id": protein.ensg,
        "gene_symbol": protein.gene,
        "accession": protein.accession,
        "cell_line": hpa_field.cell_line,
        "nucleus": paths[0],
        "nucleus_channel": "2" if composite else "",
        "protein": paths[-1],
        "protein_channel": "1" if composite else "",
        "pixel_size_um": str(HPA_PIXEL_SIZE_UM),
        "note": note,
    }


def fetch_hpa(
    folder: Path,
    client: Client,
    progress: DownloadProgress,
    *,
    site: str = HPA_URL,
    images: str = HPA_IMAGES_URL,
    cell_line: str = "U-2 OS",
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> FetchSummary:
    """Download the Human Protein Atlas's table, the XML of each gene, and the fields of one cell line.

    Images are 16-bit TIFFs if available, else JPEGs, else a composite; the column ``note`` says which.

    Parameters
    ----------
    folder
        Receives ``subcellular_location.tsv``, ``xml/``, ``images/`` and ``fields.csv``.
    client
        The HTTP client.
    progress
        Receives the progress.
    site, images
        Base URLs of the table and the XMLs, and of the images.
    cell_line
        Cell line of the images, in any spelling.
    ids
        Only these proteins: Ensembl gene ids or gene symbols.
    limit
        Only this many genes, in the order of the table.

    Returns
    -------
    FetchSummary
        What was downloaded, and what could not be.

    Raises
    ------
    InputError
        If none of the ids is in the Atlas, or the folder cannot be used.
    DeepGPSError
        If the table cannot be downloaded.
    """
    parameters = {"site": site, "images": images, "cell_line": cell_line, "proteins": ids, "limit": limit}
    with DownloadFolder(folder, "hpa", parameters) as download_folder:
        fetcher = Fetcher(download_folder, client, progress)
        archive = fetcher.get_required(f"{LOCATIONS_FILE}.zip", f"{site}/download/tsv/{LOCATIONS_FILE}.zip")
        table = unpack_table(archive)
        with atomic_path(folder / LOCATIONS_FILE) as draft:
            draft.write_bytes(table)
        listed = read_hpa_table(table.decode("utf-8", errors="replace"))
        genes, unknown = select_proteins(listed, ids, "the Atlas's table")
        xmls = {
            RemoteFile(f"xml/{gene.ensg}.xml", f"{site}/{gene.ensg}.xml", gene.ensg): gene
            for gene in genes[:limit]
        }
        fields: list[tuple[HpaField, SourceProtein]] = []
        for file in fetcher.get_all("genes", list(xmls)):
            protein, gene_fields = _gene(download_folder, file, xmls[file], cell_line)
            fields += [(hpa_field, protein) for hpa_field in gene_fields]
        fields.sort(key=lambda each: (each[1].ensg, each[0].base))
        rows = list(_field_rows(fetcher, images, fields))
        return fetcher.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)


def _gene(
    download_folder: DownloadFolder, file: RemoteFile, gene: SourceProtein, cell_line: str
) -> tuple[SourceProtein, list[HpaField]]:
    try:
        protein, fields = read_gene((download_folder.path / file.name).read_bytes(), gene, cell_line)
    except DeepGPSError as error:
        download_folder.add_problem(gene.ensg, file.name, file.url, str(error))
        return gene, []
    if not fields:
        download_folder.add_problem(gene.ensg, file.name, file.url, f"no immunofluorescence in {cell_line}")
    return protein, fields


@dataclass(slots=True)
class _FieldResult:
    """The best available files of a field with a note, or why there are none."""

    files: dict[RemoteFile, DownloadResult] = field(default_factory=dict)
    refused: dict[RemoteFile, RefusedError] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    note: str = ""
    error: tuple[RemoteFile, RefusedError | UnreachableError] | None = None


def _get_field(fetcher: Fetcher, images: str, hpa_field: HpaField, protein: SourceProtein) -> _FieldResult:
    result = _FieldResult()
    for names, note in hpa_field.alternatives():
        files = [RemoteFile(f"images/{name}", f"{images}/{name}", protein.ensg) for name in names]
        for file in files:
            download = fetcher.get(file)
            if isinstance(download, RefusedError) and download.not_found:
                result.refused[file] = download
                break
            if isinstance(download, RefusedError | UnreachableError):
                # A worse image is no substitute while the server is only busy.
                result.error = (file, download)
                return result
            result.files[file] = download
        else:
            result.names, result.note = [file.name for file in files], note
            return result
    return result


def _field_rows(
    fetcher: Fetcher, images: str, fields: Sequence[tuple[HpaField, SourceProtein]]
) -> Iterator[CsvRow]:
    """Download all fields in parallel; yield a row for each that is available."""
    fetcher.progress.begin("fields", len(fields))
    results = fetcher.client.map_unordered(lambda each: _get_field(fetcher, images, *each), fields)
    with closing(results):
        for (hpa_field, protein), result in results:
            _record(fetcher, result)
            fetcher.progress.advance()
            if result.names:
                yield hpa_field_row(hpa_field, protein, result.names, result.note)
            if not result.error and result.note != "jpeg" and (result.note or not result.names):
                _record_problem(fetcher, f"{images}/{hpa_field.base}", hpa_field, protein, result)


def _record(fetcher: Fetcher, result: _FieldResult) -> None:
    for file, refusal in result.refused.items():
        fetcher.folder.add_absent(file.url, refusal.status)
    for file, download in result.files.items():
        fetcher.record(file, download)
    if result.error:
        fetcher.record_failure(*result.error)


def _record_problem(
    fetcher: Fetcher, url: str, hpa_field: HpaField, protein: SourceProtein, result: _FieldResult
) -> None:
    """Record a field that is withdrawn, or available as a composite only."""
    if result.names:
        fetcher.folder.add_problem(protein.ensg, result.names[0], url, f"only a {result.note}")
        return
    statuses = ", ".join(map(str, sorted({refusal.status for refusal in result.refused.values()})))
    reason = f"withdrawn: no image in any format (status {statuses})"
    fetcher.folder.add_problem(protein.ensg, hpa_field.field, url, reason)
