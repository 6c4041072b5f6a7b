"""Read proteins from FASTA, CSV and TSV files, stdin and UniProt, one at a time."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from deepgps.errors import InputError
from deepgps.proteins.check import MAX_RESIDUES, check_sequence, clean_sequence
from deepgps.proteins.protein import Protein, Rejection
from deepgps.tables import read_table, text_lines

if TYPE_CHECKING:
    from deepgps.proteins.known import KnownProteins


class SequenceRecord(NamedTuple):
    """One record of a FASTA file or table, unchecked.

    Attributes
    ----------
    number
        Its number among the records of its source, from 1.
    id
        Its id, unchanged; ``record_<number>`` if it has none.
    sequence
        Its residues as written.
    gene_symbol, accession
        Gene symbol and UniProt accession, if the record has them.
    problem
        Why the record could not be read, or None.
    """

    number: int
    id: str
    sequence: str
    gene_symbol: str | None = None
    accession: str | None = None
    problem: str | None = None


_Stream = Iterable[Protein | Rejection]

Seen = dict[str, tuple[int, str, int]]
"""By id, the hash of its sequence, its source and its number there: all that is kept of earlier proteins."""

# A separator or a suffix of letters makes a name a path: 'NKX2.5' and 'RP11-34P13.7' are gene symbols.
_PATH = re.compile(r"[/\\~]|^\.|\.[A-Za-z][A-Za-z0-9]+$")
_SEQUENCE = re.compile(r"[A-Za-z*]{20,}")


def read_proteins(
    inputs: str | Path | Sequence[str | Path] = (),
    *,
    sequence: str | None = None,
    stdin: BinaryIO | None = None,
    organism_id: int = 9606,
    cache_dir: Path | None = None,
    offline: bool = False,
    base_url: str | None = None,
    known: "KnownProteins | None" = None,
) -> Iterator[Protein | Rejection]:
    """Read proteins from files, stdin and UniProt, one at a time and in order.

    Parameters
    ----------
    inputs
        One input or several: FASTA, CSV or TSV files, ``-`` for stdin, UniProt accessions, gene symbols.
    sequence
        A sequence, which gets the id ``sequence``, or FASTA as text; read last.
    stdin
        A stream to read instead of the process's stdin.
    organism_id, cache_dir, offline, base_url, known
        As in `deepgps.proteins.uniprot.fetch_protein`.

    Returns
    -------
    Iterator of Protein or Rejection
        A `Rejection` stands for a record that cannot be used or repeats an earlier id. If there are several
        inputs, one that cannot be used, or the rest of one that ends early, is a rejection as well.

    Raises
    ------
    InputError
        If there is nothing to read, a file is missing or stdin is given twice; while iterating, if the only
        input cannot be used.

    Examples
    --------
    >>> from deepgps import read_proteins
    >>> [protein] = read_proteins(sequence="mkrpaatkkagqakkkkldk")
    >>> protein.id, protein.sequence
    ('sequence', 'MKRPAATKKAGQAKKKKLDK')
    """
    listed = [inputs] if isinstance(inputs, str | Path) else inputs
    # Blanks around an accession are those of the list that it was copied from.
    sources = [name if _is_file(name := str(each)) else name.strip() for each in listed]
    _check_usage(sources, sequence)
    seen: Seen = {}

    def read(given: str) -> _Stream:
        if given == "-" or _is_file(given):
            return read_protein_file(given, stdin=stdin, seen=seen, look_up=look_up)
        return look_up(given)

    def look_up(given: str) -> _Stream:
        # Imported here because it loads HTTP and TLS, which a file does not need.
        from deepgps.proteins.uniprot import fetch_protein

        found = fetch_protein(
            given,
            organism_id=organism_id,
            cache_dir=cache_dir,
            offline=offline,
            base_url=base_url,
            known=known,
        )
        checked = check_records([_as_record(found)], "UniProt", seen)
        return (replace(each, notes=found.notes) if isinstance(each, Protein) else each for each in checked)

    streams: list[tuple[str, Callable[[], _Stream]]] = [(given, partial(read, given)) for given in sources]
    if sequence is not None:
        streams.append(("--sequence", lambda: check_records(_pasted(sequence), "--sequence", seen)))
    return _chain(streams)


def _check_usage(inputs: Sequence[str], sequence: str | None) -> None:
    if not inputs and sequence is None:
        raise InputError("There is nothing to predict; give a FASTA file, an accession or --sequence.")
    if list(inputs).count("-") > 1:
        raise InputError("'-' (stdin) is given twice; it can be read once.")
    for given in inputs:
        _check_input(given)


def _check_input(given: str) -> None:
    if given == "-" or _is_file(given):
        return
    if _SEQUENCE.fullmatch(given) or given.lstrip().startswith(">"):
        raise InputError(f"'{given[:20]}…' is not a file but looks like a sequence; give it with --sequence.")
    if _PATH.search(given):
        if Path(given).is_dir():
            raise InputError(f"'{given}' is a folder; give the files in it.")
        raise InputError(f"File '{given}' was not found; check its name and folder.")


def _is_file(given: str) -> bool:
    # Not is_file(): a pipe such as /dev/fd/63 is read like a file. A sequence may be too long for a name.
    try:
        path = Path(given)
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def _as_record(protein: Protein) -> SequenceRecord:
    return SequenceRecord(1, protein.id, protein.sequence, protein.gene_symbol, protein.accession)


def _pasted(text: str) -> Iterable[SequenceRecord]:
    if text.lstrip().startswith(">"):
        return fasta_records(io.StringIO(text, newline=None))
    return [SequenceRecord(1, "sequence", text)]


def _chain(streams: Sequence[tuple[str, Callable[[], _Stream]]]) -> Iterator[Protein | Rejection]:
    others = len(streams) > 1
    for given, read in streams:
        try:
            for item in read():
                others = True
                yield item
        except InputError as error:
            if not others:
                raise
            yield Rejection(given, given, str(error))


def read_protein_file(
    source: str | Path,
    *,
    stdin: BinaryIO | None = None,
    seen: Seen | None = None,
    look_up: Callable[[str], _Stream] | None = None,
) -> Iterator[Protein | Rejection]:
    """Read the proteins of one file in order; only their ids stay in memory.

    Parameters
    ----------
    source
        A FASTA file, a CSV or TSV file with the columns ``id`` and ``sequence``, or a list of accessions or
        gene symbols, one a line; plain, gzip or a ZIP of it (by its content, not its name); or ``-`` for
        stdin. A FASTA id is the first word of the header, unchanged; a record without an id is called
        ``record_<number>``.
    stdin
        A stream to read instead of the process's stdin.
    seen
        Ids of earlier sources; changed in place.
    look_up
        Finds the protein of a listed name; lists are refused if None.

    Yields
    ------
    Protein or Rejection
        A `Rejection` for each record that cannot be used, or repeats an earlier id.

    Raises
    ------
    InputError
        While iterating, if the file is not found, is a folder, is empty, is not text, or has no record or not
        the needed columns; or at the damage of a damaged gzip file.
    """
    name = str(source)
    shown = "stdin" if name == "-" else name
    lines = text_lines(name, stdin)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise InputError(f"'{shown}' is empty; give FASTA, CSV or TSV.")
    if look_up is not None and (listed_name(first) or _NAME_HEADERS.fullmatch(_bare(first).lower())):
        yield from _looked_up(name_list(first, lines), look_up, shown)
    else:
        yield from check_records(_records(first, lines, shown), shown, {} if seen is None else seen)


def _looked_up(names: Iterable[str], look_up: Callable[[str], _Stream], source: str) -> _Stream:
    for name in names:
        try:
            yield from look_up(name)
        except InputError as error:
            yield Rejection(name, source, str(error))


def _records(first: str, lines: Iterator[str], source: str) -> Iterator[SequenceRecord]:
    if first.lstrip().startswith(">"):
        yield from fasta_records(chain([first], lines))
        return
    record = None
    for record in table_records(chain([first], lines), source):
        yield record
    if record is None:
        raise InputError(f"'{source}' has a header but no records; add a row for each protein.")


def check_records(
    records: Iterable[SequenceRecord], source: str, seen: Seen
) -> Iterator[Protein | Rejection]:
    """Clean and check records; one that fails, or repeats an id, becomes a rejection.

    Parameters
    ----------
    records
        Unchecked records.
    source
        Their source, for rejections.
    seen
        Ids of earlier proteins; changed in place.

    Yields
    ------
    Protein or Rejection
        In the order of `records`.
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


def _duplicate(record: SequenceRecord, digest: int, source: str, seen: Seen) -> str | None:
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


_GENE_NAME = re.compile(r"\bGN=(.+?)(?= [A-Z]{2}=|$)")


# biotite's FastaFile.read_iter silently skips lines that begin with ';', keeps a whole genome in memory, and
# loads NumPy and biotite.sequence (0.4 s) before the first record.
def fasta_records(lines: Iterable[str]) -> Iterator[SequenceRecord]:
    """Read FASTA, one record in memory at a time.

    Parameters
    ----------
    lines
        Lines with any line ends; lines before the first ``>`` are skipped.

    Yields
    ------
    Record
        Its sequence has no blanks, and is cut beyond `MAX_RESIDUES`, which `check_sequence` refuses.
    """
    number, header, parts, size = 0, "", list[str](), 0
    for line in lines:
        stripped = line.strip().lstrip("\ufeff")
        if stripped.startswith(">"):
            if number:
                yield _fasta_record(number, header, "".join(parts))
            number, header, parts, size = number + 1, stripped[1:], [], 0
        elif size <= MAX_RESIDUES:
            parts += stripped.split()
            size = size + len(stripped) if " " not in stripped else sum(map(len, parts))
    if number:
        yield _fasta_record(number, header, "".join(parts))


def _fasta_record(number: int, header: str, sequence: str) -> SequenceRecord:
    words = header.split(maxsplit=1)
    id = words[0] if words else f"record_{number}"
    gene = _GENE_NAME.search(header)
    return SequenceRecord(number, id, sequence, gene[1] if gene else None, accession_in(id))


def accession_in(id: str) -> str | None:
    """Return the accession in a UniProt FASTA id such as ``sp|P04637|P53_HUMAN``; None for other ids."""
    parts = id.split("|")
    return parts[1] if len(parts) == 3 and parts[0] in {"sp", "tr"} else None


_REQUIRED_COLUMNS = ("id", "sequence")


def table_records(lines: Iterable[str], source: str) -> Iterator[SequenceRecord]:
    """Read a table, one row in memory at a time.

    Parameters
    ----------
    lines
        The header, with column names in either case, among them ``id`` and ``sequence``, and the rows;
        ``gene_symbol`` and ``accession`` are read if present, others are ignored.
    source
        Name of the table, for errors.

    Yields
    ------
    Record
        A row; it has a `problem` if its quotes or its number of cells are wrong.

    Raises
    ------
    InputError
        If a needed column is missing.
    """
    lines = iter(lines)
    first = next(lines, "")
    try:
        table = read_table(chain([first], lines), name=source, required=_REQUIRED_COLUMNS)
    except InputError as error:
        raise InputError(_no_columns(first, source, str(error))) from None
    for number, row in enumerate(table.rows, start=1):
        cells = row.cells
        yield SequenceRecord(
            number,
            cells.get("id") or f"record_{number}",
            cells.get("sequence", ""),
            cells.get("gene_symbol") or None,
            cells.get("accession") or None,
            row.problem,
        )


def _no_columns(header: str, source: str, error: str) -> str:
    if re.fullmatch(r"[A-Z* ]{10,}|[a-z* ]{10,}", header.strip()):
        return f"'{source}' looks like a bare sequence; put a line such as '>my_protein' before it."
    found = re.search(r"\(found: (.*)\)", error)
    columns = shorten(found[1] if found else "", 120, placeholder=" …")
    return (
        f"'{source}' is neither FASTA (its first line does not begin with '>') nor a table with the columns "
        f"'id' and 'sequence' (found: {columns}); rename the columns or give FASTA."
    )


# Headers of a column of names, in lower case.
_NAME_HEADERS = re.compile(
    r"(uniprot|protein|gene|entry|accession)?[ _]?"
    r"(ids?|accessions?|ac|names?|symbols?|entry|genes?|proteins?)"
)
_LISTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()*:/-]{0,29}")
_MIN_BARE_SEQUENCE = 10


def _bare(line: str) -> str:
    return line.partition("#")[0].strip(" \t\r\n\ufeff,;\"'")


def listed_name(line: str) -> str | None:
    """Return the only word of a line of a list of accessions or gene symbols; None if it is none."""
    word = _bare(line)
    bare_sequence = len(word) >= _MIN_BARE_SEQUENCE and word.isalpha()
    return word if _LISTED.fullmatch(word) and not bare_sequence else None


def name_list(first: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield the distinct names of a list, one a line; its header and comments are skipped.

    Parameters
    ----------
    first
        Its first line.
    lines
        The lines after it.

    Yields
    ------
    str
        A name as written, without blanks around it.
    """
    header = _NAME_HEADERS.fullmatch(_bare(first).lower())
    seen: set[str] = set()
    for line in lines if header else chain([first], lines):
        word = _bare(line)
        if word and word not in seen:
            seen.add(word)
            yield word
