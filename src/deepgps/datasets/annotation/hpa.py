"""Annotate proteins from the Human Protein Atlas, in one cell line or over all of them.

There are two sources, which may be combined: the gene table (``subcellular_location.tsv``), with locations
over all cell lines, and one XML per gene, with locations by cell line.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepgps.datasets.annotation.proteins import (
    AnnotatedProtein,
    AnnotationProblem,
    AnnotationResult,
    cell_line_key,
    cell_line_name,
    read_cluster,
    read_rows,
    split_cell,
    split_problems,
    unknown_localization,
    vocabulary_order,
)
from deepgps.localization import HPA_TO_LOCALIZATIONS

# Column names of the downloaded table, and the names used here.
_COLUMNS = {"gene": "ensembl_gene_id", "gene_name": "gene_symbol"}
# Keys are in lower case, as locations are in the XML.
_LOCATIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    name.casefold(): (name, localizations) for name, localizations in HPA_TO_LOCALIZATIONS.items()
}
# They are mapped to cytoplasmic, but are dots: not in the classes of single-2 and single-4.
_NO_CLASS = ("Cytoplasmic bodies",)


@dataclass(frozen=True, slots=True)
class _Gene:
    """The entry of a gene in one file."""

    id: str
    source: str
    main: tuple[str, ...]
    additional: tuple[str, ...] = ()
    symbol: str | None = None
    accession: str | None = None
    cell_line: str | None = None
    sequence: str | None = None
    cluster: int | None = None


def annotate_hpa(files: Sequence[Path], cell_line: str) -> AnnotationResult:
    """Annotate proteins with the main locations of the Atlas.

    A protein is single-localized if the Atlas has exactly one location of it, main or additional; in the XML,
    exactly one over all antibodies in the cell line. If a gene has an XML, its row of the table is ignored.

    Parameters
    ----------
    files
        Gene tables (TSV or CSV, plain, gzip or ZIP), XMLs, and folders of XMLs.
    cell_line
        Cell line of the annotations in the XMLs, in any spelling.

    Returns
    -------
    AnnotationResult
        The annotated proteins, and the rows that could not be used.

    Raises
    ------
    InputError
        If a table cannot be read or lacks a column.
    """
    paths = [inner for path in files for inner in (sorted(path.glob("*.xml")) if path.is_dir() else [path])]
    xml_entries = [entry for path in paths if _is_xml(path) for entry in _xml_genes(path, cell_line)]
    with_xml = {entry.id if isinstance(entry, _Gene) else entry.protein_id for entry in xml_entries}
    table_entries = (entry for path in paths if not _is_xml(path) for entry in _table_genes(path))
    others = (
        entry for entry in table_entries if isinstance(entry, AnnotationProblem) or entry.id not in with_xml
    )
    return split_problems(_annotate(entry) for entry in (*xml_entries, *others))


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _annotate(entry: _Gene | AnnotationProblem) -> AnnotatedProtein | AnnotationProblem:
    if isinstance(entry, AnnotationProblem):
        return entry
    names = (*entry.main, *entry.additional)
    if unknown := [name for name in names if name.casefold() not in _LOCATIONS]:
        return unknown_localization(entry.id, entry.source, unknown[0])
    if not entry.main:
        where = f" in {entry.cell_line}" if entry.cell_line else ""
        return AnnotationProblem(entry.id, entry.source, True, f"Gene '{entry.id}' has no location{where}.")
    distinct = {_LOCATIONS[name.casefold()][0] for name in names}
    localizations = vocabulary_order(slug for name in entry.main for slug in _LOCATIONS[name.casefold()][1])
    single = len(distinct) == 1
    return AnnotatedProtein(
        protein_id=entry.id,
        gene_symbol=entry.symbol,
        accession=entry.accession,
        localizations=localizations,
        single_localized=single,
        single_class=localizations[0] if single and distinct.isdisjoint(_NO_CLASS) else None,
        source="hpa",
        cell_line=entry.cell_line,
        sequence=entry.sequence,
        cluster=entry.cluster,
    )


def _table_genes(path: Path) -> Iterator[_Gene | AnnotationProblem]:
    required = ("ensembl_gene_id", "main_location", "additional_location")
    for number, row in enumerate(read_rows(path, required, _COLUMNS), 1):
        if not row["ensembl_gene_id"]:
            yield AnnotationProblem(
                f"row {number}", path.name, True, f"Row {number} has no 'Gene'; add the gene id."
            )
            continue
        yield _Gene(
            row["ensembl_gene_id"],
            path.name,
            split_cell(row["main_location"]),
            split_cell(row["additional_location"]),
            row.get("gene_symbol") or None,
            row.get("accession") or None,
            None,
            row.get("sequence") or None,
            read_cluster(row),
        )


def _xml_genes(path: Path, cell_line: str) -> Iterator[_Gene | AnnotationProblem]:
    try:
        for _, element in ET.iterparse(path):
            if element.tag == "entry":
                yield _xml_gene(element, path.name, cell_line)
                element.clear()
    except (ET.ParseError, OSError) as error:
        yield AnnotationProblem(
            path.stem, path.name, True, f"'{path}' cannot be read ({error}); fetch it again."
        )


def _xml_gene(entry: ET.Element, source: str, cell_line: str) -> _Gene | AnnotationProblem:
    identifier = entry.find("identifier")
    gene = "" if identifier is None else identifier.get("id", "")
    if not gene:
        return AnnotationProblem(
            source, source, True, f"An entry of '{source}' has no gene id; fetch it again."
        )
    cells = entry.findall("antibody//cellExpression[@technology='ICC/IF']/subAssay/data")
    lines = {cell.findtext("cellLine", "").strip(): None for cell in cells}
    matching = [
        cell for cell in cells if cell_line_key(cell.findtext("cellLine", "")) == cell_line_key(cell_line)
    ]
    if not matching:
        others = f"; it has {', '.join(lines)}" if lines else ""
        reason = f"Gene '{gene}' was not imaged in {cell_line_name(cell_line)}{others}."
        return AnnotationProblem(gene, source, True, reason)
    return _Gene(
        gene,
        source,
        main=tuple(_locations(matching)),
        symbol=entry.findtext("name") or None,
        accession=next((reference.get("id") for reference in _uniprot(entry)), None),
        cell_line=cell_line_name(cell_line),
    )


def _locations(cells: Iterable[ET.Element]) -> Iterator[str]:
    for cell in cells:
        for location in cell.findall("location"):
            if text := (location.text or "").strip():
                yield text


def _uniprot(entry: ET.Element) -> Iterator[ET.Element]:
    for reference in entry.findall("identifier/xref"):
        if reference.get("db", "").startswith("Uniprot"):
            yield reference
