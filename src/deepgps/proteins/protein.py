"""`Protein`, and `Rejection` for a record that cannot be used."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Protein:
    """One protein sequence.

    Attributes
    ----------
    id
        The user's name for the protein.
    sequence
        Upper-case one-letter residues: the 20 amino acids and U, O, B, Z, X.
    gene_symbol, accession
        Gene symbol and UniProt accession, if known.
    notes
        What the user should know of how the protein was found: which entry was taken for a name.

    Examples
    --------
    >>> from deepgps import Protein
    >>> Protein("my_protein", "MKRPAATKKAGQAKKKKLDK").id
    'my_protein'
    """

    id: str
    sequence: str
    gene_symbol: str | None = None
    accession: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be used, and why.

    Attributes
    ----------
    id
        The record's id, or ``record_<number>`` if it has none.
    source
        The file it is from, or ``stdin``, ``UniProt`` or ``--sequence``.
    reason
        What is wrong, and the remedy.

    Examples
    --------
    >>> from deepgps import read_proteins
    >>> [rejection] = read_proteins(sequence="MKRJ")
    >>> rejection.reason
    "Sequence 'sequence' has 'J' at residue 4; write a leucine or isoleucine as L, I or X."
    """

    id: str
    source: str
    reason: str
