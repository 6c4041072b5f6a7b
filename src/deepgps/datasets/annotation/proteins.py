"""What a source says of where proteins are: one `AnnotatedProtein` a gene, and the problems beside them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deepgps.errors import InputError
from deepgps.localization import CLASS_SETS, LOCALIZATIONS

# As the sources spell them; 'U2OS' and 'u-2 os' are the same line.
_CELL_LINES = {"u2os": "U-2 OS", "hek293t": "HEK293T", "hek293": "HEK293"}


@dataclass(frozen=True, slots=True)
class AnnotatedProtein:
    """One protein and where it is.

    Attributes
    ----------
    protein_id
        Ensembl gene id.
    gene_symbol, accession
        Gene symbol and UniProt accession, where known.
    localizations
        Major localizations in the vocabulary, in its order; never empty.
    single_localized
        Whether its source names exactly one.
    single_class
        The localization that single-2 and single-4 judge by: the only one of a single-localized protein.
    source, cell_line
        ``opencell`` or ``hpa``; the cell line, None where the annotation is of the gene in all of them.
    sequence
        Upper-case residues, where known.
    cluster
        Homology cluster, where known.
    """

    protein_id: str
    gene_symbol: str | None
    accession: str | None
    localizations: tuple[str, ...]
    single_localized: bool
    single_class: str | None
    source: str
    cell_line: str | None
    sequence: str | None = None
    cluster: int | None = None

    def class_in(self, class_set: str) -> str | None:
        """Its class in a single-label class set, or None if the set has no place for it."""
        return next(iter(CLASS_SETS[class_set].of((self.single_class,) if self.single_class else ())), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one row, and whether its protein is left out for it.

    Attributes
    ----------
    protein_id
        The Ensembl gene id, or the row's place where it has none.
    source
        Name of the file.
    left_out
        Whether the protein is missing from the result.
    reason
        A sentence that names the thing, the value and the remedy.
    """

    protein_id: str
    source: str
    left_out: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Annotated:
    """What became of a source: proteins in the order of its rows, and problems."""

    proteins: list[AnnotatedProtein] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def cell_line_name(name: str) -> str:
    """Bring a cell line's name into one spelling: ``U2OS`` and ``u-2 os`` are ``U-2 OS``."""
    return _CELL_LINES.get(cell_line_key(name), name.strip())


def cell_line_key(name: str) -> str:
    """Letters and digits of a cell line's name in lower case: equal for all spellings of one line."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def in_order(localizations: Iterable[str]) -> tuple[str, ...]:
    """Distinct localizations in the order of the vocabulary."""
    return tuple(sorted(set(localizations), key=LOCALIZATIONS.index))


def split_names(cell: str | None) -> tuple[str, ...]:
    """Take the names of a ``;``-joined cell apart."""
    return tuple(filter(None, (name.strip() for name in (cell or "").split(";"))))


def unknown_name(protein_id: str, source: str, name: str) -> Problem:
    """Say that a localization's name is none of the vocabulary."""
    # Without it the protein would look single-localized, or be where it is not.
    return Problem(
        protein_id, source, True, f"Gene '{protein_id}' has the unknown localization '{name}'; correct it."
    )


def cluster_number(row: Mapping[str, str]) -> int | None:
    """Read the homology cluster of a row, where it has one.

    Raises
    ------
    InputError
        If it is not a whole number.
    """
    text = row.get("cluster") or ""
    if text and not text.isdecimal():
        raise InputError(f"Cluster '{text}' is not a whole number; number the clusters from 0.")
    return int(text) if text else None


def collect(entries: Iterable[AnnotatedProtein | Problem]) -> Annotated:
    """Set proteins and problems apart; of two rows for one gene the first counts."""
    found = Annotated()
    seen: set[str] = set()
    for entry in entries:
        if isinstance(entry, Problem):
            found.problems.append(entry)
        elif entry.protein_id in seen:
            reason = f"Gene '{entry.protein_id}' is annotated twice; the first annotation is kept."
            found.problems.append(Problem(entry.protein_id, entry.source, False, reason))
        else:
            seen.add(entry.protein_id)
            found.proteins.append(entry)
    return found
