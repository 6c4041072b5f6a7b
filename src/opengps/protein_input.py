"""Proteins that a visitor sent: a text, or a file that is read in a process of its own."""

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

from deepgps.errors import InputError
from deepgps.files import safe_file_name
from deepgps.proteins.names import is_accession
from deepgps.proteins.protein import Protein, Rejection
from deepgps.proteins.reading import SequenceRecord, check_records, read_protein_file
from opengps.errors import TooLargeError
from opengps.isolation import run_isolated
from opengps.settings import Settings
from opengps.uploads import Upload

TEXT_NAME = "the text"
"""What messages call a text that was pasted into the form."""
LONG_TEXT_BYTES = 100_000
"""A text of more bytes is read as a file is; a shorter one takes milliseconds."""
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()-]{0,29}")
_RESIDUES = re.compile(r"[A-Za-z*]+")
_MIN_SEQUENCE = 10
_GZIP = b"\x1f\x8b"

Records = list[Protein | Rejection | str]
"""Proteins, rejected records, and names to look up, in input order."""


def read_records(upload: Upload, settings: Settings, *, is_file: bool) -> Records:
    """Read proteins, up to one more than the limit of a job.

    Parameters
    ----------
    upload
        A file, plain or gzip, or a text.
    settings
        The limits.
    is_file
        Whether it is a file: FASTA, CSV or TSV. A text may also be a bare sequence or names to look up.

    Raises
    ------
    InputError
        If it cannot be read.
    TooLargeError
        If it has too many bytes.
    """
    if len(upload.content) > settings.max_table_bytes:
        raise _too_large(upload, settings)
    with tempfile.TemporaryDirectory() as folder:
        if is_file or len(upload.content) > LONG_TEXT_BYTES:
            return run_isolated(settings, Path(folder), _read, upload, settings, Path(folder), is_file)
        return _read(upload, settings, Path(folder), is_file)


def _read(upload: Upload, settings: Settings, folder: Path, is_file: bool) -> Records:
    text = "" if is_file else upload.content.decode()
    return list(islice(_parse(upload, text, settings, folder), settings.max_proteins + 1))


def _parse(
    upload: Upload, text: str, settings: Settings, folder: Path
) -> Iterator[Protein | Rejection | str]:
    header = {cell.strip(' "').lower() for cell in re.split(r"[,;\t]", text.strip().partition("\n")[0])}
    if text and text.lstrip()[:1] != ">" and not header & {"id", "sequence"}:
        yield from _parse_bare(text, settings)
        return
    path = folder / safe_file_name(upload.name)
    path.write_bytes(_unpack(upload, settings))
    name = TEXT_NAME if text else upload.name
    try:
        for each in read_protein_file(path):
            if isinstance(each, Rejection):
                yield Rejection(each.id, name, each.reason.replace(str(path), name))
            else:
                yield _check_length(each, settings)
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None


def _check_length(each: Protein | Rejection, settings: Settings) -> Protein | Rejection:
    if isinstance(each, Rejection) or len(each.sequence) <= settings.max_residues:
        return each
    length, limit = len(each.sequence), settings.max_residues
    reason = f"Sequence '{each.id}' has {length:,} residues; the limit is {limit:,}."
    return Rejection(each.id, TEXT_NAME, reason)


def _unpack(upload: Upload, settings: Settings) -> bytes:
    content, limit = upload.content, settings.max_table_bytes
    if content.startswith(_GZIP):
        try:
            # No more than the limit is unpacked, whatever the file declares.
            content = gzip.GzipFile(fileobj=BytesIO(content)).read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"'{upload.name}' is a damaged gzip file ({error}); compress it again."
            ) from None
        if content.startswith(_GZIP):
            raise InputError(f"'{upload.name}' is compressed several times; compress it once.")
    if len(content) > limit:
        raise _too_large(upload, settings)
    return content


def _too_large(upload: Upload, settings: Settings) -> TooLargeError:
    limit = settings.max_table_bytes
    return TooLargeError(f"'{upload.name}' has more than {limit:,} bytes, the limit; split it.")


def _parse_bare(text: str, settings: Settings) -> Iterator[Protein | Rejection | str]:
    """Parse a bare sequence, or names to look up."""
    words = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    if all(map(_RESIDUES.fullmatch, words)) and max(map(len, words)) >= _MIN_SEQUENCE:
        for each in check_records([SequenceRecord(1, "sequence", text)], TEXT_NAME, {}):
            yield _check_length(each, settings)
        return
    for word in dict.fromkeys(words):
        if not settings.lookups:
            reason = f"'{word}' cannot be looked up on this site; send its sequence."
            yield Rejection(word, TEXT_NAME, reason)
        elif is_accession(word) or _SYMBOL.fullmatch(word):
            yield word
        else:
            shown = word if len(word) <= 40 else f"{word[:40]}…"
            reason = f"'{shown}' is not a sequence, a UniProt accession or a gene symbol; check its spelling."
            yield Rejection(shown, TEXT_NAME, reason)
