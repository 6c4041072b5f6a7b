"""A record as it stands in its source, before any check."""

from typing import NamedTuple


class Record(NamedTuple):
    """One record of a FASTA or table, raw.

    Attributes
    ----------
    number
        Its place among the records of its source, from 1.
    id
        Its own name, unchanged; ``record_<number>`` where it has none.
    sequence
        Its residues as written.
    gene_symbol, accession
        Gene symbol and UniProt accession, where the record gives them.
    problem
        Why the record could not be read, where it could not.
    """

    number: int
    id: str
    sequence: str
    gene_symbol: str | None = None
    accession: str | None = None
    problem: str | None = None
