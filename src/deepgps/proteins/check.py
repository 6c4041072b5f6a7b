"""What counts as a usable sequence, and what its user should know about it."""

import re
from collections import Counter
from math import log
from string import ascii_lowercase, ascii_uppercase

from deepgps.proteins.windows import window_count

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNUSUAL_RESIDUES = "UOBZX"
MIN_RESIDUES = 10
# The longest protein known has about 46,000 residues: what is longer is a genome given by mistake.
MAX_RESIDUES = 100_000

_NUCLEOTIDES = "ACGTUN"
_NUCLEOTIDE_SHARE = 0.9
_NUCLEOTIDE_MIN_LENGTH = 30
_FEW_KINDS = 5
# Of the proteins that the bundled model learned from, one in a thousand is shorter, and one in a thousand is
# of fewer nats of entropy (their median is 2.84).
_SHORT = 50
_LOW_ENTROPY = 2.2

# str.upper() would turn letters such as 'ß' or 'ı' into residues; only ASCII letters have another case here.
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)
_REFUSED = re.compile(f"[^{AMINO_ACIDS}{UNUSUAL_RESIDUES}]")
_UNUSUAL = re.compile(f"[{UNUSUAL_RESIDUES}]")
_REMEDIES = {
    "*": "cut the sequence at its stop codon",
    "-": "remove the gaps of an alignment",
    ".": "remove the gaps of an alignment",
    "J": "write a leucine or isoleucine as L, I or X",
}


def clean_sequence(raw: str) -> str:
    """Bring a sequence as people write it into the one form used everywhere else.

    Parameters
    ----------
    raw
        Residues in either case, with blanks or line breaks anywhere and perhaps one ``*`` at the end.

    Returns
    -------
    str
        Upper case, without blanks and that ``*``; anything else is left for `check_sequence` to refuse.
    """
    return "".join(raw.split()).translate(_UPPER).removesuffix("*")


def check_sequence(id: str, sequence: str) -> str | None:
    """Say why a cleaned sequence cannot be used.

    Parameters
    ----------
    id
        The name to call it by.
    sequence
        As `clean_sequence` gives it.

    Returns
    -------
    str or None
        A sentence with the id and the first letter refused and its position (from 1), or the length and its
        bound; None if the sequence is usable.
    """
    if not sequence:
        return f"Sequence '{id}' is empty; at least {MIN_RESIDUES} residues are needed."
    if refused := _REFUSED.search(sequence):
        return _refusal(id, refused[0], refused.start() + 1)
    if len(sequence) < MIN_RESIDUES:
        return f"Sequence '{id}' has only {len(sequence)} residues; at least {MIN_RESIDUES} are needed."
    if len(sequence) > MAX_RESIDUES:
        return f"Sequence '{id}' has more than {MAX_RESIDUES:,} residues; give single proteins, not genomes."
    return None


def _refusal(id: str, letter: str, position: int) -> str:
    remedy = _REMEDIES.get(letter, "use the 20 amino acids, U, O, B, Z or X")
    shown = f"'{letter}'" if letter.isprintable() else repr(letter)
    return f"Sequence '{id}' has {shown} at residue {position}; {remedy}."


def sequence_warnings(sequence: str, max_length: int | None) -> tuple[str, ...]:
    """Note what makes a usable sequence unusual, for the warnings column of a result.

    Parameters
    ----------
    sequence
        A usable sequence.
    max_length
        Residues the encoder takes at once; None if it takes any number.

    Returns
    -------
    tuple of str
        Notes on nucleotides taken for residues, few kinds of residue, low complexity, shortness, the letters
        U, O, B, Z and X, and windows. None contains ``;`` or ``|``, so that they can be joined by either.
    """
    notes = (_composition_note(sequence), _unusual_note(sequence), _window_note(sequence, max_length))
    return tuple(note for note in notes if note)


def _composition_note(sequence: str) -> str | None:
    counts = Counter(sequence)
    share = sum(counts[letter] for letter in _NUCLEOTIDES) / max(1, len(sequence))
    if share >= _NUCLEOTIDE_SHARE and len(sequence) >= _NUCLEOTIDE_MIN_LENGTH:
        return (
            f"looks like nucleotides ({share:.0%} of its letters are A, C, G, T, U or N) "
            "but was read as a protein: translate it first"
        )
    if len(counts) <= _FEW_KINDS:
        kinds = ", ".join(sorted(counts))
        return f"has only {len(counts)} kinds of residue ({kinds}), unlike a natural protein"
    if len(sequence) < _SHORT:
        return f"has only {len(sequence)} residues: models learn from few proteins that short"
    shares = [count / len(sequence) for count in counts.values()]
    if (entropy := -sum(share * log(share) for share in shares)) < _LOW_ENTROPY:
        return f"is of low complexity (entropy {entropy:.2f} nats): models learn from few such proteins"
    return None


def _unusual_note(sequence: str) -> str | None:
    first = _UNUSUAL.search(sequence)
    if not first:
        return None
    counts = [f"{n} {letter}" for letter in UNUSUAL_RESIDUES if (n := sequence.count(letter))]
    return f"contains {', '.join(counts)} beside the 20 amino acids (first at residue {first.start() + 1})"


def _window_note(sequence: str, max_length: int | None) -> str | None:
    if max_length is None or len(sequence) <= max_length:
        return None
    count = window_count(len(sequence), max_length)
    return f"{len(sequence)} residues exceed {max_length}: is encoded in {count} windows"
