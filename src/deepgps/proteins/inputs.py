"""Everything a user may give as input, chained into one stream of proteins."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deepgps.errors import InputError
from deepgps.proteins.fasta import fasta_records
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.read import Seen, accept, read_proteins
from deepgps.proteins.record import Record

_Stream = Iterable[Protein | Rejection]

# A separator or a suffix of letters makes a name a path: 'NKX2.5' and 'RP11-34P13.7' are gene symbols.
_PATH = re.compile(r"[/\\~]|^\.|\.[A-Za-z][A-Za-z0-9]+$")
_SEQUENCE = re.compile(r"[A-Za-z*]{20,}")


def proteins_from(
    inputs: Sequence[str],
    *,
    sequence: str | None = None,
    stdin: BinaryIO | None = None,
    organism_id: int = 9606,
    cache_dir: Path | None = None,
    offline: bool = False,
    base_url: str | None = None,
) -> Iterator[Protein | Rejection]:
    """Chain inputs into one stream, in order; an id is used once among them all.

    Parameters
    ----------
    inputs
        Each an existing FASTA, CSV or TSV file, ``-`` for stdin, a UniProt accession or a gene symbol.
    sequence
        A bare sequence, which gets the id ``sequence``, or pasted FASTA; comes last.
    stdin
        Read in place of the process's own stdin.
    organism_id, cache_dir, offline, base_url
        Passed to `resolve`.

    Returns
    -------
    iterator of Protein or Rejection
        Where several inputs are given, one that cannot be used is a `Rejection` and the others go on; so is
        what is left of one that breaks off.

    Raises
    ------
    InputError
        At once, if there is nothing to read, a file is missing, or stdin is given twice; while iterating, if
        the only input cannot be used.
    """
    _check_usage(inputs, sequence)
    seen: Seen = {}

    def opened(given: str) -> _Stream:
        if given == "-" or _is_file(given):
            return read_proteins(given, stdin=stdin, seen=seen)
        # UniProt's client loads HTTP and TLS, which a file does not need.
        from deepgps.proteins.uniprot import resolve

        found = resolve(
            given, organism_id=organism_id, cache_dir=cache_dir, offline=offline, base_url=base_url
        )
        return accept([_as_record(found)], "UniProt", seen)

    streams: list[tuple[str, Callable[[], _Stream]]] = [(given, partial(opened, given)) for given in inputs]
    if sequence is not None:
        streams.append(("--sequence", lambda: accept(_pasted(sequence), "--sequence", seen)))
    return _chained(streams)


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


def _as_record(protein: Protein) -> Record:
    return Record(1, protein.id, protein.sequence, protein.gene_symbol, protein.accession)


def _pasted(text: str) -> Iterable[Record]:
    if text.lstrip().startswith(">"):
        return fasta_records(io.StringIO(text, newline=None))
    return [Record(1, "sequence", text)]


def _chained(streams: Sequence[tuple[str, Callable[[], _Stream]]]) -> Iterator[Protein | Rejection]:
    begun = len(streams) > 1
    for given, opened in streams:
        try:
            for item in opened():
                begun = True
                yield item
        except InputError as error:
            if not begun:
                raise
            yield Rejection(given, given, str(error))
