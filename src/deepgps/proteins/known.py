"""What is known of proteins: an index of the statements of UniProt, HPA, OpenCell and protein maps.

The index holds facts about each protein, in the words of the sources and in those of `deepgps.localization`.
The sequences are in two neighbour indexes: those that vote on a localization, and those that are only known.
A query is the same protein as a known one if `SAME_PROTEIN` of the residues of both are the same; if only of
the shorter sequence, it is an isoform, a fragment or a fusion.
"""

import io
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepgps.arrays import Bytes, Floats, Indices, Ints
from deepgps.errors import BundleError
from deepgps.localization import display_name
from deepgps.proteins.features import RESIDUES, UNKNOWN_RESIDUE, residue_codes
from deepgps.proteins.names import NamedProtein, is_accession, note_on
from deepgps.proteins.neighbours import Neighbour, NeighbourIndex

SAME_PROTEIN = 0.95
"""Share of identical residues from which two sequences are the same protein."""
NEARLY_IDENTICAL = 0.6
"""Similarity from which a protein of the index has mostly at least 95 % of its residues in common with a
query."""
KNOWN_FORMAT = 1

_SHARED = (
    0.25  # A candidate of which less is shared, by similarity, is neither the same protein nor an isoform.
)
_CANDIDATES = 12
_DISTANT = 0.1  # Proteins of one family share more, by similarity, and mostly their localization.
_HALF = 0.5
_IDENTICAL = 0.999
_LEAST = 0.3  # Share of either sequence that must be in the other.
_K = 5
_LETTERS = np.frombuffer((RESIDUES + "X").encode(), np.uint8)


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source says of the localization of a protein.

    Attributes
    ----------
    source
        ``UniProt``, ``HPA``, ``OpenCell``, or the name of a mass-spectrometry map.
    reliability
        As the source has it: ``experimental``, ``by similarity``, ``curated`` or ``predicted`` (UniProt),
        ``enhanced``, ``supported``, ``approved`` or ``uncertain``, perhaps ``, additional`` (HPA), ``grade
        3`` to ``grade 1`` (OpenCell), ``map``.
    word
        The localization in the word of the source.
    localizations
        The same in the vocabulary of `deepgps.localization`; empty if it has none.
    part
        The isoform or chain that the statement is about; empty for the whole protein.

    Examples
    --------
    >>> from deepgps.proteins.known import Statement
    >>> str(Statement("HPA", "enhanced", "Nuclear membrane", ("nuclear_membrane",)))
    'HPA (enhanced): Nuclear membrane'
    """

    source: str
    reliability: str
    word: str
    localizations: tuple[str, ...] = ()
    part: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.reliability}): {self.word}{f' [{self.part}]' if self.part else ''}"


@dataclass(frozen=True, slots=True)
class KnownProtein:
    """A protein of which sources say something, as the answer to a query.

    Attributes
    ----------
    accession, gene_symbol, synonyms
        Its UniProt accession, gene symbol (None if unknown) and the symbol's synonyms.
    human
        Whether it is a human protein; others are known from Swiss-Prot alone.
    length
        Its residues.
    statements
        What the sources say.
    identity
        Share of the query's residues that it has at the same place, in (0, 1].
    coverage
        Share of its own residues that the query has, in (0, 1].
    others
        Accessions of other entries with the same sequence.

    Examples
    --------
    >>> from deepgps import Predictor
    >>> known = Predictor.load().known
    >>> known.named("LMNB1").gene_symbol
    'LMNB1'
    """

    accession: str
    gene_symbol: str | None
    synonyms: tuple[str, ...]
    human: bool
    length: int
    statements: tuple[Statement, ...]
    identity: float = 1.0
    coverage: float = 1.0
    others: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether the query has the same sequence."""
        return self.identity == 1.0 and self.coverage == 1.0

    @property
    def whole(self) -> bool:
        """Whether the query is the same protein, and no isoform or fragment of it."""
        return min(self.identity, self.coverage) >= SAME_PROTEIN

    @property
    def applies(self) -> bool:
        """Whether what is known of it may be said of the query: each is at least half of the other."""
        return min(self.identity, self.coverage) >= _HALF

    @property
    def match(self) -> str:
        """How the query relates to it, in words; empty if identical."""
        if self.identical:
            return ""
        if self.whole:
            return f"{100 * min(self.identity, self.coverage):.1f} % identical to {self.name}"
        return (
            f"an isoform, fragment or fusion of {self.name}: {100 * self.coverage:.0f} % of its residues are "
            f"{100 * self.identity:.0f} % of this sequence"
        )

    @property
    def name(self) -> str:
        """Gene symbol and accession."""
        return f"{self.gene_symbol} ({self.accession})" if self.gene_symbol else self.accession


@dataclass(frozen=True, slots=True, eq=False)
class KnownFacts:
    """The facts of an index of known proteins, as its file holds them.

    Attributes
    ----------
    names
        Accession, gene symbols and synonyms of each of the P proteins, tab-separated; the last two may be
        empty, and synonyms are joined by blanks.
    human, outdated
        (P,) whether it is a human protein, and whether UniProt has another sequence of it today.
    rows
        (P,) its row in the neighbour index that votes; less than 0 for row ``-1 - row`` of the sequences that
        are only known.
    counts
        (P,) statements of each protein.
    terms
        Distinct statements: T of them.
    statements
        Rows of `terms` for each statement, protein after protein.
    unusual
        Protein, position from 0 and letter (ASCII) of each U, O, B, Z and X of the sequences, which the
        indexes do not keep: (U,) each.
    logits
        (P, K) float16: predictions by models that never saw the protein or its relatives; NaN where there are
        none.
    """

    names: Sequence[str]
    human: NDArray[np.bool_]
    outdated: NDArray[np.bool_]
    rows: NDArray[np.int32]
    counts: NDArray[np.uint8]
    terms: tuple[Statement, ...]
    statements: NDArray[np.uint16]
    unusual: tuple[Ints, Ints, Bytes]
    logits: NDArray[np.float16]

    def to_bytes(self) -> bytes:
        """Serialize as a compressed NPZ without pickles."""
        terms = [
            "\t".join((each.source, each.reliability, each.word, "|".join(each.localizations), each.part))
            for each in self.terms
        ]
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            format=np.array(KNOWN_FORMAT),
            names=_text_array(self.names),
            human=self.human,
            outdated=self.outdated,
            rows=self.rows,
            counts=self.counts,
            terms=_text_array(terms),
            statements=self.statements,
            unusual=np.stack([np.asarray(each, np.uint32) for each in self.unusual]),
            # The bytes of half precision compress better apart.
            logits=np.ascontiguousarray(self.logits).view(np.uint8).reshape(-1, 2).T,
            classes=np.array(self.logits.shape[1]),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "KnownFacts":
        """Read what `to_bytes` wrote; raise a `BundleError` if it is something else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                if int(arrays["format"]) != KNOWN_FORMAT:
                    raise BundleError(
                        "Its index of known proteins has another format; fetch the model again."
                    )
                names = _lines(arrays["names"])
                classes = int(arrays["classes"])
                owners, positions, letters = arrays["unusual"].astype(np.int64)
                halves = np.ascontiguousarray(arrays["logits"].T).view(np.float16)
                return cls(
                    names,
                    arrays["human"],
                    arrays["outdated"],
                    arrays["rows"],
                    arrays["counts"],
                    tuple(map(_term, _lines(arrays["terms"]))),
                    arrays["statements"],
                    (owners, positions, letters.astype(np.uint8)),
                    halves.reshape(len(names), classes),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"The index of known proteins cannot be read ({error}); fetch the model again."
            ) from None


def _text_array(lines: Iterable[str]) -> Bytes:
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def _lines(array: Bytes) -> list[str]:
    text = array.tobytes().decode()
    return text.split("\n") if text else []


def _term(line: str) -> Statement:
    source, reliability, word, localizations, part = line.split("\t")
    return Statement(source, reliability, word, tuple(filter(None, localizations.split("|"))), part)


class Found(NamedTuple):
    """The known protein that a sequence is.

    Attributes
    ----------
    protein
        The protein.
    rows
        Rows of the voting index that are the same protein, so that a prediction can do without them.
    held_out
        (K,) logits predicted without the protein or its relatives in training, for an identical sequence of a
        protein that trained; else None.
    """

    protein: KnownProtein
    rows: Indices
    held_out: Floats | None


class KnownProteins:
    """The index of known proteins: finds a protein by its sequence or its name.

    Parameters
    ----------
    facts
        What is known.
    voting
        The neighbour index with the sequences of some.
    others
        The sequences of all others.
    """

    def __init__(self, facts: KnownFacts, voting: NeighbourIndex, others: NeighbourIndex) -> None:
        self._facts, self._indexes = facts, (voting, others)
        self._ends = np.cumsum(facts.counts.astype(np.int64))
        self._starts = [np.cumsum(np.append(0, each.lengths.astype(np.int64) + 1)) for each in self._indexes]

    def __len__(self) -> int:
        return len(self._facts.names)

    def find(self, sequence: str, similarities: Floats) -> Found | None:
        """Find the known protein that a sequence is.

        Parameters
        ----------
        sequence
            The query.
        similarities
            (N,) its similarity to the proteins of the voting index.

        Returns
        -------
        Found or None
            The protein; None if nothing is known of it.
        """
        codes = residue_codes(sequence).astype(np.uint8)
        same = self._aligned(codes, 0, similarities)
        row, shares = self._identical(codes, 0, similarities), (1.0, 1.0)
        if row is None:
            others = self._indexes[1].similarities(sequence)
            row = self._identical(codes, 1, others)
            if row is None:
                matches = [*same, *self._aligned(codes, 1, others)]
                found = [match for match in matches if len(self._entries(match[0]))]
                if not found:
                    return None
                row, shares = max(found, key=lambda match: (min(match[1]), self._is_human(match[0])))
        entries = self._entries(row)
        protein = replace(
            self._protein(int(entries[0])),
            identity=shares[0],
            coverage=shares[1],
            others=tuple(self._names(each)[0] for each in entries[1:]),
        )
        logits = self._facts.logits[entries[0]].astype(np.float32)
        held_out = logits if protein.identical and not np.isnan(logits).any() else None
        rows = np.array([match[0] for match in same], np.intp)
        return Found(protein, np.union1d(np.flatnonzero(similarities >= NEARLY_IDENTICAL), rows), held_out)

    def _identical(self, codes: Bytes, place: int, near: Floats) -> int | None:
        """Return the row of a known protein with the same sequence."""
        for inner in np.flatnonzero(near >= _IDENTICAL).tolist():
            row = inner if place == 0 else -1 - inner
            if len(self._entries(row)) and np.array_equal(codes, self._residues(place, inner)):
                return row
        return None

    def _aligned(self, codes: Bytes, place: int, near: Floats) -> list[tuple[int, tuple[float, float]]]:
        """Return the rows that are the same protein, or a part of it, and which shares are the same."""
        found = []
        candidates = np.flatnonzero(near >= _SHARED)
        best = candidates[np.argsort(-near[candidates], kind="stable")][:_CANDIDATES]
        for inner in best.tolist():
            shares = _shares(codes, self._residues(place, inner))
            if max(shares) >= SAME_PROTEIN and min(shares) >= _LEAST:
                found.append((inner if place == 0 else -1 - inner, shares))
        return found

    def _is_human(self, row: int) -> bool:
        return bool(self._facts.human[self._entries(row)[0]])

    def named(self, name: str) -> NamedProtein | None:
        """Find a protein by accession, or a human one by gene symbol, in either case.

        A synonym finds nothing: the index lacks some proteins, of which it may be the symbol.

        Parameters
        ----------
        name
            The name.

        Returns
        -------
        NamedProtein or None
            The protein; None if the name is not known.
        """
        key = name.upper()
        if is_accession(name):
            row = self._by_accession.get(key, self._by_accession.get(key.removesuffix("-1")))
            return None if row is None else self._named(row, name)
        rows = self._by_symbol.get(key, [])
        return self._named(rows[0], name) if len(rows) == 1 else None

    def candidates(self, name: str) -> tuple[str, ...]:
        """Return the symbols and accessions of all proteins that a symbol or synonym may stand for."""
        rows = self._by_symbol.get(name.upper(), []) or self._by_synonym.get(name.upper(), [])
        return tuple("{} ({})".format(*self._names(row)) for row in rows)

    def protein(self, accession: str) -> KnownProtein | None:
        """Return what is known of an accession."""
        row = self._by_accession.get(accession.upper())
        return None if row is None else self._protein(row)

    def sequence(self, accession: str) -> str | None:
        """Return the sequence of an accession, as the index has it."""
        row = self._by_accession.get(accession.upper())
        return None if row is None else self._sequence(row)

    def __iter__(self) -> Iterator[KnownProtein]:
        """Go through all known proteins, human ones first."""
        return (self._protein(row) for row in range(len(self)))

    def _named(self, row: int, name: str) -> NamedProtein:
        accession, symbol, _ = self._names(row)
        note = note_on(name, accession, symbol or None)
        if self._facts.outdated[row]:
            note = f"{note}; " if note else ""
            note += f"{accession} has an earlier sequence here than at UniProt"
        return NamedProtein(accession, symbol or None, self._sequence(row), note.replace("; ", ", but "))

    def _sequence(self, row: int) -> str:
        place, inner = self._place(row)
        letters = _LETTERS[np.minimum(self._residues(place, inner), UNKNOWN_RESIDUE)].copy()
        owners, positions, codes = self._facts.unusual
        letters[positions[owners == row]] = codes[owners == row]
        return letters.tobytes().decode()

    def _place(self, row: int) -> tuple[int, int]:
        """Return which index holds the sequence of a protein, and its row there."""
        place = int(self._facts.rows[row])
        return (0, place) if place >= 0 else (1, -1 - place)

    def _residues(self, place: int, row: int) -> Bytes:
        starts = self._starts[place]
        return self._indexes[place].residues[int(starts[row]) : int(starts[row + 1]) - 1]

    def _protein(self, row: int) -> KnownProtein:
        facts, end = self._facts, int(self._ends[row])
        terms = facts.statements[end - int(facts.counts[row]) : end]
        place, inner = self._place(row)
        accession, symbol, synonyms = self._names(row)
        return KnownProtein(
            accession,
            symbol or None,
            tuple(synonyms.split()),
            bool(facts.human[row]),
            int(self._indexes[place].lengths[inner]),
            tuple(facts.terms[term] for term in terms),
        )

    def _names(self, row: int) -> tuple[str, str, str]:
        """Return accession, first gene symbol, and synonyms of a protein."""
        accession, symbols, synonyms = self._facts.names[row].split("\t")
        return accession, symbols.partition(" ")[0], synonyms

    def _entries(self, row: int) -> Indices:
        """Return the proteins whose sequence is a row of the indexes."""
        order, rows = self._order
        return order[np.searchsorted(rows, row) : np.searchsorted(rows, row, side="right")]

    @cached_property
    def _order(self) -> tuple[Indices, Ints]:
        order = np.argsort(self._facts.rows, kind="stable")
        return order, self._facts.rows[order].astype(np.int64)

    @cached_property
    def _by_accession(self) -> dict[str, int]:
        return {line.partition("\t")[0]: row for row, line in enumerate(self._facts.names)}

    @cached_property
    def _by_symbol(self) -> dict[str, list[int]]:
        return _by_key(line.split("\t")[1].split() for line in self._facts.names)

    @cached_property
    def _by_synonym(self) -> dict[str, list[int]]:
        return _by_key(line.split("\t")[2].split() for line in self._facts.names)


def _by_key(names: Iterable[Sequence[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, each in enumerate(names):
        for name in filter(None, each):
            found.setdefault(name.upper(), []).append(row)
    return found


def _shares(query: Bytes, record: Bytes) -> tuple[float, float]:
    """Return the share of a query's residues that a record has, and of a record's that the query has."""
    # Pairs of equal k-mers give blocks without gaps; each is extended to the next, so that a few changed
    # residues between them count as changed and not as missing.
    if len(query) == len(record) and np.array_equal(query, record):
        return 1.0, 1.0
    if min(len(query), len(record)) < _K:
        return 0.0, 0.0
    forward, backward = _aligned(query, record)
    same = forward | backward
    return float(same.sum() / len(query)), float(min(1.0, same.sum() / len(record)))


def _aligned(query: Bytes, record: Bytes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the residues (L,) of a query that a record has on the diagonal of the block before, and after."""
    first, second = _numbers(query), _numbers(record)
    distinct, places = np.unique(second, return_index=True)
    found = np.minimum(np.searchsorted(distinct, first), len(distinct) - 1)
    hits = np.flatnonzero(distinct[found] == first)
    if not len(hits):
        nothing = np.zeros(len(query), np.bool_)
        return nothing, nothing
    diagonals = places[found[hits]] - hits
    # A k-mer that occurs elsewhere by chance stands alone on its diagonal.
    values, counts = np.unique(diagonals, return_counts=True)
    lasting = counts[np.searchsorted(values, diagonals)] >= _K
    hits, diagonals = (hits[lasting], diagonals[lasting]) if lasting.any() else (hits, diagonals)
    positions = np.arange(len(query))
    before = np.maximum(np.searchsorted(hits, positions, side="right") - 1, 0)
    after = np.minimum(np.searchsorted(hits, positions), len(hits) - 1)
    return _equal(query, record, positions, diagonals[before]), _equal(
        query, record, positions, diagonals[after]
    )


def _equal(query: Bytes, record: Bytes, positions: Ints, diagonals: Ints) -> NDArray[np.bool_]:
    places = positions + diagonals
    inside = (places >= 0) & (places < len(record))
    equal = record[np.clip(places, 0, len(record) - 1)] == query
    return np.asarray(inside & equal & (query < UNKNOWN_RESIDUE))


def _numbers(codes: Bytes) -> Ints:
    n = len(codes) - _K + 1
    return np.asarray(sum(codes[i : i + n].astype(np.int64) * 32 ** (_K - 1 - i) for i in range(_K)))


def main_statements(statements: Sequence[Statement]) -> list[Statement]:
    """Return the statements about the whole protein and its first isoform; all where there are none."""
    main = [each for each in statements if each.part in ("", "Isoform 1") or "soform" not in each.part]
    return main or list(statements)


def agreement(statements: Sequence[Statement]) -> str:
    """Say in a line what the sources say, and who says it.

    Parameters
    ----------
    statements
        What is said.

    Returns
    -------
    str
        Each localization with its sources, most sources first, as in ``nuclear membrane: OpenCell 3, HPA
        supported, UniProt``; empty if nothing is said in the vocabulary.
    """
    said: dict[str, dict[str, str]] = {}
    for each in statements:
        for localization in each.localizations:
            said.setdefault(display_name(localization), {}).setdefault(each.source, _short(each))
    # Sorting keeps the order of equal ones: that of the statements.
    order = sorted(said, key=lambda name: -len(said[name]))
    return "; ".join(f"{name}: {', '.join(said[name].values())}" for name in order)


def _short(statement: Statement) -> str:
    if statement.reliability in ("experimental", "map"):
        return statement.source
    return f"{statement.source} {statement.reliability.removeprefix('grade ').replace(', additional', '')}"


UNLIKE = "no annotated relative"
"""How the warning begins that a prediction rests on the sequence alone."""


def known_warnings(
    known: KnownProtein | None, said: Collection[str], evidence: Sequence[Neighbour], unlike_below: float
) -> tuple[str, ...]:
    """Return warnings about the basis of an answer.

    Parameters
    ----------
    known
        The known protein that the query is, if any.
    said
        The classes that sources say of it.
    evidence
        The relatives that the prediction used.
    unlike_below
        Similarity of the nearest relative below which a prediction rests on the sequence alone.

    Returns
    -------
    tuple of str
        That the query is not exactly the known protein; that the prediction has no near relatives, where
        nothing else is known.
    """
    warnings = (f"is {known.match}",) if known is not None and known.match else ()
    nearest = max((each.similarity for each in evidence), default=0)
    if said or not unlike_below or nearest >= _DISTANT:
        return warnings
    if nearest >= unlike_below:
        distant = f"only distant annotated relatives (similarity {nearest:.3f})"
        return (*warnings, f"{distant}: predicted mostly from the sequence")
    return (*warnings, f"{UNLIKE} (similarity {nearest:.3f}): predicted from the sequence alone")
