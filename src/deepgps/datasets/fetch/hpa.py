"""The Human Protein Atlas, as its site has it: table, XML, names of images. No network here."""

import csv
import io
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from deepgps.datasets.annotation.proteins import cell_line_key, cell_line_name
from deepgps.datasets.fetch.wanted import Target, plain_ensg
from deepgps.errors import DeepGPSError

SITE = "https://www.proteinatlas.org"
IMAGES = "https://images.proteinatlas.org"
TABLE = "subcellular_location.tsv"
PIXEL_SIZE_UM = 0.08
_VIEW = re.compile(r"/(\d+)/(\d+_[A-Z]+\d+_\d+)_[a-z_]+\.\w+$")
# Best first: 16 bits; 8 bits, compressed; one image in which the protein shines into the nucleus.
_FILES = (("_blue.tif.gz", "_green.tif.gz"), ("_blue.jpg", "_green.jpg"), ("_blue_red_green.jpg",))
_NOTES = ("", "jpeg", "composite: the protein shows in the nucleus channel")


@dataclass(frozen=True, slots=True)
class View:
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


def read_table(text: str) -> list[Target]:
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
    return [Target(plain_ensg(row["Gene"]), row["Gene name"]) for row in reader]


def read_gene(content: bytes, target: Target, cell_line: str) -> tuple[Target, list[View]]:
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
    return Target(target.ensg, target.gene, accession), list(views.values())


def _views(data: ET.Element, antibody: str) -> Iterator[View]:
    line = cell_line_name(data.findtext("cellLine", ""))
    for url in data.iterfind("assayImage/image/imageUrl"):
        if found := _VIEW.search((url.text or "").strip()):
            yield View(antibody, line, f"{found[1]}/{found[2]}")


def field_row(view: View, target: Target, paths: list[str], note: str) -> dict[str, str]:
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
