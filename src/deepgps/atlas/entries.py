"""An entry of an atlas: what search, map, lists and tables need of a protein."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from deepgps.bundle.metadata import BundleMetadata
from deepgps.files import safe_file_name
from deepgps.localization import LOCALIZATIONS, undecided_localizations
from deepgps.prediction.overall import WEAK, class_set_of
from deepgps.prediction.prediction import UNCLEAR, named_classes
from deepgps.proteins.known import Statement, main_statements
from deepgps.results.records import KnownStatement, Record

AGREEMENTS = ("agree", "partly", "differ", "unclear", "nothing known")
"""How prediction and knowledge compare: the first predicted class is known; another one is, or a source
leaves it open; none is; the prediction is unclear; no source says anything reliable."""


RELATED = 0.1
"""Similarity from which two proteins are mostly of one family."""


class Said(NamedTuple):
    """What a source says reliably of a protein.

    Attributes
    ----------
    source, reliability
        The source, and the reliability of its first statement.
    classes
        The classes that it says.
    undecided
        Further classes that its words leave open: "nucleus" may be the nucleolus.
    """

    source: str
    reliability: str
    classes: tuple[str, ...]
    undecided: tuple[str, ...]

    def contradicts(self, other: "Said") -> bool:
        """Whether no class can be what both mean."""
        mine, theirs = {*self.classes, *self.undecided}, {*other.classes, *other.undecided}
        return not (set(self.classes) & theirs or set(other.classes) & mine)


@dataclass(frozen=True, slots=True)
class Entry:
    """A protein of an atlas, without what only its own page shows.

    Attributes
    ----------
    key
        Of its answer.
    protein_id, gene_symbol, accession, synonyms
        Its names; the gene symbol or accession is None if unknown.
    stem
        Path of its files from the site's folder, without extension.
    length
        Residues.
    known
        Classes that sources say reliably.
    said
        What each source says reliably.
    predicted, overall
        Named classes, most probable first; `UNCLEAR` alone if none is probable enough.
    probabilities, predicted_probabilities
        By class, in the order of the model's classes.
    agreement
        One of `AGREEMENTS`.
    sources_differ
        Whether two sources contradict each other.
    signals
        Kinds of its sorting signals.
    words
        What sources say, in their words, for the search.
    relatives
        Accession and similarity of the nearest annotated proteins.
    sequence_sha256
        Of the sequence.
    """

    key: str
    protein_id: str
    gene_symbol: str | None
    accession: str | None
    synonyms: tuple[str, ...]
    stem: str
    length: int
    known: tuple[str, ...]
    said: tuple[Said, ...]
    predicted: tuple[str, ...]
    overall: tuple[str, ...]
    probabilities: tuple[float, ...]
    predicted_probabilities: tuple[float, ...]
    agreement: str
    sources_differ: bool
    signals: tuple[str, ...]
    words: tuple[str, ...]
    relatives: tuple[tuple[str, float], ...]
    sequence_sha256: str

    @property
    def name(self) -> str:
        """Gene symbol, or else the id."""
        return self.gene_symbol or self.protein_id

    @property
    def has_relative(self) -> bool:
        """Whether an annotated protein is so similar that both are mostly of one family."""
        return bool(self.relatives) and self.relatives[0][1] >= RELATED

    @property
    def confidence(self) -> float | None:
        """Overall probability of the most probable class."""
        return max(self.probabilities, default=None)

    @property
    def predicted_confidence(self) -> float | None:
        """Predicted probability of the most probable class, without the protein's own record."""
        return max(self.predicted_probabilities, default=None)


def entry_of(key: str, content: Mapping[str, Any], metadata: BundleMetadata) -> Entry:
    """Summarize an answer.

    Parameters
    ----------
    key
        Of the answer.
    content
        Its content.
    metadata
        Of the model.

    Returns
    -------
    Entry
        The summary.
    """
    record: Record = content["record"]
    classes = metadata.classes
    known = record["known"]
    applies = known is not None and min(known["identity"], known["coverage"]) >= 0.5
    statements = main_statements(list(map(_statement, known["statements"]))) if known and applies else []
    said = _said(statements, classes)
    union = {slug for each in said for slug in each.classes}
    undecided = {slug for each in said for slug in each.undecided}
    predicted = np.array([record["predicted"].get(slug, 0.0) for slug in classes], np.float32)
    named = named_classes(predicted, metadata)[0]
    return Entry(
        key=key,
        protein_id=record["protein_id"],
        gene_symbol=record["gene_symbol"],
        accession=record["accession"],
        synonyms=tuple(content["synonyms"]),
        stem=stem_of(record["protein_id"]),
        length=record["length"],
        known=tuple(slug for slug in (known["localizations"] if known else ()) if slug in union),
        said=said,
        predicted=named,
        overall=tuple(record["localizations"]),
        probabilities=tuple(record["probabilities"].get(slug, 0.0) for slug in classes),
        predicted_probabilities=tuple(predicted.tolist()),
        agreement=_agreement(named, union, undecided),
        sources_differ=any(one.contradicts(other) for one, other in combinations(said, 2)),
        signals=tuple(dict.fromkeys(kind for kind, *_ in content["signals"])),
        words=tuple(dict.fromkeys(each["word"] for each in known["statements"])) if known else (),
        relatives=tuple((near["accession"], near["similarity"]) for near in record["evidence"]),
        sequence_sha256=record["sequence_sha256"],
    )


def _statement(stored: KnownStatement) -> Statement:
    words = (stored["source"], stored["reliability"], stored["word"])
    return Statement(*words, tuple(stored["localizations"]), stored["part"])


def _said(statements: Sequence[Statement], classes: Sequence[str]) -> tuple[Said, ...]:
    named = class_set_of(classes)
    order = LOCALIZATIONS if named is None else named.slugs

    def of(localizations: Iterable[str]) -> set[str]:
        return set(localizations) if named is None else set(named.of(localizations))

    found: dict[str, tuple[str, set[str], set[str]]] = {}
    for each in statements:
        own = of(each.localizations)
        if own and each.reliability not in WEAK:
            _, said, undecided = found.setdefault(each.source, (each.reliability, set(), set()))
            said.update(own)
            undecided.update(of(undecided_localizations(each.word)))
    return tuple(
        Said(
            source, reliability, *(tuple(sorted(each, key=order.index)) for each in (said, undecided - said))
        )
        for source, (reliability, said, undecided) in found.items()
    )


def _agreement(predicted: Sequence[str], known: set[str], undecided: set[str]) -> str:
    if not known:
        return "nothing known"
    if not predicted or predicted[0] == UNCLEAR:
        return "unclear"
    if predicted[0] in known:
        return "agree"
    return "partly" if (known | undecided) & set(predicted) else "differ"


def stem_of(protein_id: str) -> str:
    """Return the path of a protein's files, without extension; it depends on the id alone.

    Parameters
    ----------
    protein_id
        Any text.

    Returns
    -------
    str
        A folder of two hexadecimal digits and a safe name. An id that is not a safe name in capitals, as
        accessions are, gets a hash, so that no two ids share a name where a file system ignores case.

    Examples
    --------
    >>> from deepgps.atlas.entries import stem_of
    >>> stem_of("P04637")
    'p/d7/P04637'
    """
    digest = hashlib.sha256(protein_id.encode("utf-8", "replace")).hexdigest()
    name = safe_file_name(protein_id)
    if name != protein_id or name != name.upper():
        name = f"{name}-{digest[:10]}"
    return f"p/{digest[:2]}/{name}"
