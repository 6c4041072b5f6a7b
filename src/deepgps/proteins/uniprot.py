"""Fetch proteins from UniProt, by accession or gene symbol, with a cache."""

# biotite.database.uniprot does not fit: its requests never time out, its address is fixed, it returns the
# error pages of a busy server (429, 502) as content, and its SimpleQuery rejects symbols that contain AND, OR
# or NOT, such as NOTCH1 and RORA.

import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from deepgps.errors import InputError
from deepgps.files import cache_root
from deepgps.proteins.human import HUMAN_ID, UNIPROT, find_human
from deepgps.proteins.names import NamedProtein, is_accession, note_on
from deepgps.proteins.protein import Protein
from deepgps.proteins.reading import SequenceRecord, fasta_records

if TYPE_CHECKING:
    from deepgps.proteins.known import KnownProteins

UNIPROT_TIMEOUT_S = 20.0

_MAX_HITS = 25
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()-]{0,29}")
_REMEDY = "try again later, or give a FASTA file"
_SPELLING = "check its spelling or give a FASTA file"


class UniProtUnreachableError(InputError):
    """UniProt cannot be reached."""


def fetch_protein(
    query: str,
    *,
    organism_id: int = HUMAN_ID,
    cache_dir: Path | None = None,
    offline: bool = False,
    base_url: str | None = None,
    known: "KnownProteins | None" = None,
) -> Protein:
    """Find a protein by its name: in the cache, in the fetched human proteome, or else at UniProt.

    Parameters
    ----------
    query
        A UniProt accession of any organism, or a gene symbol, which is looked up among the reviewed entries
        of one organism.
    organism_id
        NCBI taxonomy id of that organism; human by default.
    cache_dir
        Folder for the cache; by default the environment's ``DEEPGPS_CACHE``, or the user's cache folder.
        Entries do not expire: delete the folder's ``uniprot`` to fetch them again.
    offline
        Whether to do without UniProt.
    base_url
        Address of another server with UniProt's REST API.
    known
        The known proteins of a model, used offline or if UniProt cannot be reached.

    Returns
    -------
    Protein
        Its `id` is the query, unchanged; its notes say which entry was taken for a synonym, a merged
        accession or an isoform.

    Raises
    ------
    InputError
        If the query is neither, or there is no such entry or several.
    UniProtUnreachableError
        If UniProt is needed and cannot be reached.
    """
    if not _SYMBOL.fullmatch(query):
        raise InputError(
            f"'{query}' is neither a file nor a UniProt accession or gene symbol; check its spelling."
        )
    by_accession = is_accession(query)
    url = (
        f"{base_url or UNIPROT}{_accession_path(query) if by_accession else _symbol_path(query, organism_id)}"
    )
    human = by_accession or organism_id == HUMAN_ID
    if (text := _from_cache(url, cache_dir)) is None and human:
        found = find_human(query, cache_dir)
        if isinstance(found, NamedProtein):
            return _protein(query, found)
        _refuse_several(query, found)
    if text is None and offline:
        if human and known is not None and (local := known.named(query)):
            return _protein(query, local)
        choices = known.candidates(query) if human and known is not None else ()
        hint = f" It may be a synonym of {' or '.join(choices)}." if choices else ""
        raise InputError(
            f"Offline, and '{query}' is not in the cache; `deepgps data fetch human` fetches all human "
            f"proteins once. Or go online, or give a FASTA file.{hint}"
        )
    if text is None:
        try:
            text = _fetch(url, query)
        except UniProtUnreachableError:
            if not human or known is None or (local := known.named(query)) is None:
                raise
            note = f"UniProt could not be reached: {local.accession} is as the model's index has it"
            return _protein(query, local, note)
        if text.startswith(">"):
            _write(_cache_path(url, cache_dir), text)
    entries = list(fasta_records(text.splitlines()))
    if not entries:
        where = "" if by_accession else f" among the reviewed entries of organism {organism_id}"
        raise InputError(f"UniProt has no sequence for '{query}'{where}; {_SPELLING}.")
    entry = entries[0] if by_accession else _only(query, entries)
    if entry.accession is None:
        return Protein(query, entry.sequence, entry.gene_symbol)
    note = note_on(query, entry.accession, entry.gene_symbol)
    return _protein(query, NamedProtein(entry.accession, entry.gene_symbol, entry.sequence, note))


def _protein(query: str, found: NamedProtein, *notes: str) -> Protein:
    return Protein(query, found.sequence, found.gene_symbol, found.accession, (*found.notes, *notes))


def _accession_path(query: str) -> str:
    return f"/uniprotkb/{query.upper()}.fasta"


def _symbol_path(query: str, organism_id: int) -> str:
    terms = f'(gene_exact:"{query}") AND (organism_id:{organism_id}) AND (reviewed:true)'
    fields = {"query": terms, "format": "fasta", "size": _MAX_HITS}
    return "/uniprotkb/search?" + urlencode(fields, quote_via=quote)


def _only(query: str, entries: list[SequenceRecord]) -> SequenceRecord:
    # UniProt also finds synonyms; an entry whose own name is the symbol comes first.
    named = [entry for entry in entries if (entry.gene_symbol or "").upper() == query.upper()]
    found = named or entries
    if len(found) > 1:
        _refuse_several(query, [f"{entry.accession} ({entry.gene_symbol})" for entry in found])
    return found[0]


def _refuse_several(query: str, entries: Sequence[str]) -> None:
    if entries:
        choices = ", ".join(entries)
        raise InputError(f"Gene symbol '{query}' stands for several entries: {choices}; give an accession.")


def _cache_path(url: str, cache_dir: Path | None) -> Path:
    return (cache_dir or cache_root()) / "uniprot" / f"{sha256(url.encode()).hexdigest()[:32]}.fasta"


def _from_cache(url: str, cache_dir: Path | None) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        if (text := _cache_path(url, cache_dir).read_text("utf-8")).startswith(">"):
            return text
    return None


def _write(path: Path, text: str) -> None:
    # Prediction works without a cache.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)


def _fetch(url: str, query: str) -> str:
    try:
        with urlopen(Request(url, headers={"User-Agent": "deepGPS"}), timeout=UNIPROT_TIMEOUT_S) as answer:
            # Read completely: with a limit, a truncated answer would go unnoticed.
            text: str = answer.read().decode("utf-8", errors="replace")
    except HTTPError as error:
        raise InputError(_refusal(query, error.code)) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UniProtUnreachableError(
            f"UniProt cannot be reached to look up '{query}' ({reason}); {_REMEDY}."
        ) from error
    if text.strip() and not text.startswith(">"):
        raise InputError(f"The answer for '{query}' is not UniProt's (a proxy or login page?); {_REMEDY}.")
    return text


def _refusal(query: str, status: int) -> str:
    if status in {400, 404, 410}:
        return f"UniProt has no entry '{query}' (status {status}); {_SPELLING}."
    return f"UniProt could not answer for '{query}' (status {status}); {_REMEDY}."
