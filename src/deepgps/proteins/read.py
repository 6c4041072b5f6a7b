"""Proteins from FASTA, CSV and TSV: one at a time, the bad ones set apart."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from deepgps.errors import InputError
from deepgps.proteins.check import check_sequence, clean_sequence
from deepgps.proteins.fasta import fasta_records
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.record import Record
from deepgps.proteins.table import table_records
from deepgps.proteins.text import text_lines

# Id to the hash of its sequence, its source and its number there: all that is kept of a protein once given.
Seen = dict[str, tuple[int, str, int]]


def read_proteins(
    source: str | Path, *, stdin: BinaryIO | None = None, seen: Seen | None = None
) -> Iterator[Protein | Rejection]:
    """Read proteins in the order of their source, in constant memory apart from the ids seen.

    Parameters
    ----------
    source
        A path to FASTA, or to CSV or TSV with the columns ``id`` and ``sequence``, plain or gzip (told by
        content, not by name); or ``-`` for stdin. A FASTA id is the first word of the header, unchanged; a
        record without an id is called ``record_<number>``.
    stdin
        Read in place of the process's own stdin.
    seen
        Shared between sources so that an id is used once among them all; changed in place.

    Yields
    ------
    Protein or Rejection
        A `Rejection` for each record that cannot be used, or whose id an earlier protein has.

    Raises
    ------
    InputError
        While iterating, if the whole source cannot be used: not found, a folder, empty, not text, without the
        columns or any record; or a damaged gzip (then after the proteins before the damage).
    """
    name = str(source)
    shown = "stdin" if name == "-" else name
    return accept(_records(text_lines(name, stdin), shown), shown, {} if seen is None else seen)


def _records(lines: Iterator[str], source: str) -> Iterator[Record]:
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"'{source}' is empty; give FASTA, CSV or TSV.")
    if first.lstrip().startswith(">"):
        yield from fasta_records(chain([first], lines))
        return
    record = None
    for record in table_records(first, lines, source):
        yield record
    if record is None:
        raise InputError(f"'{source}' has a header but no records; add a row for each protein.")


def accept(records: Iterable[Record], source: str, seen: Seen) -> Iterator[Protein | Rejection]:
    """Clean and check records; those that fail, or whose id is taken, become rejections.

    Parameters
    ----------
    records
        Records as they stand in `source`.
    source
        Named in rejections.
    seen
        The proteins accepted so far; changed in place.
    """
    for record in records:
        sequence = clean_sequence(record.sequence)
        reason = (
            record.problem
            or check_sequence(record.id, sequence)
            or _duplicate(record, hash(sequence), source, seen)
        )
        if reason:
            yield Rejection(record.id, source, reason)
        else:
            yield Protein(record.id, sequence, record.gene_symbol, record.accession)


def _duplicate(record: Record, digest: int, source: str, seen: Seen) -> str | None:
    if record.id not in seen:
        seen[record.id] = (digest, source, record.number)
        return None
    known, place, number = seen[record.id]
    where = (
        f"Id '{record.id}' of record {record.number} in '{source}' was used by record {number} in '{place}'"
    )
    if known == digest:
        return f"{where} for the same sequence; it is predicted once."
    return f"{where} for another sequence; give each protein its own id."
