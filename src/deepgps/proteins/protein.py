"""The protein that travels between the rooms."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Protein:
    """One protein sequence under the name its user gave it.

    Attributes
    ----------
    id
        The user's own name for it, unchanged.
    sequence
        Upper-case one-letter residues: the 20 amino acids and U, O, B, Z, X.
    gene_symbol, accession
        Gene symbol and UniProt accession, where known.
    """

    id: str
    sequence: str
    gene_symbol: str | None = None
    accession: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be used, and why.

    Attributes
    ----------
    id
        The record's id, or its place in the input where it has none.
    source
        The file (or ``stdin``, ``--sequence``) it came from.
    reason
        A sentence that names the thing, the value and the remedy.
    """

    id: str
    source: str
    reason: str
