"""What UniProt states of whole proteins, turned into labels for the taggers of sorting signals.

No residue of a known signal is used. Proteins that share a cluster (30 % identity) with one of the proteins
that the taggers are measured on are left out.
"""

import csv
import gzip
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDED_SITES = {"Nucleus", "Cytoplasm", "Peroxisome"}


@dataclass(slots=True)
class LabelledProtein:
    """A protein with its compartments (DeepLoc 2's names) and UniProt's text without its notes."""

    accession: str
    sequence: str
    clusters: set[str] = field(default_factory=set)
    compartments: set[str] = field(default_factory=set)
    text: str = ""


def read_proteins(data: Path, measured: set[str]) -> list[LabelledProtein]:
    """Read the proteins to train on, from ``sequences/`` of the real data."""
    found: dict[str, LabelledProtein] = {}
    for row in _rows(data / "sequences" / "swissprot_localizations.csv.gz"):
        found[row["accession"]] = LabelledProtein(
            row["accession"], row["sequence"], {row["cluster"]}, set(row["localizations"].split("|"))
        )
    for row in _rows(data / "sequences" / "human_proteome.csv.gz"):
        protein = found.setdefault(row["accession"], LabelledProtein(row["accession"], row["sequence"]))
        protein.clusters |= set(row["clusters"].split("|"))
        protein.text = re.sub(r"Note=.*?(?=SUBCELLULAR LOCATION|$)", "", row["uniprot_location"])
    kept_out = set().union(*(each.clusters for each in found.values() if each.accession in measured)) - {""}
    return [
        each
        for each in found.values()
        if each.accession not in measured and not each.clusters & kept_out and len(each.sequence) > 60
    ]


def n_terminus(protein: LabelledProtein) -> str | None:
    """Return what the N-terminus probably is: SP, MT, CH, TM, OTHER, or None where UniProt leaves it open."""
    text, sites = protein.text, protein.compartments
    if not protein.sequence.startswith("M"):
        return None
    if text and (label := _by_text(text)):
        return None if label == "open" else label
    if not sites:
        if "Mitochondrion" in text and not re.search("Nucle|Cytoplasm|Endopl|Cell mem", text):
            return "MT"
        inside = re.search("Nucleus|Cytoplasm", text)
        return (
            "OTHER"
            if inside and not re.search("itochon|Secret|ndoplasmic|Golgi|Cell mem|Lysos", text)
            else None
        )
    single = {"Extracellular": "SP", "Mitochondrion": "MT", "Plastid": "CH"}
    if len(sites) == 1 and (label := single.get(min(sites))):
        return label
    return "OTHER" if sites <= FOLDED_SITES else None


def _by_text(text: str) -> str | None:
    first = "Single-pass type I membrane" in text
    second = "Single-pass type II membrane" in text
    rules = (
        ("GPI-anchor" in text, "SP"),
        (first and not second, "SP"),
        (second and not first, "TM"),
        ("Mitochondrion matrix" in text, "MT"),
        ("Mitochondrion outer" in text, "OTHER"),
        (re.search("type III|type IV", text), "open"),
        ("Secreted" in text and not re.search(r"Nucle|Cytoplasm[,. {;]|cytosol", text), "SP"),
        ("Multi-pass" in text and "itochond" not in text, "OTHER"),
        ("Peroxisome" in text and "itochond" not in text, "OTHER"),
    )
    return next((label for holds, label in rules if holds), None)


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
