"""UniProt's reviewed human proteome in the user's cache: every name of its proteins resolves offline.

``deepgps data fetch human`` fetches it in parts and joins them in a SQLite file: sequences, with those of
isoforms, gene symbols, synonyms, and accessions that were merged into others.
"""

import csv
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from time import sleep
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from deepgps.errors import DeepGPSError
from deepgps.files import atomic_path, cache_root
from deepgps.proteins.names import NamedProtein, is_accession, note_on
from deepgps.proteins.reading import fasta_records

HUMAN_ID = 9606
UNIPROT = "https://rest.uniprot.org"
MERGED = (
    "https://ftp.uniprot.org/pub/databases/uniprot/current_release/knowledgebase/complete/docs/sec_ac.txt"
)
"""UniProt's list of merged accessions."""
HUMAN_TIMEOUT_S = 60.0
HUMAN_ATTEMPTS = 4

_BOUNDS = (1, 150, 225, 300, 375, 450, 550, 700, 900, 1300, 100_000)
_PAIR = re.compile(r"(\S+)\s+(\S+)\s*")
_SCHEMA = """
CREATE TABLE entries (accession TEXT PRIMARY KEY, gene_symbol TEXT, sequence TEXT NOT NULL);
CREATE TABLE names (name TEXT NOT NULL, kind TEXT NOT NULL, accession TEXT NOT NULL);
CREATE INDEX ix_names ON names (name, kind);
"""


@dataclass(frozen=True, slots=True)
class HumanSummary:
    """What was fetched.

    Attributes
    ----------
    path
        The file.
    proteins, isoforms
        Entries, and further sequences of isoforms.
    merged
        Accessions that were merged into one of the entries; 0 if UniProt's list of them could not be fetched.
    """

    path: Path
    proteins: int
    isoforms: int
    merged: int


def human_file(cache_dir: Path | None = None) -> Path:
    """Return where the human proteome is kept."""
    return (cache_dir or cache_root()) / "uniprot" / "human.sqlite"


def fetch_human(
    *,
    cache_dir: Path | None = None,
    base_url: str = UNIPROT,
    merged_url: str = MERGED,
    on_part: Callable[[int, int], None] = lambda _done, _total: None,
) -> HumanSummary:
    """Fetch UniProt's reviewed human proteome into the cache; continue where an earlier call stopped.

    Parameters
    ----------
    cache_dir
        Folder for the cache, as in `deepgps.proteins.uniprot.fetch_protein`.
    base_url, merged_url
        Addresses of UniProt's REST API and of its list of merged accessions.
    on_part
        Called with the number of parts that are there, and of all.

    Returns
    -------
    HumanSummary
        What was fetched.

    Raises
    ------
    DeepGPSError
        If a part cannot be fetched; those fetched before stay for the next call.
    """
    target = human_file(cache_dir)
    folder = target.with_suffix(".parts")
    folder.mkdir(parents=True, exist_ok=True)
    parts = _parts(base_url)
    for done, (name, url) in enumerate(parts.items()):
        on_part(done, len(parts) + 1)
        _fetch_part(folder / name, url)
    merged: list[str] = []
    try:
        _fetch_part(folder / "merged.txt", merged_url)
        merged = (folder / "merged.txt").read_text("utf-8").splitlines()
    except DeepGPSError:
        # Without it, merged accessions are looked up online.
        pass
    on_part(len(parts) + 1, len(parts) + 1)
    fasta = (line for name in parts if name.endswith(".fasta") for line in _lines(folder / name))
    names = (row for name in parts if name.endswith(".tsv") for row in _table(folder / name))
    with atomic_path(target) as draft:
        draft.unlink(missing_ok=True)
        summary = _write(draft, target, fasta, names, merged)
    shutil.rmtree(folder)
    return summary


def _parts(base_url: str) -> dict[str, str]:
    """Return the address of each part by its file name: proteins of some lengths."""
    parts = {}
    for low, high in pairwise(_BOUNDS):
        query = f"(organism_id:{HUMAN_ID}) AND (reviewed:true) AND (length:[{low} TO {high - 1}])"
        fields = {"query": query, "format": "fasta", "includeIsoform": "true"}
        names = {"query": query, "format": "tsv", "fields": "accession,gene_primary,gene_synonym"}
        for name, given in ((f"{low}.fasta", fields), (f"{low}.tsv", names)):
            parts[name] = f"{base_url}/uniprotkb/stream?{urlencode(given, quote_via=quote)}"
    return parts


def _fetch_part(path: Path, url: str) -> None:
    if path.exists():
        return
    for attempt in range(1, HUMAN_ATTEMPTS + 1):
        try:
            with urlopen(Request(url, headers={"User-Agent": "deepGPS"}), timeout=HUMAN_TIMEOUT_S) as answer:
                content = answer.read()
            break
        except (OSError, HTTPException) as error:
            reason = f"status {error.code}" if isinstance(error, HTTPError) else str(error)
            if attempt == HUMAN_ATTEMPTS or (isinstance(error, HTTPError) and error.code in (400, 404, 410)):
                raise DeepGPSError(
                    f"'{url}' could not be fetched ({reason}); run the same command again to continue."
                ) from None
            sleep(2**attempt / 2)
    if content.lstrip()[:1] == b"<":
        raise DeepGPSError(f"The answer for '{url}' is a web page (a proxy or login page?); try again later.")
    with atomic_path(path) as draft:
        draft.write_bytes(content)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _table(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows, None)
        yield from rows


def _write(
    draft: Path, target: Path, fasta: Iterable[str], names: Iterable[list[str]], merged: Iterable[str]
) -> HumanSummary:
    with closing(sqlite3.connect(draft)) as base, base:
        base.executescript(_SCHEMA)
        symbols: dict[str, str] = {}
        for accession, symbol, synonyms in names:
            # A protein of several genes has them all, separated by semicolons.
            own = [each for each in re.split(r"[;\s]+", symbol) if each]
            symbols[accession] = own[0] if own else ""
            kinds = [(each, "symbol") for each in own]
            kinds += [(each, "synonym") for each in re.split(r"[;\s]+", synonyms) if each]
            base.executemany(
                "INSERT INTO names VALUES (?, ?, ?)",
                [(name.upper(), kind, accession) for name, kind in kinds],
            )
        entries = {}
        for record in fasta_records(fasta):
            accession = record.accession or record.id
            symbol = symbols.get(accession.partition("-")[0]) or record.gene_symbol or ""
            entries[accession] = (accession, symbol, record.sequence)
        base.executemany("INSERT INTO entries VALUES (?, ?, ?)", entries.values())
        pairs = [
            (pair[1], "merged", pair[2])
            for line in merged
            if (pair := _PAIR.fullmatch(line)) and is_accession(pair[1]) and pair[2] in entries
        ]
        base.executemany("INSERT INTO names VALUES (?, ?, ?)", pairs)
    isoforms = sum("-" in accession for accession in entries)
    if not entries:
        raise DeepGPSError("UniProt's answer has no human protein; try again later.")
    return HumanSummary(target, len(entries) - isoforms, isoforms, len(pairs))


def find_human(name: str, cache_dir: Path | None = None) -> NamedProtein | tuple[str, ...]:
    """Find a protein of the fetched human proteome by accession, gene symbol or synonym, in either case.

    Parameters
    ----------
    name
        The name.
    cache_dir
        As in `fetch_human`.

    Returns
    -------
    NamedProtein or tuple of str
        The protein; or, where the name stands for several or none, their accessions and symbols. Nothing is
        found if the proteome was not fetched.
    """
    path = human_file(cache_dir)
    if not path.exists():
        return ()
    key = name.upper()
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            if is_accession(name):
                found = _entry(base, key) or _entry(base, key.removesuffix("-1"))
                accessions = [found[0]] if found else _named(base, key, "merged")
            else:
                accessions = _named(base, key, "symbol") or _named(base, key, "synonym")
            rows = [row for accession in accessions if (row := _entry(base, accession))]
    except sqlite3.Error:
        # A damaged file is as good as none: the command fetches it again.
        return ()
    if len(rows) == 1:
        accession, symbol, sequence = rows[0]
        return NamedProtein(accession, symbol or None, sequence, note_on(name, accession, symbol or None))
    return tuple(f"{accession} ({symbol})" for accession, symbol, _ in rows)


def _entry(base: sqlite3.Connection, accession: str) -> tuple[str, str, str] | None:
    row: tuple[str, str, str] | None = base.execute(
        "SELECT accession, gene_symbol, sequence FROM entries WHERE accession = ?", (accession,)
    ).fetchone()
    return row


def _named(base: sqlite3.Connection, name: str, kind: str) -> list[str]:
    rows = base.execute(
        "SELECT DISTINCT accession FROM names WHERE name = ? AND kind = ? ORDER BY accession", (name, kind)
    )
    return [row[0] for row in rows]
