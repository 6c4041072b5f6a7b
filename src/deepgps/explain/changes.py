"""Changes of a sequence as people write them: substitutions, deletions, insertions, truncations, fusions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deepgps.errors import InputError
from deepgps.proteins.check import AMINO_ACIDS, check_sequence

FUSIONS = {
    "NLS": "PKKKRKV",
    "NES": "LQLPPLERLTLD",
    "MT": "MSVLTPLLLRGLTGSARRLPVPRAKIHSL",
    "SP": "MLLSVPLLLGLLGLAVA",
    "KDEL": "KDEL",
    "SKL": "SKL",
    "CAAX": "KLNPPDESGPGCMSCKCVLS",
}
"""Signals to fuse by name: of SV40 large T (NLS), HIV-1 Rev (NES), COX8A (MT) and calreticulin (SP), and the
C-termini of ER proteins (KDEL), peroxisomal ones (SKL) and HRAS (CAAX)."""

_THREE = {
    "Ala": "A",
    "Arg": "R",
    "Asn": "N",
    "Asp": "D",
    "Cys": "C",
    "Gln": "Q",
    "Glu": "E",
    "Gly": "G",
    "His": "H",
    "Ile": "I",
    "Leu": "L",
    "Lys": "K",
    "Met": "M",
    "Phe": "F",
    "Pro": "P",
    "Ser": "S",
    "Thr": "T",
    "Trp": "W",
    "Tyr": "Y",
    "Val": "V",
    "Ter": "*",
    "Sec": "U",
    "Xaa": "X",
}
_TRIPLETS = re.compile("|".join(_THREE))
_RESIDUE = rf"([{AMINO_ACIDS}])"
_SUBSTITUTION = re.compile(rf"{_RESIDUE}(\d+)([{AMINO_ACIDS}*=])")
_RANGE = re.compile(rf"{_RESIDUE}(\d+)(?:_{_RESIDUE}(\d+))?(delins|del|ins|dup)([{AMINO_ACIDS}]*)")
_SPAN = re.compile(r"(\d+)-(\d+)del")
_FUSION = re.compile(r"([nc])\+([A-Za-z]+)")
_EXAMPLES = (
    "write it as R389Q, p.Arg389Gly, R389* (truncation), R389_K395del, R389_K395delinsGS, 1-30del, or "
    "n+NLS and c+KDEL (fusions)"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One replaced stretch of a sequence.

    Attributes
    ----------
    start, end
        The replaced residues, from 0, without the last: ``sequence[start:end]``.
    inserted
        What replaces them.
    """

    start: int
    end: int
    inserted: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A changed sequence.

    Attributes
    ----------
    name
        As it was written.
    sequence
        The whole changed sequence.
    changes
        What was changed; empty for an isoform that was given as a sequence.
    """

    name: str
    sequence: str
    changes: tuple[Change, ...] = ()

    @property
    def substitution(self) -> tuple[int, str] | None:
        """Position (from 1) and new residue of a single substitution; None for every other change."""
        if len(self.changes) != 1:
            return None
        [change] = self.changes
        if change.end - change.start != 1 or len(change.inserted) != 1:
            return None
        return change.start + 1, change.inserted


def parse_variant(text: str, sequence: str) -> Variant:
    """Read a change, or several joined by commas, and apply it.

    Parameters
    ----------
    text
        Such as ``R389Q``, ``p.Arg389Gly``, ``R389*``, ``G607_S656del``, ``W288_L294delinsCLAVEEVSLRK``,
        ``1-30del``, ``n+NLS`` or ``K128T,K129T``. Positions count from 1 in the unchanged sequence.
    sequence
        The unchanged sequence.

    Returns
    -------
    Variant
        The changed sequence.

    Raises
    ------
    InputError
        If the change cannot be read, does not fit the sequence, or leaves a sequence that cannot be used.

    Examples
    --------
    >>> parse_variant("p.Lys3Thr", "MAKKKRKVLDGSTA").sequence
    'MATKKRKVLDGSTA'
    """
    written = re.sub(r"^p\.|[()\[\]\s]", "", text)
    changes = sorted(
        (_parse_change(part, text, sequence) for part in re.split("[,;]", written) if part),
        key=lambda change: change.start,
    )
    if not changes:
        raise InputError(f"Change '{text}' is empty; {_EXAMPLES}.")
    for first, second in pairwise(changes):
        if second.start < first.end:
            raise InputError(f"Change '{text}' changes residue {second.start + 1} twice; give it once.")
    return Variant(text, _checked(text, _apply(sequence, changes)), tuple(changes))


def parse_region(text: str) -> tuple[int, int]:
    """Read a region, such as ``10-60``.

    Parameters
    ----------
    text
        First and last residue, from 1.

    Returns
    -------
    tuple of int
        Both; `scan` checks that they lie in a sequence.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    match = re.fullmatch(r"(\d{1,9})-(\d{1,9})", text.strip())
    if not match:
        raise InputError(f"Region '{text}' cannot be read; give the first and last residue, as in 10-60.")
    return int(match[1]), int(match[2])


def scan(sequence: str, start: int, end: int) -> Iterator[Variant]:
    """Make every substitution of a region.

    Parameters
    ----------
    sequence
        The unchanged sequence.
    start, end
        First and last residue of the region, from 1.

    Yields
    ------
    Variant
        19 per residue, by position and then by residue in the order of the one-letter codes.

    Raises
    ------
    InputError
        If the region is not in the sequence.
    """
    if not 1 <= start <= end <= len(sequence):
        raise InputError(
            f"Region {start}-{end} is not in the sequence of {len(sequence)} residues; give FIRST-LAST."
        )
    for place in range(start - 1, end):
        for residue in AMINO_ACIDS:
            if residue != sequence[place]:
                change = Change(place, place + 1, residue)
                yield Variant(f"{sequence[place]}{place + 1}{residue}", _apply(sequence, [change]), (change,))


def silent_changes(sequence: str, count: int, seed: int = 0) -> list[str]:
    """Make sequences with one change each that hardly any protein notices: the noise floor.

    Parameters
    ----------
    sequence
        The unchanged sequence.
    count
        Number of sequences; fewer if the sequence has fewer residues that can be exchanged.
    seed
        Chooses the places.

    Returns
    -------
    list of str
        Each with one residue exchanged for its most similar one (I for V, K for R, D for E, S for T, F for
        Y, N for Q), not in the first or last five residues, at places spread evenly at random.
    """
    import numpy as np

    places = [place for place in range(5, len(sequence) - 5) if sequence[place] in _SIMILAR]
    chosen = np.random.default_rng(seed).permutation(places)[:count].tolist()
    return [sequence[:at] + _SIMILAR[sequence[at]] + sequence[at + 1 :] for at in sorted(chosen)]


_SIMILAR = dict(zip("IVKRDESTFYNQ", "VIRKEDTSYFQN", strict=True))


def _parse_change(part: str, text: str, sequence: str) -> Change:
    short = _TRIPLETS.sub(lambda found: _THREE[found[0]], part.removeprefix("p."))
    if match := _SUBSTITUTION.fullmatch(short):
        start = _position(match[1], int(match[2]), text, sequence)
        if match[3] == "*":
            return Change(start, len(sequence), "")
        return Change(start, start + 1, match[1] if match[3] == "=" else match[3])
    if match := _RANGE.fullmatch(short):
        return _range_change(match, text, sequence)
    if match := _SPAN.fullmatch(short):
        first, last = int(match[1]), int(match[2])
        if not 1 <= first <= last <= len(sequence):
            raise InputError(
                f"Change '{text}' names residues {first}-{last} of a sequence of {len(sequence)}; "
                "give residues that it has."
            )
        return Change(first - 1, last, "")
    if match := _FUSION.fullmatch(part):
        return _fusion(match, text, sequence)
    raise InputError(f"Change '{text}' cannot be read; {_EXAMPLES}.")


def _range_change(match: "re.Match[str]", text: str, sequence: str) -> Change:
    start = _position(match[1], int(match[2]), text, sequence)
    last = _position(match[3], int(match[4]), text, sequence) if match[3] else start
    kind, inserted = match[5], match[6]
    if last < start:
        raise InputError(f"Change '{text}' ends before it starts; give the first residue first.")
    if kind in {"ins", "delins"} and not inserted:
        raise InputError(f"Change '{text}' inserts nothing; write the residues after '{kind}'.")
    if kind == "ins":
        if last != start + 1:
            raise InputError(
                f"Change '{text}' inserts between two neighbours; name both, as in K23_L24insRS."
            )
        return Change(last, last, inserted)
    if kind == "dup":
        return Change(last + 1, last + 1, sequence[start : last + 1])
    return Change(start, last + 1, inserted if kind == "delins" else "")


def _fusion(match: "re.Match[str]", text: str, sequence: str) -> Change:
    added = FUSIONS.get(match[2].upper(), match[2])
    if bad := set(added) - set(AMINO_ACIDS):
        names = ", ".join(FUSIONS)
        raise InputError(
            f"Change '{text}' fuses '{match[2]}', in which '{min(bad)}' is no residue; give residues in "
            f"capital letters or one of {names}."
        )
    if match[1] == "c":
        return Change(len(sequence), len(sequence), added)
    # A targeting peptide brings its own start; the methionine of the protein is then an inner residue.
    return Change(0, 0, added if added.startswith("M") else f"M{added}")


def _position(residue: str, position: int, text: str, sequence: str) -> int:
    if not 1 <= position <= len(sequence):
        raise InputError(
            f"Change '{text}' names residue {position} of a sequence of {len(sequence)}; "
            "check the isoform that it counts in."
        )
    if sequence[position - 1] != residue:
        raise InputError(
            f"Change '{text}' expects {residue} at residue {position}, where the sequence has "
            f"{sequence[position - 1]}; check the isoform that it counts in."
        )
    return position - 1


def _apply(sequence: str, changes: Sequence[Change]) -> str:
    parts, done = [], 0
    for change in changes:
        parts += [sequence[done : change.start], change.inserted]
        done = change.end
    return "".join([*parts, sequence[done:]])


def _checked(text: str, sequence: str) -> str:
    if problem := check_sequence(text, sequence):
        raise InputError(problem)
    return sequence
