"""Fetch proteins from UniProt, by accession or gene symbol, with a cache."""

# biotite.database.uniprot does not fit: its requests never time out, its address is fixed, it returns the
# error pages of a busy server (429, 502) as content, and its SimpleQuery rejects symbols that contain AND, OR
# or NOT, such as NOTCH1 and RORA.

import os
import re
import tempfile
from contextlib import suppress
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from deepgps.errors import InputError
from deepgps.files import cache_root
from deepgps.proteins.protein import Protein
from deepgps.proteins.reading import SequenceRecord, fasta_records

UNIPROT = "https://rest.uniprot.org"
UNIPROT_TIMEOUT_S = 20.0

_MAX_HITS = 25
# UniProt's own pattern, with an isoform, but not gene symbols such as C9ORF3, which match it too.
_ACCESSION = re.compile(
    r"(?!C\d+ORF\d+$)([OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2})(-\d+)?"
)
_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@_()-]{0,29}")
_REMEDY = "try again later, or give a FASTA file"
_SPELLING = "check its spelling or give a FASTA file"


def is_accession(query: str) -> bool:
    """Whether a name is a UniProt accession, in either case, perhaps of an isoform such as ``P04637-2``."""
    return _ACCESSION.fullmatch(query.upper()) is not None


def fetch_protein(
    query: str,
    *,
    organism_id: int = 9606,
    cache_dir: Path | None = None,
    offline: bool = False,
    base_url: str | None = None,
) -> Protein:
    """Fetch a protein from UniProt.

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
        Whether to use the cache only.
    base_url
        Address of another server with UniProt's REST API.

    Returns
    -------
    Protein
        Its `id` is the query, unchanged.

    Raises
    ------
    InputError
        If the query is neither, UniProt has no such entry or several, or UniProt cannot be reached.
    """
    if not _SYMBOL.fullmatch(query):
        raise InputError(f"'{query}' is no file, UniProt accession or gene symbol; check its spelling.")
    by_accession = is_accession(query)
    path = _accession_path(query) if by_accession else _symbol_path(query, organism_id)
    text = _cached(f"{base_url or UNIPROT}{path}", query, _cache(cache_dir), offline)
    entries = list(fasta_records(text.splitlines()))
    if not entries:
        where = "" if by_accession else f" among the reviewed entries of organism {organism_id}"
        raise InputError(f"UniProt has no sequence for '{query}'{where}; {_SPELLING}.")
    entry = entries[0] if by_accession else _only(query, entries)
    return Protein(query, entry.sequence, entry.gene_symbol, entry.accession)


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
    if len(found) == 1:
        return found[0]
    choices = ", ".join(f"{entry.accession} ({entry.gene_symbol})" for entry in found)
    raise InputError(f"Gene symbol '{query}' stands for several entries: {choices}; give an accession.")


def _cache(cache_dir: Path | None) -> Path:
    return (cache_dir or cache_root()) / "uniprot"


def _cached(url: str, query: str, folder: Path, offline: bool) -> str:
    path = folder / f"{sha256(url.encode()).hexdigest()[:32]}.fasta"
    with suppress(OSError, UnicodeDecodeError):
        if (text := path.read_text("utf-8")).startswith(">"):
            return text
    if offline:
        raise InputError(f"Offline, and '{query}' is not in the cache; go online or give a FASTA file.")
    text = _fetch(url, query)
    if text.startswith(">"):
        _write(path, text)
    return text


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
        raise InputError(f"UniProt cannot be reached to look up '{query}' ({reason}); {_REMEDY}.") from error
    if text.strip() and not text.startswith(">"):
        raise InputError(f"The answer for '{query}' is not UniProt's (a proxy or login page?); {_REMEDY}.")
    return text


def _refusal(query: str, status: int) -> str:
    if status in {400, 404, 410}:
        return f"UniProt has no entry '{query}' (status {status}); {_SPELLING}."
    return f"UniProt could not answer for '{query}' (status {status}); {_REMEDY}."
