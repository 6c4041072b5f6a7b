"""Read what UniProt, the Human Protein Atlas, OpenCell and mass-spectrometry maps say of human proteins.

Every statement keeps the word of its source and says how reliable the source calls it. The tables are those
of the shared data folder.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepgps.datasets.labels import read_sequence_table
from deepgps.localization import HPA_TO_LOCALIZATIONS, uniprot_localizations
from deepgps.proteins.known import Statement

MAPS: Mapping[str, str] = {
    "itzhak2016_hela": "Itzhak 2016",
    "schessner2023": "Schessner 2023",
    "lopit_dc_u2os": "Geladaki 2019, LOPIT-DC",
    "hyperlopit_u2os": "Geladaki 2019, hyperLOPIT",
}
"""Mass-spectrometry maps whose papers allow to ship what they say, by the column of the table."""
UNSHIPPED_MAPS: Mapping[str, str] = {
    "organelle_ip_hek293t": "organelle-IP",
    "bioid_hek293": "BioID",
}
"""Maps whose terms were not read: the reliability of the others is measured with them, and that is all."""

_UNASSIGNED = ("unknown", "unclassified", "Large Protein Complex")
"""What a map says of a protein that it assigns to no compartment."""
_MAP_LOCALIZATIONS: Mapping[str, tuple[str, ...]] = {
    "actin binding proteins": ("cytoskeleton",),
    "actin_cytoskeleton": ("cytoskeleton",),
    "actin cytoskeleton, cytosol": ("cytoskeleton", "cytoplasmic"),
    "cell junction": ("cell_contact",),
    "centrosome": ("centrosome",),
    "chromatin": ("chromatin",),
    "chromosome": ("chromatin",),
    "cytoplasmic ribonucleoprotein granule": ("cytoplasmic",),
    "cytosol": ("cytoplasmic",),
    "early endosome, recycling endosome": ("vesicles",),
    "early_endosome": ("vesicles",),
    "endoplasmic reticulum lumen": ("er",),
    "endoplasmic reticulum membrane": ("er",),
    "endosome": ("vesicles",),
    "endosome, lysosome": ("vesicles",),
    "er": ("er",),
    "er_high_curvature": ("er",),
    "ergic": ("golgi",),
    "ergic/cisgolgi": ("golgi",),
    "ga": ("golgi",),
    "golgi": ("golgi",),
    "golgi apparatus": ("golgi",),
    "lysosome": ("vesicles",),
    "microtubule cytoskeleton": ("cytoskeleton",),
    "mitochondrial inner membrane, mitochondrial intermembrane space": ("mitochondria",),
    "mitochondrial matrix": ("mitochondria",),
    "mitochondrial outer membrane, peroxisome": ("mitochondria", "vesicles"),
    "mitochondrion": ("mitochondria",),
    "mostly cytosolic": ("cytoplasmic",),
    "mostly nuclear": ("nucleoplasm",),
    "nuclear body": ("nuclear_punctae",),
    "nuclear outer membrane-endoplasmic reticulum membrane network": ("nuclear_membrane", "er"),
    "nuclear pore complex": ("nuclear_membrane",),
    "nucleolus": ("nucleolus_gc",),
    "nucleoplasm": ("nucleoplasm",),
    "nucleus": ("nucleoplasm",),
    "nucleus/chromatin": ("nucleoplasm", "chromatin"),
    "p-body": ("cytoplasmic",),
    "peroxisome": ("vesicles",),
    "plasma membrane": ("membrane",),
    "plasma_membrane": ("membrane",),
    "pm": ("membrane",),
    "proteasome": ("cytoplasmic",),
    "ribosome": ("cytoplasmic",),
    "ribosome 40s": ("cytoplasmic",),
    "ribosome 60s": ("cytoplasmic",),
    "stress_granule": ("cytoplasmic",),
    "translation": ("cytoplasmic",),
}

_EVIDENCE = re.compile(r"ECO:(\d+)")
_BRACES = re.compile(r"\s*\{[^{}]*\}")
_ISOFORM = re.compile(r"\[([^\]]+)\]:\s*")
_NOTE = re.compile(r"\bNote=")
# A full stop ends a statement, but not within braces and not in names such as "Cytoplasm. " of a note.
_SENTENCE = re.compile(r"\.(?:\s+|$)")


@dataclass(slots=True)
class Entry:
    """A protein and what is said of it.

    Attributes
    ----------
    accession, gene_symbol, synonyms
        Its names; symbols of several genes and synonyms are joined by blanks.
    sequence
        Its residues.
    human
        Whether it is a human protein.
    statements
        What the sources say.
    outdated
        Whether UniProt has another sequence today, as far as its length tells.
    cluster
        Number of its homology cluster.
    """

    accession: str
    gene_symbol: str
    synonyms: str
    sequence: str
    human: bool
    statements: list[Statement] = field(default_factory=list)
    outdated: bool = False
    cluster: int = -1


def uniprot_statements(text: str) -> Iterator[Statement]:
    """Read the comment SUBCELLULAR LOCATION of an entry: a statement for each location and evidence."""
    for block in text.split("SUBCELLULAR LOCATION: ")[1:]:
        block = _NOTE.split(block)[0].strip().rstrip(";").strip()
        tag = _ISOFORM.match(block)
        part = tag[1] if tag else ""
        block = block[tag.end() :] if tag else block
        hidden = re.sub(r"\{[^{}]*\}", lambda braces: braces[0].replace(".", "\0"), block)
        for sentence in _SENTENCE.split(hidden):
            location, _, _ = sentence.replace("\0", ".").partition(";")
            word = _BRACES.sub("", location).strip(" .,")
            if word:
                codes = {int(code) for code in _EVIDENCE.findall(location)}
                yield Statement(
                    "UniProt", _uniprot_reliability(codes), word, uniprot_localizations(word), part
                )


def _uniprot_reliability(codes: set[int]) -> str:
    if codes & {269, 7744}:
        return "experimental"
    if 250 in codes:
        return "by similarity"
    return "predicted" if codes and codes <= {255, 256, 259} else "curated"


def hpa_statements(
    main: str | None, additional: str | None, reliability: str, by_location: Mapping[str, str]
) -> Iterator[Statement]:
    """Read the locations of a gene, each with its own reliability where ``by_location`` has it."""
    for cell, place in ((main, ""), (additional, ", additional")):
        for name in _names(cell):
            level = by_location.get(name, reliability.lower())
            shown = level if level == "uncertain" else level + place
            yield Statement("HPA", shown, name, HPA_TO_LOCALIZATIONS.get(name, ()))


def _reliabilities(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the reliability of each location of a row of ``hpa_localizations``."""
    levels = ("uncertain", "approved", "supported", "enhanced")
    return {name: level for level in levels for name in _names(row[level])}


def opencell_statements(row: Mapping[str, Any]) -> Iterator[Statement]:
    """Read a row of ``opencell_targets``: a statement for each graded annotation."""
    for grade in (3, 2, 1):
        for name in _names(row[f"annotations_grade_{grade}"]):
            yield Statement("OpenCell", f"grade {grade}", name.replace("_", " "), (name,))


def map_statements(row: Mapping[str, Any], maps: Mapping[str, str]) -> Iterator[Statement]:
    """Read what mass-spectrometry maps say; a protein that a map assigns to nothing has no statement."""
    for column, source in maps.items():
        word = row[column]
        if word and word not in _UNASSIGNED:
            yield Statement(source, "map", word, _MAP_LOCALIZATIONS[word.lower()])


def swissprot_statements(row: Mapping[str, Any]) -> Iterator[Statement]:
    """Read a row of ``swissprot_localizations``, all experimental."""
    from deepgps.localization import UNIPROT_TO_LOCALIZATIONS

    for name in row["localizations"].split("|"):
        yield Statement("UniProt", "experimental", name, UNIPROT_TO_LOCALIZATIONS[name])


def read_entries(data: Path, *, unshipped: bool = False) -> list[Entry]:
    """Read all proteins of which anything is said, human ones first.

    Parameters
    ----------
    data
        The shared data folder.
    unshipped
        Whether to read the maps that may not be shipped, too.
    """
    maps = {**MAPS, **(UNSHIPPED_MAPS if unshipped else {})}
    hpa = {row["accession"]: row for row in _rows(data, "hpa_localizations")}
    by_symbol = {row["gene_symbol"]: row for row in hpa.values()}
    entries: dict[str, Entry] = {}
    for row in _rows(data, "human_proteome"):
        entry = _entry(entries, row, row["accession"], row["gene_symbol"], row["synonyms"])
        entry.outdated = not row["sequence_is_current"]
        entry.statements += uniprot_statements(row["uniprot_location"] or "")
        if row["hpa_main"]:
            own = hpa.get(row["accession"]) or by_symbol.get(row["gene_symbol"])
            columns = (row["hpa_main"], row["hpa_additional"], row["hpa_reliability"])
            entry.statements += hpa_statements(*columns, _reliabilities(own) if own else {})
        entry.statements += map_statements(row, maps)
    symbols = {each.gene_symbol: each.accession for each in reversed(entries.values()) if each.gene_symbol}
    for accession, row in hpa.items():
        # Where the table has a protein of Ensembl only, it speaks of the gene.
        entry = _entry(
            entries, row, _reviewed(accession, row["gene_symbol"], entries, symbols), row["gene_symbol"]
        )
        if not any(each.source == "HPA" for each in entry.statements):
            columns = (row["main_location"], row["additional_location"], row["reliability"])
            entry.statements += hpa_statements(*columns, _reliabilities(row))
    for row in _rows(data, "opencell_targets"):
        name = _reviewed(row["uniprot_id"], row["target_name"], entries, symbols)
        entry = _entry(entries, row, name, row["target_name"])
        if not any(each.source == "OpenCell" for each in entry.statements):
            entry.statements += opencell_statements(row)
    for row in _rows(data, "swissprot_localizations"):
        known = entries.get(row["accession"])
        if known is None or not any(each.source == "UniProt" for each in known.statements):
            entry = _entry(entries, row, row["accession"], human=known is not None)
            entry.statements += swissprot_statements(row)
    return list(entries.values())


def _rows(data: Path, table: str) -> list[dict[str, Any]]:
    return [row for row in read_sequence_table(data, table).to_dicts() if row["sequence"]]


def _reviewed(
    accession: str, symbol: str | None, entries: Mapping[str, Entry], symbols: Mapping[str, str]
) -> str:
    """Return the reviewed entry of a gene, where a table has another accession of it."""
    return accession if accession in entries else symbols.get(symbol or "", accession)


def _entry(
    entries: dict[str, Entry],
    row: Mapping[str, Any],
    accession: str,
    gene_symbol: str | None = "",
    synonyms: str | None = "",
    *,
    human: bool = True,
) -> Entry:
    """Return the entry of an accession, made of a row if there is none yet."""
    symbols = " ".join((gene_symbol or "").replace(";", " ").split())
    new = Entry(accession, symbols, synonyms or "", row["sequence"], human, cluster=row["cluster"])
    return entries.setdefault(accession, new)


def _names(cell: str | None) -> list[str]:
    return list(filter(None, (cell or "").split(";")))
