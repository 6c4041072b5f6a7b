"""Names of proteins: accessions, gene symbols and synonyms, and how a name led to an entry."""

import re
from dataclasses import dataclass

# UniProt's own pattern, with an isoform, but not gene symbols such as C9ORF3 and H2BC21, which match it too.
_ACCESSION = re.compile(
    r"(?!C\d+ORF\d+$|H2[AB][CW]\d+$)([OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2})(-\d+)?"
)


@dataclass(frozen=True, slots=True)
class NamedProtein:
    """A protein found by its name.

    Attributes
    ----------
    accession, gene_symbol, sequence
        The entry.
    note
        How the name led to it, where it is not the entry's own accession or symbol; else empty.
    """

    accession: str
    gene_symbol: str | None
    sequence: str
    note: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The note, if there is one."""
        return (self.note,) if self.note else ()


def is_accession(name: str) -> bool:
    """Whether a name is a UniProt accession, in either case, perhaps of an isoform such as ``P04637-2``."""
    return _ACCESSION.fullmatch(name.upper()) is not None


def note_on(name: str, accession: str, gene_symbol: str | None) -> str:
    """Say which entry was taken for a name that is not its own.

    Parameters
    ----------
    name
        The name that was looked up.
    accession, gene_symbol
        The entry that was found.

    Returns
    -------
    str
        That the name is a synonym, a merged accession or an isoform; empty for the entry's own accession or
        symbol.

    Examples
    --------
    >>> from deepgps.proteins.names import note_on
    >>> note_on("PAX", "P49023", "PXN")
    'PAX is a synonym: PXN (P49023) was taken'
    """
    key, entry = name.upper(), f"{gene_symbol} ({accession})" if gene_symbol else accession
    if not is_accession(name):
        return "" if key == (gene_symbol or "").upper() else f"{name} is a synonym: {entry} was taken"
    base, dash, number = key.partition("-")
    if dash and base == accession.partition("-")[0]:
        canonical = "" if "-" in accession else ", the canonical sequence"
        shown = f"{gene_symbol} ({base})" if gene_symbol else base
        return f"{key} is isoform {number} of {shown}{canonical}"
    return "" if key == accession else f"{key} was merged into another entry: {entry} was taken"
