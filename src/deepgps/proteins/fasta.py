"""FASTA records from lines of text."""

import re
from collections.abc import Iterable, Iterator

from deepgps.proteins.check import MAX_RESIDUES
from deepgps.proteins.record import Record

_GENE_NAME = re.compile(r"\bGN=(.+?)(?= [A-Z]{2}=|$)")


# biotite's FastaFile.read_iter is as short, but it passes over lines that begin with ';' without a word,
# keeps a whole genome in memory, and loads NumPy and biotite.sequence (0.4 s) before the first record.
def fasta_records(lines: Iterable[str]) -> Iterator[Record]:
    """Read FASTA, one record in memory at a time.

    Parameters
    ----------
    lines
        Lines with any line ends; those before the first ``>`` are not records and are passed over.

    Yields
    ------
    Record
        Sequence without blanks. Beyond `MAX_RESIDUES`, which `check_sequence` refuses, no more of it is kept.
    """
    number, header, parts, size = 0, "", list[str](), 0
    for line in lines:
        stripped = line.strip()
        if stripped.startswith(">"):
            if number:
                yield _record(number, header, "".join(parts))
            number, header, parts, size = number + 1, stripped[1:], [], 0
        elif size <= MAX_RESIDUES:
            parts += stripped.split()
            size = size + len(stripped) if " " not in stripped else sum(map(len, parts))
    if number:
        yield _record(number, header, "".join(parts))


def _record(number: int, header: str, sequence: str) -> Record:
    words = header.split(maxsplit=1)
    id = words[0] if words else f"record_{number}"
    gene = _GENE_NAME.search(header)
    return Record(number, id, sequence, gene[1] if gene else None, accession_in(id))


def accession_in(id: str) -> str | None:
    """Take the accession out of a UniProt FASTA id such as ``sp|P04637|P53_HUMAN``; None for other ids."""
    parts = id.split("|")
    return parts[1] if len(parts) == 3 and parts[0] in {"sp", "tr"} else None
