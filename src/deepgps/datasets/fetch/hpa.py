"""Download from the Human Protein Atlas: its table, the XML of each gene, and its images."""

import io
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from deepgps.datasets.annotation.hpa import annotate_hpa
from deepgps.datasets.annotation.proteins import AnnotatedProtein, cell_line_key, cell_line_name
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
from deepgps.errors import DeepGPSError, InputError
from deepgps.files import atomic_path, hash_file
from deepgps.localization import HPA_TO_LOCALIZATIONS, ClassSet, class_set
from deepgps.tables import read_table, strict_rows

HPA_URL = "https://www.proteinatlas.org"
HPA_IMAGES_URL = "https://images.proteinatlas.org"
LOCATIONS_FILE = "subcellular_location.tsv"
HPA_PIXEL_SIZE_UM = 0.08
PROTEINS_FILE = "proteinatlas.tsv"
_LISTED_IMAGE = re.compile(r"(?:^|/)(\d+)/(\d+_[A-Z]+\d+_\d+)$")
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


def unpack_table(content: bytes, name: str = LOCATIONS_FILE) -> bytes:
    """Return a table of the Atlas from its ZIP archive.

    Parameters
    ----------
    content
        The archive.
    name
        The table in it.

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
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError):
        raise DeepGPSError(
            f"The Atlas's archive of {name} cannot be read; remove it and fetch again."
        ) from None


def _download_table(fetcher: Fetcher, site: str, name: str) -> bytes:
    """Download the archive of a table; versions up to 23 have it in another folder than later ones."""
    try:
        return fetcher.get_required(f"{name}.zip", f"{site}/download/tsv/{name}.zip")
    except RefusedError as error:
        if not error.not_found:
            raise
        return fetcher.get_required(f"{name}.zip", f"{site}/download/{name}.zip")


def _has_class(protein: AnnotatedProtein, classes: ClassSet) -> bool:
    if classes.multi_label:
        return bool(classes.of(protein.localizations))
    return bool(classes.of((protein.single_class,) if protein.single_class else ()))


class ListedImage(NamedTuple):
    """A field in a table of images: its antibody's number, the field, and its locations."""

    antibody: str
    field: HpaField
    locations: tuple[str, ...]


def read_image_table(path: Path, cell_line: str, classes: ClassSet | None = None) -> list[ListedImage]:
    """Read a table of images, such as Kaggle's ``kaggle_2021.tsv``.

    Parameters
    ----------
    path
        A table with the columns ``Image`` (an address without the colour and ending, such as
        ``…/10580/1610_C1_2``), ``Label`` (locations joined by commas) and ``Cellline``.
    cell_line
        Only images of this cell line, in any spelling.
    classes
        Only images with locations in this class set; for a single-label set, with one location.

    Returns
    -------
    list of ListedImage
        In the order of the table.

    Raises
    ------
    InputError
        If the table cannot be read.
    """
    found = []
    for row in strict_rows(read_table(path, required=("image", "label", "cellline")), path):
        place = _LISTED_IMAGE.search(row.cells["image"])
        line = row.cells["cellline"]
        if place is None or cell_line_key(line) != cell_line_key(cell_line):
            continue
        locations = tuple(name.strip() for name in row.cells["label"].split(",") if name.strip())
        slugs = {slug for name in locations for slug in HPA_TO_LOCALIZATIONS.get(name, ())}
        if classes is not None and not (
            classes.of(sorted(slugs)) and (classes.multi_label or len(locations) == 1)
        ):
            continue
        antibody = f"HPA{int(place[1]):06}"
        field = HpaField(antibody, cell_line_name(line), f"{place[1]}/{place[2]}")
        found.append(ListedImage(antibody, field, locations))
    return found


def _listed_fields(
    images: Sequence[ListedImage], genes: Sequence[SourceProtein], atlas: str
) -> Iterator[tuple[HpaField, SourceProtein]]:
    """Yield the field and the gene of each image whose antibody the Atlas lists for one of the genes."""
    known = {gene.ensg: gene for gene in genes}
    proteins: dict[str, SourceProtein] = {}
    table = read_table(io.StringIO(atlas), name=PROTEINS_FILE, required=("ensembl", "antibody"))
    for row in strict_rows(table, PROTEINS_FILE):
        if gene := known.get(strip_version(row.cells["ensembl"])):
            accession = row.cells.get("uniprot", "").split(",")[0].strip()
            for antibody in row.cells["antibody"].split(","):
                proteins[antibody.strip()] = SourceProtein(gene.ensg, gene.gene, accession)
    for image in images:
        if protein := proteins.get(image.antibody):
            yield image.field, protein


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
    InputError
        If a row cannot be read.
    """
    try:
        table = read_table(
            io.StringIO(text, newline=None), name=LOCATIONS_FILE, required=("gene", "gene name")
        )
    except InputError:
        raise DeepGPSError(
            f"The Atlas's {LOCATIONS_FILE} has no columns 'Gene' and 'Gene name'; "
            "its format may have changed."
        ) from None
    rows = strict_rows(table, LOCATIONS_FILE)
    return [SourceProtein(strip_version(row.cells["gene"]), row.cells["gene name"]) for row in rows]


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
    class_set_name: str | None = None,
    image_table: Path | None = None,
) -> FetchSummary:
    """Download the Human Protein Atlas's table, the XML of each gene, and the fields of one cell line.

    The tables come first; with a class set, only the genes that they place in one of its classes go on.
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
    class_set_name
        Only genes with a class of this class set, such as ``single-2``.
    image_table
        A table of images, with the columns ``Image``, ``Label`` and ``Cellline`` as in Kaggle's
        ``kaggle_2021.tsv``, in place of the XMLs: its images and labels are taken, and genes are found by
        antibody in the Atlas's ``proteinatlas.tsv``.

    Returns
    -------
    FetchSummary
        What was downloaded, and what could not be.

    Raises
    ------
    InputError
        If none of the ids is in the Atlas, the folder or the table of images cannot be used, or there is no
        such class set.
    DeepGPSError
        If the table cannot be downloaded.
    """
    parameters: dict[str, Any] = {
        "site": site,
        "images": images,
        "cell_line": cell_line,
        "proteins": ids,
        "limit": limit,
    }
    parameters |= {"class_set": class_set_name, "image_table": image_table and hash_file(image_table)}
    chosen = None if class_set_name is None else class_set(class_set_name)
    with DownloadFolder(folder, "hpa", parameters) as download_folder:
        fetcher = Fetcher(download_folder, client, progress)
        table = unpack_table(_download_table(fetcher, site, LOCATIONS_FILE))
        with atomic_path(folder / LOCATIONS_FILE) as draft:
            draft.write_bytes(table)
        fields: list[tuple[HpaField, SourceProtein]] = []
        listed = read_hpa_table(table.decode("utf-8", errors="replace"))
        genes, unknown = select_proteins(listed, ids, "the Atlas's table")
        if image_table is not None:
            atlas = unpack_table(_download_table(fetcher, site, PROTEINS_FILE), PROTEINS_FILE)
            listed_images = read_image_table(image_table, cell_line, chosen)
            fields = list(_listed_fields(listed_images, genes, atlas.decode("utf-8", errors="replace")))
            kept = list(dict.fromkeys(protein.ensg for _, protein in fields))[:limit]
            fields = [each for each in fields if each[1].ensg in kept]
            rows = list(_field_rows(fetcher, images, fields))
            return fetcher.finish(rows, (row["ensembl_gene_id"] for row in rows), unknown)
        if chosen is not None:
            placed = annotate_hpa([folder / LOCATIONS_FILE], cell_line).proteins
            wanted = {strip_version(each.protein_id) for each in placed if _has_class(each, chosen)}
            genes = [gene for gene in genes if gene.ensg in wanted]
        xmls = {
            RemoteFile(f"xml/{gene.ensg}.xml", f"{site}/{gene.ensg}.xml", gene.ensg): gene
            for gene in genes[:limit]
        }
        fields = []
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
