"""Clean and check sequences, and warn of unusual ones."""

import re
from collections import Counter
from math import log
from string import ascii_lowercase, ascii_uppercase

from deepgps.proteins.windows import window_count

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNUSUAL_RESIDUES = "UOBZX"
MIN_RESIDUES = 10
# The longest known protein has about 46,000 residues; longer sequences are genomes.
MAX_RESIDUES = 100_000

_NUCLEOTIDES = "ACGTUN"
_NUCLEOTIDE_SHARE = 0.9
_NUCLEOTIDE_MIN_LENGTH = 30
_FEW_KINDS = 5
# Of the training proteins of the bundled model, one in a thousand is shorter, and one in a thousand has lower
# entropy in nats (their median is 2.84).
_SHORT = 50
_LOW_ENTROPY = 2.2

# str.upper() would turn letters such as 'ß' or 'ı' into residues; this changes ASCII letters only.
_UPPER = str.maketrans(ascii_lowercase, ascii_uppercase)
_INVALID = re.compile(f"[^{AMINO_ACIDS}{UNUSUAL_RESIDUES}]")
_UNUSUAL = re.compile(f"[{UNUSUAL_RESIDUES}]")
_REMEDIES = {
    "*": "cut the sequence at its stop codon",
    "-": "remove the gaps of an alignment",
    ".": "remove the gaps of an alignment",
    "J": "write a leucine or isoleucine as L, I or X",
}


def clean_sequence(raw: str) -> str:
    """Normalise a sequence: upper case, without blanks, line breaks and a final ``*``.

    Parameters
    ----------
    raw
        Residues in either case, with blanks or line breaks anywhere and perhaps a final ``*``.

    Returns
    -------
    str
        The normalised sequence, for `check_sequence`.
    """
    return "".join(raw.split()).translate(_UPPER).removesuffix("*")


def check_sequence(id: str, sequence: str) -> str | None:
    """Return why a sequence cannot be used, or None.

    Parameters
    ----------
    id
        The protein's id, for the message.
    sequence
        A sequence from `clean_sequence`.

    Returns
    -------
    str or None
        What is wrong and the remedy, with the position (from 1) of the first invalid letter; None if the
        sequence can be used.
    """
    if not sequence:
        return f"Sequence '{id}' is empty; at least {MIN_RESIDUES} residues are needed."
    if invalid := _INVALID.search(sequence):
        return _invalid_letter(id, invalid[0], invalid.start() + 1)
    if len(sequence) < MIN_RESIDUES:
        return f"Sequence '{id}' has only {len(sequence)} residues; at least {MIN_RESIDUES} are needed."
    if len(sequence) > MAX_RESIDUES:
        return f"Sequence '{id}' has more than {MAX_RESIDUES:,} residues; give single proteins, not genomes."
    return None


def _invalid_letter(id: str, letter: str, position: int) -> str:
    remedy = _REMEDIES.get(letter, "use the 20 amino acids, U, O, B, Z or X")
    shown = f"'{letter}'" if letter.isprintable() else repr(letter)
    return f"Sequence '{id}' has {shown} at residue {position}; {remedy}."


def sequence_warnings(sequence: str, max_length: int | None, *, known: bool = False) -> tuple[str, ...]:
    """Return warnings about an unusual sequence.

    Parameters
    ----------
    sequence
        A checked sequence.
    max_length
        Residues in a window of the encoder; None if unlimited.
    known
        Whether the protein is known, so that its composition matters less.

    Returns
    -------
    tuple of str
        Warnings about nucleotides, few kinds of residue, low complexity, short sequences, unusual letters
        and windows. None contains ``;`` or ``|``, so that they can be joined by either.
    """
    composition = None if known else _composition_note(sequence)
    notes = (composition, _unusual_note(sequence), _window_note(sequence, max_length))
    return tuple(note for note in notes if note)


def nucleotide_note(sequence: str) -> str | None:
    """Return a warning if a sequence looks like DNA or RNA, or None."""
    share = sum(map(sequence.count, _NUCLEOTIDES)) / max(1, len(sequence))
    if share < _NUCLEOTIDE_SHARE or len(sequence) < _NUCLEOTIDE_MIN_LENGTH:
        return None
    return (
        f"looks like nucleotides ({share:.0%} of its letters are A, C, G, T, U or N) "
        "but was read as a protein: translate it first"
    )


def _composition_note(sequence: str) -> str | None:
    if note := nucleotide_note(sequence):
        return note
    counts = Counter(sequence)
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
